//! The rules that a state folder is held to, kept in it word by word.
//!
//! A state folder belongs to an environment: the one of the first run. Rules come from where the data
//! lies and not from whoever asks, so another environment is refused, and who names none gets the
//! one that the folder is bound to. Every text that governance was asked by is kept under its
//! digest, and the evidence of a decision names the digests.

use std::{
    io,
    path::{Path, PathBuf},
};

use barecount_control::governance::{Governance, Question};
use barecount_dataset::disk::{Disk, LocalDisk};
use barecount_model::{codes, digest::Digest, environment::Environment};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    environment::Found,
    failure::{Failure, Status},
    manifest::read_bounded,
};

/// The file that says which environment a state folder is bound to.
const BINDING: &str = "environment.json";
/// The folder of texts by digest.
const FOLDER: &str = "rules";
/// No text of rules is larger.
pub(crate) const MAX_BYTES: u64 = 16 << 20;

/// Which environment a state folder belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Binding {
    /// Its name.
    pub(crate) name: String,
    /// Its kind.
    pub(crate) kind: String,
    /// The digest of its text, kept in the folder; none where it holds without a file.
    pub(crate) digest: Option<Digest>,
    /// Where its relative paths begin.
    pub(crate) folder: PathBuf,
    /// Since when.
    pub(crate) bound_at: Timestamp,
}

/// The digests of what governance was asked by, as evidence has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// The environment's text; none where it holds without a file.
    pub(crate) environment: Option<Digest>,
    /// The policies and their schema.
    pub(crate) policies: Digest,
    /// The question as it was put: facts, matrix, approvals.
    pub(crate) question: Digest,
}

impl Rules {
    /// Keeps every text in the state folder, and says what they are called. Blocks.
    ///
    /// # Errors
    /// If they cannot be written: then nothing may be decided by them.
    pub(crate) fn keep(
        state: &Path,
        found: Option<&[u8]>,
        governance: &Governance,
        question: &Question,
    ) -> Result<Self, Failure> {
        let question = serde_json::to_vec_pretty(question).map_err(|error| failed(&error))?;
        Ok(Self {
            environment: found.map(|text| keep(state, text)).transpose()?,
            policies: keep(state, governance.policies_text().as_bytes())?,
            question: keep(state, &question)?,
        })
    }

    /// Each digest with what it is of, in the order in which people read them.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, Digest)> {
        let environment = self.environment.map(|digest| ("environment", digest));
        environment
            .into_iter()
            .chain([("question", self.question), ("policies", self.policies)])
    }
}

/// The binding of a state folder; none before its first run.
///
/// # Errors
/// If it is damaged: then nobody knows whose rules hold.
pub(crate) fn binding(state: &Path) -> Result<Option<Binding>, Failure> {
    match read_bounded(&state.join(BINDING), MAX_BYTES) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| failed(&error)),
        // Whoever needs the folder says what is there in its place.
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The environment that a state folder is bound to, as its text was when it was last used.
///
/// # Errors
/// If the text is not there, or not the one that the folder was bound by.
pub(crate) fn bound(state: &Path) -> Result<Option<Found>, Failure> {
    let Some(binding) = binding(state)? else {
        return Ok(None);
    };
    let Some(digest) = binding.digest else {
        return Ok(Some(Found {
            environment: Environment::local(),
            folder: binding.folder,
            text: None,
        }));
    };
    let text = read(state, digest)?;
    crate::environment::kept("the environment of the state folder", &text, binding.folder).map(Some)
}

/// Refuses an environment that a state folder does not belong to.
///
/// # Errors
/// If the folder is bound to another one.
pub(crate) fn hold(state: &Path, found: &Found) -> Result<(), Failure> {
    let Some(binding) = binding(state)? else {
        return Ok(());
    };
    let Environment { name, kind, .. } = &found.environment;
    if binding.name == name.as_str() && binding.kind == kind.as_str() {
        return Ok(());
    }
    let code = codes::OTHER_ENVIRONMENT.id;
    let what = format!(
        "the state folder {} belongs to environment `{}` ({}), and this is environment `{name}` \
         ({})",
        state.display(),
        binding.name,
        binding.kind,
        kind.as_str()
    );
    Err(Failure::new(Status::Refused, what)
        .with_code(code)
        .with_help(
            "Name another state folder with `--state`, or leave `--env` out to use the \
             environment that this one belongs to.",
        ))
}

/// Binds a state folder to an environment, if it is not bound yet, and keeps the environment's text
/// as it is now. Only under the folder's lock. Blocks.
///
/// # Errors
/// As [`hold`]; and if it cannot be written.
pub(crate) fn bind(state: &Path, found: &Found) -> Result<(), Failure> {
    hold(state, found)?;
    let before = binding(state)?;
    if let Some(text) = &found.text {
        keep(state, text)?;
    }
    let now = now(found, before.as_ref())?;
    if before.as_ref() == Some(&now) {
        return Ok(());
    }
    let bytes = serde_json::to_vec_pretty(&now).map_err(|error| failed(&error))?;
    LocalDisk::default()
        .replace(&state.join(BINDING), &bytes)
        .map_err(|error| failed(&error))
}

/// Whether a state folder is bound to an environment as it is now, so that [`bind`] would change
/// nothing.
///
/// # Errors
/// If that cannot be told.
pub(crate) fn is_bound(state: &Path, found: &Found) -> Result<bool, Failure> {
    let Some(before) = binding(state)? else {
        return Ok(false);
    };
    let kept = before
        .digest
        .is_none_or(|digest| read(state, digest).is_ok());
    Ok(kept && now(found, Some(&before))? == before)
}

/// The binding to an environment as it is now; `before` is what the folder was bound by.
fn now(found: &Found, before: Option<&Binding>) -> Result<Binding, Failure> {
    Ok(Binding {
        name: found.environment.name.to_string(),
        kind: found.environment.kind.as_str().to_owned(),
        digest: found.text.as_deref().map(Digest::of),
        folder: std::path::absolute(&found.folder).map_err(|error| failed(&error))?,
        bound_at: before.map_or_else(Timestamp::now, |before| before.bound_at),
    })
}

/// Where the text of a digest lies in a state folder.
pub(crate) fn path(state: &Path, digest: Digest) -> PathBuf {
    state.join(FOLDER).join(digest.hex())
}

/// A text that a state folder keeps.
///
/// # Errors
/// If it is not there, or is not the one of that digest: nothing is told of it then.
pub(crate) fn read(state: &Path, digest: Digest) -> Result<Vec<u8>, Failure> {
    let path = path(state, digest);
    let wrong = |what: String| {
        Failure::new(Status::Unverified, what)
            .with_code(codes::RECORD_INVALID.id)
            .with_help("Put it back from a copy of the state folder, or from an export.")
    };
    let text = read_bounded(&path, MAX_BYTES).map_err(|error| {
        wrong(format!("the rules {} cannot be read", path.display())).because(&error)
    })?;
    let found = Digest::of(&text);
    if found == digest {
        return Ok(text);
    }
    let path = path.display();
    Err(wrong(format!(
        "the rules {path} have to be {digest}, and are {found}"
    )))
}

fn keep(state: &Path, text: &[u8]) -> Result<Digest, Failure> {
    let digest = Digest::of(text);
    // One that is there and is another text is put right: its evidence has the digest.
    if read(state, digest).is_ok() {
        return Ok(digest);
    }
    let disk = LocalDisk::default();
    disk.create_dir_all(&state.join(FOLDER))
        .and_then(|()| disk.replace(&path(state, digest), text))
        .map_err(|error| failed(&error))?;
    Ok(digest)
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(
        Status::Unavailable,
        "the rules of the state folder cannot be read or kept",
    )
    .because(error)
    .with_code(codes::STATE_UNWRITABLE.id)
    .or_help("Make the state folder readable and writable, or name another one with `--state`.")
}
