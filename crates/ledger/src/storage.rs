//! Where a log is kept: many immutable blobs, and one checkpoint that is only ever swapped.
//!
//! Two traits because the two need different promises. Blobs want throughput, and no order
//! among them; the checkpoint wants compare-and-swap, and is what makes blobs count.

mod dir;
pub mod memory;

use std::io;

pub use dir::{DirBlobs, DirCheckpoint};
pub(crate) use dir::{STAGING, read_bounded, sync_folder};

use crate::tile::TilePath;

/// A store could not do what was asked. After a failed write the data may be there or not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("cannot {operation} in the log's store")]
    Io {
        /// What was tried, as in “write a tile”.
        operation: &'static str,
        /// What the system said, with the path.
        source: io::Error,
    },
    /// Other bytes stand already where these should go.
    #[error("{path} is already written with other content")]
    Conflict {
        /// The blob.
        path: TilePath,
    },
    /// A blob is larger than any of its kind can be.
    #[error("{path} has {bytes} bytes; at most {limit} can be right")]
    TooLarge {
        /// The blob.
        path: TilePath,
        /// Its size.
        bytes: u64,
        /// Largest possible size.
        limit: usize,
    },
    /// The checkpoint is not the one that was to be replaced: another writer was here.
    #[error("the checkpoint was changed by another writer")]
    Swapped,
    /// The stored checkpoint is larger than any can be.
    #[error("the stored checkpoint has {bytes} bytes; at most {limit} can be right")]
    CheckpointTooLarge {
        /// Its size.
        bytes: u64,
        /// Largest possible size.
        limit: usize,
    },
}

/// A tile or entry bundle with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Where it goes.
    pub path: TilePath,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Many immutable blobs.
pub trait Blobs {
    /// Writes blobs durably: once this returns, they survive a crash. A blob that is there
    /// already with the same bytes is left alone. Order among them is not promised.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where other bytes are there; [`StoreError::Io`]. Each blob may
    /// then have been written or not, but never in part.
    fn put_all(&self, blobs: &[Blob]) -> Result<(), StoreError>;

    /// Reads a blob; `None` where there is none. Never reads more than the path's kind allows.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Io`].
    fn get(&self, path: TilePath) -> Result<Option<Vec<u8>>, StoreError>;

    /// Removes every partial blob of `full`'s kind and index, whatever its width. Need not be
    /// durable: partial blobs that come back do no harm.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn remove_partials(&self, full: TilePath) -> Result<(), StoreError>;
}

/// The one checkpoint of a log.
pub trait CheckpointStore {
    /// The checkpoint's note; `None` before the first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces the checkpoint durably, if it is still `expected` (`None`: not there).
    ///
    /// # Errors
    /// [`StoreError::Swapped`] where it is another; [`StoreError::Io`], after which it may have
    /// been replaced or not.
    fn swap(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<(), StoreError>;
}

impl<T: Blobs + ?Sized> Blobs for &T {
    fn put_all(&self, blobs: &[Blob]) -> Result<(), StoreError> {
        (**self).put_all(blobs)
    }

    fn get(&self, path: TilePath) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).get(path)
    }

    fn remove_partials(&self, full: TilePath) -> Result<(), StoreError> {
        (**self).remove_partials(full)
    }
}

impl<T: CheckpointStore + ?Sized> CheckpointStore for &T {
    fn load(&self) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).load()
    }

    fn swap(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<(), StoreError> {
        (**self).swap(expected, new)
    }
}
