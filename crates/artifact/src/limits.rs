//! What an archive may cost before it is refused.

use std::io::{self, Read};

/// Bounds on one archive, checked against what it *does*, not only what it declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the archive itself (of one layer, for an image).
    pub archive_bytes: u64,
    /// Bytes of all files together once unpacked.
    pub total_bytes: u64,
    /// Bytes of one file once unpacked.
    pub entry_bytes: u64,
    /// Entries, directories included.
    pub entries: u64,
    /// Unpacked bytes per packed byte, looked at beyond the first MiB.
    pub ratio: u64,
    /// Bytes of one path.
    pub path_bytes: usize,
    /// Components of one path.
    pub path_depth: usize,
    /// Layers of one image.
    pub layers: usize,
    /// Bytes of a document: manifest, index, configuration, `driver.json`, recipe.
    pub document_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 4 << 30,
            total_bytes: 8 << 30,
            entry_bytes: 4 << 30,
            entries: 200_000,
            ratio: 200,
            path_bytes: 1024,
            path_depth: 64,
            layers: 128,
            document_bytes: 4 << 20,
        }
    }
}

/// A bound of [`Limits`] that an archive crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// The archive is too large.
    #[error("the archive is larger than {0} bytes")]
    ArchiveBytes(u64),
    /// Its files together are too large.
    #[error("the files together are larger than {0} bytes")]
    TotalBytes(u64),
    /// One file is too large.
    #[error("the file is larger than {0} bytes")]
    EntryBytes(u64),
    /// It has too many entries.
    #[error("there are more than {0} entries")]
    Entries(u64),
    /// It unpacks to far more than it holds.
    #[error("it unpacks to more than {0} times its size")]
    Ratio(u64),
}

/// What one archive has cost so far.
#[derive(Debug)]
pub(crate) struct Spent {
    limits: Limits,
    packed_bytes: u64,
    entries: u64,
    total_bytes: u64,
}

/// Below this many unpacked bytes a high ratio harms nobody; text compresses well.
const RATIO_FREE_BYTES: u64 = 1 << 20;

impl Spent {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            packed_bytes: 0,
            entries: 0,
            total_bytes: 0,
        }
    }

    /// Takes note of an archive (or a further layer) of so many bytes.
    pub(crate) fn archive(&mut self, packed_bytes: u64) -> Result<(), Exceeded> {
        if packed_bytes > self.limits.archive_bytes {
            return Err(Exceeded::ArchiveBytes(self.limits.archive_bytes));
        }
        self.packed_bytes = self.packed_bytes.saturating_add(packed_bytes);
        Ok(())
    }

    pub(crate) fn entry(&mut self) -> Result<(), Exceeded> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Exceeded::Entries(self.limits.entries));
        }
        Ok(())
    }

    /// How much the next file may hold, given what was spent before it.
    pub(crate) fn file_allowance(&self) -> (u64, Exceeded) {
        let ratio_bytes = self
            .packed_bytes
            .saturating_mul(self.limits.ratio)
            .max(RATIO_FREE_BYTES);
        [
            (
                self.limits.entry_bytes,
                Exceeded::EntryBytes(self.limits.entry_bytes),
            ),
            (
                self.limits.total_bytes.saturating_sub(self.total_bytes),
                Exceeded::TotalBytes(self.limits.total_bytes),
            ),
            (
                ratio_bytes.saturating_sub(self.total_bytes),
                Exceeded::Ratio(self.limits.ratio),
            ),
        ]
        .into_iter()
        .min_by_key(|(bytes, _)| *bytes)
        .expect("the list of bounds is not empty")
    }

    /// How much the next stream of files (a layer) may hold.
    pub(crate) fn stream_allowance(&self) -> (u64, Exceeded) {
        let ratio_bytes = self
            .packed_bytes
            .saturating_mul(self.limits.ratio)
            .max(RATIO_FREE_BYTES);
        let total = self.limits.total_bytes.min(ratio_bytes);
        let bound = if total == ratio_bytes {
            Exceeded::Ratio(self.limits.ratio)
        } else {
            Exceeded::TotalBytes(self.limits.total_bytes)
        };
        (total.saturating_sub(self.total_bytes), bound)
    }

    /// Takes note of a file's real size.
    pub(crate) fn file(&mut self, bytes: u64) {
        self.total_bytes = self.total_bytes.saturating_add(bytes);
    }
}

/// Fails once more than `allowance` bytes have been read.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    bound: Exceeded,
}

impl<R: Read> Bounded<R> {
    pub(crate) fn new(inner: R, (allowance, bound): (u64, Exceeded)) -> Self {
        Self {
            inner,
            left: allowance,
            bound,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::new(io::ErrorKind::FileTooLarge, self.bound)),
        }
        Ok(count)
    }
}

/// The bound that a read through [`Bounded`] crossed, if that is what `error` tells.
pub(crate) fn exceeded(error: &io::Error) -> Option<Exceeded> {
    error.get_ref()?.downcast_ref::<Exceeded>().copied()
}
