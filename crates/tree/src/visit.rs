//! Going through every folder of a tree that nobody else changes.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, FileType},
    io::Errno,
};

use crate::open::{self, FOLDER, Identity};

/// Calls `act` with each folder below `root` and then with that itself, each after those in it. The
/// owner may enter them all, and `act` leaves it so.
///
/// # Errors
/// The first of `act`; `ESTALE` where a folder is moved meanwhile, `EXDEV` where something is mounted.
pub fn each_folder(
    root: BorrowedFd<'_>,
    mut act: impl FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut above: Vec<(Identity, Vec<CString>)> = Vec::new();
    let mut end: Option<OwnedFd> = None;
    let mut pending = subfolders(root)?;
    loop {
        let folder = end.as_ref().map_or(root, AsFd::as_fd);
        if let Some(name) = pending.pop() {
            let child = open::beneath(folder, &name, FOLDER)?;
            let below = subfolders(child.as_fd())?;
            above.push((
                Identity::of(folder)?,
                std::mem::replace(&mut pending, below),
            ));
            end = Some(child);
            continue;
        }
        act(folder)?;
        let Some((identity, left)) = above.pop() else {
            return Ok(());
        };
        end = Some(open::above(folder, identity)?);
        pending = left;
    }
}

fn subfolders(folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        if kind == FileType::Directory {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}
