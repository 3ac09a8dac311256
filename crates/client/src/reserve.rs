//! A little of the disk that is kept back in the state folder, and given up where the disk is full:
//! else nobody could look at what happened there, write down how it ended, or make room. A disk is full
//! when its blocks are gone, or its inodes.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};

/// The file that keeps blocks.
const FILE: &str = "reserve";
/// What it keeps: enough to open the store and to write down that something was removed.
const BYTES: u64 = 4 << 20;
/// A disk with less than this has no room for it.
const WORTHWHILE: u64 = 16 * BYTES;
/// A disk with less than this is full.
const FULL: u64 = 1 << 20;

/// The folder of empty files, each of which keeps an inode.
const FOLDER: &str = "reserve.inodes";
/// How many: enough for the tiles, records and logs of what is ended by a full disk.
const INODES: u64 = 64;
/// A disk with fewer than this has none to keep.
const WORTHWHILE_INODES: u64 = 16 * INODES;
/// A disk with fewer than this is full.
const FULL_INODES: u64 = 16;

/// Sets it aside where there is room. Where that cannot be done there is none.
pub(crate) fn keep(state: &Path) {
    if let Err(error) = keep_blocks(state).and_then(|()| keep_inodes(state)) {
        tracing::debug!(%error, "nothing of the disk is kept back");
    }
}

fn keep_blocks(state: &Path) -> io::Result<()> {
    let path = state.join(FILE);
    // Who was killed here has left a part of it.
    let is_kept = path.metadata().is_ok_and(|found| found.len() >= BYTES);
    if is_kept || left(&statvfs(state)?) < WORTHWHILE {
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

fn keep_inodes(state: &Path) -> io::Result<()> {
    let disk = statvfs(state)?;
    if !counts_inodes(&disk) || disk.f_favail < WORTHWHILE_INODES {
        return Ok(());
    }
    let folder = state.join(FOLDER);
    match DirBuilder::new().mode(0o700).create(&folder) {
        // The last one is made last.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if folder.join((INODES - 1).to_string()).exists() {
                return Ok(());
            }
        }
        made => made?,
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    (0..INODES).try_for_each(|number| options.open(folder.join(number.to_string())).map(drop))
}

/// Gives up what the disk has no more of, and says whether there was any of it. Where that cannot be
/// done, what comes next says why it fails.
pub(crate) fn give_up_if_full(state: &Path) -> bool {
    let Ok(disk) = statvfs(state) else {
        return false;
    };
    let blocks = left(&disk) < FULL && std::fs::remove_file(state.join(FILE)).is_ok();
    if blocks {
        tracing::warn!(
            "the disk under the state folder is full; {} MiB that were kept back there are free now, \
             to look at it and to make room",
            BYTES >> 20
        );
    }
    let is_full = counts_inodes(&disk) && disk.f_favail < FULL_INODES;
    let inodes = is_full && std::fs::remove_dir_all(state.join(FOLDER)).is_ok();
    if inodes {
        tracing::warn!(
            "the disk under the state folder has no more inodes; {INODES} that were kept back there \
             are free now, to look at it and to remove files"
        );
    }
    blocks || inodes
}

/// The bytes that whoever calls may still write.
fn left(disk: &StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

/// Whether there is an end to inodes. Some file systems make them as they are needed, and say none.
fn counts_inodes(disk: &StatVfs) -> bool {
    disk.f_files > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_in_part_is_kept_whole_by_the_next() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let folder = state.path().join(FOLDER);
        let kept = || std::fs::read_dir(&folder).map(Iterator::count);
        keep_inodes(state.path())?;
        assert_eq!(kept()?, 64, "this file system counts inodes and has some");
        for number in 10..INODES {
            std::fs::remove_file(folder.join(number.to_string()))?;
        }
        keep_inodes(state.path())?;
        assert_eq!(kept()?, 64);
        Ok(())
    }
}
