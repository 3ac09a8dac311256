//! Secrets as files in memory, for the time of an attempt.

mod memory;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use barecount_model::text::Name;
use barecount_sandbox::PinnedFile;
use rustix::fs::{AtFlags, Mode, OFlags};

pub use memory::MemoryFolder;

use crate::secret::Secret;

/// The permissions of a mounted secret. Everybody reads it who is shown it: work in a sandbox has
/// an identity of its own. What keeps all others out is the folder above, which is its owner's alone.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::RGRP).union(Mode::ROTH);

/// Secrets that cannot be mounted, or not be removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The folder is on a disk, where deleted bytes stay.
    #[error("{} is not on a file system in memory (its type is {magic:#x})", path.display())]
    NotInMemory {
        /// The folder.
        path: PathBuf,
        /// What statfs(2) says.
        magic: u64,
    },
    /// The folder is somebody else's, or no folder at all.
    #[error("{} was not made by this user", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// Others than the owner may use the folder.
    #[error("{} has mode {mode:04o}, so that others than its owner can use it", path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Two secrets are to have the same file.
    #[error("two secrets are to be mounted as `{name}`")]
    Duplicate {
        /// The file's name.
        name: Name,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotInMemory { .. } => {
                Some("Mount a tmpfs there, or use a folder under `/dev/shm`.".to_owned())
            }
            Self::Foreign { path } => Some(format!(
                "Remove {}, and find out who made it.",
                path.display()
            )),
            Self::Exposed { path, .. } => Some(format!("Run `chmod 700 {}`.", path.display())),
            Self::Duplicate { .. } => Some("Give each secret a name of its own.".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// Secrets in files, overwritten with zeros and removed when this is removed or dropped.
///
/// A process that is killed leaves them until [`MemoryFolder::sweep`] or the end of the memory file
/// system. The pages of each file are locked, so that they are not swapped, as far as the host lets
/// the process lock memory ([`unlocked_bytes`](barecount_sandbox::unlocked_bytes)). Each file is held
/// open for writing, so that it can be overwritten wherever it was moved; bind mounts of the folder can
/// be read-only all the same.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    directory: File,
    files: Vec<MountedFile>,
}

#[derive(Debug)]
struct MountedFile {
    name: Name,
    file: File,
    length: usize,
    /// Keeps its pages from being swapped.
    pinned: Option<PinnedFile>,
}

impl Mounted {
    /// The names of the files.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.files.iter().map(|file| &file.name)
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn add(&mut self, name: &Name, secret: &Secret) -> Result<(), MountError> {
        let path = self.folder.join(name.as_str());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name.as_str(), flags, FILE_MODE);
        let file = File::from(file.map_err(io_at("make", &path))?);
        // Kept before it is filled: whatever fails from here on, it is removed again.
        self.files.push(MountedFile {
            name: name.clone(),
            file,
            length: secret.len(),
            pinned: None,
        });
        let last = self.files.len() - 1;
        let MountedFile { file, pinned, .. } = &mut self.files[last];
        // The process's umask may have taken permissions away.
        rustix::fs::fchmod(&*file, FILE_MODE).map_err(io_at("protect", &path))?;
        // Before it is filled: no page of it is ever one that could be swapped.
        file.set_len(secret.len() as u64)
            .map_err(io_at("make room in", &path))?;
        *pinned = Some(PinnedFile::new(file, secret.len()).map_err(io_at("lock", &path))?);
        file.write_all_at(secret.expose(), 0)
            .map_err(io_at("write", &path))
    }

    /// Overwrites every secret with zeros and removes its file, and then the folder with whatever
    /// else was put there. Goes on after a failure, and reports the first; what failed is tried
    /// again when this is dropped.
    ///
    /// # Errors
    /// [`MountError::Io`].
    pub fn remove(mut self) -> Result<(), MountError> {
        self.clear()
    }

    fn clear(&mut self) -> Result<(), MountError> {
        let mut first = Ok(());
        let (folder, directory) = (&self.folder, &self.directory);
        self.files.retain(|mounted| {
            let cleared = mounted.clear(folder, directory);
            let kept = cleared.is_err();
            if first.is_ok() {
                first = cleared;
            }
            kept
        });
        let removed = barecount_tree::remove(folder, &barecount_tree::to_the_end)
            .map_err(io_at("remove", folder));
        first.and(removed)
    }
}

impl MountedFile {
    fn clear(&self, folder: &Path, directory: &File) -> Result<(), MountError> {
        let path = folder.join(self.name.as_str());
        let zeros = vec![0; self.length];
        self.file
            .write_all_at(&zeros, 0)
            .map_err(io_at("overwrite", &path))?;
        self.file.set_len(0).map_err(io_at("empty", &path))?;
        match rustix::fs::unlinkat(directory, self.name.as_str(), AtFlags::empty()) {
            // Somebody else removed or moved it; it is empty wherever it is.
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(io_at("remove", &path)(error)),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nobody is left to be told; `remove` tells.
        let _ = self.clear();
    }
}

fn io_at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> MountError {
    let path = path.to_owned();
    move |source| MountError::Io {
        action,
        path,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests;
