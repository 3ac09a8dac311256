//! The folder in memory that has the secrets of every attempt under way.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use barecount_model::text::Name;
use rustix::fs::{Mode, OFlags};

use super::{MountError, Mounted, io_at};
use crate::secret::Secret;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (statfs(2)).
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// What is overwritten of one left-over file at most; no secret is longer.
const MAX_OVERWRITTEN: u64 = crate::store::MAX_VALUE_BYTES as u64;

/// A folder on a file system in memory that nobody enters but its owner, for the secrets of all
/// attempts of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFolder {
    within: PathBuf,
    name: String,
}

impl MemoryFolder {
    /// Names the folder `name` in `within`, where others may have folders of their own, one of that
    /// name among them: then ours has [another](barecount_tree::own_folder). It is made when it is
    /// first needed.
    pub fn new(within: &Path, name: &str) -> Self {
        Self {
            within: within.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Where it is, or would be.
    pub fn path(&self) -> PathBuf {
        let usual = self.within.join(&self.name);
        let found = barecount_tree::own_folders(&self.within, &self.name);
        let found = found.unwrap_or_default().into_iter().next();
        found.unwrap_or(usual)
    }

    /// Makes the folder `name`, which must not exist, with each secret in a file of its name. It
    /// can be shown to work under any identity; nobody else passes the folder above. On an error
    /// nothing is left.
    ///
    /// # Errors
    /// [`MountError`]; [`MountError::Io`] if the folder exists.
    pub fn mount<'a>(
        &self,
        name: &str,
        secrets: impl IntoIterator<Item = (&'a Name, &'a Secret)>,
    ) -> Result<Mounted, MountError> {
        let folder = self.ready()?.join(name);
        DirBuilder::new()
            .mode(0o755)
            .create(&folder)
            .map_err(io_at("make", &folder))?;
        let directory = std::fs::set_permissions(&folder, Permissions::from_mode(0o755))
            .and_then(|()| File::open(&folder));
        let directory = match directory {
            Ok(directory) => directory,
            Err(error) => {
                // It is empty, and what is wrong is told.
                let _ = std::fs::remove_dir(&folder);
                return Err(io_at("open", &folder)(error));
            }
        };
        let mut mounted = Mounted {
            folder,
            directory,
            files: Vec::new(),
        };
        let mut names = BTreeSet::new();
        for (name, secret) in secrets {
            if !names.insert(name) {
                return Err(MountError::Duplicate { name: name.clone() });
            }
            mounted.add(name, secret)?;
        }
        Ok(mounted)
    }

    /// Removes what a process that was killed has left, and says how many folders that were. For
    /// whoever knows that no attempt is under way.
    ///
    /// # Errors
    /// [`MountError`]: what is left may have secrets in it.
    pub fn sweep(&self) -> Result<u64, MountError> {
        let mut removed = 0;
        for folder in self.ours()? {
            check(&folder)?;
            let entries = std::fs::read_dir(&folder).and_then(Iterator::collect);
            let entries: Vec<std::fs::DirEntry> = entries.map_err(io_at("clear", &folder))?;
            for entry in entries {
                let path = entry.path();
                overwrite(&path);
                barecount_tree::remove(&path, &barecount_tree::to_the_end)
                    .map_err(io_at("remove", &path))?;
                removed += 1;
            }
            std::fs::remove_dir(&folder).map_err(io_at("remove", &folder))?;
        }
        Ok(removed)
    }

    /// The folders of ours by this name.
    fn ours(&self) -> Result<Vec<PathBuf>, MountError> {
        match barecount_tree::own_folders(&self.within, &self.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            found => found.map_err(io_at("list", &self.within)),
        }
    }

    /// Removes the folder itself, for whoever knows that no attempt is under way.
    ///
    /// # Errors
    /// [`MountError::Io`], also where something is left in it; the next sweep removes that.
    pub fn close(&self) -> Result<(), MountError> {
        self.ours()?.iter().try_for_each(|folder| close(folder))
    }

    fn ready(&self) -> Result<PathBuf, MountError> {
        let usual = self.within.join(&self.name);
        let folder = barecount_tree::own_folder(&self.within, &self.name);
        let folder = folder.map_err(io_at("make", &usual))?;
        check(&folder).map(|()| folder)
    }
}

/// Removes a folder that nothing is in.
fn close(folder: &Path) -> Result<(), MountError> {
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_at("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// That a folder is in memory, and nobody's but ours.
fn check(path: &Path) -> Result<(), MountError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => File::from(directory),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Err(MountError::Foreign {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(io_at("open", path)(error)),
    };
    let kind = rustix::fs::fstatfs(&directory).map_err(io_at("inspect", path))?;
    let magic = u64::try_from(kind.f_type).unwrap_or(u64::MAX);
    if !MEMORY_FILE_SYSTEMS.contains(&magic) {
        // Made just now, or never used: nothing was put there.
        let _ = close(path);
        return Err(MountError::NotInMemory {
            path: path.to_owned(),
            magic,
        });
    }
    let metadata = directory.metadata().map_err(io_at("inspect", path))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(MountError::Foreign {
            path: path.to_owned(),
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(MountError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Overwrites the files in a left-over folder as far as that goes; they are removed anyway.
fn overwrite(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(found) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if !found.is_file() {
            continue;
        }
        let zeros = vec![0; usize::try_from(found.len().min(MAX_OVERWRITTEN)).unwrap_or(0)];
        // It is read-only for its owner, too.
        let _ = std::fs::set_permissions(&path, Permissions::from_mode(0o600))
            .and_then(|()| File::options().write(true).open(&path))
            .and_then(|mut file| io::Write::write_all(&mut file, &zeros));
    }
}
