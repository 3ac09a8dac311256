//! What tells the batches that this program wrote from those that somebody else put into the journal.
//!
//! Entries wait in the journal until the ledger has them under a signed checkpoint. Whoever can write
//! the state folder could put one there, and it would be signed like any other. So each batch has a
//! message authentication code under a key that is not in the state folder.

use barecount_model::seal::{SEAL_BYTES, SealKey};

/// The key of a journal's seals, and how far its entries need none any more.
#[derive(Debug)]
pub struct Sealing {
    key: SealKey,
    signed: u64,
}

/// What a seal is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed<'r> {
    pub(super) seq: u64,
    pub(super) epoch: u64,
    pub(super) first_entry: u64,
    pub(super) entries: u64,
    /// The record, as it is kept.
    pub(super) record: &'r [u8],
}

impl Sealing {
    /// Seals under `key`. The ledger has a signed checkpoint over `signed` entries: they are held
    /// against it, whoever wrote them.
    #[must_use]
    pub fn new(key: SealKey, signed: u64) -> Self {
        Self { key, signed }
    }

    /// How many entries are under a signed checkpoint.
    pub(super) fn signed(&self) -> u64 {
        self.signed
    }

    /// The seal of a batch.
    pub(super) fn seal(&self, batch: Sealed<'_>) -> [u8; SEAL_BYTES] {
        let (place, record) = batch.parts();
        self.key.seal(&[&place, record])
    }

    /// Whether a batch has its seal.
    pub(super) fn holds(&self, batch: Sealed<'_>, seal: &[u8]) -> bool {
        let (place, record) = batch.parts();
        self.key.holds(&[&place, record], seal)
    }
}

impl<'r> Sealed<'r> {
    fn parts(&self) -> (Vec<u8>, &'r [u8]) {
        let numbers = [self.seq, self.epoch, self.first_entry, self.entries];
        (
            numbers.into_iter().flat_map(u64::to_le_bytes).collect(),
            self.record,
        )
    }
}
