//! Cargo builds that give the same bytes in any folder.
//!
//! What would tell two builds apart: paths (remapped), debug information and symbols (stripped),
//! time (`SOURCE_DATE_EPOCH`), the environment (cleaned), dependencies (`--locked`), the system's
//! libraries at run time (linked statically), and incremental leftovers (off). The compiler's
//! version is part of what an artifact is built with, and is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::tool::{answer, cut, run, tool};
use super::{BuildError, Cargo, Job};

/// The cargo workspace of a source folder.
pub(super) struct Workspace {
    /// Its top folder.
    pub(super) root: PathBuf,
    /// The first line of `rustc --version --verbose`.
    pub(super) rustc: String,
    /// The target that is compiled for: the compiler's own.
    triple: String,
    packages: BTreeMap<String, Package>,
}

struct Package {
    folder: PathBuf,
    /// Folders of the local packages that it depends on.
    paths: Vec<PathBuf>,
}

/// What `cargo metadata` tells, as far as it is needed.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<MetadataDependency>,
}

#[derive(Deserialize)]
struct MetadataDependency {
    path: Option<PathBuf>,
}

impl Workspace {
    /// Asks cargo about the workspace of the source folder, and rustc about itself.
    pub(super) fn find(job: &Job<'_>) -> Result<Self, BuildError> {
        let verbose = answer(job, "rustc", &["--version", "--verbose"])?;
        let triple = verbose
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .ok_or_else(|| BuildError::Answer {
                tool: "rustc",
                answer: cut(&verbose),
            })?;
        let metadata = answer(
            job,
            "cargo",
            &["metadata", "--no-deps", "--format-version", "1"],
        )?;
        let metadata: Metadata =
            serde_json::from_str(&metadata).map_err(|_| BuildError::Answer {
                tool: "cargo",
                answer: cut(&metadata),
            })?;
        let packages = metadata.packages.into_iter().filter_map(|package| {
            let folder = package.manifest_path.parent()?.to_owned();
            let paths = package
                .dependencies
                .into_iter()
                .filter_map(|dep| dep.path)
                .collect();
            Some((package.name, Package { folder, paths }))
        });
        Ok(Self {
            root: metadata.workspace_root,
            rustc: verbose.lines().next().unwrap_or_default().to_owned(),
            triple: triple.to_owned(),
            packages: packages.collect(),
        })
    }

    /// `package` and the local packages that it depends on, by name. A package outside of the
    /// workspace is taken by its folder; what it depends on in turn is not followed.
    pub(super) fn local_packages(&self, package: &str) -> Vec<(String, &Path)> {
        let mut found = BTreeMap::new();
        let mut pending = BTreeSet::from([package.to_owned()]);
        while let Some(name) = pending.pop_first() {
            let Some(package) = self.packages.get(&name) else {
                continue;
            };
            if found.insert(name, package.folder.as_path()).is_some() {
                continue;
            }
            for path in &package.paths {
                match self
                    .packages
                    .iter()
                    .find(|(_, package)| package.folder == *path)
                {
                    Some((name, _)) if !found.contains_key(name) => {
                        pending.insert(name.clone());
                    }
                    Some(_) => {}
                    None => {
                        let name = path.file_name().unwrap_or(OsStr::new("package"));
                        found.insert(
                            format!("outside/{}", name.to_string_lossy()),
                            path.as_path(),
                        );
                    }
                }
            }
        }
        found.into_iter().collect()
    }

    /// What the compiler is told, with folders by what they are for.
    pub(super) fn recorded_flags(&self) -> Vec<String> {
        let mut flags = rustflags(&REMAPPED.map(|name| (format!("<{name}>").into(), name)));
        flags.insert(0, format!("--target={}", self.triple));
        flags.extend(ARGUMENTS.iter().map(|flag| (*flag).to_owned()));
        flags.extend(
            ENVIRONMENT
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        flags
    }

    /// Builds one binary; the answer is where it lies, in the target folder.
    pub(super) fn build(
        &self,
        job: &Job<'_>,
        cargo: &Cargo,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, BuildError> {
        let mut command = tool(job, "cargo");
        command
            .args(ARGUMENTS)
            .args([
                "--target",
                &self.triple,
                "--package",
                &cargo.package,
                "--bin",
                cargo.bin(),
            ])
            .arg("--target-dir")
            .arg(&job.request.target)
            .envs(ENVIRONMENT.iter().copied());
        let folders = self.folders(job)?;
        command.env(
            "CARGO_ENCODED_RUSTFLAGS",
            rustflags(&folders).join("\u{1f}"),
        );
        // For C in build scripts; quoted, since folders may have blanks in their names.
        let prefixes: Vec<_> = folders
            .iter()
            .map(|(folder, name)| {
                format!("'-ffile-prefix-map={}=/{name}'", folder.to_string_lossy())
            })
            .collect();
        command
            .env("CC_SHELL_ESCAPED_FLAGS", "1")
            .env("CFLAGS", prefixes.join(" "));
        let ended = run(job, "cargo", command, progress)?;
        let path = || job.request.source.clone();
        if !ended.status.success() {
            if ended
                .tail
                .iter()
                .any(|line| line.contains("--locked was passed"))
            {
                return Err(BuildError::LockOutOfDate { path: path() });
            }
            return Err(BuildError::Failed {
                path: path(),
                tail: ended.tail,
            });
        }
        let made = job
            .request
            .target
            .join(&self.triple)
            .join("release")
            .join(cargo.bin());
        if !made.is_file() {
            return Err(BuildError::NothingMade {
                path: path(),
                expected: made,
            });
        }
        Ok(made)
    }

    /// The folders whose paths compilers would write down, and what stands for each.
    fn folders(&self, job: &Job<'_>) -> Result<[(OsString, &'static str); 4], BuildError> {
        let sysroot = answer(job, "rustc", &["--print", "sysroot"])?;
        let cargo_home = match (variable(job, "CARGO_HOME"), variable(job, "HOME")) {
            (Some(home), _) => PathBuf::from(home),
            (None, Some(home)) => Path::new(home).join(".cargo"),
            (None, None) => PathBuf::from("/.cargo"),
        };
        let [source, target, registry, toolchain] = REMAPPED;
        Ok([
            (self.root.clone().into(), source),
            (absolute(job, &job.request.target)?.into(), target),
            (cargo_home.into(), registry),
            (sysroot.trim_end().into(), toolchain),
        ])
    }
}

/// What stands for the folders in what is built. Of two that fit, the last wins: a target folder
/// inside the sources is still the target folder.
const REMAPPED: [&str; 4] = ["source", "target", "cargo", "toolchain"];

const ARGUMENTS: &[&str] = &["build", "--release", "--locked", "--color=never"];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("CARGO_INCREMENTAL", "0"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
    ("CARGO_TERM_PROGRESS_WHEN", "never"),
    ("RUSTC_WRAPPER", ""),
    ("SOURCE_DATE_EPOCH", "315532800"),
    ("ZERO_AR_DATE", "1"),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
];

fn rustflags(folders: &[(OsString, &'static str)]) -> Vec<String> {
    let remapped = folders
        .iter()
        .map(|(folder, name)| format!("--remap-path-prefix={}=/{name}", folder.to_string_lossy()));
    ["-Ctarget-feature=+crt-static".to_owned()]
        .into_iter()
        .chain(remapped)
        .collect()
}

fn variable<'a>(job: &Job<'a>, name: &str) -> Option<&'a OsString> {
    job.toolchain.environment.get(OsStr::new(name))
}

fn absolute(job: &Job<'_>, path: &Path) -> Result<PathBuf, BuildError> {
    std::fs::create_dir_all(path)
        .and_then(|()| path.canonicalize())
        .map_err(|source| {
            super::source_error(
                job.request,
                crate::walk::WalkError::Io {
                    path: path.to_owned(),
                    source,
                },
            )
        })
}
