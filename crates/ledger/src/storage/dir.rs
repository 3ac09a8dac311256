//! A log in a local folder, durable against crashes.

use std::collections::{BTreeSet, HashSet};
use std::fs::{File as StdFile, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use fs_err as fs;

use super::{Blob, Blobs, CheckpointStore, StoreError};
use crate::note::MAX_NOTE_BYTES;
use crate::tile::TilePath;

/// Where files are written before they get their name.
pub(crate) const STAGING: &str = ".staging";

/// Held (shared) by everyone who stages files, so that only leftovers are ever cleared.
const STAGING_LOCK: &str = "lock";

/// The checkpoint's file name.
const CHECKPOINT: &str = "checkpoint";

/// Serialises the swaps of one checkpoint between processes.
const CHECKPOINT_LOCK: &str = "checkpoint.lock";

fn io_error(operation: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { operation, source }
}

/// Reads a regular file of at most `limit` bytes. `Ok(None)`: not there; `Err(bytes)` inside:
/// larger. A pipe or device in its place is an error, and is never opened.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> io::Result<Option<Result<Vec<u8>, u64>>> {
    match fs::symlink_metadata(path) {
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::other(format!(
                "{} is not a regular file",
                path.display()
            )));
        }
        Ok(metadata) if metadata.len() > limit as u64 => return Ok(Some(Err(metadata.len()))),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)?;
    let length = bytes.len() as u64;
    Ok(Some(if bytes.len() > limit {
        Err(length)
    } else {
        Ok(bytes)
    }))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Makes a folder at or below the root of a log, and the root if that is all that is missing: what is
/// above it is somebody else's, and is not made again where it was removed meanwhile.
fn make_below(root: &Path, folder: &Path) -> io::Result<()> {
    let made = match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder != root => {
            let above = folder.parent().unwrap_or(root);
            make_below(root, above)?;
            fs::create_dir(folder)
        }
        made => made,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Tiles and entry bundles under a folder, laid out as C2SP serves them. Readers need no
/// lock; several writers do not harm each other, for nothing written is ever replaced.
#[derive(Debug)]
pub struct DirBlobs {
    root: PathBuf,
    staging: OnceLock<Staging>,
    /// Folders whose own names are known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
}

#[derive(Debug)]
struct Staging {
    folder: PathBuf,
    next: AtomicU64,
    /// Shared lock that keeps other writers from clearing our files.
    _lock: StdFile,
}

impl DirBlobs {
    /// The log under `root`, which need not exist before the first write; the folder that it is in
    /// must.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            staging: OnceLock::new(),
            durable: Mutex::default(),
        }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn staging(&self) -> io::Result<&Staging> {
        if let Some(staging) = self.staging.get() {
            return Ok(staging);
        }
        let folder = self.root.join(STAGING);
        make_below(&self.root, &folder)?;
        let lock = open_lock(&folder.join(STAGING_LOCK))?;
        match lock.try_lock() {
            Ok(()) => {
                // Nobody else stages: what lies here was left by a crash before it got its name.
                clear_leftovers(&folder)?;
                lock.unlock()?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        lock.lock_shared()?;
        Ok(self.staging.get_or_init(|| Staging {
            folder,
            next: AtomicU64::new(0),
            _lock: lock,
        }))
    }

    /// Writes and syncs one blob under a name of no meaning; dying here leaves a leftover that
    /// the next writer clears.
    fn stage(&self, staging: &Staging, bytes: &[u8]) -> io::Result<(PathBuf, StdFile)> {
        let number = staging.next.fetch_add(1, Ordering::Relaxed);
        let path = staging
            .folder
            .join(format!("{}-{number}", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.write_all(bytes)?;
        Ok((path, file.into_parts().0))
    }

    fn put_batch(&self, blobs: &[Blob]) -> Result<(), StoreError> {
        let staging = self.staging().map_err(io_error("prepare to write tiles"))?;
        let mut folders = BTreeSet::new();
        let mut staged = Vec::new();
        for blob in blobs {
            let target = self.root.join(blob.path.to_string());
            let folder = target.parent().unwrap_or(&self.root).to_path_buf();
            // Already there: perhaps renamed by a process that died before syncing the folder,
            // so the folder is synced in any case.
            if folders.insert(folder.clone()) {
                make_below(&self.root, &folder).map_err(io_error("make a folder for tiles"))?;
            }
            if !self.is_there(blob)? {
                let (path, file) = self
                    .stage(staging, &blob.bytes)
                    .map_err(io_error("write a tile"))?;
                staged.push((blob, path, file, target));
            }
        }
        // All are written before the first is synced: the system then writes them together.
        let files: Vec<_> = staged.iter().map(|(_, _, file, _)| file).collect();
        together(&files, |file| file.sync_data()).map_err(io_error("sync a tile"))?;
        for (blob, path, _, target) in &staged {
            // A link, unlike a rename, never replaces what is there. Dying after it leaves a
            // complete, synced blob, which a repetition finds and accepts.
            let linked = fs::hard_link(path, target);
            fs::remove_file(path).map_err(io_error("clear a staged tile"))?;
            match linked {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.is_there(blob)?;
                }
                Err(error) => return Err(io_error("name a tile")(error)),
            }
        }
        let folders: Vec<_> = folders.iter().collect();
        together(&folders, |folder| self.sync_up(folder))
            .map_err(io_error("sync a folder of tiles"))
    }

    /// Whether the blob is there with the same bytes.
    fn is_there(&self, blob: &Blob) -> Result<bool, StoreError> {
        match self.get(blob.path)? {
            Some(bytes) if bytes == blob.bytes => Ok(true),
            Some(_) => Err(StoreError::Conflict { path: blob.path }),
            None => Ok(false),
        }
    }

    /// Syncs a folder, and those above it whose names may not be durable yet.
    fn sync_up(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)?;
        let durable = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let mut synced = Vec::new();
        let mut child = folder;
        while !durable().contains(child) {
            let Some(parent) = child.parent() else { break };
            let above = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            sync_folder(above)?;
            synced.push(child.to_path_buf());
            if child == self.root {
                break;
            }
            child = parent;
        }
        // Remembered only now that the whole way up is durable: a failure is tried again.
        durable().extend(synced);
        Ok(())
    }
}

impl Blobs for DirBlobs {
    fn put_all(&self, blobs: &[Blob]) -> Result<(), StoreError> {
        if blobs.is_empty() {
            return Ok(());
        }
        self.put_batch(blobs)
    }

    fn get(&self, path: TilePath) -> Result<Option<Vec<u8>>, StoreError> {
        let limit = path.max_bytes();
        match read_bounded(&self.root.join(path.to_string()), limit) {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(bytes))) => Err(StoreError::TooLarge { path, bytes, limit }),
            Err(source) => Err(StoreError::Io {
                operation: "read a tile",
                source,
            }),
        }
    }

    fn remove_partials(&self, full: TilePath) -> Result<(), StoreError> {
        let Some(full) = full.full() else {
            return Ok(());
        };
        let folder = self.root.join(format!("{full}.p"));
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove partial tiles")(error))
            }
            _ => Ok(()),
        }
    }
}

/// Syncs that are under way at once. A journal writes those that arrive together as one.
const SYNCS_AT_ONCE: usize = 16;

/// Does the same to all items, several at a time; the first error, when all are done.
fn together<T: Sync>(items: &[T], act: impl Fn(&T) -> io::Result<()> + Sync) -> io::Result<()> {
    let threads = items.len().min(SYNCS_AT_ONCE);
    if threads <= 1 {
        return items.iter().try_for_each(act);
    }
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            act(item)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let died = || Err(io::Error::other("a thread that syncs died"));
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| died()))
    })
}

fn open_lock(path: &Path) -> io::Result<StdFile> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    Ok(file.into_parts().0)
}

fn clear_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != STAGING_LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The checkpoint as the file `checkpoint` in a folder, beside the lock that swaps it.
#[derive(Debug)]
pub struct DirCheckpoint {
    folder: PathBuf,
}

impl DirCheckpoint {
    /// The checkpoint in `folder`, which need not exist before the first swap; the folder that it is
    /// in must.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    fn replace(&self, new: &[u8]) -> io::Result<()> {
        let mut staged = tempfile::Builder::new()
            .prefix(".checkpoint-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(&self.folder)?;
        staged.write_all(new)?;
        staged.as_file().sync_all()?;
        // Dying before the rename leaves the old checkpoint, after it the new one, and before
        // the folder is synced either of them: both are right, the tiles of both are durable.
        staged
            .persist(self.folder.join(CHECKPOINT))
            .map_err(|error| error.error)?;
        sync_folder(&self.folder)
    }
}

impl CheckpointStore for DirCheckpoint {
    fn load(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.folder.join(CHECKPOINT);
        match read_bounded(&path, MAX_NOTE_BYTES).map_err(io_error("read the checkpoint"))? {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(bytes)) => Err(StoreError::CheckpointTooLarge {
                bytes,
                limit: MAX_NOTE_BYTES,
            }),
        }
    }

    fn swap(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<(), StoreError> {
        let failed = "swap the checkpoint";
        make_below(&self.folder, &self.folder).map_err(io_error(failed))?;
        let lock = open_lock(&self.folder.join(CHECKPOINT_LOCK)).map_err(io_error(failed))?;
        lock.lock().map_err(io_error(failed))?;
        if self.load()?.as_deref() != expected {
            return Err(StoreError::Swapped);
        }
        self.replace(new).map_err(io_error(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::TileKind;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn blob(index: u64, width: usize, byte: u8) -> Blob {
        let path = TilePath::new(TileKind::Hashes(0), index, width).expect("a possible tile");
        Blob {
            path,
            bytes: vec![byte; 32 * width],
        }
    }

    #[test]
    fn a_blob_is_written_once_and_never_replaced() -> TestResult {
        let folder = tempfile::tempdir()?;
        let blobs = DirBlobs::new(folder.path().join("log"));
        let (first, other) = (blob(1_234, 3, 1), blob(1_234, 3, 2));
        assert_eq!(blobs.get(first.path)?, None);
        blobs.put_all(std::slice::from_ref(&first))?;
        blobs.put_all(std::slice::from_ref(&first))?;
        let refused = blobs.put_all(&[blob(0, 256, 9), other]);
        assert!(matches!(refused, Err(StoreError::Conflict { path }) if path == first.path));
        assert_eq!(blobs.get(first.path)?, Some(first.bytes));
        assert!(folder.path().join("log/tile/0/x001/234.p/3").is_file());
        Ok(())
    }

    #[test]
    fn a_log_whose_place_was_removed_is_not_begun_again_elsewhere() -> TestResult {
        let folder = tempfile::tempdir()?;
        let state = folder.path().join("state");
        fs::create_dir(&state)?;
        let (fresh, used) = (
            DirBlobs::new(state.join("log")),
            DirBlobs::new(state.join("log")),
        );
        let checkpoint = DirCheckpoint::new(state.join("log"));
        used.put_all(&[blob(1_234, 256, 1)])?;
        checkpoint.swap(None, b"one")?;
        fs::remove_dir_all(&state)?;
        assert!(used.put_all(&[blob(1_235, 256, 1)]).is_err());
        assert!(fresh.put_all(&[blob(1_235, 256, 1)]).is_err());
        assert!(checkpoint.swap(None, b"two").is_err());
        assert!(!state.exists());
        Ok(())
    }

    #[test]
    fn leftovers_of_a_crash_are_cleared_by_the_next_writer_but_not_those_of_a_living_one()
    -> TestResult {
        let folder = tempfile::tempdir()?;
        let staging = folder.path().join(STAGING);
        fs::create_dir_all(&staging)?;
        fs::write(staging.join("1-1"), "left")?;
        let living = DirBlobs::new(folder.path());
        living.put_all(&[blob(0, 1, 1)])?;
        assert!(!staging.join("1-1").exists());
        fs::write(staging.join("2-2"), "in use")?;
        DirBlobs::new(folder.path()).put_all(&[blob(1, 1, 1)])?;
        assert!(staging.join("2-2").exists());
        Ok(())
    }

    #[test]
    fn partial_blobs_go_and_the_full_one_stays() -> TestResult {
        let folder = tempfile::tempdir()?;
        let blobs = DirBlobs::new(folder.path());
        blobs.put_all(&[blob(7, 3, 1), blob(7, 9, 1), blob(7, 256, 1)])?;
        blobs.remove_partials(blob(7, 9, 1).path)?;
        blobs.remove_partials(blob(8, 9, 1).path)?;
        assert_eq!(blobs.get(blob(7, 3, 1).path)?, None);
        assert!(blobs.get(blob(7, 256, 1).path)?.is_some());
        Ok(())
    }

    #[test]
    fn too_large_a_file_is_not_read_and_a_link_not_followed() -> TestResult {
        let folder = tempfile::tempdir()?;
        let blobs = DirBlobs::new(folder.path());
        let wide = blob(0, 2, 1);
        blobs.put_all(std::slice::from_ref(&wide))?;
        fs::write(folder.path().join("tile/0/000.p/2"), [0; 65])?;
        assert!(matches!(
            blobs.get(wide.path),
            Err(StoreError::TooLarge { bytes: 65, .. })
        ));
        fs::remove_file(folder.path().join("tile/0/000.p/2"))?;
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("tile/0/000.p/2"))?;
        assert!(matches!(blobs.get(wide.path), Err(StoreError::Io { .. })));
        Ok(())
    }

    #[test]
    fn a_checkpoint_is_swapped_only_by_who_knows_the_one_before() -> TestResult {
        let folder = tempfile::tempdir()?;
        let store = DirCheckpoint::new(folder.path().join("log"));
        assert_eq!(store.load()?, None);
        assert!(matches!(
            store.swap(Some(b"x"), b"y"),
            Err(StoreError::Swapped)
        ));
        store.swap(None, b"one")?;
        assert!(matches!(store.swap(None, b"two"), Err(StoreError::Swapped)));
        store.swap(Some(b"one"), b"two")?;
        assert_eq!(store.load()?.as_deref(), Some(&b"two"[..]));
        Ok(())
    }

    #[test]
    fn of_many_swaps_at_once_from_the_same_checkpoint_one_succeeds() -> TestResult {
        let folder = tempfile::tempdir()?;
        let store = DirCheckpoint::new(folder.path());
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8_u8)
                .map(|i| {
                    scope.spawn({
                        let store = &store;
                        move || store.swap(None, &[i]).is_ok()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| usize::from(t.join().unwrap_or(false)))
                .sum()
        });
        assert_eq!(won, 1);
        Ok(())
    }
}
