//! Paths inside a root, whose links may lead anywhere and must lead nowhere outside.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// How many links are followed in one path, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Opens a path inside a root, wherever its links point.
pub(super) fn open_inside(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    match open_in_root(root, path) {
        // The kernel does not go on after `..` when anything was mounted or renamed on the whole
        // machine meanwhile. What the path leads to has neither `..` nor links.
        Err(Errno::AGAIN) => open_in_root(root, &resolve(root, path)?),
        result => result,
    }
}

fn open_in_root(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let inside = if inside.as_os_str().is_empty() {
        Path::new(".")
    } else {
        inside
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, inside, flags, Mode::empty(), resolve)
}

/// Opens a path inside a root, and makes what is missing of it where that can be written.
pub(super) fn make_inside(root: BorrowedFd<'_>, path: &Path, directory: bool) -> Result<OwnedFd> {
    match open_inside(root, path) {
        Err(Errno::NOENT) => make_resolved(root, &resolve(root, path)?, directory),
        result => result,
    }
}

fn make_resolved(root: BorrowedFd<'_>, path: &Path, directory: bool) -> Result<OwnedFd> {
    match open_inside(root, path) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let parent = make_resolved(root, parent, true)?;
    let made = if directory {
        rustix::fs::mkdirat(&parent, name, Mode::from(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::from(0o644)).map(drop)
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => open_inside(root, path),
        Err(errno) => Err(errno),
    }
}

/// Where a path leads inside a root once all links are followed, the missing rest included. `..`
/// stops at the root.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<PathBuf> {
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        match read_link(root, &next)? {
            None => done = next,
            Some(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(part);
                }
            }
        }
    }
    Ok(done)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

/// The target of a link; `None` for what is no link, or missing.
fn read_link(root: BorrowedFd<'_>, path: &Path) -> Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let parent = match open_inside(root, parent) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    match rustix::fs::readlinkat(&parent, name, Vec::new()) {
        Ok(target) => Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes())))),
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
