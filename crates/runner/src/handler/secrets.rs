//! How the secrets of one attempt after the other appear inside a sandbox that already runs.
//!
//! As with other [places](super::slots), the sandbox has a folder of its own mounted, read-only, on
//! the file system in memory that has all secrets; the files of an attempt are *renamed* into it for
//! the time that it is served. No byte is copied, so that whoever made the files still overwrites
//! them all. They have the same names for each attempt, since a process is told once where they are.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::launch::Secrets;

/// The folder of one sandbox. Removed when dropped.
#[derive(Debug)]
pub(super) struct SecretsFolder {
    folder: PathBuf,
    /// The files that are inside, and where they belong.
    lent: Vec<Lent>,
}

#[derive(Debug)]
struct Lent {
    outside: PathBuf,
    inside: PathBuf,
}

impl SecretsFolder {
    /// Makes the folder beside that of the first attempt's secrets, where nobody passes but the
    /// agent's user, and lends it those. Blocking, as all calls here.
    ///
    /// Should this process die, the folder is swept with those of the attempts.
    pub(super) fn create(given: &Secrets) -> io::Result<Self> {
        let mut name = given.folder.file_name().unwrap_or_default().to_owned();
        name.push(".sandbox");
        let folder = given.folder.with_file_name(name);
        fs_err::create_dir(&folder)?;
        let mut secrets = Self {
            folder,
            lent: Vec::new(),
        };
        // Whatever the mask of this process: work inside has an identity of its own.
        fs_err::set_permissions(&secrets.folder, Permissions::from_mode(0o755))?;
        secrets.lend(given)?;
        Ok(secrets)
    }

    /// Where it is on this host.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Moves an attempt's files into the sandbox: all of them, or none.
    pub(super) fn lend(&mut self, given: &Secrets) -> io::Result<()> {
        let lent = self.move_in(given);
        if lent.is_err() {
            self.take_back()?;
        }
        lent
    }

    fn move_in(&mut self, given: &Secrets) -> io::Result<()> {
        for entry in fs_err::read_dir(&given.folder)? {
            let entry = entry?;
            let (outside, inside) = (entry.path(), self.folder.join(entry.file_name()));
            fs_err::rename(&outside, &inside)?;
            self.lent.push(Lent { outside, inside });
        }
        Ok(())
    }

    /// Moves the files back to where whoever made them looks for them. Goes on after a failure, and
    /// reports the first; nothing is inside afterwards that could be another attempt's.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        let mut first = Ok(());
        for Lent { outside, inside } in self.lent.drain(..) {
            let moved = fs_err::rename(inside, outside);
            first = first.and(moved);
        }
        first
    }
}

impl Drop for SecretsFolder {
    fn drop(&mut self) {
        // Whoever made the files overwrites them, wherever they are; the folder is swept later if
        // it cannot be removed now.
        drop(self.take_back());
        drop(barecount_tree::remove(
            &self.folder,
            &barecount_tree::to_the_end,
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use barecount_secrets::Redactor;

    use super::*;

    fn given(within: &Path, attempt: &str, files: &[(&str, &str)]) -> io::Result<Secrets> {
        let folder = within.join(attempt);
        fs_err::create_dir(&folder)?;
        for (name, value) in files {
            fs_err::write(folder.join(name), value)?;
        }
        let redactor = Redactor::new([]).map_err(io::Error::other)?;
        Ok(Secrets {
            folder,
            variables: BTreeMap::new(),
            redactor,
        })
    }

    fn names(folder: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<_> = fs_err::read_dir(folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    #[test]
    fn each_attempt_finds_its_own_files_under_the_same_names_and_none_stays() -> io::Result<()> {
        let memory = tempfile::tempdir()?;
        let first = given(memory.path(), "one", &[("token", "1"), ("key", "2")])?;
        let mut secrets = SecretsFolder::create(&first)?;
        let inside = secrets.path().to_owned();
        assert_eq!(names(&inside)?, ["key", "token"]);
        assert_eq!(names(&first.folder)?, Vec::<String>::new());
        secrets.take_back()?;
        assert_eq!(names(&inside)?, Vec::<String>::new());
        assert_eq!(names(&first.folder)?, ["key", "token"]);
        let second = given(memory.path(), "two", &[("token", "3")])?;
        secrets.lend(&second)?;
        assert_eq!(fs_err::read_to_string(inside.join("token"))?, "3");
        assert_eq!(names(&inside)?, ["token"]);
        drop(secrets);
        assert_eq!(names(&second.folder)?, ["token"]);
        assert!(!inside.exists());
        Ok(())
    }

    #[test]
    fn what_cannot_be_lent_whole_is_not_lent() -> io::Result<()> {
        let memory = tempfile::tempdir()?;
        let first = given(memory.path(), "one", &[])?;
        let mut secrets = SecretsFolder::create(&first)?;
        let second = given(memory.path(), "two", &[("a", "1"), ("b", "2")])?;
        // A folder in the place of a file cannot be replaced by one.
        fs_err::create_dir(secrets.path().join("b"))?;
        assert!(secrets.lend(&second).is_err());
        assert_eq!(names(&second.folder)?, ["a", "b"]);
        assert_eq!(names(secrets.path())?, ["b"]);
        Ok(())
    }
}
