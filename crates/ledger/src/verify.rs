//! Checking a log offline, trusting the given keys and nothing else.
//!
//! The signed root proves the tiles of the right edge, those prove the full tiles below them, and
//! so on down to the entries. Where a tile does not prove itself, it is made again from what lies
//! below: what then leads to the signed root is right, and the file that differs is named. Read
//! once from left to right, a tile a level in memory at a time.

mod folder;
mod problem;
mod walk;

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};

pub use problem::{MAX_PROBLEMS, Problem, ProblemKind};

use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::export::{CHECKPOINT_FILE, KEY_FILE};
use crate::note::{MAX_NOTE_BYTES, VerifierKey};
use crate::storage::{Blobs, DirBlobs, read_bounded};
use crate::tree::{Hash, root_of_edge};

use problem::Problems;
use walk::{Mended, Walk};

/// Longest `key.vkey` that is read, in bytes.
const MAX_KEY_FILE_BYTES: usize = 1024;

/// What came of checking a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Whether everything is as it was signed: there are no problems.
    pub valid: bool,
    /// Entries that were proved to be those of the signed log.
    pub entries: u64,
    /// Size that the checkpoint states; none where no checkpoint could be believed.
    pub tree_size: Option<u64>,
    /// Root hash that the checkpoint states; none where no checkpoint could be believed.
    pub root: Option<Hash>,
    /// What is wrong, checkpoint first, then in the order of the log.
    pub problems: Vec<Problem>,
    /// Whether the search stopped at [`MAX_PROBLEMS`], so that there may be more.
    pub gave_up: bool,
}

/// A log could not be checked at all: this says nothing about the log.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No key to trust was given.
    #[error("no verifier key was given, so nothing can be believed")]
    NoKeys,
    /// The folder cannot be read.
    #[error("cannot read {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The checkpoint kept from before is not one that a trusted key signed.
    #[error("the checkpoint kept from before cannot be used")]
    Since(#[source] CheckpointError),
}

/// Checks an exported log: `checkpoint`, `key.vkey`, every tile and bundle, partial tiles that
/// are left over, and that there is nothing else. `since` is the note of a checkpoint kept from
/// before; with it, truncation, rollback and rewriting are found even when the key's holder did
/// them.
///
/// # Errors
/// [`VerifyError`] where the check could not be made; whatever is wrong with the log itself is a
/// [`Problem`].
pub fn verify_dir(
    folder: &Path,
    trusted: &[VerifierKey],
    since: Option<&[u8]>,
) -> Result<Verification, VerifyError> {
    verify_dir_beside(folder, trusted, since, &[])
}

/// As [`verify_dir`], for an export that has more beside the log than the log: what is called as
/// one of `beside` in the folder itself is not looked at. It is the caller's to check.
///
/// # Errors
/// As [`verify_dir`].
pub fn verify_dir_beside(
    folder: &Path,
    trusted: &[VerifierKey],
    since: Option<&[u8]>,
    beside: &[&str],
) -> Result<Verification, VerifyError> {
    let since = open_since(trusted, since)?;
    folder::check_readable(folder).map_err(|source| VerifyError::Folder {
        folder: folder.to_path_buf(),
        source,
    })?;
    let mut problems = Problems::default();
    let note = match read_bounded(&folder.join(CHECKPOINT_FILE), MAX_NOTE_BYTES) {
        Ok(Some(Ok(note))) => Some(note),
        other => {
            problems.add(problem::unreadable(CHECKPOINT_FILE, other, MAX_NOTE_BYTES));
            None
        }
    };
    let current = note.and_then(|note| open_checkpoint(&note, trusted, &mut problems));
    check_key_file(folder, trusted, current.as_ref(), &mut problems);
    let Some(current) = current else {
        return Ok(problems.finish(None, 0));
    };
    let blobs = DirBlobs::new(folder);
    let (entries, mended) =
        verify_tiles(&blobs, current.checkpoint(), since.as_ref(), &mut problems);
    folder::check_others(
        folder,
        &blobs,
        current.checkpoint().size,
        &mended,
        beside,
        &mut problems,
    );
    Ok(problems.finish(Some(current.checkpoint()), entries))
}

/// Checks a log where it is kept, against the note of its checkpoint. Unlike [`verify_dir`] it
/// looks at nothing that the checkpoint does not need.
///
/// # Errors
/// [`VerifyError`].
pub fn verify_log<B: Blobs + ?Sized>(
    blobs: &B,
    checkpoint: &[u8],
    trusted: &[VerifierKey],
    since: Option<&[u8]>,
) -> Result<Verification, VerifyError> {
    let since = open_since(trusted, since)?;
    let mut problems = Problems::default();
    let Some(current) = open_checkpoint(checkpoint, trusted, &mut problems) else {
        return Ok(problems.finish(None, 0));
    };
    let (entries, _) = verify_tiles(blobs, current.checkpoint(), since.as_ref(), &mut problems);
    Ok(problems.finish(Some(current.checkpoint()), entries))
}

fn open_since(
    trusted: &[VerifierKey],
    since: Option<&[u8]>,
) -> Result<Option<Checkpoint>, VerifyError> {
    if trusted.is_empty() {
        return Err(VerifyError::NoKeys);
    }
    let Some(note) = since else { return Ok(None) };
    let signed = SignedCheckpoint::open(note, trusted).map_err(VerifyError::Since)?;
    Ok(Some(signed.checkpoint().clone()))
}

fn open_checkpoint(
    note: &[u8],
    trusted: &[VerifierKey],
    problems: &mut Problems,
) -> Option<SignedCheckpoint> {
    SignedCheckpoint::open(note, trusted)
        .map_err(|error| {
            problems.add(Problem::of_file(
                CHECKPOINT_FILE,
                ProblemKind::Checkpoint(error),
            ));
        })
        .ok()
}

/// The key beside the log must be a trusted one, in its one spelling, and the one that signed.
fn check_key_file(
    folder: &Path,
    trusted: &[VerifierKey],
    current: Option<&SignedCheckpoint>,
    problems: &mut Problems,
) {
    let kind = match read_bounded(&folder.join(KEY_FILE), MAX_KEY_FILE_BYTES) {
        Ok(Some(Ok(bytes))) => {
            let text = std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.strip_suffix('\n'));
            match text.unwrap_or_default().parse::<VerifierKey>() {
                Err(error) => ProblemKind::Key(error),
                Ok(key) if !trusted.contains(&key) => {
                    ProblemKind::UntrustedKey { key: key.label() }
                }
                Ok(key) => match current.map(SignedCheckpoint::signer) {
                    Some(signer) if *signer != key => ProblemKind::OtherKey {
                        key: key.label(),
                        signer: signer.label(),
                    },
                    _ => return,
                },
            }
        }
        other => {
            problems.add(problem::unreadable(KEY_FILE, other, MAX_KEY_FILE_BYTES));
            return;
        }
    };
    problems.add(Problem::of_file(KEY_FILE, kind));
}

/// Checks all tiles and entries, and the log against the checkpoint kept from before; returns
/// the number of entries proved, and the tiles that could be mended.
fn verify_tiles<B: Blobs + ?Sized>(
    blobs: &B,
    current: &Checkpoint,
    since: Option<&Checkpoint>,
    problems: &mut Problems,
) -> (u64, Mended) {
    let watched = since.filter(|since| since.size < current.size);
    let mut walk = Walk::new(
        blobs,
        current.size,
        watched.map(|since| since.size),
        problems,
    );
    walk.run(&current.root);
    let entries = walk.proved();
    let (beginning, mended) = walk.finish();
    if let Some(kind) = since.and_then(|since| compare(since, current, beginning)) {
        problems.add(Problem::of_file(CHECKPOINT_FILE, kind));
    }
    (entries, mended)
}

/// What is wrong with a log whose checkpoint was once `since` and now is `current`; `beginning`
/// is the right edge that the proved log had at the size of `since`.
fn compare(
    since: &Checkpoint,
    current: &Checkpoint,
    beginning: Option<Vec<Vec<Hash>>>,
) -> Option<ProblemKind> {
    let (before, now, size) = (since.size, current.size, since.size);
    if since.origin != current.origin {
        let (before, now) = (since.origin.clone(), current.origin.clone());
        return Some(ProblemKind::OtherOrigin { before, now });
    }
    match before.cmp(&now) {
        Ordering::Greater => Some(ProblemKind::RolledBack { before, now }),
        Ordering::Equal => (since.root != current.root).then_some(ProblemKind::Forked { size }),
        Ordering::Less => match beginning {
            Some(edge) => {
                let root = root_of_edge(edge.iter().map(Vec::as_slice));
                (root != since.root).then_some(ProblemKind::Rewritten { size })
            }
            None => Some(ProblemKind::HistoryUnproved { size }),
        },
    }
}

#[cfg(test)]
mod tests;
