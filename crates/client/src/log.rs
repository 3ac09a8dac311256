//! The log of a state folder, as far as its signed checkpoint reaches.

use std::{cell::RefCell, path::Path};

use barecount_ledger::{
    checkpoint::SignedCheckpoint,
    leaf_hash,
    note::VerifierKey,
    proof::{inclusion_proof, verify_inclusion},
    storage::{Blobs, CheckpointStore, DirBlobs, DirCheckpoint, StoreError},
    tile::{TileKind, TilePath, split_bundle},
};
use barecount_model::codes;

use crate::{
    embedded::{Embedded, ledger},
    environment::{self, Found},
    failure::{Failure, Status},
    state,
};

/// Entries in a bundle of the log.
const BUNDLE: u64 = 256;

/// An open log.
pub(crate) struct Log {
    /// Its tiles and entries.
    pub(crate) blobs: DirBlobs,
    /// Its checkpoint, as it was signed.
    pub(crate) note: Vec<u8>,
    /// The same, understood.
    pub(crate) checkpoint: SignedCheckpoint,
    /// The key that signed it.
    pub(crate) key: VerifierKey,
    /// The bundle that was read last: who asks for one entry mostly asks for the next.
    last: RefCell<Option<(TilePath, Vec<u8>)>>,
}

impl Log {
    /// Opens the log of the state folder with the key that signs it here: the environment's, or
    /// else the user's own.
    ///
    /// # Errors
    /// If there is no log, or the key did not sign its checkpoint.
    pub(crate) fn open(client: &Embedded) -> Result<Self, Failure> {
        let folder = state::folder(&client.state)?;
        let found =
            environment::of_state(Path::new("."), client.environment.as_deref(), &client.state)?;
        Self::of(&folder, &found)
    }

    /// As [`Log::open`], where the environment is at hand.
    ///
    /// # Errors
    /// If there is no log, or the key did not sign its checkpoint.
    pub(crate) fn of(folder: &Path, found: &Found) -> Result<Self, Failure> {
        let path = folder.join("ledger");
        let note = DirCheckpoint::new(&path).load();
        let note = note
            .map_err(|error| damaged(&error))?
            .ok_or_else(|| empty(folder))?;
        let key = ledger::verifier_key(folder, found.signing_key().as_deref())?;
        let checkpoint = SignedCheckpoint::open(&note, std::slice::from_ref(&key));
        let checkpoint = checkpoint.map_err(|error| damaged(&error))?;
        Ok(Self {
            blobs: DirBlobs::new(path),
            note,
            checkpoint,
            key,
            last: RefCell::default(),
        })
    }

    /// How many entries the checkpoint covers.
    pub(crate) fn size(&self) -> u64 {
        self.checkpoint.checkpoint().size
    }

    /// An entry, which is proved to be in the tree that was signed; `None` beyond its end.
    ///
    /// # Errors
    /// If it is not the entry that was signed, or cannot be read.
    pub(crate) fn entry(&self, index: u64) -> Result<Option<Vec<u8>>, Failure> {
        let size = self.size();
        let Some(path) = TilePath::in_tree(TileKind::Entries, index / BUNDLE, size) else {
            return Ok(None);
        };
        if index >= size {
            return Ok(None);
        }
        let mut last = self.last.borrow_mut();
        let bundle = match last.take().filter(|(read, _)| *read == path) {
            Some((_, bundle)) => bundle,
            None => read_bundle(&self.blobs, path)?,
        };
        let entries = split_bundle(&bundle, path.width()).entries;
        let position = usize::try_from(index % BUNDLE).unwrap_or(usize::MAX);
        let range = entries.get(position).cloned();
        let entry = range.ok_or_else(|| cut_off(index))?;
        let entry = bundle[entry].to_vec();
        *last = Some((path, bundle));
        let proof = inclusion_proof(&self.blobs, size, index, size);
        let proof = proof.map_err(|error| damaged(&error))?;
        let root = &self.checkpoint.checkpoint().root;
        verify_inclusion(&leaf_hash(&entry), index, size, &proof, root).map_err(|error| {
            let what = format!("entry {index} of the ledger is not the one that was signed");
            invalid(what).because(&error)
        })?;
        Ok(Some(entry))
    }
}

/// Hands every entry of a log of this size to `look`, oldest first, with its index. They are not
/// proved: this is for a log that has just been verified as a whole.
///
/// # Errors
/// If a bundle cannot be read, and whatever `look` fails with.
pub(crate) fn each_entry(
    blobs: &DirBlobs,
    size: u64,
    mut look: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let bundles = (0..).map_while(|index| TilePath::in_tree(TileKind::Entries, index, size));
    for path in bundles {
        let bundle = read_bundle(blobs, path)?;
        let entries = split_bundle(&bundle, path.width()).entries;
        let first = path.first_entry();
        if entries.len() < path.width() {
            return Err(cut_off(first + entries.len() as u64));
        }
        for (index, range) in (first..).zip(entries) {
            look(index, &bundle[range])?;
        }
    }
    Ok(())
}

/// Reads a bundle, or the full one where the partial has been cleared away since the checkpoint was
/// read: its first entries are the same.
fn read_bundle(blobs: &DirBlobs, path: TilePath) -> Result<Vec<u8>, Failure> {
    let read = |path| {
        let bytes: Result<_, StoreError> = blobs.get(path);
        bytes.map_err(|error| damaged(&error))
    };
    let found = match read(path)? {
        None => path.full().map(read).transpose()?.flatten(),
        found => found,
    };
    found.ok_or_else(|| invalid(format!("the ledger lacks its file {path}")))
}

fn cut_off(index: u64) -> Failure {
    invalid(format!("the ledger is cut off before its entry {index}"))
}

fn empty(folder: &Path) -> Failure {
    let what = format!("there is no ledger in {}", folder.display());
    Failure::new(Status::NotFound, what)
        .with_help("`barecount run` makes one; `--state` names another state folder.")
}

/// A failure of a log that cannot be read, or is not what was signed.
pub(crate) fn damaged(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::PermissionDenied
        {
            return Failure::new(Status::Unavailable, "the ledger cannot be read")
                .because(error)
                .with_code(codes::STATE_CLOSED.id)
                .with_help("Look as the account that ran the pipelines.");
        }
        cause = error.source();
    }
    invalid("the ledger does not verify").because(error)
}

/// The same, where no error says why.
pub(crate) fn invalid(what: impl Into<String>) -> Failure {
    Failure::new(Status::Unverified, what)
        .with_code("BC0903")
        .with_help("`barecount evidence verify` says what else is wrong with it.")
}
