//! The lock of a state folder. One process at a time holds it, and says in it who it is.
//!
//! It is the kernel's lock on a file (flock(2)): it goes with the process, however that ends, and the
//! file that stays behind locks nothing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::OpenError;

/// The file in a state folder.
const FILE: &str = "lock";
/// What a holder says of itself is short; more is not read.
const MAX_BYTES: u64 = 64 << 10;

/// A state folder that this process has to itself, until this is dropped or the process ends.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    folder: PathBuf,
}

impl FolderLock {
    /// Takes a folder that nobody holds; makes it if it is not there.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if somebody does, [`OpenError::Folder`] if it cannot be used.
    pub fn take(folder: &Path) -> Result<Self, OpenError> {
        Self::locked(folder, FlockOperation::NonBlockingLockExclusive)
    }

    /// The same once nobody holds it any more. Blocks the thread for as long as that takes.
    ///
    /// # Errors
    /// [`OpenError::Folder`] if the folder cannot be used.
    pub fn wait(folder: &Path) -> Result<Self, OpenError> {
        Self::locked(folder, FlockOperation::LockExclusive)
    }

    fn locked(folder: &Path, how: FlockOperation) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(FILE))
            .map_err(unusable)?;
        loop {
            match flock(&file, how) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(OpenError::Locked {
                        path: folder.to_owned(),
                    });
                }
                Err(error) => return Err(unusable(error.into())),
            }
        }
        let folder = folder.to_owned();
        Ok(Self { file, folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says who holds the folder, for those who wait for it.
    ///
    /// # Errors
    /// If it cannot be written. The folder is held all the same.
    pub fn describe(&mut self, holder: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(holder)
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Nobody is to be named who holds it no more. Where that fails, whoever reads it finds a
        // name that was true until now.
        let _ = self.file.set_len(0);
    }
}

/// What the process that holds a folder says of itself. Means nothing where nobody holds it, and is
/// empty where that process has not said it yet.
///
/// # Errors
/// If it cannot be read.
pub fn holder(folder: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(folder.join(FILE))?;
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
