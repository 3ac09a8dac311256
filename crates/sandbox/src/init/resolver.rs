//! What tells programs inside where to ask for addresses: generated, over whatever an image has.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{OpenTreeFlags, UnmountFlags};

use super::root::{attach_at_root, memory_file_system};
use crate::network::{Brokered, Network};
use crate::spec::Spec;
use crate::sys::{attr, mount_setattr};

/// Names that need no name server. Nothing of the host, nor the sandbox's own name, is in it.
pub(super) const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// A file that is generated.
pub(super) struct Generated {
    /// Where it appears, absolute.
    pub(super) path: &'static str,
    pub(super) text: String,
}

/// The files of a specification; none where there is no name server.
pub(super) fn generated(spec: &Spec) -> Vec<Generated> {
    match spec.network {
        Network::Loopback => Vec::new(),
        Network::Brokered(_) => vec![
            Generated {
                path: "/etc/hosts",
                text: HOSTS.to_owned(),
            },
            Generated {
                path: "/etc/resolv.conf",
                // Answers come from the same machine, or not at all: a short time-out, tried again
                // for the case that it is busy.
                text: format!(
                    "nameserver {}\noptions edns0 timeout:2 attempts:3\n",
                    Brokered::NAME_SERVER_V4
                ),
            },
        ],
    }
}

/// The files as detached mounts, in the same order.
pub(super) fn detached(files: &[Generated]) -> rustix::io::Result<Vec<OwnedFd>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let folder = memory_file_system("size=64k,nr_inodes=8,mode=755")?;
    // Older kernels copy only what is attached.
    attach_at_root(folder.as_fd())?;
    let copies = files.iter().map(|file| {
        let name = Path::new(file.path).file_name().unwrap_or_default();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let written = rustix::fs::openat(&folder, name, flags, Mode::from(0o644))?;
        rustix::io::write(written, file.text.as_bytes())?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let copy = rustix::mount::open_tree(folder.as_fd(), name, flags)?;
        let attributes = attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV | attr::NO_EXEC;
        mount_setattr(copy.as_fd(), attributes, false)?;
        Ok(copy)
    });
    let copies = copies.collect();
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    rustix::mount::unmount(path, UnmountFlags::DETACH)?;
    copies
}
