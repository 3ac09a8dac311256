//! `/dev`: a few devices, and links.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::root::{memory_file_system_with, move_to};
use crate::sys::{attr, mount_setattr};

/// What a payload may see of devices, with their numbers (`Documentation/admin-guide/devices.txt`).
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Links in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// What else is mounted there.
const FOLDERS: [&str; 2] = ["shm", "pts"];

/// A `/dev` with nodes of its own, by which nobody meets anybody who has the same devices open;
/// `None` where nodes cannot be made that work: they are root's to make, in the user namespace that a
/// host begins with.
pub(super) fn make() -> Option<OwnedFd> {
    // A mask of the launcher's would narrow what is asked for.
    let mask = rustix::process::umask(Mode::empty());
    let made = nodes();
    rustix::process::umask(mask);
    made.ok()
}

fn nodes() -> rustix::io::Result<OwnedFd> {
    let folder = memory_file_system_with(
        "size=64k,nr_inodes=64,mode=755",
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?;
    for (name, major, minor) in DEVICES {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from(0o666);
        rustix::fs::mknodat(&folder, name, FileType::CharacterDevice, mode, device)?;
    }
    // A namespace may make nodes that cannot be opened.
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&folder, "null", flags, Mode::empty())?;
    furnish(&folder)?;
    Ok(folder)
}

/// Adds what is no device.
fn furnish(dev: &OwnedFd) -> rustix::io::Result<()> {
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name)?;
    }
    for name in FOLDERS {
        rustix::fs::mkdirat(dev, name, Mode::from(0o755))?;
    }
    Ok(())
}

/// Puts the host's own devices into an empty folder, and what is no device beside them.
pub(super) fn bind_host(dev: &OwnedFd) -> rustix::io::Result<()> {
    for (name, ..) in DEVICES {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let device = rustix::mount::open_tree(CWD, Path::new("/dev").join(name), flags)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(dev, name, flags, Mode::from(0o666))?);
        move_to(device.as_fd(), dev.as_fd(), name)?;
    }
    furnish(dev)
}

/// Mounts shared memory, and pseudo-terminals of the sandbox's own, of which it has so many at most.
pub(super) fn add_file_systems(
    dev: &OwnedFd,
    shm: &OwnedFd,
    terminals: u64,
) -> rustix::io::Result<()> {
    move_to(shm.as_fd(), dev.as_fd(), "shm")?;
    let context = rustix::mount::fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let max = terminals.to_string();
    for (key, value) in [("ptmxmode", "0666"), ("mode", "0620"), ("max", &max)] {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let pts = rustix::mount::fsmount(context.as_fd(), flags, attributes)?;
    move_to(pts.as_fd(), dev.as_fd(), "pts")
}

/// Closes a `/dev` that is a mount of its own against writing.
pub(super) fn seal(dev: &OwnedFd) -> rustix::io::Result<()> {
    mount_setattr(dev.as_fd(), attr::READ_ONLY | attr::NO_SUID, false)
}

/// A detached copy of the null device of an attached `/dev`.
pub(super) fn null(dev: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(dev.as_fd(), "null", flags)
}

/// The sandbox's own null device, in place of a stream that is the host's.
pub(super) fn own_null(stream: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
    let found = rustix::fs::fstat(stream)?;
    let (_, major, minor) = DEVICES[0];
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice
        || found.st_rdev != rustix::fs::makedev(major, minor)
    {
        return Ok(None);
    }
    let access = rustix::fs::fcntl_getfl(stream)? & OFlags::ACCMODE;
    let flags = access | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty()).map(Some)
}
