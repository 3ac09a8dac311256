//! What of the host goes into a sandbox, opened by who may.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::devices;
use super::host::HostSystem;
use super::root::file_type;
use crate::error::{Failure, InStep, Step};
use crate::spec::{Mount, Root, Spec};
use crate::sys::{attr, mount_setattr};

/// Attributes of what is not to be written.
pub(super) const SEALED: u64 = attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV;

/// The last part of a path may be no link, which somebody may have put there in the meantime.
const NO_LINK: OpenTreeFlags = OpenTreeFlags::AT_SYMLINK_NOFOLLOW;

/// Detached copies of the mounts that go into a sandbox.
pub(crate) struct Sources {
    /// A `/dev` with nodes of the sandbox's own, where they could be made.
    pub(super) devices: Option<OwnedFd>,
    /// The image, for a root that is a directory.
    pub(super) image: Option<OwnedFd>,
    /// The folders that system directories are in, in the order of [`HostSystem::layers`].
    pub(super) layers: Vec<OwnedFd>,
    /// The system's binds that are in no layer, in their order.
    pub(super) system: Vec<OwnedFd>,
    /// In the order of the specification's mounts; `None` for those that are no bind.
    pub(super) mounts: Vec<Option<Source>>,
}

/// A source of a mount.
pub(super) struct Source {
    /// The source; of one that is [`Kind::FileIn`] a folder, the folder.
    pub(super) tree: OwnedFd,
    pub(super) kind: Kind,
    pub(super) attributes: u64,
    pub(super) path: PathBuf,
}

/// How a source appears inside.
pub(super) enum Kind {
    /// It is bound: writable, or seen as it changes.
    Bound,
    /// It is bound though it should not be, for this reason.
    Exposed(&'static str),
    /// Nothing of it changes: a folder, to be laid under an overlay.
    Folder,
    /// A file of this name in a folder.
    FileIn(OsString),
}

impl Source {
    /// Whether it is a directory that appears inside.
    pub(super) fn is_directory(&self) -> rustix::io::Result<bool> {
        match self.kind {
            Kind::FileIn(_) => Ok(false),
            _ => Ok(file_type(self.tree.as_fd())? == FileType::Directory),
        }
    }
}

impl Sources {
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let mounts = self.mounts.iter().flatten().map(|source| &source.tree);
        self.devices
            .iter()
            .chain(&self.image)
            .chain(&self.layers)
            .chain(&self.system)
            .chain(mounts)
            .map(AsRawFd::as_raw_fd)
    }
}

/// Opens everything that goes in. Needs the right to mount in the mount namespace it runs in; by
/// `privileged`, devices are made as well.
pub(crate) fn open_sources(
    spec: &Spec,
    host: &HostSystem,
    privileged: bool,
) -> Result<Sources, Failure> {
    let image = match &spec.root {
        Root::Directory(path) => Some(layer(path, SEALED, NO_LINK)?),
        Root::HostSystem | Root::Empty => None,
    };
    let (mut layers, mut system) = (Vec::new(), Vec::new());
    if spec.root == Root::HostSystem {
        for path in &host.layers {
            layers.push(layer(path, SEALED, NO_LINK)?);
        }
        for bind in host.binds.iter().filter(|bind| bind.layer.is_none()) {
            system.push(copy_tree(&bind.path, SEALED)?);
        }
    }
    let mounts = spec.mounts.iter().map(|mount| match mount {
        Mount::Bind { .. } => open_source(mount, privileged).map(Some),
        Mount::Tmpfs { .. } => Ok(None),
    });
    Ok(Sources {
        devices: if privileged { devices::make() } else { None },
        image,
        layers,
        system,
        mounts: mounts.collect::<Result<_, _>>()?,
    })
}

fn open_source(mount: &Mount, privileged: bool) -> Result<Source, Failure> {
    let Mount::Bind {
        source: path,
        read_only,
        executable,
        changes,
        ..
    } = mount
    else {
        return Err(Failure::new(Step::OpenSource, Errno::INVAL));
    };
    let mut attributes = attr::NO_SUID | attr::NO_DEV;
    attributes |= if *read_only { attr::READ_ONLY } else { 0 };
    attributes |= if *executable { 0 } else { attr::NO_EXEC };
    let source = |tree, kind| Source {
        tree,
        kind,
        attributes,
        path: path.clone(),
    };
    if !read_only || *changes {
        return Ok(source(copy_tree(path, attributes)?, Kind::Bound));
    }
    let tree = layer(path, attributes, NO_LINK)?;
    if file_type(tree.as_fd()).step_at(Step::OpenSource, path)? == FileType::Directory {
        return Ok(source(tree, Kind::Folder));
    }
    // Folders alone can be laid under an overlay. It shows no more of this one than the file.
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::at(Step::OpenSource, path, Errno::INVAL));
    };
    // Wherever that is by now: it is the file in it that has to be the same.
    let folder = layer(folder, attributes, OpenTreeFlags::empty())?;
    let look = || {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let there = rustix::fs::statat(&folder, name, flags)?;
        let same = rustix::fs::fstat(&tree)?;
        let found = rustix::fs::fstat(&folder)?;
        Ok((
            found,
            (there.st_dev, there.st_ino) == (same.st_dev, same.st_ino),
        ))
    };
    let (found, same) = look().step_at(Step::OpenSource, path)?;
    if !same {
        return Ok(source(tree, Kind::Exposed("it is mounted itself")));
    }
    // By whoever opened it, any folder can be passed; by the payload's identity, under which the
    // overlay is made, those that are open to all.
    if privileged && found.st_mode & 0o001 == 0 {
        return Ok(source(tree, Kind::Exposed("its folder is not open to all")));
    }
    Ok(source(folder, Kind::FileIn(name.to_owned())))
}

/// A detached copy of what is mounted at a path, to be laid under an overlay, without what is mounted
/// below, which no overlay shows.
fn layer(path: &Path, attributes: u64, links: OpenTreeFlags) -> Result<OwnedFd, Failure> {
    match copy(path, attributes, links) {
        // Who did not mount what is below cannot leave it out.
        Err(failure) if failure.errno == Errno::INVAL.raw_os_error() => {
            copy(path, attributes, links | OpenTreeFlags::AT_RECURSIVE)
        }
        other => other,
    }
}

/// A detached copy of what is mounted at a path and below.
fn copy_tree(path: &Path, attributes: u64) -> Result<OwnedFd, Failure> {
    copy(path, attributes, NO_LINK | OpenTreeFlags::AT_RECURSIVE)
}

fn copy(path: &Path, attributes: u64, how: OpenTreeFlags) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | how;
    let tree = rustix::mount::open_tree(CWD, path, flags).step_at(Step::OpenSource, path)?;
    if file_type(tree.as_fd()).step_at(Step::OpenSource, path)? == FileType::Symlink {
        return Err(Failure::at(Step::OpenSource, path, Errno::LOOP));
    }
    mount_setattr(tree.as_fd(), attributes, true).step_at(Step::OpenSource, path)?;
    Ok(tree)
}
