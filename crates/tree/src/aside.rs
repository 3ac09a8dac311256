//! Where a state folder keeps what could not be removed, so that it is in nobody's way.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::remove::{Stop, remove};

/// The folder in a state folder.
const FOLDER: &str = "aside";
/// More of a name is not kept; a number comes after it.
const NAME_BYTES: usize = 200;

/// A folder for what could not be removed.
#[derive(Debug, Clone)]
pub struct Aside {
    folder: PathBuf,
}

/// Something that could not be removed.
#[derive(Debug)]
pub struct Left {
    /// Where it was.
    pub was: PathBuf,
    /// Where it is now, if it could be moved.
    pub now: Option<PathBuf>,
    /// Why it is there still.
    pub why: io::Error,
}

/// What another try came to.
#[derive(Debug, Default)]
pub struct Retried {
    /// How many were removed.
    pub removed: u64,
    /// Those that are still there.
    pub left: Vec<Left>,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let was = self.was.display();
        write!(f, "{was} could not be removed: {}", self.why)?;
        if let Some(source) = std::error::Error::source(&self.why) {
            write!(f, ": {source}")?;
        }
        match &self.now {
            Some(now) if *now == self.was => Ok(()),
            Some(now) => write!(f, "; it was moved to {}", now.display()),
            None => write!(f, "; nor could it be moved out of the way"),
        }
    }
}

impl Aside {
    /// That of a state folder. It is made when it is first needed.
    pub fn of(state: &Path) -> Self {
        Self {
            folder: state.join(FOLDER),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Removes what is at a path of the same file system, or moves it here, so that its name is free.
    ///
    /// # Errors
    /// [`Left`], which says whether the name is.
    pub fn remove(&self, path: &Path, stop: Stop<'_>) -> Result<(), Left> {
        remove(path, stop).map_err(|why| Left {
            was: path.to_owned(),
            now: self.take(path).ok(),
            why: why.into(),
        })
    }

    /// Moves something here, and says what it is called now.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn take(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        let name = OsStr::from_bytes(&name[..name.len().min(NAME_BYTES)]);
        for number in 0_u64.. {
            let mut numbered = OsString::from(name);
            numbered.push(format!("-{number}"));
            let to = self.folder.join(numbered);
            match std::fs::symlink_metadata(&to) {
                // One process at a time has the state folder, and gives out its names.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return std::fs::rename(path, &to).map(|()| to);
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Tries once more to remove all that is here.
    ///
    /// # Errors
    /// If it cannot be said what is here.
    pub fn retry(&self, stop: Stop<'_>) -> io::Result<Retried> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Retried::default()),
            entries => entries?.collect::<io::Result<Vec<_>>>()?,
        };
        let mut retried = Retried::default();
        for path in entries.into_iter().map(|entry| entry.path()) {
            match remove(&path, stop) {
                Ok(()) => retried.removed += 1,
                Err(why) => retried.left.push(Left {
                    was: path.clone(),
                    now: Some(path),
                    why: why.into(),
                }),
            }
        }
        Ok(retried)
    }
}
