//! Builds artifacts from source by a small recipe, so that two builds give one digest.
//!
//! A source folder holds a `build.yaml` ([`Recipe`]). Code is built with cargo, statically linked,
//! with every path that a compiler would write into the result replaced by a fixed one, in an
//! environment of which only what finds the tools is passed on. What is built is packed as a
//! function of its content and put into the store; the caller writes lock and evidence from
//! [`Built`].
//!
//! Nothing is built when source, recipe and builder are as they were and the artifact is there.

mod cargo;
mod process;
mod python;
mod recipe;
mod source;
mod tool;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use barecount_model::diagnostic::Diagnostic;
use barecount_model::lock::ArtifactKind;
use serde::{Deserialize, Serialize};

use crate::driver::{self, DriverError};
use crate::entry::{EntryPath, NameFault};
use crate::image::{self, ImageError, spec::Platform};
use crate::package::{self, PackageError};
use crate::store::{Blob, StoreError};
use crate::walk::{Content, Contents, WalkError};
use crate::{Digest, Limits, Store};

pub use barecount_model::recipe::{Cargo, ExtraFile, FILE_NAME, Making, Python, Recipe};
pub use process::Cancel;

/// What to build, where, and within which bounds.
#[derive(Debug, Clone)]
pub struct Request {
    /// The source folder, which holds [`FILE_NAME`].
    pub source: PathBuf,
    /// Where compilers put what they make on the way; kept, it makes the next build quick.
    pub target: PathBuf,
    /// The longest that one build may take.
    pub timeout: Duration,
    /// Bounds on sources and documents.
    pub limits: Limits,
}

/// The tools to build with: where the caller's environment finds them.
#[derive(Debug, Clone)]
pub struct Toolchain {
    environment: BTreeMap<OsString, OsString>,
}

/// What of an environment a build may see: what finds the tools and the registries.
const PASSED_ON: &[&str] = &[
    "ALL_PROXY",
    "CARGO_HOME",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "CARGO_NET_OFFLINE",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PATH",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

impl Toolchain {
    /// The tools that `environment` finds; all of it that could change what is built is dropped.
    pub fn new(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let passed = |name: &OsString| PASSED_ON.iter().any(|passed| name == *passed);
        Self {
            environment: environment
                .into_iter()
                .filter(|(name, _)| passed(name))
                .collect(),
        }
    }
}

/// What built an artifact: with the source, enough to build it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// The digest of the recipe.
    pub recipe: Digest,
    /// The compiler, as `rustc --version` names it; absent where nothing is compiled.
    pub rustc: Option<String>,
    /// The build tool, as `cargo --version` names it.
    pub cargo: Option<String>,
    /// What it was told, folders by what they are for, and the version of the packing.
    pub flags: Vec<String>,
}

/// A built artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// What it is.
    pub kind: ArtifactKind,
    /// Its name: that of a driver, else that of the source folder.
    pub name: String,
    /// Its digest: of a zip, of an image's manifest, of a driver bundle.
    pub digest: Digest,
    /// The size in bytes of what the digest names.
    pub size: u64,
    /// The digest of all that it was built from.
    pub source: Digest,
    /// What built it.
    pub builder: Builder,
    /// How long that took, in milliseconds.
    pub duration_ms: u64,
}

/// The artifact, and whether it had to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was built.
    Built(Built),
    /// Source, recipe and builder are as they were, and the artifact is in the store.
    Unchanged(Built),
}

impl Outcome {
    /// The artifact.
    pub fn artifact(&self) -> &Built {
        match self {
            Self::Built(built) | Self::Unchanged(built) => built,
        }
    }
}

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe cannot be read.
    #[error("cannot read the recipe {}", path.display())]
    NoRecipe {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The recipe is wrong; each problem has its place.
    #[error("the recipe {} has {}{}:{}: {}", path.display(), count(problems), problems[0].line,
        problems[0].column, problems[0].message)]
    Recipe {
        /// The file.
        path: PathBuf,
        /// What is wrong, at least one.
        problems: Vec<Diagnostic>,
    },
    /// The sources cannot be read.
    #[error("the sources of {} cannot be read", path.display())]
    Source {
        /// The source folder.
        path: PathBuf,
        /// Why.
        source: WalkError,
    },
    /// A tool is not installed.
    #[error("`{tool}` is needed to build, and is not installed")]
    NoTool {
        /// Its name.
        tool: &'static str,
    },
    /// A tool cannot be run.
    #[error("cannot run `{tool}`")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A tool answers in a way that is not understood.
    #[error("`{tool}` gives no usable answer: {answer}")]
    Answer {
        /// Its name.
        tool: &'static str,
        /// What it said, cut.
        answer: String,
    },
    /// The lock file of the sources does not fit them.
    #[error("the Cargo.lock of {} does not fit its Cargo.toml", path.display())]
    LockOutOfDate {
        /// The source folder.
        path: PathBuf,
    },
    /// The sources do not compile.
    #[error("{} does not build:\n{}", path.display(), tail.join("\n"))]
    Failed {
        /// The source folder.
        path: PathBuf,
        /// The last lines of the output.
        tail: Vec<String>,
    },
    /// Cargo built, but not what the recipe names.
    #[error("the build of {} made no {}", path.display(), expected.display())]
    NothingMade {
        /// The source folder.
        path: PathBuf,
        /// The executable that was expected.
        expected: PathBuf,
    },
    /// The build took too long.
    #[error("{} was not built within {} s", path.display(), timeout.as_secs())]
    Timeout {
        /// The source folder.
        path: PathBuf,
        /// How long it was given.
        timeout: Duration,
    },
    /// The build was cancelled.
    #[error("the build of {} was cancelled", path.display())]
    Cancelled {
        /// The source folder.
        path: PathBuf,
    },
    /// What was built cannot be packed as a package.
    #[error("the package cannot be made")]
    Package(#[from] PackageError),
    /// What was built cannot be packed as an image.
    #[error("the image cannot be made")]
    Image(#[from] ImageError),
    /// What was built cannot be packed as a driver.
    #[error("the driver cannot be made")]
    Driver(#[from] DriverError),
    /// The store refused.
    #[error("the artifact cannot be looked up")]
    Store(#[from] StoreError),
}

/// How many problems there are, as far as where the first one is.
fn count(problems: &[Diagnostic]) -> String {
    match problems.len() {
        1 => "a problem at ".to_owned(),
        several => format!("{several} problems, the first at "),
    }
}

/// Changed whenever the same source would be packed into other bytes.
const PACKING: &str = "packing=1";

/// Builds what is in `request.source`, unless `previous` still holds.
///
/// `progress` gets every line that the tools print, cut to a bounded length. Not cancel-safe by
/// dropping, for it blocks; [`Cancel`] from another thread kills the tools with all that they
/// started, and leaves a target folder that the next build goes on with.
///
/// # Errors
/// See [`BuildError`].
pub fn build(
    store: &Store,
    request: &Request,
    toolchain: &Toolchain,
    previous: Option<&Built>,
    cancel: &Cancel,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, BuildError> {
    let started = Instant::now();
    let (recipe, recipe_digest) = recipe::read(&request.source, &request.limits)?;
    let job = Job {
        request,
        toolchain,
        cancel,
        deadline: started + request.timeout,
    };
    let workspace = recipe
        .cargo
        .as_ref()
        .map(|_| cargo::Workspace::find(&job))
        .transpose()?;
    let source = source::digest(request, &recipe, workspace.as_ref())?;
    let interpreter = recipe
        .python
        .as_ref()
        .map(|_| python::Interpreter::find(&job))
        .transpose()?;
    let builder = builder(
        &job,
        recipe_digest,
        workspace.as_ref(),
        interpreter.as_ref(),
    )?;
    if let Some(previous) = previous
        && previous.source == source
        && previous.builder == builder
        && is_there(store, previous, &request.limits)?
    {
        return Ok(Outcome::Unchanged(previous.clone()));
    }
    let executable = match (&workspace, &recipe.cargo) {
        (Some(workspace), Some(cargo)) => Some(workspace.build(&job, cargo, progress)?),
        _ => None,
    };
    let mut contents = contents(request, &recipe, executable)?;
    // Holds what was made for the image until it is packed.
    let _packages = match (&interpreter, &recipe.python) {
        (Some(interpreter), Some(python)) => {
            Some(interpreter.install(&job, python, &mut contents, progress)?)
        }
        _ => None,
    };
    let blob = pack(store, &recipe, &contents)?;
    Ok(Outcome::Built(Built {
        kind: recipe.kind(),
        name: recipe::name(&recipe, &request.source),
        digest: blob.digest,
        size: blob.size,
        source,
        builder,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

/// One build on its way.
struct Job<'a> {
    request: &'a Request,
    toolchain: &'a Toolchain,
    cancel: &'a Cancel,
    deadline: Instant,
}

fn builder(
    job: &Job<'_>,
    recipe: Digest,
    workspace: Option<&cargo::Workspace>,
    interpreter: Option<&python::Interpreter>,
) -> Result<Builder, BuildError> {
    let mut flags = vec![PACKING.to_owned()];
    flags.extend(
        interpreter
            .into_iter()
            .flat_map(python::Interpreter::recorded_flags),
    );
    let Some(workspace) = workspace else {
        return Ok(Builder {
            recipe,
            rustc: None,
            cargo: None,
            flags,
        });
    };
    flags.extend(workspace.recorded_flags());
    let cargo = tool::version(job, "cargo", &["--version"])?;
    Ok(Builder {
        recipe,
        rustc: Some(workspace.rustc.clone()),
        cargo: Some(cargo),
        flags,
    })
}

fn is_there(store: &Store, built: &Built, limits: &Limits) -> Result<bool, BuildError> {
    if built.kind != ArtifactKind::Image {
        return Ok(store.has(&built.digest)?);
    }
    match image::closure(store, &built.digest, limits) {
        Ok(blobs) => {
            for blob in blobs {
                if !store.has(&blob)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Err(ImageError::Store(StoreError::Missing { .. } | StoreError::DigestMismatch { .. })) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Everything that goes into the artifact, by its place there.
fn contents(
    request: &Request,
    recipe: &Recipe,
    executable: Option<PathBuf>,
) -> Result<Contents, BuildError> {
    let place = |text: &str| {
        EntryPath::parse(text.trim_start_matches('/').as_bytes(), &request.limits)
            .map_err(|fault| bad_place(request, text, fault))
    };
    let mut contents = Contents::new();
    for file in &recipe.files {
        let from = request.source.join(&file.from);
        let to = place(&file.to)?;
        match std::fs::symlink_metadata(&from) {
            Ok(found) if found.is_dir() => {
                let below = crate::walk::walk(&from, &request.limits, &|_| false)
                    .map_err(|source| source_error(request, source))?;
                for (path, content) in below {
                    contents.insert(place(&format!("{to}/{path}"))?, content);
                }
            }
            Ok(_) => {
                contents.insert(
                    to,
                    Content::File {
                        from,
                        executable: file.executable,
                    },
                );
            }
            Err(source) => {
                return Err(source_error(request, WalkError::Io { path: from, source }));
            }
        }
    }
    if let Some(from) = executable {
        contents.insert(
            place(&recipe::place(recipe))?,
            Content::File {
                from,
                executable: true,
            },
        );
    }
    Ok(contents)
}

fn source_error(request: &Request, source: WalkError) -> BuildError {
    BuildError::Source {
        path: request.source.clone(),
        source,
    }
}

fn bad_place(request: &Request, place: &str, source: NameFault) -> BuildError {
    source_error(
        request,
        WalkError::Name {
            path: Path::new(place).to_owned(),
            source,
        },
    )
}

fn pack(store: &Store, recipe: &Recipe, contents: &Contents) -> Result<Blob, BuildError> {
    Ok(match &recipe.making {
        Making::Package { .. } => package::pack(store, contents, &recipe::place(recipe))?,
        Making::Image { .. } => {
            let platform = Platform::of_this_program();
            image::pack(store, contents, recipe::run_config(recipe), &platform)?
        }
        Making::Driver { name, version, .. } => {
            driver::pack(store, contents, name, version, &recipe::place(recipe))?
        }
    })
}

#[cfg(test)]
mod tests;
