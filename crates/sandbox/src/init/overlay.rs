//! A root that is a directory: the image under an overlay, with the places that it lacks for what is
//! mounted laid over it. The directory itself is never written.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::inside::{make_inside, open_inside, resolve};
use super::resolver::Generated;
use super::root::file_type;
use super::sources::{SEALED, Source};
use super::staging::{Staging, is_refusal};
use crate::error::{Failure, InStep, Step};
use crate::spec::Spec;

/// What is to be the root, detached, and why it has the inodes of the image, if it does.
pub(super) fn lay(
    spec: &Spec,
    image: &OwnedFd,
    mounts: &[Option<Source>],
    generated: &[Generated],
    staging: &mut Staging,
) -> Result<(OwnedFd, Option<Errno>), Failure> {
    let below = staging.attach(image).step(Step::MakeRoot)?;
    let missing = missing_places(spec, image, mounts, generated)?;
    let above = staging.make_folder().step(Step::MakeRoot)?;
    let skeleton = staging.open_folder(&above).step(Step::MakeRoot)?;
    for place in &missing {
        let made = make_inside(skeleton.as_fd(), &place.path, place.directory)
            .step_at(Step::Mount, &place.path)?;
        let is_directory = file_type(made.as_fd()).step(Step::MakeRoot)? == FileType::Directory;
        if is_directory != place.directory {
            return Err(Failure::at(Step::Mount, &place.path, Errno::NOTDIR));
        }
    }
    match staging.overlay([&above, &below], SEALED) {
        Ok(whole) => Ok((whole, None)),
        Err(errno) if missing.is_empty() && is_refusal(errno) => {
            let bound = staging.clone_of(image).step(Step::MakeRoot)?;
            Ok((bound, Some(errno)))
        }
        Err(errno) => Err(Failure::new(Step::MakeRoot, errno)),
    }
}

/// A place that something is mounted on.
struct Place {
    path: PathBuf,
    directory: bool,
}

fn missing_places(
    spec: &Spec,
    image: &OwnedFd,
    sources: &[Option<Source>],
    generated: &[Generated],
) -> Result<Vec<Place>, Failure> {
    let fixed = ["/proc", "/dev", "/tmp"].map(|path| (Path::new(path), true));
    let files = generated.iter().map(|file| (Path::new(file.path), false));
    // Asked of what was opened, for its path may lie where the payload's identity cannot look.
    let mounts = spec.mounts.iter().zip(sources).map(|(mount, source)| {
        let directory = source
            .as_ref()
            .is_none_or(|source| source.is_directory() == Ok(true));
        (mount.target(), directory)
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
