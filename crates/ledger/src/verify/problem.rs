//! What can be wrong with a log, and where.

use std::fmt;
use std::io;

use super::Verification;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::KeyError;
use crate::storage::StoreError;

/// Problems after which the search stops.
pub const MAX_PROBLEMS: usize = 1_000;

/// One thing that is wrong, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path within the log, with slashes.
    pub file: String,
    /// Where in the file it begins, in bytes from 0, where that is known.
    pub byte: Option<u64>,
    /// Index in the log of the first entry concerned, where that is known.
    pub entry: Option<u64>,
    /// What is wrong.
    pub kind: ProblemKind,
}

impl Problem {
    pub(super) fn of_file(file: impl ToString, kind: ProblemKind) -> Self {
        Self {
            file: file.to_string(),
            byte: None,
            entry: None,
            kind,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(byte) = self.byte {
            write!(f, ", byte {byte}")?;
        }
        if let Some(entry) = self.entry {
            write!(f, ", entry {entry}")?;
        }
        write!(f, ": {}", self.kind)?;
        let mut source = std::error::Error::source(&self.kind);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// The file is not there.
    #[error("missing")]
    Missing,
    /// The file is there but cannot be read: not a regular file, no permission, a bad medium.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// The file is longer or shorter than it can be.
    #[error("{found} bytes long instead of {expected}")]
    Length {
        /// Length, or largest length, that is right.
        expected: u64,
        /// Length found.
        found: u64,
    },
    /// The checkpoint is malformed, not signed by a trusted key, wrongly signed, or another log's.
    #[error("not to be believed")]
    Checkpoint(#[source] CheckpointError),
    /// The key file is malformed.
    #[error("not a verifier key and a newline")]
    Key(#[source] KeyError),
    /// The key file holds a key that is not trusted.
    #[error("holds key {key}, which is not trusted")]
    UntrustedKey {
        /// The key in the file.
        key: String,
    },
    /// The key file holds a trusted key, but another one signed.
    #[error("holds key {key}, but the checkpoint is signed by {signer}")]
    OtherKey {
        /// The key in the file.
        key: String,
        /// The key that signed.
        signer: String,
    },
    /// The entry is not the one whose hash was signed.
    #[error("the entry was changed: it does not match the leaf hash that was signed")]
    EntryChanged,
    /// The bundle ends before its last entry.
    #[error("the bundle ends here, inside or before this entry")]
    BundleTruncated,
    /// The bundle goes on after its last entry.
    #[error("bytes follow the last entry")]
    ExtraBytes,
    /// The tile's hash is not the one that was signed, while what lies below it is right.
    #[error(
        "the tile was changed: what lies below it leads to the signed root, this hash does not"
    )]
    TileChanged,
    /// The tile does not lead to the signed root, and what lies below it does not either.
    #[error("the tile does not lead to the signed root, and what lies below it does not either")]
    TileUnproved,
    /// A tile is missing, and what lies below it does not make up for it.
    #[error("the tile above is missing, and what is here does not lead to the signed root")]
    BelowUnproved,
    /// The tile and what lies below it differ, and nothing above says which is right.
    #[error("differs from {other}, and nothing proved says which of them is right")]
    Disagrees {
        /// The other file.
        other: String,
    },
    /// All tiles and entries agree, but on another root than the signed one.
    #[error("the tiles and entries lead to another root hash than the signed one")]
    OtherRoot,
    /// A left-over partial tile is not the beginning of the tile that took its place.
    #[error("left over from before, and not the beginning of what {wider} should hold")]
    PartialDiffers {
        /// The tile that the checkpoint needs instead.
        wider: String,
    },
    /// A tile beyond the end of the log.
    #[error("lies beyond the {size} entries that were signed")]
    BeyondEnd {
        /// Size of the signed log.
        size: u64,
    },
    /// A file that no log has.
    #[error("does not belong to the log")]
    Unexpected,
    /// The checkpoint kept from before is of another log.
    #[error("speaks for {now:?}, the checkpoint kept from before for {before:?}")]
    OtherOrigin {
        /// Origin before.
        before: String,
        /// Origin now.
        now: String,
    },
    /// The log is shorter than it was.
    #[error("the log was rolled back: {now} entries, where {before} were signed before")]
    RolledBack {
        /// Size before.
        before: u64,
        /// Size now.
        now: u64,
    },
    /// Two checkpoints of one size and different roots.
    #[error("the log was forked: another root was signed before for the same {size} entries")]
    Forked {
        /// The size.
        size: u64,
    },
    /// The entries signed before are not those at the beginning of the log.
    #[error("the log was rewritten: its first {size} entries are not those signed before")]
    Rewritten {
        /// Size of the checkpoint kept from before.
        size: u64,
    },
    /// Too much is wrong with the log to hold it against the checkpoint kept from before.
    #[error("too much is wrong to tell whether the first {size} entries are those signed before")]
    HistoryUnproved {
        /// Size of the checkpoint kept from before.
        size: u64,
    },
}

/// Problems as they are found, up to the limit.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    gave_up: bool,
}

impl Problems {
    pub(super) fn add(&mut self, problem: Problem) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push(problem);
        } else {
            self.gave_up = true;
        }
    }

    /// Whether there is no room for more, so that searching on is of no use.
    pub(super) fn full(&self) -> bool {
        self.gave_up
    }

    /// Whether this file was already found wrong.
    pub(super) fn concern(&self, file: &str) -> bool {
        self.found.iter().any(|problem| problem.file == file)
    }

    pub(super) fn finish(self, checkpoint: Option<&Checkpoint>, entries: u64) -> Verification {
        Verification {
            valid: checkpoint.is_some() && self.found.is_empty(),
            entries,
            tree_size: checkpoint.map(|checkpoint| checkpoint.size),
            root: checkpoint.map(|checkpoint| checkpoint.root),
            problems: self.found,
            gave_up: self.gave_up,
        }
    }
}

/// The problem of a file that could not be read whole.
pub(super) fn unreadable(
    file: &str,
    outcome: io::Result<Option<Result<Vec<u8>, u64>>>,
    limit: usize,
) -> Problem {
    let kind = match outcome {
        Err(error) => ProblemKind::Unreadable {
            reason: error.to_string(),
        },
        Ok(Some(Err(found))) => ProblemKind::Length {
            expected: limit as u64,
            found,
        },
        Ok(_) => ProblemKind::Missing,
    };
    Problem::of_file(file, kind)
}

/// The problem of a blob that could not be read.
pub(super) fn of_store_error(file: impl ToString, error: &StoreError) -> Problem {
    let kind = match error {
        StoreError::TooLarge { bytes, limit, .. } => ProblemKind::Length {
            expected: *limit as u64,
            found: *bytes,
        },
        StoreError::Io { source, .. } => ProblemKind::Unreadable {
            reason: source.to_string(),
        },
        other => ProblemKind::Unreadable {
            reason: other.to_string(),
        },
    };
    Problem::of_file(file, kind)
}
