//! The root file system of a sandbox: built beside the old one with the mount interface of file
//! descriptors, then put in its place.
//!
//! Nothing is looked up by a path that could lead outside: sources are opened once, targets are
//! resolved inside the new root (`openat2` with `RESOLVE_IN_ROOT`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::devices;
use super::host::{HostSystem, SystemBind};
use super::inside::make_inside;
use super::pieces::Pieces;
use super::resolver::{self, Generated};
use super::sources::{SEALED, Sources};
use crate::error::{Failure, InStep, Step};
use crate::report::Exposed;
use crate::spec::{Identity, Mount, Root, Spec};
use crate::sys::{attr, mount_setattr};

/// Builds the root of a specification, makes it the root of this process, and says what in it has the
/// inodes of the host.
pub(crate) fn enter(spec: &Spec, host: &HostSystem, sources: &Sources) -> Result<Exposed, Failure> {
    let generated = resolver::generated(spec);
    let pieces = Pieces::make(spec, host, sources, &generated)?;
    let fresh = pieces.image.is_none();
    let root = match pieces.image {
        Some(image) => image,
        None => memory_file_system("size=1m,nr_inodes=2k,mode=755").step(Step::MakeRoot)?,
    };
    attach_at_root(root.as_fd()).step(Step::MakeRoot)?;
    let root = NewRoot { fd: root, fresh };
    if spec.root == Root::HostSystem {
        root.add_host_system(host, &pieces.system, spec.identity)?;
    }
    let dev = root.add_devices(spec, host, sources.devices.as_ref())?;
    root.add_proc(host, &dev)?;
    let tmp = format!("size={},mode=1777", spec.limits.tmp_size());
    root.add_memory("tmp", &tmp).step_at(Step::Mount, "/tmp")?;
    root.add_generated(&generated)?;
    for (mount, source) in spec.mounts.iter().zip(&pieces.mounts) {
        root.add(mount, source.as_ref())
            .step_at(Step::Mount, mount.target())?;
    }
    mount_setattr(root.fd.as_fd(), SEALED, false).step(Step::MakeRoot)?;
    root.take_place().step(Step::PivotRoot)?;
    Ok(pieces.exposed)
}

/// Attaches a mount over the old root: it is there for whoever holds its descriptor, and needs no
/// directory of the host.
pub(super) fn attach_at_root(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", CWD, "/", flags)
}

/// A new, detached file system in memory.
pub(super) fn memory_file_system(options: &str) -> rustix::io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    memory_file_system_with(options, attributes)
}

/// The same with attributes of the caller's choice.
pub(super) fn memory_file_system_with(
    options: &str,
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options
        .split(',')
        .filter_map(|option| option.split_once('='))
    {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

pub(super) fn file_type(fd: BorrowedFd<'_>) -> rustix::io::Result<FileType> {
    rustix::fs::fstat(fd).map(|found| FileType::from_raw_mode(found.st_mode))
}

/// Puts a mount on an opened place.
fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", place, "", flags)
}

struct NewRoot {
    fd: OwnedFd,
    /// Whether it was empty when we began, so that no link can be in it.
    fresh: bool,
}

impl NewRoot {
    fn add(&self, mount: &Mount, source: Option<&OwnedFd>) -> rustix::io::Result<()> {
        match (mount, source) {
            (Mount::Tmpfs { target, size_bytes }, _) => {
                let options = format!("size={size_bytes},mode=755");
                let made = memory_file_system(&options)?;
                attach(
                    made.as_fd(),
                    make_inside(self.fd.as_fd(), target, true)?.as_fd(),
                )
            }
            (Mount::Bind { target, .. }, Some(source)) => {
                let directory = file_type(source.as_fd())? == FileType::Directory;
                let place = make_inside(self.fd.as_fd(), target, directory)?;
                attach(source.as_fd(), place.as_fd())
            }
            (Mount::Bind { .. }, None) => Err(Errno::BADF),
        }
    }

    fn add_memory(&self, name: &str, options: &str) -> rustix::io::Result<()> {
        self.put(memory_file_system(options)?.as_fd(), name)
    }

    /// Puts a mount on a directory of the top, made if it is missing.
    fn put(&self, mount: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
        if self.fresh {
            rustix::fs::mkdirat(&self.fd, name, Mode::from(0o755))?;
            move_to(mount, self.fd.as_fd(), name)
        } else {
            attach(
                mount,
                make_inside(self.fd.as_fd(), Path::new(name), true)?.as_fd(),
            )
        }
    }

    fn add_host_system(
        &self,
        host: &HostSystem,
        system: &[OwnedFd],
        identity: Identity,
    ) -> Result<(), Failure> {
        for (name, target) in &host.links {
            rustix::fs::symlinkat(target, &self.fd, *name).step_at(Step::MakeRoot, *name)?;
        }
        rustix::fs::mkdirat(&self.fd, "etc", Mode::from(0o755)).step_at(Step::MakeRoot, "/etc")?;
        let Identity { uid, gid, .. } = identity;
        let files = [
            (
                "etc/passwd",
                format!(
                    "root:x:0:0:root:/:/sbin/nologin\n\
                     sandbox:x:{uid}:{gid}:sandbox:/tmp:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/:/sbin/nologin\n"
                ),
            ),
            (
                "etc/group",
                format!("root:x:0:\nsandbox:x:{gid}:\nnogroup:x:65534:\n"),
            ),
            ("etc/hosts", resolver::HOSTS.to_owned()),
            (
                "etc/nsswitch.conf",
                "passwd: files\ngroup: files\nhosts: files dns\n".to_owned(),
            ),
        ];
        for (name, text) in files {
            self.add_file(name, text.as_bytes())
                .step_at(Step::MakeRoot, name)?;
        }
        for (bind, source) in host.binds.iter().zip(system) {
            self.add_at(bind, source)
                .step_at(Step::MakeRoot, &bind.path)?;
        }
        Ok(())
    }

    /// Puts a mount where nothing is yet and, the root being fresh, no link can be.
    fn add_at(&self, bind: &SystemBind, source: &OwnedFd) -> rustix::io::Result<()> {
        for parent in &bind.parents {
            match rustix::fs::mkdirat(&self.fd, parent, Mode::from(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        if bind.directory {
            rustix::fs::mkdirat(&self.fd, &bind.place, Mode::from(0o755))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&self.fd, &bind.place, flags, Mode::from(0o644))?;
        }
        move_to(source.as_fd(), self.fd.as_fd(), &bind.place)
    }

    /// Files for programs that look names up. A mount of the specification may lie over them.
    fn add_generated(&self, files: &[Generated]) -> Result<(), Failure> {
        if !self.fresh {
            let mounts = resolver::detached(files).step(Step::MakeRoot)?;
            for (file, mount) in files.iter().zip(mounts) {
                make_inside(self.fd.as_fd(), Path::new(file.path), false)
                    .and_then(|place| attach(mount.as_fd(), place.as_fd()))
                    .step_at(Step::Mount, file.path)?;
            }
            return Ok(());
        }
        for file in files {
            let name = file.path.trim_start_matches('/');
            match rustix::fs::mkdirat(&self.fd, "etc", Mode::from(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Failure::at(Step::MakeRoot, "/etc", errno)),
            }
            match self.add_file(name, file.text.as_bytes()) {
                // The host's system has it already, with the same text.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Failure::at(Step::MakeRoot, name, errno)),
            }
        }
        Ok(())
    }

    fn add_file(&self, name: &str, bytes: &[u8]) -> rustix::io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::from(0o644))?;
        rustix::io::write(file, bytes).map(drop)
    }

    /// A small `/dev`: an image may hold anything there, so it gets one of its own.
    fn add_devices(
        &self,
        spec: &Spec,
        host: &HostSystem,
        made: Option<&OwnedFd>,
    ) -> Result<OwnedFd, Failure> {
        let add = || {
            let place = make_inside(self.fd.as_fd(), Path::new("dev"), true)?;
            let own = match made {
                Some(made) => Some(made.try_clone().map_err(|_| Errno::MFILE)?),
                None if self.fresh => None,
                None => Some(memory_file_system("size=64k,nr_inodes=64,mode=755")?),
            };
            if let Some(own) = &own {
                attach(own.as_fd(), place.as_fd())?;
            }
            let sealed = own.is_some();
            let dev = own.unwrap_or(place);
            if made.is_none() {
                devices::bind_host(&dev)?;
            }
            let shm = memory_file_system(&format!("size={},mode=1777", spec.limits.tmp_size()))?;
            devices::add_file_systems(&dev, &shm, host.terminals)?;
            if sealed {
                devices::seal(&dev)?;
            }
            Ok(dev)
        };
        add().step_at(Step::MakeDev, "/dev")
    }

    /// A `/proc` of the sandbox's own process namespace, with kernel paths out of reach.
    fn add_proc(&self, host: &HostSystem, dev: &OwnedFd) -> Result<(), Failure> {
        let mount = || {
            let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_create(context.as_fd())?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let flags = FsMountFlags::FSMOUNT_CLOEXEC;
            let proc = rustix::mount::fsmount(context.as_fd(), flags, attributes)?;
            self.put(proc.as_fd(), "proc")?;
            Ok(proc)
        };
        let proc = mount().step(Step::MountProc)?;
        for (setting, share) in &host.shares {
            let set = || {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&proc, *setting, flags, Mode::empty())?;
                rustix::io::write(file, share.to_string().as_bytes())
            };
            set().step_at(Step::ResourceLimits, Path::new("/proc").join(setting))?;
        }
        for name in &host.read_only {
            let seal = || {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let copy = rustix::mount::open_tree(proc.as_fd(), *name, flags)?;
                mount_setattr(copy.as_fd(), attr::READ_ONLY, false)?;
                move_to(copy.as_fd(), proc.as_fd(), *name)
            };
            seal().step_at(Step::MaskPath, Path::new("/proc").join(name))?;
        }
        for (name, kind) in &host.masked {
            let mask = || match kind {
                FileType::Directory => {
                    let empty = memory_file_system("size=4k,nr_inodes=2,mode=555")?;
                    mount_setattr(empty.as_fd(), attr::READ_ONLY, false)?;
                    move_to(empty.as_fd(), proc.as_fd(), *name)
                }
                _ => move_to(devices::null(dev)?.as_fd(), proc.as_fd(), *name),
            };
            mask().step_at(Step::MaskPath, Path::new("/proc").join(name))?;
        }
        Ok(())
    }

    /// Makes this the root and lets the old one go.
    fn take_place(&self) -> rustix::io::Result<()> {
        rustix::process::fchdir(&self.fd)?;
        // The old root is put over the new one, at the same place, and goes away from there: no
        // directory for it is needed.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")?;
        // Had anything of the old root stayed over the new one, `/..` would lead into it.
        let mount_of = |path, flags| {
            rustix::fs::statx(&self.fd, path, flags, StatxFlags::MNT_ID).map(|it| it.stx_mnt_id)
        };
        if mount_of("/..", AtFlags::empty())? == mount_of("", AtFlags::EMPTY_PATH)? {
            Ok(())
        } else {
            Err(Errno::BUSY)
        }
    }
}

/// Puts a mount on a direct child, which we have just made or which the kernel provides.
pub(super) fn move_to(
    mount: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
) -> rustix::io::Result<()> {
    rustix::mount::move_mount(
        mount,
        "",
        parent,
        name,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}
