//! From one folder to the next.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

pub(crate) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Opened to be named, not to be read: this asks for no permission on the folder itself.
pub(crate) const NAMED: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Which folder it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(folder: BorrowedFd<'_>) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(folder)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}

/// Opens what is called `name` in a folder, if that is a folder of the same mount.
///
/// # Errors
/// `ELOOP` and `ENOTDIR` for anything else, `EXDEV` for a mount.
pub(crate) fn beneath(
    folder: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(folder, name, flags, Mode::empty(), how) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// As [`beneath`], of a folder that is to be emptied: its owner may read and change it afterwards.
///
/// # Errors
/// As [`beneath`], and `EACCES` for what is another's.
pub(crate) fn to_be_emptied(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let opened = match beneath(folder, name, FOLDER) {
        Err(Errno::ACCESS) => {
            let named = beneath(folder, name, NAMED)?;
            mend(named.as_fd())?;
            rustix::fs::openat(&named, c".", FOLDER, Mode::empty())?
        }
        opened => opened?,
    };
    allow(opened.as_fd())?;
    Ok(opened)
}

/// Lets the owner of a folder change it. That of another stays as it is: whether its entries may be
/// removed is told by removing them.
///
/// # Errors
/// If it cannot be looked at.
pub(crate) fn allow(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(folder)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        match rustix::fs::fchmod(folder, Mode::RWXU) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The same of a folder that may not even be opened. Its descriptor is named by way of `/proc`, so
/// that it is this folder whatever became of its name: what changes modes takes no such descriptor
/// before Linux 6.6.
fn mend(named: BorrowedFd<'_>) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", named.as_raw_fd());
    match rustix::fs::chmod(path, Mode::RWXU) {
        Err(Errno::PERM) => Err(Errno::ACCESS),
        other => other,
    }
}

/// Gives the owner of the folder at a path back the right to change and to move it. A link there is
/// not followed.
///
/// # Errors
/// If there is no folder, or it is another's.
pub fn mend_at(path: &Path) -> io::Result<()> {
    let named = rustix::fs::open(path, NAMED, Mode::empty())?;
    Ok(mend(named.as_fd())?)
}

/// The folder above, if it is the one that is expected there.
///
/// # Errors
/// `ESTALE` if it is another one.
pub(crate) fn above(folder: BorrowedFd<'_>, expected: Identity) -> Result<OwnedFd, Errno> {
    let parent = beneath(folder, c"..", FOLDER)?;
    match Identity::of(parent.as_fd())? {
        found if found == expected => Ok(parent),
        _ => Err(Errno::STALE),
    }
}

/// Opens a file for reading, where that is a file: a pipe would wait for whoever writes to it, and a
/// device may never end. A link to a file is followed.
///
/// # Errors
/// Any error of the file system; [`io::ErrorKind::InvalidInput`] of what is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )),
    }
}
