//! A little of the disk that is kept back in the state folder, and given up where the disk is full:
//! else nobody could look at what happened there, or make room.

use std::{fs::OpenOptions, io, path::Path};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Its file.
const FILE: &str = "reserve";
/// What it keeps: enough to open the store and to write down that something was removed.
const BYTES: u64 = 4 << 20;
/// A disk with less than this has no room for it.
const WORTHWHILE: u64 = 16 * BYTES;
/// A disk with less than this is full.
const FULL: u64 = 1 << 20;

/// Sets it aside where there is room. Where that cannot be done there is none.
pub(crate) fn keep(state: &Path) {
    if let Err(error) = try_keep(state) {
        tracing::debug!(%error, "nothing of the disk is kept back");
    }
}

fn try_keep(state: &Path) -> io::Result<()> {
    let path = state.join(FILE);
    // Who was killed here has left a part of it.
    let is_kept = path.metadata().is_ok_and(|found| found.len() >= BYTES);
    if is_kept || left(state)? < WORTHWHILE {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    let kept = fallocate(&file, FallocateFlags::empty(), 0, BYTES);
    if kept.is_err() {
        std::fs::remove_file(&path)?;
    }
    Ok(kept?)
}

/// Gives it up if the disk is full. Where that cannot be done, what comes next says why it fails.
pub(crate) fn give_up_if_full(state: &Path) {
    if left(state).is_ok_and(|left| left < FULL) && std::fs::remove_file(state.join(FILE)).is_ok() {
        tracing::warn!(
            "the disk under the state folder is full; {} MiB that were kept back there are free now, \
             to look at it and to make room",
            BYTES >> 20
        );
    }
}

fn left(state: &Path) -> io::Result<u64> {
    let found = statvfs(state)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
