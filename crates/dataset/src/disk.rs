//! The durable steps that commits are made of, behind one narrow trait.
//!
//! Each step is durable when it returns, and leaves nothing half-done under a final name when it
//! does not. Tests put a disk in its place that fails a step, before or after its effect.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The first characters of a temporary file's name; such a file is nobody's after a crash.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// The durable operations on a file system. All of them block.
pub trait Disk: std::fmt::Debug + Send + Sync + 'static {
    /// Creates a file with its whole content, or fails with `AlreadyExists` and changes nothing.
    ///
    /// # Errors
    /// Any I/O error; the file may then exist, whole, or not at all.
    fn create(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Puts a file with its whole content in place of whatever has that name.
    ///
    /// # Errors
    /// Any I/O error; the old or the new content is then there, never a mixture.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Gives a synced file a second name; the folder of the new name is not synced yet.
    ///
    /// # Errors
    /// `AlreadyExists` if the new name is taken; any other I/O error.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Creates a folder and those above it, and syncs each folder that gained an entry.
    ///
    /// # Errors
    /// Any I/O error; some of the folders may then exist.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Moves a file or folder to a name that nothing has, and syncs the folders of both names.
    ///
    /// # Errors
    /// Any I/O error; it then has the one name or the other.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the entries of a folder durable.
    ///
    /// # Errors
    /// Any I/O error.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// Numbers the temporary files of this process.
static TEMPORARIES: AtomicU64 = AtomicU64::new(0);

/// The local file system.
#[derive(Debug, Default)]
pub struct LocalDisk {}

impl LocalDisk {
    fn write_temporary(&self, beside: &Path, content: &[u8]) -> io::Result<PathBuf> {
        let folder = folder_of(beside)?;
        let (path, mut file) = loop {
            let number = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)
            {
                // A dead process of the same id left it behind, or one in another pid namespace
                // is using it: either way it is not ours.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => break (path, opened?),
            }
        };
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .inspect_err(|_| {
                // The write's error is what matters; a temporary file that stays is swept later.
                let _ = fs::remove_file(&path);
            })?;
        Ok(path)
    }
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = self.write_temporary(path, content)?;
        // Dying before the link leaves a temporary file; after it, the whole file, which is
        // durable once the folder is synced, and which a repeat finds as `AlreadyExists`.
        let linked = fs::hard_link(&temporary, path);
        fs::remove_file(&temporary)?;
        linked?;
        self.sync_dir(folder_of(path)?)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = self.write_temporary(path, content)?;
        fs::rename(&temporary, path)?;
        self.sync_dir(folder_of(path)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let above = folder_of(path)?;
        self.create_dir_all(above)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.sync_dir(above),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags)?;
        // In this order, a crash between the two leaves no moment in which nothing has it.
        self.sync_dir(folder_of(to)?)?;
        self.sync_dir(folder_of(from)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

fn folder_of(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) => Ok(folder),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a path without a folder",
        )),
    }
}
