//! Folders of a well-known name where everybody may make some, such as `/tmp`: somebody else may
//! have made one of that name before.

use std::{
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::remove::{remove, to_the_end};

/// The folder that this user means by `name`, which is made if there is none: the one of that name,
/// unless somebody else has it; else one whose name begins with it and a hyphen, and ends as nobody
/// can foresee. That one is used as long as it is there. Of several processes at once each may make
/// one. Whether others may enter what was there before is for the caller to say.
///
/// # Errors
/// Any error of the file system.
pub fn own_folder(within: &Path, name: &str) -> io::Result<PathBuf> {
    let usual = within.join(name);
    if is_ours(&usual) {
        return Ok(usual);
    }
    if let Some(found) = unusual(within, name)?.into_iter().next() {
        return Ok(found);
    }
    match DirBuilder::new().mode(0o700).create(&usual) {
        Ok(()) => return Ok(usual),
        // Made just now, by another thread of ours.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_ours(&usual) => {
            return Ok(usual);
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let made = tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(within)?;
    Ok(made.keep())
}

/// The folders of this user that are there by that name; more than one, if somebody else had the
/// usual one for a time.
///
/// # Errors
/// If `within` cannot be listed.
pub fn own_folders(within: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let usual = within.join(name);
    let mut found = unusual(within, name)?;
    if is_ours(&usual) {
        found.insert(0, usual);
    }
    Ok(found)
}

/// Closes a folder of ours to all others, and removes what they had put there while it was open.
///
/// # Errors
/// Any error of the file system.
pub fn close_to_others(folder: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(folder)?;
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.metadata()?.uid() != found.uid() {
            remove(&entry.path(), &to_the_end)?;
        }
    }
    Ok(())
}

/// Whether there is a folder of this user's at a path. A link is nobody's: it may lead elsewhere.
pub fn is_ours(path: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == user)
}

fn unusual(within: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{name}-");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(within)? {
        let entry = entry?;
        let begins = entry.file_name().to_string_lossy().starts_with(&prefix);
        if begins && is_ours(&entry.path()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
