//! Folders that nobody but their owner may enter: the state folder, and that of the signing key.
//!
//! They are made so, and refused where somebody opened them since: what a private stage wrote would
//! be anybody's. Encryption at rest is not done here; whoever has the disk has the data.

use std::{
    fs::{DirBuilder, Metadata},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use barecount_model::codes;

use crate::failure::{Failure, Status};

/// SQLite opens files whose names have fewer than 512 bytes, its journal's too.
const MAX_PATH_BYTES: usize = 460;
/// Anything that the group and others may do.
pub(super) const ANYTHING: u32 = 0o077;
/// That the group and others may change it.
pub(super) const CHANGE: u32 = 0o022;

/// Makes the state folder, open to its owner alone, and names it absolutely.
///
/// # Errors
/// One that is there and is open to the group or to others, or is another user's, is refused.
pub(crate) fn state_folder(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            Status::Unavailable,
            format!("the state folder {} cannot be used", path.display()),
        )
        .at(path, &error)
        .with_code("BC0804")
        .or_help("Make it writable, or name another one with `--state`.")
    };
    if path.exists() && !path.is_dir() {
        let what = format!("the state folder {} is no folder", path.display());
        return Err(Failure::new(Status::Unavailable, what)
            .with_code("BC0804")
            .with_help("Name another one with `--state`."));
    }
    make(path).map_err(failed)?;
    // The one that a link leads to is the one that data would be in.
    let folder = path.canonicalize().map_err(failed)?;
    let length = folder.as_os_str().len();
    if length > MAX_PATH_BYTES {
        let what = format!("the path of the state folder has {length} bytes, and the store in it");
        let what = format!("{what} takes no more than {MAX_PATH_BYTES}");
        return Err(Failure::new(Status::Unavailable, what)
            .with_code("BC0804")
            .with_help("Name one with a shorter path with `--state`."));
    }
    if folder.to_str().is_none() {
        let what = format!(
            "the path of the state folder, {}, is not UTF-8 text, and the store in it takes no other",
            folder.display()
        );
        return Err(Failure::new(Status::Unavailable, what)
            .with_code("BC0804")
            .with_help("Name one whose path is UTF-8 text with `--state`."));
    }
    let found = std::fs::metadata(&folder).map_err(failed)?;
    refuse_open(
        "the state folder",
        path,
        &found,
        ANYTHING,
        codes::STATE_EXPOSED.id,
    )?;
    Ok(folder)
}

/// Makes a folder and those above it, where they are not there yet, for their owner alone.
pub(super) fn make(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Refuses what is somebody else's, and what somebody else may do any of these things to.
pub(super) fn refuse_open(
    what: &str,
    path: &Path,
    found: &Metadata,
    forbidden: u32,
    code: &'static str,
) -> Result<(), Failure> {
    let owner = rustix::process::geteuid().as_raw();
    if found.uid() != owner {
        let message = format!("{what} {} belongs to another user", path.display());
        return Err(Failure::new(Status::Usage, message)
            .with_code(code)
            .with_help(format!(
                "Run as that user, or give it to the one that runs: `chown -R {owner} {}`.",
                quoted(path)
            )));
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    let message = format!(
        "{what} {} is open to other users of this machine: its mode is {mode:04o}",
        path.display()
    );
    Err(Failure::new(Status::Usage, message)
        .with_code(code)
        .with_help(format!("Close it: `chmod go-rwx {}`.", quoted(path))))
}

/// A path as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        return text;
    }
    let dash = if text.starts_with('-') { "./" } else { "" };
    format!("'{dash}{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn a_state_folder_is_made_for_its_owner_alone() -> TestResult {
        let place = tempfile::tempdir()?;
        let path = place.path().join("above/state");
        let folder = state_folder(&path).map_err(|refused| refused.to_string())?;
        for made in [folder.as_path(), folder.parent().ok_or("it has one")?] {
            let mode = std::fs::metadata(made)?.permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", made.display());
        }
        state_folder(&path).map_err(|refused| refused.to_string())?;
        Ok(())
    }

    #[test]
    fn a_state_folder_that_others_may_enter_read_or_write_is_refused_with_what_closes_it()
    -> TestResult {
        let place = tempfile::tempdir()?;
        let path = place.path().join("the state");
        std::fs::create_dir(&path)?;
        for mode in [0o701, 0o704, 0o702, 0o710, 0o740, 0o720, 0o755, 0o1777] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
            let refused = state_folder(&path)
                .err()
                .ok_or(format!("{mode:o} is open"))?;
            assert_eq!(refused.status(), Status::Usage);
            let text = refused.to_string();
            assert!(text.starts_with("error[BC0808]: "), "{text}");
            let command = format!("chmod go-rwx '{}'", path.display());
            assert!(text.contains(&command), "{text}");
            let closed = std::process::Command::new("sh")
                .arg("-c")
                .arg(&command)
                .status()?;
            assert!(closed.success());
            state_folder(&path).map_err(|refused| refused.to_string())?;
        }
        Ok(())
    }

    #[test]
    fn a_link_to_an_open_folder_is_refused() -> TestResult {
        let place = tempfile::tempdir()?;
        let (open, link) = (place.path().join("open"), place.path().join("link"));
        std::fs::create_dir(&open)?;
        std::fs::set_permissions(&open, Permissions::from_mode(0o755))?;
        std::os::unix::fs::symlink(&open, &link)?;
        assert!(state_folder(&link).is_err());
        Ok(())
    }

    #[test]
    fn a_path_is_one_word_of_a_shell_whatever_is_in_it() {
        let of = |path: &str| quoted(Path::new(path));
        assert_eq!(of(".barecount"), ".barecount");
        assert_eq!(of("a b"), "'a b'");
        assert_eq!(of("it's; rm"), "'it'\\''s; rm'");
        assert_eq!(of("-rf"), "'./-rf'");
    }
}
