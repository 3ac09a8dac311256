//! The lock of a state folder. One process at a time holds it, and says in it who it is.
//!
//! It is the kernel's lock (flock(2)) on the folder itself and on a file in it: it goes with the
//! process, however that ends, and the file that stays behind locks nothing. The file says who the
//! holder is. It may be removed, and a lock on it alone would then be no other process's any more; the
//! folder's own goes with nothing but the folder.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat},
    io::Errno,
};

use super::OpenError;

/// The file in a state folder.
const FILE: &str = "lock";
/// What a holder says of itself is short; more is not read.
const MAX_BYTES: u64 = 64 << 10;

/// A state folder that this process has to itself, until this is dropped or the process ends.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    /// None where the file system has no locks on folders.
    _opened: Option<File>,
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
        let refused = |errno| match errno {
            Errno::WOULDBLOCK => OpenError::Locked {
                path: folder.to_owned(),
            },
            errno => unusable(errno.into()),
        };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        loop {
            let opened = File::open(folder).map_err(unusable)?;
            let opened = match lock(&opened, how) {
                Ok(()) => Some(opened),
                Err(Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::OPNOTSUPP) => None,
                Err(errno) => return Err(refused(errno)),
            };
            let path = folder.join(FILE);
            let file = open(&path, OFlags::CREATE | OFlags::WRONLY).map_err(unusable)?;
            lock(&file, how).map_err(refused)?;
            // What was waited for may have been removed meanwhile, and be another's under its name.
            let is_there = opened.as_ref().is_none_or(|opened| is_at(opened, folder));
            if is_there && is_at(&file, &path) {
                return Ok(Self {
                    file,
                    _opened: opened,
                    folder: folder.to_owned(),
                });
            }
        }
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

/// Opens the file of a lock, and nothing else that somebody put in its place: a pipe would keep whoever
/// opens it waiting for the other end, and a link leads away.
fn open(path: &Path, how: OFlags) -> io::Result<File> {
    let is_none = |what: &str| {
        let message = format!("{} is {what} and no file; remove it", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    let flags = how | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = match rustix::fs::open(path, flags, mode) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(is_none("a link")),
        Err(Errno::ISDIR) => return Err(is_none("a folder")),
        // A pipe that nobody reads, a socket, a device that is not there.
        Err(Errno::NXIO) => return Err(is_none("a pipe, a socket or a device")),
        Err(errno) => return Err(errno.into()),
    };
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(is_none("a folder")),
        _ => Err(is_none("a pipe, a socket or a device")),
    }
}

fn lock(file: &File, how: FlockOperation) -> Result<(), Errno> {
    loop {
        match flock(file, how) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Whether a path still leads to what was opened there.
fn is_at(opened: &File, path: &Path) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    match (opened.metadata(), std::fs::metadata(path)) {
        (Ok(opened), Ok(found)) => identity(opened) == identity(found),
        _ => false,
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
    let file = open(&folder.join(FILE), OFlags::RDONLY)?;
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn is_taken(folder: &Path) -> bool {
        matches!(FolderLock::take(folder), Err(OpenError::Locked { .. }))
    }

    /// A child that another test has just forked holds the lock, too, until it executes.
    fn taken_soon(folder: &Path) -> Result<FolderLock, OpenError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match FolderLock::take(folder) {
                Err(OpenError::Locked { .. }) if Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                taken => return taken,
            }
        }
    }

    /// Returns once the folder is open twice: by who holds it and by who waits for it.
    fn until_awaited<T>(folder: &Path, waits: &std::thread::JoinHandle<T>) -> TestResult {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let opened = std::fs::read_dir("/proc/self/fd")?
                .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
                .filter(|opened| opened == folder);
            if opened.count() >= 2 {
                return Ok(());
            }
            if waits.is_finished() || Instant::now() > deadline {
                return Err("nobody waits for the folder".into());
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_folder_is_held_whoever_removes_or_replaces_its_lock_file() -> TestResult {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(FILE);
        let removed: [fn(&Path) -> io::Result<()>; 3] = [
            |file| std::fs::remove_file(file),
            |file| std::fs::rename(file, file.with_extension("old")),
            |file| {
                std::fs::write(file.with_extension("new"), "")
                    .and_then(|()| std::fs::rename(file.with_extension("new"), file))
            },
        ];
        for remove in removed {
            let held = taken_soon(folder.path())?;
            remove(&file)?;
            assert!(is_taken(folder.path()), "by two at once");
            drop(held);
            drop(taken_soon(folder.path())?);
        }
        Ok(())
    }

    /// Returns what a piece of work comes to that must not wait; one that waits is a failure, and is
    /// left where it is.
    fn at_once<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Box<dyn std::error::Error>> {
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(work()));
        Ok(heard.recv_timeout(Duration::from_secs(30))?)
    }

    /// Makes something at a path.
    type Make<'m> = &'m dyn Fn(&Path) -> io::Result<()>;

    #[test]
    fn what_is_no_file_in_the_place_of_the_lock_is_told_and_keeps_nobody_waiting() -> TestResult {
        use std::os::unix::{fs::symlink, net::UnixListener};
        let place = tempfile::tempdir()?;
        let elsewhere = place.path().join("elsewhere");
        let other = "a pipe, a socket or a device";
        let kinds: [(&str, Make<'_>); 6] = [
            (other, &|path| {
                let mode = Mode::RUSR | Mode::WUSR;
                Ok(rustix::fs::mknodat(
                    rustix::fs::CWD,
                    path,
                    FileType::Fifo,
                    mode,
                    0,
                )?)
            }),
            (other, &|path| UnixListener::bind(path).map(drop)),
            ("a folder", &|path| std::fs::create_dir(path)),
            ("a link", &|path| symlink(&elsewhere, path)),
            ("a link", &|path| symlink("/dev/zero", path)),
            ("a link", &|path| symlink(place.path(), path)),
        ];
        for (number, (kind, make)) in kinds.iter().enumerate() {
            let folder = place.path().join(number.to_string());
            std::fs::create_dir(&folder)?;
            let path = folder.join(FILE);
            make(&path)?;
            let named = format!("{} is {kind} and no file; remove it", path.display());
            for waits in [false, true] {
                let folder = folder.clone();
                let taken = at_once(move || match waits {
                    true => FolderLock::wait(&folder),
                    false => FolderLock::take(&folder),
                })?;
                let Err(OpenError::Folder { source, .. }) = taken else {
                    return Err(format!("{kind}: {taken:?}").into());
                };
                assert_eq!(source.to_string(), named);
            }
            let said = at_once(move || holder(&folder))?;
            assert!(said.is_err(), "{kind}: {said:?}");
        }
        assert!(!elsewhere.exists(), "something was made where a link leads");
        Ok(())
    }

    #[test]
    fn who_waits_for_a_lock_that_is_replaced_meanwhile_does_not_have_the_replaced_one() -> TestResult
    {
        let place = tempfile::tempdir()?;
        let folder = place.path().canonicalize()?.join("state");
        let held = taken_soon(&folder)?;
        let waits = {
            let folder = folder.clone();
            std::thread::spawn(move || FolderLock::wait(&folder))
        };
        until_awaited(&folder, &waits)?;
        // The whole folder is another one now, which somebody has already.
        std::fs::rename(&folder, place.path().join("before"))?;
        let other = taken_soon(&folder)?;
        drop(held);
        drop(other);
        let held = waits.join().map_err(|_| "it panicked")??;
        std::fs::remove_file(folder.join(FILE))?;
        assert!(is_taken(&folder), "what is held is another folder");
        drop(held);
        Ok(())
    }
}
