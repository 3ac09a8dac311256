//! Replacing a small private file so that it is always either the old one or the new one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;

/// The steps of replacing a file, apart, so that each can be made to fail.
pub(crate) trait Disk: std::fmt::Debug + Send + Sync {
    /// Writes `bytes` durably to a new file beside `target`, readable by its owner alone.
    ///
    /// Dying here leaves a file whose name starts as [`staging_prefix`] says, which nobody reads.
    fn stage(&self, target: &Path, bytes: &[u8]) -> io::Result<PathBuf>;

    /// Gives a staged file its name. Dying here leaves the old file or the new one, both whole.
    fn publish(&self, staged: &Path, target: &Path) -> io::Result<()>;

    /// Makes the name durable. Dying here leaves the old file or the new one after a power cut,
    /// and the new one otherwise.
    fn settle(&self, target: &Path) -> io::Result<()>;
}

/// A local file system.
#[derive(Debug)]
pub(crate) struct LocalDisk;

impl Disk for LocalDisk {
    fn stage(&self, target: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
        let mut staged = tempfile::Builder::new()
            .prefix(&staging_prefix(target))
            .permissions(PermissionsExt::from_mode(0o600))
            .tempfile_in(folder_of(target))?;
        staged.write_all(bytes)?;
        staged.as_file().sync_all()?;
        Ok(staged.into_temp_path().keep()?)
    }

    fn publish(&self, staged: &Path, target: &Path) -> io::Result<()> {
        fs::rename(staged, target)
    }

    fn settle(&self, target: &Path) -> io::Result<()> {
        fs::File::open(folder_of(target))?.sync_all()
    }
}

/// Replaces `target` by `bytes`, durably. On an error `target` is the old file or the new one;
/// the caller reads it again.
pub(crate) fn replace(disk: &dyn Disk, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = disk.stage(target, bytes)?;
    disk.publish(&staged, target)?;
    disk.settle(target)
}

/// Makes `target` of `bytes`, durably, unless it exists.
pub(crate) fn create(disk: &dyn Disk, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = disk.stage(target, bytes)?;
    // A link never replaces: of two that create at once, one wins and the other is told.
    let linked = fs::hard_link(&staged, target);
    fs::remove_file(&staged)?;
    linked?;
    disk.settle(target)
}

/// Removes what a crash left half-written beside `target`. For whoever holds the writers' lock.
pub(crate) fn clear_leftovers(target: &Path) -> io::Result<()> {
    let prefix = staging_prefix(target);
    for entry in fs::read_dir(folder_of(target))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// How the names of half-written files start.
pub(crate) fn staging_prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.new-")
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Opens a file for reading without waiting for whoever writes to a pipe in its place.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Reads a file of at most `limit` bytes to its end; `None` if it has more.
pub(crate) fn read_bounded(file: &File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let expected = file.metadata()?.len();
    if expected > limit {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 1);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Which file a path named when it was opened, and in which state: equal as long as nobody
/// replaced it or wrote to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
