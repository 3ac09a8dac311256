//! Turning the durable sequence of entries into tiles and a signed checkpoint.
//!
//! The caller's database holds the sequence; the log is a function of it and of nothing else.
//! Order of writes: bundles and tiles first, durable; then the checkpoint, swapped. Dying in
//! between leaves tiles that no checkpoint speaks of: the next integration makes the same bytes
//! again and finds them there. Only once a checkpoint is durable are the partial tiles removed
//! that it has made superfluous.

mod state;

use zeroize::Zeroizing;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::note::{NoteError, SigningKey, VerifierKey};
use crate::proof::{self, ProofError, TileReader};
use crate::storage::{Blob, Blobs, CheckpointStore, StoreError};
use crate::tile::{EntryTooLong, MAX_ENTRY_BYTES, TileKind, TilePath, tile_hashes};
use crate::tree::{Hash, MAX_TREE_SIZE, TILE_WIDTH, leaf_hash};

use state::State;

/// Bytes of tiles and bundles that are gathered before they are written together.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// A log could not be opened or brought up to date. Nothing that was stated before is undone.
#[derive(Debug, thiserror::Error)]
pub enum IntegrateError {
    /// The first entry lies beyond the end of the log.
    #[error("entry {first_index} does not follow a log of {size} entries")]
    Gap {
        /// Index of the first entry given.
        first_index: u64,
        /// Size of the log.
        size: u64,
    },
    /// The log would grow beyond [`MAX_TREE_SIZE`].
    #[error("the log cannot hold more than {MAX_TREE_SIZE} entries")]
    Full,
    /// An entry is too long for a bundle.
    #[error("entry {index} cannot be held")]
    EntryTooLong {
        /// Index of the entry.
        index: u64,
        /// Its length and the limit.
        source: EntryTooLong,
    },
    /// An entry is not the one that the log already holds at this index.
    #[error("entry {index} contradicts the one that the log holds")]
    Contradiction {
        /// Index of the entry.
        index: u64,
    },
    /// The stored checkpoint is not this log's.
    #[error("cannot open the log's checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint could not be written as a note.
    #[error("cannot write the log's checkpoint")]
    Note(#[from] NoteError),
    /// The stored tiles do not make the root hash that was signed.
    #[error("{path} does not belong to the log that was signed")]
    Damaged {
        /// The tile, or one of those, that is wrong.
        path: TilePath,
    },
    /// The stored checkpoint is behind one that this process saw stored.
    #[error("the stored checkpoint went back from {from} entries to {to}")]
    RolledBack {
        /// Size seen before.
        from: u64,
        /// Size found now.
        to: u64,
    },
    /// The stored checkpoint contradicts one that this process saw stored.
    #[error("the stored checkpoint contradicts the one of {size} entries that was there before")]
    Forked {
        /// Size up to which they should agree.
        size: u64,
    },
    /// Tiles could not be read.
    #[error("cannot read back the log")]
    Proof(#[from] ProofError),
    /// The store failed; the log is where it was, or already where it was to go.
    #[error("cannot store the log")]
    Store(#[from] StoreError),
}

/// The one writer of a log.
///
/// Not cancel-safe in the sense of futures, for it blocks; but it can be dropped or killed at any
/// point, and a new one picks up from the last checkpoint.
#[derive(Debug)]
pub struct Integrator<B, C> {
    blobs: B,
    checkpoints: C,
    key: SigningKey,
    trusted: Vec<VerifierKey>,
    /// The latest checkpoint known to be stored.
    latest: Option<SignedCheckpoint>,
    /// The right edge at `latest`; none after a failure, to be read back before going on.
    state: Option<State>,
}

impl<B: Blobs, C: CheckpointStore> Integrator<B, C> {
    /// Opens a log, or begins one. Its origin is the key's name. `former` are keys that signed
    /// this log before the present one and whose last checkpoint may still stand.
    ///
    /// # Errors
    /// [`IntegrateError::Checkpoint`] where the stored checkpoint is by another key or of another
    /// log, [`IntegrateError::Damaged`] where the right edge does not make the signed root,
    /// [`IntegrateError::Store`].
    pub fn open(
        blobs: B,
        checkpoints: C,
        key: SigningKey,
        former: &[VerifierKey],
    ) -> Result<Self, IntegrateError> {
        let mut trusted = vec![key.verifier().clone()];
        trusted.extend_from_slice(former);
        let mut log = Self {
            blobs,
            checkpoints,
            key,
            trusted,
            latest: None,
            state: None,
        };
        log.state = Some(log.reload()?);
        Ok(log)
    }

    /// Number of entries that the latest known checkpoint covers. After an error the stored one
    /// may already cover more.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.latest
            .as_ref()
            .map_or(0, |latest| latest.checkpoint().size)
    }

    /// The latest checkpoint known to be stored; none before the first integration.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&SignedCheckpoint> {
        self.latest.as_ref()
    }

    /// The keys under which this log's checkpoints are to be believed, the present one first.
    #[must_use]
    pub fn keys(&self) -> &[VerifierKey] {
        &self.trusted
    }

    /// A key for something else than checkpoints: see [`SigningKey::derive`].
    #[must_use]
    pub fn derived_key(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        self.key.derive(purpose)
    }

    /// Where the tiles are.
    #[must_use]
    pub fn blobs(&self) -> &B {
        &self.blobs
    }

    /// Brings the log up to date with the durable sequence and returns the checkpoint, stored,
    /// that covers all of `entries`. Entries that the log holds already are compared with it.
    /// Without new entries nothing is written, but for the very first checkpoint and the first
    /// one under a new key.
    ///
    /// # Errors
    /// [`IntegrateError`]. After any of them, call again with the same entries from the same
    /// index, or an earlier one; what had been stored is found and not made twice.
    pub fn integrate(
        &mut self,
        first_index: u64,
        entries: &[impl AsRef<[u8]>],
    ) -> Result<SignedCheckpoint, IntegrateError> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => self.reload()?,
        };
        let new = match self.check(&state, first_index, entries) {
            Ok(known) => &entries[known..],
            Err(error) => {
                self.state = Some(state);
                return Err(error);
            }
        };
        if let Some(latest) = self
            .latest
            .as_ref()
            .filter(|latest| new.is_empty() && latest.signer() == self.key.verifier())
        {
            let latest = latest.clone();
            self.state = Some(state);
            return Ok(latest);
        }
        // From here on an error leaves `self.state` empty: what is stored decides, not memory.
        let outgrown = self.write_tiles(&mut state, new)?;
        let signed = SignedCheckpoint::sign(state.size(), state.root(), &self.key)?;
        // Dying before the swap: the tiles above are found again. Dying after it: the checkpoint
        // counts, and reopening starts from it.
        let expected = self.latest.as_ref().map(SignedCheckpoint::note);
        self.checkpoints.swap(expected, signed.note())?;
        self.latest = Some(signed.clone());
        self.state = Some(state);
        for tile in outgrown {
            // The checkpoint is durable and needs the full tile only. Dying here leaves partial
            // tiles that nobody asks for; they are right, and no export takes them along.
            self.blobs.remove_partials(tile)?;
        }
        Ok(signed)
    }

    /// The hashes that lead from entry `index` to the root of the tree of `size`, lowest first.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
        proof::inclusion_proof(&self.blobs, self.size(), index, size)
    }

    /// The hashes that prove the tree of `older` entries to be the beginning of that of `newer`.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn consistency_proof(&self, older: u64, newer: u64) -> Result<Vec<Hash>, ProofError> {
        proof::consistency_proof(&self.blobs, self.size(), older, newer)
    }

    /// Reads the checkpoint and the right edge from the stores; never accepts one that takes
    /// back what was seen.
    fn reload(&mut self) -> Result<State, IntegrateError> {
        let stored = match self.checkpoints.load()? {
            Some(note) => Some(SignedCheckpoint::open(&note, &self.trusted)?),
            None => None,
        };
        let to = stored.as_ref().map_or(0, |stored| stored.checkpoint().size);
        let from = self.size();
        if to < from || (stored.is_none() && self.latest.is_some()) {
            return Err(IntegrateError::RolledBack { from, to });
        }
        let Some(stored) = stored else {
            return Ok(State::default());
        };
        let state = State::read(&self.blobs, stored.checkpoint())?;
        if let Some(latest) = &self.latest {
            let before = TileReader::new(&self.blobs, to).range_root(0, from)?;
            if before != latest.checkpoint().root {
                return Err(IntegrateError::Forked { size: from });
            }
        }
        self.latest = Some(stored);
        Ok(state)
    }

    /// Checks the entries against the limits and against what the log holds; returns how many
    /// it holds already.
    fn check(
        &self,
        state: &State,
        first_index: u64,
        entries: &[impl AsRef<[u8]>],
    ) -> Result<usize, IntegrateError> {
        let size = state.size();
        let known = size
            .checked_sub(first_index)
            .ok_or(IntegrateError::Gap { first_index, size })?;
        let end = first_index.checked_add(entries.len() as u64);
        end.filter(|end| *end <= MAX_TREE_SIZE)
            .ok_or(IntegrateError::Full)?;
        for (index, entry) in (first_index..).zip(entries) {
            let bytes = entry.as_ref().len();
            if bytes > MAX_ENTRY_BYTES {
                let source = EntryTooLong { bytes };
                return Err(IntegrateError::EntryTooLong { index, source });
            }
        }
        let known = usize::try_from(known)
            .unwrap_or(usize::MAX)
            .min(entries.len());
        let mut index = first_index;
        while index < first_index + known as u64 {
            // A tile at a time, so that a long repetition needs little memory.
            let tile = index / TILE_WIDTH as u64;
            let mut reader = TileReader::new(&self.blobs, size);
            let hashes = reader.tile(0, tile)?;
            let start = (index % TILE_WIDTH as u64) as usize;
            let at = (index - first_index) as usize;
            for (hash, entry) in hashes[start..].iter().zip(&entries[at..known]) {
                if leaf_hash(entry.as_ref()) != *hash {
                    return Err(IntegrateError::Contradiction { index });
                }
                index += 1;
            }
        }
        Ok(known)
    }

    /// Appends to the right edge and writes what that makes; returns the tiles that were
    /// partial before and are full now.
    fn write_tiles(
        &self,
        state: &mut State,
        new: &[impl AsRef<[u8]>],
    ) -> Result<Vec<TilePath>, IntegrateError> {
        let before = state.size();
        let was_partial =
            |path: &TilePath| TilePath::in_tree(path.kind(), path.index(), before).is_some();
        let mut outgrown = Vec::new();
        let mut batch: Vec<Blob> = Vec::new();
        let mut gathered = 0;
        for entry in new {
            let index = state.size();
            let filled = batch.len();
            state
                .append(entry.as_ref(), &mut batch)
                .map_err(|source| IntegrateError::EntryTooLong { index, source })?;
            for blob in &batch[filled..] {
                gathered += blob.bytes.len();
                outgrown.extend(Some(blob.path).filter(was_partial));
            }
            if gathered >= BATCH_BYTES {
                self.write(&batch)?;
                batch.clear();
                gathered = 0;
            }
        }
        batch.extend(state.edge_since(before));
        self.write(&batch)?;
        Ok(outgrown)
    }

    fn write(&self, batch: &[Blob]) -> Result<(), IntegrateError> {
        match self.blobs.put_all(batch) {
            Err(StoreError::Conflict { path }) => Err(self.explain_conflict(path, batch)),
            result => Ok(result?),
        }
    }

    /// Names the entry for which other bytes are stored than these.
    fn explain_conflict(&self, path: TilePath, batch: &[Blob]) -> IntegrateError {
        let wanted = batch
            .iter()
            .find(|blob| blob.path == path)
            .map(|blob| &blob.bytes);
        let stored = self.blobs.get(path).ok().flatten();
        let difference = wanted.zip(stored).and_then(|(wanted, stored)| {
            let cut = |bytes: &[u8]| match path.kind() {
                TileKind::Entries => Some(state::bundle_hashes(bytes, path.width())),
                TileKind::Hashes(0) => tile_hashes(bytes, path.width()),
                TileKind::Hashes(_) => None,
            };
            let (wanted, stored) = (cut(wanted)?, cut(&stored)?);
            wanted
                .iter()
                .zip(&stored)
                .position(|(wanted, stored)| wanted != stored)
        });
        match difference {
            Some(at) => IntegrateError::Contradiction {
                index: path.first_entry() + at as u64,
            },
            None => IntegrateError::Damaged { path },
        }
    }
}

#[cfg(test)]
mod tests;
