//! A root that is a directory: bound as it is when it has every place that something is mounted
//! on, else with the missing places laid over it. The directory itself is never written.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::FsOpenFlags;

use super::root::{
    attach_at_root, file_type, finish, make_inside, memory_file_system, open_inside,
};
use crate::error::{Failure, InStep, Step};
use crate::spec::{Mount, Spec};

/// How many links are followed in one path, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Attaches the image and returns what is to be the root.
pub(super) fn attach_image(spec: &Spec, image: &OwnedFd) -> Result<OwnedFd, Failure> {
    attach_at_root(image.as_fd()).step(Step::MakeRoot)?;
    let missing = missing_places(spec, image)?;
    let whole = if missing.is_empty() {
        image
            .try_clone()
            .map_err(|error| Failure::io(Step::MakeRoot, &error))
    } else {
        lay_over(image, &missing)
    }?;
    Ok(whole)
}

/// A place that something is mounted on.
struct Place {
    path: PathBuf,
    directory: bool,
}

fn missing_places(spec: &Spec, image: &OwnedFd) -> Result<Vec<Place>, Failure> {
    let mut covered: Vec<&Path> = Vec::new();
    let mut missing = Vec::new();
    let fixed = ["/proc", "/dev", "/tmp"].map(Path::new);
    for path in fixed {
        covered.push(path);
        note_missing(image, path, true, &mut missing)?;
    }
    for mount in &spec.mounts {
        let target = mount.target();
        // What lies in an earlier mount is that one's concern.
        if !covered.iter().any(|other| target.starts_with(other)) {
            let directory = match mount {
                Mount::Tmpfs { .. } => true,
                // What is no directory for us to see is told by the mount itself.
                Mount::Bind { source, .. } => source_is_directory(source),
            };
            note_missing(image, target, directory, &mut missing)?;
        }
        covered.push(target);
    }
    Ok(missing)
}

fn source_is_directory(source: &Path) -> bool {
    std::fs::metadata(source).is_ok_and(|found| found.is_dir())
}

fn note_missing(
    image: &OwnedFd,
    path: &Path,
    directory: bool,
    missing: &mut Vec<Place>,
) -> Result<(), Failure> {
    match open_inside(image.as_fd(), path) {
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => {
            let path = resolve(image, path).step_at(Step::Mount, path)?;
            missing.push(Place { path, directory });
            Ok(())
        }
        Err(errno) => Err(Failure::at(Step::Mount, path, errno)),
    }
}

/// Where a path leads in the image once all links are followed, the missing rest included. `..`
/// stops at the root.
fn resolve(image: &OwnedFd, path: &Path) -> rustix::io::Result<PathBuf> {
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        match read_link(image, &next)? {
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

/// The target of a link in the image; `None` for what is no link, or missing.
fn read_link(image: &OwnedFd, path: &Path) -> rustix::io::Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let parent = match open_inside(image.as_fd(), parent) {
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

/// The image with empty places over it, read-only as there is no upper layer.
fn lay_over(image: &OwnedFd, places: &[Place]) -> Result<OwnedFd, Failure> {
    let skeleton = memory_file_system("size=1m,nr_inodes=2k,mode=755").step(Step::MakeRoot)?;
    for place in places {
        let made = make_inside(skeleton.as_fd(), &place.path, place.directory)
            .step_at(Step::Mount, &place.path)?;
        let is_directory = file_type(made.as_fd()).step(Step::MakeRoot)? == FileType::Directory;
        if is_directory != place.directory {
            return Err(Failure::at(Step::Mount, &place.path, Errno::NOTDIR));
        }
    }
    let join = || {
        // A layer is named by path and must be attached somewhere.
        attach_at_root(skeleton.as_fd())?;
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let layers = format!(
            "/proc/self/fd/{}:/proc/self/fd/{}",
            skeleton.as_raw_fd(),
            image.as_raw_fd()
        );
        rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir", layers)?;
        let whole = finish(&context)?;
        attach_at_root(whole.as_fd())?;
        Ok(whole)
    };
    join().step(Step::MakeRoot)
}
