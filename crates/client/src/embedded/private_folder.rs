//! Folders that nobody but their owner may enter: the state folder, and that of the signing key.
//!
//! They are made so, and refused where somebody opened them since: what a private stage wrote would
//! be anybody's. Encryption at rest is not done here; whoever has the disk has the data.

use std::{
    fs::{DirBuilder, Metadata, Permissions},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use barecount_model::{codes, untrusted::Label};

use crate::failure::{Failure, Status};

/// SQLite opens files whose names have fewer than 512 bytes, its journal's too.
const MAX_PATH_BYTES: usize = 460;
/// What a state folder has in it, whichever verb made it and whatever of it was removed.
const OF_STATE: [&str; 19] = [
    "artifacts",
    "boundaries",
    "build",
    "cache",
    "checkpoints",
    "control.sqlite",
    "datasets",
    "environment.json",
    "identity.key",
    "journal.sqlite",
    "layout",
    "ledger",
    "lock",
    "logs",
    "reserve",
    "rules",
    "runners",
    "secrets",
    "staging",
];
/// What names of the ledger's begin with, also while they are written.
const OF_LEDGER: &str = "ledger.";
/// What a file system has in it that was just made.
const OF_FILE_SYSTEM: &str = "lost+found";
/// Anything that the group and others may do.
pub(super) const ANYTHING: u32 = 0o077;
/// That the group and others may change it.
pub(super) const CHANGE: u32 = 0o022;

/// Makes the state folder, open to its owner alone, and names it absolutely.
///
/// # Errors
/// One that is there and is open to the group or to others, or is another user's, is refused; so is
/// what another user's link leads to, and a folder of other things.
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
    refuse_link_of_others(path, &folder, &found)?;
    refuse_open(
        "the state folder",
        path,
        &found,
        ANYTHING,
        codes::STATE_EXPOSED.id,
        "with `--state`",
    )?;
    refuse_other_things(path, &folder)?;
    Ok(folder)
}

/// A state folder that is worked in.
pub(super) struct Worked<'p> {
    path: &'p Path,
    /// Its device and its inode.
    identity: (u64, u64),
}

impl<'p> Worked<'p> {
    /// The folder that is there now.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub(super) fn begin(path: &'p Path) -> Result<Self, Failure> {
        let found = std::fs::metadata(path).map_err(|error| removed(path).because(&error))?;
        let identity = (found.dev(), found.ino());
        Ok(Self { path, identity })
    }

    /// That it is the same one still.
    ///
    /// # Errors
    /// If it is not. What is there in its place may have been made again by whatever wrote below it,
    /// open to all as what sandboxes read has to be; it is closed to others.
    pub(super) fn end(self) -> Result<(), Failure> {
        let found = match self.path.symlink_metadata() {
            Ok(found) if (found.dev(), found.ino()) == self.identity => return Ok(()),
            Ok(found) => found,
            Err(error) => return Err(removed(self.path).because(&error)),
        };
        let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
        if is_ours && found.mode() & ANYTHING != 0 {
            std::fs::set_permissions(self.path, Permissions::from_mode(0o700))
                .map_err(|error| removed(self.path).because(&error))?;
        }
        Err(removed(self.path))
    }
}

fn removed(path: &Path) -> Failure {
    let what = format!(
        "the state folder {} was removed or replaced while it was worked in",
        path.display()
    );
    Failure::new(Status::Unavailable, what)
        .with_code(codes::STATE_UNWRITABLE.id)
        .with_help(
            "What was written there since went with it. If it was moved, put it back; then run again.",
        )
}

/// Refuses a name that somebody else has made lead to a folder of this user's, and may make lead to
/// another one. Root may do that anywhere.
fn refuse_link_of_others(path: &Path, folder: &Path, found: &Metadata) -> Result<(), Failure> {
    // Without the slash by which a link would be followed.
    let named = path.components().as_path().symlink_metadata();
    let is_meant = named.is_ok_and(|named| match named.is_symlink() {
        true => [0, rustix::process::geteuid().as_raw()].contains(&named.uid()),
        false => (named.dev(), named.ino()) == (found.dev(), found.ino()),
    });
    if is_meant {
        return Ok(());
    }
    let what = format!(
        "the state folder {} is a link of another user's, to {}",
        path.display(),
        folder.display()
    );
    Err(Failure::new(Status::Usage, what)
        .with_code(codes::STATE_EXPOSED.id)
        .with_help(
            "Whoever made it chose where data, keys and logs would be written. Name the folder that \
             you mean with `--state`.",
        ))
}

/// Refuses a folder in which there is something, and nothing of a state.
fn refuse_other_things(path: &Path, folder: &Path) -> Result<(), Failure> {
    let is_of_state = |name: &str| OF_STATE.contains(&name) || name.starts_with(OF_LEDGER);
    let mut other = None;
    let entries = std::fs::read_dir(folder).and_then(|entries| {
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if is_of_state(&name) {
                return Ok(None);
            }
            if name != OF_FILE_SYSTEM {
                other = Some(name);
            }
        }
        Ok(other)
    });
    let other = entries.map_err(|error| {
        let what = format!("the state folder {} cannot be looked into", path.display());
        Failure::new(Status::Unavailable, what)
            .because(&error)
            .with_code(codes::STATE_CLOSED.id)
    })?;
    let Some(other) = other.map(Label::from) else {
        return Ok(());
    };
    let what = format!(
        "the state folder {} has other things in it (`{other}`), and no state",
        path.display()
    );
    Err(Failure::new(Status::Usage, what)
        .with_code(codes::STATE_UNWRITABLE.id)
        .with_help("Name one that is empty, or is not there yet, with `--state`."))
}

/// Makes a folder and those above it, where they are not there yet, for their owner alone.
pub(super) fn make(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Refuses what is somebody else's, and what somebody else may do any of these things to. How another
/// one is `named` is told.
pub(super) fn refuse_open(
    what: &str,
    path: &Path,
    found: &Metadata,
    forbidden: u32,
    code: &'static str,
    named: &str,
) -> Result<(), Failure> {
    let owner = rustix::process::geteuid().as_raw();
    if found.uid() != owner {
        let message = format!(
            "{what} {} belongs to another user (id {})",
            path.display(),
            found.uid()
        );
        return Err(Failure::new(Status::Usage, message)
            .with_code(code)
            .with_help(theirs(path, named)));
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

/// What helps where something is another user's. To take it would be to trust whatever is in it:
/// keys, artifacts, what stands in datasets.
pub(super) fn theirs(path: &Path, named: &str) -> String {
    let owner = rustix::process::geteuid().as_raw();
    format!(
        "Run as that user, or name another one {named}. If you made it yourself, as with `sudo`, take it back \
         as root: `chown -R {owner} {}`; what is in it is trusted from then on.",
        quoted(path)
    )
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
    fn a_link_that_another_user_made_is_refused_wherever_it_leads() -> TestResult {
        let place = tempfile::tempdir()?;
        let (mine, link) = (place.path().join("mine"), place.path().join("link"));
        make(&mine)?;
        std::os::unix::fs::symlink(&mine, &link)?;
        let slash = place.path().join("link/");
        for path in [&link, &slash] {
            let folder = state_folder(path).map_err(|refused| refused.to_string())?;
            assert_eq!(folder, mine.canonicalize()?);
        }
        // Only root can give something away: a test that cannot is no test.
        std::os::unix::fs::lchown(&link, Some(42_424), Some(42_424))?;
        for path in [&link, &slash] {
            let refused = state_folder(path).err().ok_or("it was followed")?;
            let text = refused.to_string();
            assert!(text.starts_with("error[BC0808]: "), "{text}");
            assert!(text.contains("is a link of another user's, to "), "{text}");
        }
        assert_eq!(std::fs::read_dir(&mine)?.count(), 0);
        Ok(())
    }

    #[test]
    fn a_folder_that_was_made_again_while_it_was_worked_in_is_closed_and_told() -> TestResult {
        let place = tempfile::tempdir()?;
        let path = place.path().join("state");
        make(&path)?;
        let begin = || Worked::begin(&path).map_err(|error| error.to_string());
        begin()?.end().map_err(|error| error.to_string())?;
        let worked = begin()?;
        std::fs::rename(&path, place.path().join("before"))?;
        std::fs::create_dir_all(path.join("ledger/tile"))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        let text = worked.end().err().ok_or("it is another one")?.to_string();
        assert!(text.contains("was removed or replaced"), "{text}");
        assert_eq!(std::fs::metadata(&path)?.mode() & 0o777, 0o700);
        let worked = begin()?;
        std::fs::remove_dir_all(&path)?;
        let text = worked.end().err().ok_or("it is gone")?.to_string();
        assert!(text.starts_with("error[BC0804]: "), "{text}");
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn a_folder_of_other_things_is_not_made_a_state_folder() -> TestResult {
        let place = tempfile::tempdir()?;
        let path = place.path().join("mine");
        make(&path)?;
        std::fs::create_dir(path.join(OF_FILE_SYSTEM))?;
        state_folder(&path).map_err(|refused| refused.to_string())?;
        std::fs::write(path.join("id_ed25519"), "")?;
        let refused = state_folder(&path).err().ok_or("it was taken")?;
        let text = refused.to_string();
        assert!(text.starts_with("error[BC0804]: "), "{text}");
        assert!(text.contains("`id_ed25519`"), "{text}");
        // A state is one whatever somebody put beside it.
        std::fs::write(path.join("lock"), "")?;
        state_folder(&path).map_err(|refused| refused.to_string())?;
        Ok(())
    }

    #[test]
    fn whoever_meets_a_folder_of_another_user_is_told_whose_and_what_taking_it_means() -> TestResult
    {
        let place = tempfile::tempdir()?;
        let path = place.path().join("theirs");
        make(&path)?;
        std::os::unix::fs::chown(&path, Some(42_424), Some(42_424))?;
        let text = state_folder(&path).err().ok_or("it was taken")?.to_string();
        assert!(
            text.contains("belongs to another user (id 42424)"),
            "{text}"
        );
        assert!(
            text.contains("or name another one with `--state`"),
            "{text}"
        );
        assert!(text.contains("trusted from then on"), "{text}");
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
