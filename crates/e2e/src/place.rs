//! A place of its own for each test: pipeline, state folder, configuration folder.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{binary, leftovers, process::Invocation};

/// A folder that is gone with the test.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
}

impl Place {
    /// An empty place.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&binary::own("place"))
            .tempdir_in(binary::scratch())
            .expect("a folder for the test");
        Self { folder }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// The state folder, where `barecount` makes it by default.
    pub fn state(&self) -> PathBuf {
        self.join(".barecount")
    }

    /// Makes the state folder as `barecount` would: for its owner alone.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn make_state(&self) {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().mode(0o700).create(self.state());
        made.expect("a state folder in the test's own");
    }

    /// Writes a file, and the folders that it is in.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder).expect("a folder in the test's own");
        }
        fs_err::write(&path, content).expect("a file in the test's own folder");
        path
    }

    /// The binary with these arguments, in this place: the user has a configuration folder here.
    pub fn barecount<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Invocation {
        Invocation::of_binary(self.path(), arguments).env("XDG_CONFIG_HOME", self.join("config"))
    }

    /// Asserts that nothing of this place is left: no process, mount, control group or staging.
    ///
    /// # Panics
    /// With what is left, if it does not go away by itself soon.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        leftovers::none(self.path(), &self.state());
    }

    /// Asserts that nothing of this place runs any more: no process, no mount.
    ///
    /// # Panics
    /// With what is left, if it does not go away by itself soon.
    #[track_caller]
    pub fn nothing_runs(&self) {
        leftovers::nothing_runs(self.path());
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}
