//! How far a ledger had come when it was last signed here: its checkpoint, kept with the keys and
//! outside of the state folder. A folder that is put back to an older copy of itself is whole in every
//! other way, and what it lacks would be missed by nobody.

use std::{
    io,
    path::{Path, PathBuf},
};

use barecount_ledger::{
    checkpoint::{CheckpointError, SignedCheckpoint},
    note::VerifierKey,
    proof::verify_consistency,
};

use super::{ledger, ledger::Log, private_folder};

/// The longest checkpoint that is read.
const MAX_BYTES: u64 = 64 << 10;

/// Where the mark of one ledger is kept.
#[derive(Debug, Clone)]
pub(crate) struct HighWater {
    path: PathBuf,
}

/// Why a ledger is not the one that was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HighWaterError {
    /// The mark cannot be read.
    #[error("the checkpoint {}, kept from before, cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The mark is no checkpoint of this ledger.
    #[error("{}, kept from before, is no checkpoint of this ledger", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: CheckpointError,
    },
    /// The ledger has fewer entries.
    #[error(
        "the ledger has {found} entries, and had {signed} when it was last signed ({}): the state \
         folder is an older copy of itself", path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// How many it has.
        found: u64,
        /// How many it had.
        signed: u64,
    },
    /// The ledger has other entries.
    #[error(
        "the first {signed} entries of the ledger are not those that were signed ({})", path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// How many there were.
        signed: u64,
        /// What does not fit.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl HighWater {
    /// Of a state folder's ledger. `None` where its user has no folder for keys.
    pub(crate) fn of(state: &Path) -> Option<Self> {
        let path = ledger::user_key(state, "checkpoint").ok()?;
        Some(Self { path })
    }

    /// The checkpoint as it was signed, if there is one.
    pub(crate) fn note(&self) -> Result<Option<Vec<u8>>, HighWaterError> {
        use io::Read as _;
        let mut note = Vec::new();
        let file = match std::fs::File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file,
        };
        let read = file.and_then(|file| file.take(MAX_BYTES).read_to_end(&mut note));
        read.map_err(|source| HighWaterError::Unreadable {
            path: self.path.clone(),
            source,
        })?;
        Ok(Some(note))
    }

    /// Holds a log against the mark.
    ///
    /// # Errors
    /// If the log lacks what was signed, or has something else in its place.
    pub(crate) fn hold(&self, log: &Log) -> Result<(), HighWaterError> {
        let Some(note) = self.note()? else {
            return Ok(());
        };
        let path = || self.path.clone();
        let keys: &[VerifierKey] = log.keys();
        let seen =
            SignedCheckpoint::open(&note, keys).map_err(|source| HighWaterError::Foreign {
                path: path(),
                source,
            })?;
        let (signed, root) = (seen.checkpoint().size, seen.checkpoint().root);
        let Some(now) = log.checkpoint().map(SignedCheckpoint::checkpoint) else {
            let (path, found) = (path(), 0);
            return Err(HighWaterError::Older {
                path,
                found,
                signed,
            });
        };
        if now.size < signed {
            let (path, found) = (path(), now.size);
            return Err(HighWaterError::Older {
                path,
                found,
                signed,
            });
        }
        let other = |source| HighWaterError::Other {
            path: path(),
            signed,
            source,
        };
        let proof = log.consistency_proof(signed, now.size);
        let proof = proof.map_err(|error| other(error.into()))?;
        verify_consistency(signed, &root, now.size, &now.root, &proof)
            .map_err(|error| other(error.into()))
    }

    /// Keeps a checkpoint. It may be lost with the power, for an older one is true as well.
    ///
    /// # Errors
    /// If it cannot be written; the one from before is there then.
    pub(crate) fn keep(&self, signed: &SignedCheckpoint) -> io::Result<()> {
        private_folder::make(self.path.parent().unwrap_or(Path::new(".")))?;
        let temporary = self.path.with_extension("checkpoint.tmp");
        std::fs::write(&temporary, signed.note())?;
        std::fs::rename(&temporary, &self.path)
    }
}
