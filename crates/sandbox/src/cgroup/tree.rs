//! Control groups of version 2 as the files that they are: all that the choice of a place for ours
//! reads and changes, so that it can be tried without a host of each kind.

use std::io;
use std::path::Path;

use rustix::io::Errno;

/// A hierarchy of version 2, as cgroups(7) and the kernel's `cgroup-v2.rst` have it.
pub(super) trait Tree {
    /// What a file of a group says.
    fn read(&self, group: &Path, file: &str) -> io::Result<String>;

    /// Writes a file of a group in one call.
    fn write(&self, group: &Path, file: &str, text: &str) -> io::Result<()>;

    /// Makes an empty group; one that is there already is no error.
    fn make(&self, group: &Path) -> io::Result<()>;

    /// Removes a group without processes and groups in it.
    fn remove(&self, group: &Path) -> io::Result<()>;

    /// Names of the groups directly in a group.
    fn children(&self, group: &Path) -> io::Result<Vec<String>>;

    /// The user to whom a group belongs.
    fn owner(&self, group: &Path) -> io::Result<u32>;

    /// Whether systemd says that it has delegated a group (`CGROUP_DELEGATION.md`): the attribute
    /// `trusted.delegate`, which root alone reads, or `user.delegate`, is 1.
    fn is_delegated(&self, group: &Path) -> bool;

    /// Whether a launcher that lives owns the directory of one.
    fn is_alive(&self, directory: &Path) -> bool;
}

/// The hierarchy that the kernel has mounted.
pub(super) struct Mounted;

impl Tree for Mounted {
    fn read(&self, group: &Path, file: &str) -> io::Result<String> {
        std::fs::read_to_string(group.join(file))
    }

    fn write(&self, group: &Path, file: &str, text: &str) -> io::Result<()> {
        // Not created where it is missing, as `fs::write` would try.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .open(group.join(file))?;
        io::Write::write_all(&mut file, text.as_bytes())
    }

    fn make(&self, group: &Path) -> io::Result<()> {
        match std::fs::create_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn remove(&self, group: &Path) -> io::Result<()> {
        std::fs::remove_dir(group)
    }

    fn children(&self, group: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(group)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn owner(&self, group: &Path) -> io::Result<u32> {
        Ok(rustix::fs::stat(group)?.st_uid)
    }

    fn is_delegated(&self, group: &Path) -> bool {
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0; 8];
            let read = rustix::fs::getxattr(group, *name, &mut value[..]);
            read.is_ok_and(|bytes| &value[..bytes] == b"1")
        })
    }

    fn is_alive(&self, directory: &Path) -> bool {
        let locked = super::open_directory(directory).and_then(|directory| {
            rustix::fs::flock(
                &directory,
                rustix::fs::FlockOperation::NonBlockingLockExclusive,
            )
        });
        locked == Err(Errno::AGAIN)
    }
}
