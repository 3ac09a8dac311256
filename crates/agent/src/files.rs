//! The disk of an agent's host, as far as attempts' folders and the records of their ends go: few
//! operations, so that another disk can stand in for it, which loses power, tears and is full.

use std::{
    fmt::Debug,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use barecount_tree::{Amount, Aside, Linked, Measured, Stop};

/// What a disk has and has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What this user may still put there.
    pub left: Amount,
    /// All of it.
    pub total: Amount,
}

/// What is asked of a disk. Each call blocks.
///
/// What a call changed is seen by all that follow. Whether it is there after a loss of power is
/// another matter, and said of each.
pub trait Files: Send + Sync + Debug {
    /// Names the time since the host's last start. What was not durable may have been lost between
    /// two of them.
    ///
    /// # Errors
    /// Any error of the file system.
    fn boot(&self) -> io::Result<String>;

    /// Makes a folder and those above it. Their names are not durable.
    ///
    /// # Errors
    /// Any error of the file system.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Reads a whole file.
    ///
    /// # Errors
    /// Any error of the file system.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Writes a file anew. Nothing of it is durable.
    ///
    /// # Errors
    /// Any error of the file system.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// As [`write`](Self::write); what the file holds is durable, its name is not.
    ///
    /// # Errors
    /// Any error of the file system.
    fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file another name, in place of what had it. Neither is durable.
    ///
    /// # Errors
    /// Any error of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable, and their absence.
    ///
    /// # Errors
    /// Any error of the file system.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Whether there is such a file.
    fn is_file(&self, path: &Path) -> bool;

    /// Removes a file; it may come back after a loss of power.
    ///
    /// # Errors
    /// Any error of the file system.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it, whoever filled it and how; it may come back after a
    /// loss of power. Links are not followed. One that is not there is removed. Goes on until `stop`
    /// says otherwise.
    ///
    /// # Errors
    /// What could not be removed; all else is.
    fn remove_folder(&self, path: &Path, stop: Stop<'_>) -> io::Result<()>;

    /// Moves a folder that could not be removed out of the way, into a folder that keeps such, and
    /// says where it is now.
    ///
    /// # Errors
    /// Any error of the file system.
    fn set_aside(&self, path: &Path, aside: &Aside) -> io::Result<PathBuf>;

    /// The names in a folder.
    ///
    /// # Errors
    /// Any error of the file system.
    fn names(&self, path: &Path) -> io::Result<Vec<String>>;

    /// The room on the disk that has a folder, or what is to be there.
    ///
    /// # Errors
    /// Any error of the file system.
    fn room(&self, path: &Path) -> io::Result<Room>;

    /// What lies in a folder that somebody else may be filling; looks no further once it is more than
    /// `most`. One that is not there has nothing.
    ///
    /// # Errors
    /// Any error of the file system.
    fn measure(&self, path: &Path, linked: Linked, most: Amount) -> io::Result<Measured>;
}

/// The host's own files.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostFiles;

impl Files for HostFiles {
    fn boot(&self) -> io::Result<String> {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        std::fs::write(path, bytes)
    }

    fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path, stop: Stop<'_>) -> io::Result<()> {
        Ok(barecount_tree::remove(path, stop)?)
    }

    fn set_aside(&self, path: &Path, aside: &Aside) -> io::Result<PathBuf> {
        aside.take(path)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(path)?;
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        let found = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        // Some file systems have no number of files that would be the most.
        let files = |files: u64| match found.f_files {
            0 => u64::MAX,
            _ => files,
        };
        Ok(Room {
            left: Amount {
                bytes: bytes(found.f_bavail),
                files: files(found.f_favail),
            },
            total: Amount {
                bytes: bytes(found.f_blocks),
                files: files(found.f_files),
            },
        })
    }

    fn measure(&self, path: &Path, linked: Linked, most: Amount) -> io::Result<Measured> {
        barecount_tree::measure(path, linked, most)
    }
}
