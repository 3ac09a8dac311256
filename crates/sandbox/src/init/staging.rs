//! Overlays: inodes of a sandbox's own for what others see as well.
//!
//! Locks, leases and watches are kept with an inode. Two sandboxes that have one file of the host
//! bound could tell each other things by them, and notice each other's use of it. Under a read-only
//! overlay each sandbox has inodes of its own, while the pages of files are those of the layer below,
//! in memory once.
//!
//! A layer is named by a path, and older kernels take and copy only what is attached somewhere. So
//! layers are attached for that long, in a folder in memory over the old root.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::{Errno, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, UnmountFlags};

use super::root::{attach_at_root, memory_file_system, move_to};

/// An empty folder, since two layers are the least that an overlay takes without an upper one.
const EMPTY: &str = "empty";

/// Where layers are attached while overlays are made of them. Goes, with all that is attached there,
/// by [`Staging::close`].
pub(super) struct Staging {
    folder: OwnedFd,
    next: u32,
}

/// What was made of a layer.
pub(super) struct Made {
    /// Detached, in the order asked for.
    pub(super) pieces: Vec<OwnedFd>,
    /// Why they have the inodes of the layer, if they do.
    pub(super) refused: Option<Errno>,
}

impl Staging {
    pub(super) fn open() -> Result<Self> {
        let folder = memory_file_system("size=1m,nr_inodes=2k,mode=755")?;
        attach_at_root(folder.as_fd())?;
        rustix::fs::mkdirat(&folder, EMPTY, Mode::from(0o755))?;
        Ok(Self { folder, next: 0 })
    }

    /// A new folder, and its name.
    pub(super) fn make_folder(&mut self) -> Result<String> {
        let name = self.next.to_string();
        self.next += 1;
        rustix::fs::mkdirat(&self.folder, &name, Mode::from(0o755))?;
        Ok(name)
    }

    /// Where a name in it is, by a path.
    fn path_of(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd())
    }

    /// Opens a folder in it.
    pub(super) fn open_folder(&self, name: &str) -> Result<OwnedFd> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, name, flags, Mode::empty())
    }

    /// Attaches a layer, and returns its name here.
    pub(super) fn attach(&mut self, layer: &OwnedFd) -> Result<String> {
        let name = self.make_folder()?;
        move_to(layer.as_fd(), self.folder.as_fd(), &name)?;
        Ok(name)
    }

    /// An overlay of folders in here, the upper one first: detached, never written.
    pub(super) fn overlay(&self, layers: [&str; 2], attributes: u64) -> Result<OwnedFd> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let layers = layers.map(|name| self.path_of(name)).join(":");
        rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir", layers)?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        // The two are one set of numbers.
        let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// Lays a layer under an overlay, and takes pieces of that: by their paths in it, or all of it by
    /// an empty one. Where this kernel or that file system makes no overlay, the pieces are the
    /// layer's own.
    pub(super) fn take(
        &mut self,
        layer: &OwnedFd,
        attributes: u64,
        pieces: &[&Path],
    ) -> Result<Made> {
        let name = self.attach(layer)?;
        let overlay = match self.overlay([EMPTY, &name], attributes) {
            Ok(overlay) => overlay,
            Err(errno) if is_refusal(errno) => {
                let pieces = pieces.iter().map(|piece| clone(layer, piece));
                return Ok(Made {
                    pieces: pieces.collect::<Result<_>>()?,
                    refused: Some(errno),
                });
            }
            Err(errno) => return Err(errno),
        };
        let pieces = if pieces == [Path::new("")] {
            vec![overlay]
        } else {
            move_to(overlay.as_fd(), self.folder.as_fd(), &name)?;
            let pieces = pieces.iter().map(|piece| clone(&overlay, piece));
            pieces.collect::<Result<_>>()?
        };
        Ok(Made {
            pieces,
            refused: None,
        })
    }

    /// All of an attached layer, as it is.
    pub(super) fn clone_of(&self, layer: &OwnedFd) -> Result<OwnedFd> {
        clone(layer, Path::new(""))
    }

    /// Detaches everything from the old root: what lay under the new one would come to lie over it
    /// when roots change. Overlays hold their layers by themselves.
    pub(super) fn close(self) -> Result<()> {
        let path = format!("/proc/self/fd/{}", self.folder.as_raw_fd());
        rustix::mount::unmount(path, UnmountFlags::DETACH)
    }
}

/// Whether it says that there is no such overlay to be had, and not that something ran out: no module,
/// a kernel before 5.11, a file system that is no layer or too deep a stack of them, mounts below
/// that others made.
pub(super) fn is_refusal(errno: Errno) -> bool {
    [
        Errno::NODEV,
        Errno::PERM,
        Errno::ACCESS,
        Errno::INVAL,
        Errno::LOOP,
        Errno::OPNOTSUPP,
    ]
    .contains(&errno)
}

/// A detached copy of what is at a path in an attached mount, and below.
fn clone(mount: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(mount.as_fd(), path, flags)
}
