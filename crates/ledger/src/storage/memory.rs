//! Stores in memory that fail on demand, for tests of what depends on a log.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Blob, Blobs, CheckpointStore, StoreError};
use crate::tile::TilePath;

/// How a write goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was written, and the caller is told so.
    Failed,
    /// All was written, but the caller is told that it was not.
    FailedButPersisted,
    /// Of several blobs the first half was written.
    FailedHalfway,
}

/// When the next fault strikes: the writes still to come before it, and its kind.
type Schedule = Option<(usize, Fault)>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn strike(schedule: &mut Schedule) -> Option<Fault> {
    match schedule {
        Some((0, fault)) => {
            let fault = *fault;
            *schedule = None;
            Some(fault)
        }
        Some((left, _)) => {
            *left -= 1;
            None
        }
        None => None,
    }
}

fn injected(operation: &'static str) -> StoreError {
    StoreError::Io {
        operation,
        source: io::Error::other("injected fault"),
    }
}

/// Blobs in memory.
#[derive(Debug, Default)]
pub struct MemoryBlobs {
    blobs: Mutex<BTreeMap<TilePath, Vec<u8>>>,
    schedule: Mutex<Schedule>,
}

impl MemoryBlobs {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the write after `writes` further ones go wrong.
    pub fn fail_after(&self, writes: usize, fault: Fault) {
        *lock(&self.schedule) = Some((writes, fault));
    }

    /// All blobs, as they stand.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<TilePath, Vec<u8>> {
        lock(&self.blobs).clone()
    }

    /// Puts bytes where they do not belong, or takes them away, past all rules.
    pub fn tamper(&self, path: TilePath, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => lock(&self.blobs).insert(path, bytes),
            None => lock(&self.blobs).remove(&path),
        };
    }

    fn insert(&self, blobs: &[Blob]) -> Result<(), StoreError> {
        let mut stored = lock(&self.blobs);
        for blob in blobs {
            let bytes = stored
                .entry(blob.path)
                .or_insert_with(|| blob.bytes.clone());
            if *bytes != blob.bytes {
                return Err(StoreError::Conflict { path: blob.path });
            }
        }
        Ok(())
    }
}

impl Blobs for MemoryBlobs {
    fn put_all(&self, blobs: &[Blob]) -> Result<(), StoreError> {
        let persisted = match strike(&mut lock(&self.schedule)) {
            None => return self.insert(blobs),
            Some(Fault::Failed) => 0,
            Some(Fault::FailedHalfway) => blobs.len() / 2,
            Some(Fault::FailedButPersisted) => blobs.len(),
        };
        self.insert(&blobs[..persisted])?;
        Err(injected("write a tile"))
    }

    fn get(&self, path: TilePath) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(lock(&self.blobs).get(&path).cloned())
    }

    fn remove_partials(&self, full: TilePath) -> Result<(), StoreError> {
        lock(&self.blobs).retain(|path, _| {
            !(path.is_partial() && path.kind() == full.kind() && path.index() == full.index())
        });
        Ok(())
    }
}

/// A checkpoint in memory.
#[derive(Debug, Default)]
pub struct MemoryCheckpoint {
    note: Mutex<Option<Vec<u8>>>,
    schedule: Mutex<Schedule>,
}

impl MemoryCheckpoint {
    /// A store without a checkpoint.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the swap after `writes` further ones go wrong.
    pub fn fail_after(&self, writes: usize, fault: Fault) {
        *lock(&self.schedule) = Some((writes, fault));
    }

    /// Replaces the checkpoint past all rules.
    pub fn tamper(&self, note: Option<Vec<u8>>) {
        *lock(&self.note) = note;
    }
}

impl CheckpointStore for MemoryCheckpoint {
    fn load(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(lock(&self.note).clone())
    }

    fn swap(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<(), StoreError> {
        let fault = strike(&mut lock(&self.schedule));
        let mut note = lock(&self.note);
        if note.as_deref() != expected {
            return Err(StoreError::Swapped);
        }
        if !matches!(fault, Some(Fault::Failed | Fault::FailedHalfway)) {
            *note = Some(new.to_vec());
        }
        if fault.is_some() {
            Err(injected("swap the checkpoint"))
        } else {
            Ok(())
        }
    }
}
