//! Finding the environment that a verb works in.

use std::path::{Path, PathBuf};

use barecount_model::{
    diagnostic::{self, Diagnostic},
    environment::Environment,
};

use crate::{
    failure::{Failure, Status},
    manifest::read_bounded,
    rules,
};

/// No environment file needs to be larger; more is not even read.
const MAX_BYTES: u64 = 1 << 20;

/// An environment, and where its relative paths begin.
pub(crate) struct Found {
    /// The environment.
    pub(crate) environment: Environment,
    /// The folder of its file; the pipeline's for the environment that holds without a file.
    pub(crate) folder: PathBuf,
    /// Its file, word by word; none for the environment that holds without a file.
    pub(crate) text: Option<Vec<u8>>,
}

impl Found {
    /// The ledger's signing key, if the environment names one.
    pub(crate) fn signing_key(&self) -> Option<PathBuf> {
        self.environment
            .signing_key
            .as_ref()
            .map(|path| self.folder.join(path))
    }
}

/// The environment that `--env` names, for the pipeline in `folder`; without `--env`, the one that
/// the state folder is bound to. The local one is found anew: its file is the caller's to change.
pub(crate) fn of_state(folder: &Path, name: Option<&str>, state: &Path) -> Result<Found, Failure> {
    if name.is_none()
        && let Some(bound) = rules::bound(state)?
        && bound.environment.name.as_str() != "local"
    {
        return Ok(bound);
    }
    find(folder, name)
}

/// As [`of_state`]; and it is the one that the state folder belongs to.
///
/// # Errors
/// If the state folder belongs to another one.
pub(crate) fn held(folder: &Path, name: Option<&str>, state: &Path) -> Result<Found, Failure> {
    let found = of_state(folder, name, state)?;
    rules::hold(state, &found)?;
    Ok(found)
}

/// The environment of what a state folder holds already, where no manifest is at hand: the one that
/// the folder is bound to, as it was when it was last used.
///
/// # Errors
/// If the state folder belongs to another one than `--env` names.
pub(crate) fn of_run(name: Option<&str>, state: &Path) -> Result<Found, Failure> {
    match (name, rules::bound(state)?) {
        (None, Some(bound)) => Ok(bound),
        (name, _) => held(Path::new("."), name, state),
    }
}

/// The environment that `--env` names, for the pipeline in `folder`: a file, or a name in the
/// folder's `environments/`. Without `--env` it is `local`, whether there is a file for it or not.
pub(crate) fn find(folder: &Path, name: Option<&str>) -> Result<Found, Failure> {
    let by_name = |name: &str| folder.join("environments").join(format!("{name}.yaml"));
    let path = match name {
        Some(text) if text.contains('/') || text.ends_with(".yaml") || text.ends_with(".json") => {
            PathBuf::from(text)
        }
        Some(text) => by_name(text),
        None => by_name("local"),
    };
    match read_bounded(&path, MAX_BYTES) {
        Ok(bytes) => load(&path, &bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match name {
            None | Some("local") => Ok(Found {
                environment: Environment::local(),
                folder: folder.to_owned(),
                text: None,
            }),
            Some(name) => Err(Failure::new(
                Status::NotFound,
                format!("there is no environment `{name}`"),
            )
            .with_help(format!("It would be described in {}.", path.display()))),
        },
        Err(error) => Err(Failure::new(
            Status::Usage,
            format!("the environment file {} cannot be read", path.display()),
        )
        .because(&error)),
    }
}

fn load(path: &Path, bytes: &[u8]) -> Result<Found, Failure> {
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    parse(&path.display().to_string(), bytes, folder)
}

/// An environment from its text; `file` is what diagnostics call it.
pub(crate) fn parse(file: &str, bytes: &[u8], folder: PathBuf) -> Result<Found, Failure> {
    found(Environment::load(file, bytes), bytes, folder)
}

/// As [`parse`], of a text that a state folder keeps: an older one may hold approvals, which count no
/// longer.
///
/// # Errors
/// If it is no environment.
pub(crate) fn kept(file: &str, bytes: &[u8], folder: PathBuf) -> Result<Found, Failure> {
    found(Environment::load_kept(file, bytes), bytes, folder)
}

fn found(
    loaded: Result<Environment, Vec<Diagnostic>>,
    bytes: &[u8],
    folder: PathBuf,
) -> Result<Found, Failure> {
    let environment = loaded.map_err(|diagnostics| {
        let text = diagnostic::render(&diagnostics, &String::from_utf8_lossy(bytes));
        Failure::new(
            Status::Usage,
            format!("the environment file is not valid\n{text}"),
        )
    })?;
    Ok(Found {
        environment,
        folder,
        text: Some(bytes.to_owned()),
    })
}
