//! Images that run a Python script: the interpreter of the host that builds, its standard library,
//! the shared libraries that they are linked with, and the packages that a list with hashes names.
//!
//! The same interpreter and the same list give the same image on every host. The interpreter's
//! version and digest are part of what an image is built with, and are recorded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use super::tool::{answer, cut, run, tool};
use super::{BuildError, Job, Python, bad_place, source_error};
use crate::Digest;
use crate::entry::EntryPath;
use crate::walk::{self, Content, Contents, WalkError};

/// Where the interpreter is in an image. It finds its library by where it is itself.
const HOME: &str = "opt/python";
/// Where an image's packages are.
const PACKAGES: &str = "opt/python/packages";
/// What a script of an image finds, where the recipe sets nothing else.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("LANG", "C.UTF-8"),
    ("PATH", "/opt/python/bin:/usr/bin:/bin"),
    // An image cannot be written to.
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONPATH", "/opt/python/packages"),
    // What a script prints is in the log when it prints it.
    ("PYTHONUNBUFFERED", "1"),
];
/// Parts of the standard library that no work needs, and other programs' packages.
const LEFT_OUT: &[&str] = &[
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "sitecustomize.py",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "turtle.py",
];
/// Names of files in a package that tell of the host and of the installer.
const OF_THE_INSTALLER: &[&str] = &["INSTALLER", "RECORD", "REQUESTED", "direct_url.json"];
/// Shared libraries whose own are asked for at once.
const AT_ONCE: usize = 200;

const PROBE: &str = include_str!("probe.py");

/// What starts a script in an image.
pub(super) fn entrypoint(python: &Python) -> Vec<String> {
    vec![
        format!("/{HOME}/bin/python3"),
        format!("/app/{}", file_name(&python.script)),
    ]
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A Python of the host.
#[derive(Debug, Deserialize)]
pub(super) struct Interpreter {
    implementation: String,
    version: String,
    /// Major and minor version, which name its library's folder.
    series: String,
    program: PathBuf,
    libraries: Vec<PathBuf>,
    /// The digest of the program.
    #[serde(skip)]
    digest: Option<Digest>,
}

impl Interpreter {
    /// Asks the `python3` that the caller's environment finds about itself.
    pub(super) fn find(job: &Job<'_>) -> Result<Self, BuildError> {
        let told = answer(job, "python3", &["-I", "-S", "-c", PROBE])?;
        let mut found: Self = serde_json::from_str(&told).map_err(|_| BuildError::Answer {
            tool: "python3",
            answer: cut(&told),
        })?;
        let program = Content::File {
            from: found.program.clone(),
            executable: true,
        };
        let program = Contents::from([(place(job, "python3")?, program)]);
        let digest = walk::digest(&program).map_err(|error| source_error(job.request, error))?;
        found.digest = Some(digest);
        Ok(found)
    }

    /// What an image is built with.
    pub(super) fn recorded_flags(&self) -> Vec<String> {
        let mut flags = vec![format!("python={} {}", self.implementation, self.version)];
        flags.extend(self.digest.map(|digest| format!("interpreter={digest}")));
        flags
    }

    /// Adds the interpreter, the script and its packages to an image. The packages lie in the
    /// folder that is answered with, which has to be kept until the image is packed.
    pub(super) fn install(
        &self,
        job: &Job<'_>,
        python: &Python,
        contents: &mut Contents,
        progress: &mut dyn FnMut(&str),
    ) -> Result<TempDir, BuildError> {
        let file = |from: PathBuf, executable| Content::File { from, executable };
        let script = job.request.source.join(&python.script);
        let app = format!("app/{}", file_name(&python.script));
        contents.insert(place(job, &app)?, file(script, false));

        let program = format!("{HOME}/bin/python{}", self.series);
        contents.insert(place(job, &program)?, file(self.program.clone(), true));
        let link = Content::Link {
            target: format!("python{}", self.series),
        };
        contents.insert(place(job, &format!("{HOME}/bin/python3"))?, link);
        let mut linked = vec![self.program.clone()];
        let library = format!("{HOME}/lib/python{}", self.series);
        for folder in &self.libraries {
            linked.extend(add_tree(job, contents, folder, &library, &is_left_out)?);
        }

        let packages = packages_folder(job)?;
        if let Some(list) = &python.requirements {
            self.fetch(job, list, packages.path(), progress)?;
            linked.extend(add_tree(
                job,
                contents,
                packages.path(),
                PACKAGES,
                &is_of_the_installer,
            )?);
        }
        for library in shared_libraries(job, &linked, packages.path())? {
            let inside = place(job, &library.to_string_lossy())?;
            contents.insert(inside, file(library, true));
        }
        Ok(packages)
    }

    /// Has pip put the packages that a list pins into a folder.
    fn fetch(
        &self,
        job: &Job<'_>,
        list: &str,
        folder: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), BuildError> {
        let mut command = tool(job, "python3");
        command
            .args(["-m", "pip", "install", "--require-hashes", "--no-deps"])
            .args(["--only-binary", ":all:", "--no-compile", "--quiet"])
            .args(["--disable-pip-version-check", "--no-warn-script-location"])
            .args(["--root-user-action", "ignore", "--requirement", list])
            .arg("--target")
            .arg(folder);
        let ended = run(job, "python3", command, progress)?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(BuildError::Failed {
                path: job.request.source.clone(),
                tail: ended.tail,
            }),
        }
    }
}

/// A folder for one image's packages, beside what compilers make on the way.
fn packages_folder(job: &Job<'_>) -> Result<TempDir, BuildError> {
    let target = &job.request.target;
    std::fs::create_dir_all(target)
        .and_then(|()| {
            tempfile::Builder::new()
                .prefix("python-packages-")
                .tempdir_in(target)
        })
        .map_err(|source| {
            let path = target.clone();
            source_error(job.request, WalkError::Io { path, source })
        })
}

/// What of the standard library is not taken along.
fn is_left_out(path: &EntryPath) -> bool {
    let name = path.split().map_or(path.as_str(), |(_, name)| name);
    LEFT_OUT.contains(&name) || name.starts_with("config-")
}

/// What of the packages tells of the host: what the installer notes beside each, and scripts, which
/// begin with the path of an interpreter of the host.
fn is_of_the_installer(path: &EntryPath) -> bool {
    match path.split() {
        Some((folder, name)) if folder.as_str().ends_with(".dist-info") => {
            OF_THE_INSTALLER.contains(&name)
        }
        _ => path.as_str() == "bin",
    }
}

/// Adds what is below a folder, but for some of it; answers with the shared libraries in it.
fn add_tree(
    job: &Job<'_>,
    contents: &mut Contents,
    folder: &Path,
    to: &str,
    skipped: &dyn Fn(&EntryPath) -> bool,
) -> Result<Vec<PathBuf>, BuildError> {
    let found = walk::walk(folder, &job.request.limits, skipped)
        .map_err(|error| source_error(job.request, error))?;
    let mut libraries = Vec::new();
    for (path, content) in found {
        if let Content::File { from, .. } = &content
            && (path.as_str().ends_with(".so") || path.as_str().contains(".so."))
        {
            libraries.push(from.clone());
        }
        // A link out of the folder leads nowhere in an image.
        if !matches!(&content, Content::Link { target } if target.starts_with('/')) {
            contents.insert(place(job, &format!("{to}/{path}"))?, content);
        }
    }
    Ok(libraries)
}

/// The shared libraries of the host that programs and libraries are linked with, the loader among
/// them, under the names that they are looked for by. What packages bring with them is not of the
/// host.
fn shared_libraries(
    job: &Job<'_>,
    linked: &[PathBuf],
    packages: &Path,
) -> Result<BTreeSet<PathBuf>, BuildError> {
    let mut found = BTreeSet::new();
    for some in linked.chunks(AT_ONCE) {
        let mut command = tool(job, "ldd");
        command.args(some).env("LC_ALL", "C");
        // Its status tells of those that are no dynamic executables, which need nothing.
        run(job, "ldd", command, &mut |line| {
            found.extend(of_ldd(line).filter(|path| !path.starts_with(packages)));
        })?;
    }
    Ok(found)
}

/// The file that a line of `ldd` names: `libm.so.6 => /lib/libm.so.6 (0x…)`, `/lib64/ld.so (0x…)`.
fn of_ldd(line: &str) -> Option<PathBuf> {
    let line = line.strip_prefix(['\t', ' '])?;
    let (told, _address) = line.rsplit_once(" (0x")?;
    let path = told
        .rsplit_once(" => ")
        .map_or(told, |(_, path)| path)
        .trim();
    path.starts_with('/').then(|| PathBuf::from(path))
}

fn place(job: &Job<'_>, text: &str) -> Result<EntryPath, BuildError> {
    EntryPath::parse(text.trim_start_matches('/').as_bytes(), &job.request.limits)
        .map_err(|fault| bad_place(job.request, text, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ldd_names_a_file_or_none() {
        for (line, file) in [
            (
                "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)",
                Some("/lib/x86_64-linux-gnu/libm.so.6"),
            ),
            (
                "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)",
                Some("/lib64/ld-linux-x86-64.so.2"),
            ),
            ("\tlinux-vdso.so.1 (0x00007f)", None),
            ("\tlibtk8.6.so => not found", None),
            ("\tnot a dynamic executable", None),
            ("/usr/bin/python3.11:", None),
        ] {
            assert_eq!(of_ldd(line), file.map(PathBuf::from), "{line}");
        }
    }
}
