//! Watching a staging, which may be long, and ending it; and keeping what it refuses.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;

use crate::dead_letter::BadRecord;

/// Hears how far a staging is, and may end it. Keeps the rows that it refuses, of which a staging
/// itself keeps none.
pub trait StageObserver: Send + Sync {
    /// So many more rows were read, and so many more bytes of the attempt's files. Told at least
    /// once a batch of rows, once for every 64 KiB of text and once for each file made durable, from
    /// the thread that stages. [`ControlFlow::Break`] ends the staging there, with
    /// [`StageError::Stopped`](super::StageError::Stopped).
    fn advanced(&self, rows: u64, bytes: u64) -> ControlFlow<()>;

    /// A row was refused.
    ///
    /// # Errors
    /// Why it cannot be kept: no row is dropped in silence, so that ends the staging, with
    /// [`StageError::Unkept`](super::StageError::Unkept).
    fn set_aside(&self, record: BadRecord) -> io::Result<()>;
}

/// Watches nothing, ends nothing and keeps nothing.
impl StageObserver for () {
    fn advanced(&self, _rows: u64, _bytes: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn set_aside(&self, _record: BadRecord) -> io::Result<()> {
        Ok(())
    }
}

/// A file whose reading is told to an observer, and ends where that says so.
pub(super) struct Observed<'a, R = File> {
    content: R,
    observer: &'a dyn StageObserver,
    /// Whether its bytes are those of an attempt's file.
    counted: bool,
}

impl<'a> Observed<'a, File> {
    pub(super) fn new(content: File, observer: &'a dyn StageObserver) -> Self {
        let counted = true;
        Self {
            content,
            observer,
            counted,
        }
    }
}

impl<'a, R> Observed<'a, R> {
    /// What was made of a file: its bytes are not the file's.
    pub(super) fn uncounted(content: R, observer: &'a dyn StageObserver) -> Self {
        let counted = false;
        Self {
            content,
            observer,
            counted,
        }
    }
}

impl<R: Read> Read for Observed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        let told = if self.counted { read as u64 } else { 0 };
        match self.observer.advanced(0, told) {
            ControlFlow::Continue(()) => Ok(read),
            ControlFlow::Break(()) => Err(io::Error::other(Stopped)),
        }
    }
}

/// What a reading ends with that its observer ended.
#[derive(Debug, thiserror::Error)]
#[error("the staging was stopped")]
struct Stopped;

/// Whether it was an observer that ended a reading.
pub(super) fn ended(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Stopped>())
}
