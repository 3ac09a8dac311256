//! A root that is a directory: bound as it is when it has every place that something is mounted
//! on, else with the missing places laid over it. The directory itself is never written.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, UnmountFlags};

use super::inside::{make_inside, open_inside, resolve};
use super::resolver::Generated;
use super::root::{attach_at_root, file_type, finish, memory_file_system};
use crate::error::{Failure, InStep, Step};
use crate::spec::Spec;

/// Attaches the image and returns what is to be the root.
pub(super) fn attach_image(
    spec: &Spec,
    image: &OwnedFd,
    sources: &[Option<OwnedFd>],
    generated: &[Generated],
) -> Result<OwnedFd, Failure> {
    attach_at_root(image.as_fd()).step(Step::MakeRoot)?;
    let missing = missing_places(spec, image, sources, generated)?;
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

fn missing_places(
    spec: &Spec,
    image: &OwnedFd,
    sources: &[Option<OwnedFd>],
    generated: &[Generated],
) -> Result<Vec<Place>, Failure> {
    let fixed = ["/proc", "/dev", "/tmp"].map(|path| (Path::new(path), true));
    let files = generated.iter().map(|file| (Path::new(file.path), false));
    // Asked of what was opened, for its path may lie where the payload's identity cannot look.
    let mounts = spec.mounts.iter().zip(sources).map(|(mount, source)| {
        let file = source.as_ref().is_some_and(|source| !is_directory(source));
        (mount.target(), !file)
    });
    let mut covered: Vec<PathBuf> = Vec::new();
    let mut missing = Vec::new();
    for (target, directory) in fixed.into_iter().chain(files).chain(mounts) {
        let path = resolve(image.as_fd(), target).step_at(Step::Mount, target)?;
        // What lies in an earlier mount is that one's concern.
        if !covered.iter().any(|other| path.starts_with(other)) {
            match open_inside(image.as_fd(), &path) {
                Ok(_) => {}
                Err(Errno::NOENT) => missing.push(Place {
                    path: path.clone(),
                    directory,
                }),
                Err(errno) => return Err(Failure::at(Step::Mount, target, errno)),
            }
        }
        covered.push(path);
    }
    Ok(missing)
}

fn is_directory(source: &OwnedFd) -> bool {
    file_type(source.as_fd()).is_ok_and(|found| found == FileType::Directory)
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
        // It holds its layers by itself. They go from where they were attached, the upper one
        // first: what lay under the new root would come to lie over it when roots change.
        for layer in [&skeleton, image] {
            let path = format!("/proc/self/fd/{}", layer.as_raw_fd());
            rustix::mount::unmount(path, UnmountFlags::DETACH)?;
        }
        attach_at_root(whole.as_fd())?;
        Ok(whole)
    };
    join().step(Step::MakeRoot)
}
