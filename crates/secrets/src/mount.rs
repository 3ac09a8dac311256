//! Secrets as files in memory, for the time of an attempt.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use barecount_model::text::Name;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::secret::Secret;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (statfs(2)).
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// The permissions of a mounted secret: its owner reads it, nobody writes it.
const FILE_MODE: Mode = Mode::RUSR;

/// Secrets that cannot be mounted, or not be removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The folder is on a disk, where deleted bytes stay.
    #[error("{} is not on a file system in memory (its type is {magic:#x})", path.display())]
    NotInMemory {
        /// The folder.
        path: PathBuf,
        /// What statfs(2) says.
        magic: u64,
    },
    /// Others than the owner may use the folder.
    #[error("{} has mode {mode:04o}, so that others than its owner can use it", path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Two secrets are to have the same file.
    #[error("two secrets are to be mounted as `{name}`")]
    Duplicate {
        /// The file's name.
        name: Name,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotInMemory { .. } => {
                Some("Mount a tmpfs there, or use a folder under `/dev/shm`.".to_owned())
            }
            Self::Exposed { path, .. } => Some(format!("Run `chmod 700 {}`.", path.display())),
            Self::Duplicate { .. } => Some("Give each secret a name of its own.".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// Secrets in files, overwritten with zeros and removed when this is removed or dropped.
///
/// A process that is killed leaves them until the memory file system is unmounted, which the
/// maker of the folder sees to. A tmpfs may be swapped out unless it is mounted with `noswap`.
/// Each file is held open for writing, so that it can be overwritten wherever it was moved; bind
/// mounts of the folder can be read-only all the same.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    directory: File,
    files: Vec<MountedFile>,
}

#[derive(Debug)]
struct MountedFile {
    name: Name,
    file: File,
    length: usize,
}

impl Mounted {
    /// Writes each secret to a file of its name in `folder`, which the caller made, for its owner
    /// alone, on a file system in memory. On an error nothing is left.
    ///
    /// # Errors
    /// [`MountError`]; [`MountError::Io`] if a file exists.
    pub fn write_into<'a>(
        folder: &Path,
        secrets: impl IntoIterator<Item = (&'a Name, &'a Secret)>,
    ) -> Result<Self, MountError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(folder, flags, Mode::empty());
        let directory = directory.map_err(io_at("open", folder))?;
        let kind = rustix::fs::fstatfs(&directory).map_err(io_at("inspect", folder))?;
        let magic = u64::try_from(kind.f_type).unwrap_or(u64::MAX);
        if !MEMORY_FILE_SYSTEMS.contains(&magic) {
            return Err(MountError::NotInMemory {
                path: folder.to_owned(),
                magic,
            });
        }
        let mode = rustix::fs::fstat(&directory)
            .map_err(io_at("inspect", folder))?
            .st_mode;
        if mode & 0o077 != 0 {
            return Err(MountError::Exposed {
                path: folder.to_owned(),
                mode: mode & 0o7777,
            });
        }
        let mut mounted = Self {
            folder: folder.to_owned(),
            directory: directory.into(),
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

    /// The names of the files.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.files.iter().map(|file| &file.name)
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn add(&mut self, name: &Name, secret: &Secret) -> Result<(), MountError> {
        let path = self.folder.join(name.as_str());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name.as_str(), flags, FILE_MODE);
        let file = File::from(file.map_err(io_at("make", &path))?);
        // Kept before it is filled: whatever fails from here on, it is removed again.
        self.files.push(MountedFile {
            name: name.clone(),
            file,
            length: secret.len(),
        });
        let file = &self.files[self.files.len() - 1].file;
        // The process's umask may have taken the owner's permission away.
        rustix::fs::fchmod(file, FILE_MODE).map_err(io_at("protect", &path))?;
        file.write_all_at(secret.expose(), 0)
            .map_err(io_at("write", &path))
    }

    /// Overwrites every secret with zeros and removes its file. Goes on after a failure, and
    /// reports the first; what failed is tried again when this is dropped.
    ///
    /// # Errors
    /// [`MountError::Io`].
    pub fn remove(mut self) -> Result<(), MountError> {
        self.clear()
    }

    fn clear(&mut self) -> Result<(), MountError> {
        let mut first = Ok(());
        let (folder, directory) = (&self.folder, &self.directory);
        self.files.retain(|mounted| {
            let cleared = mounted.clear(folder, directory);
            let kept = cleared.is_err();
            if first.is_ok() {
                first = cleared;
            }
            kept
        });
        first
    }
}

impl MountedFile {
    fn clear(&self, folder: &Path, directory: &File) -> Result<(), MountError> {
        let path = folder.join(self.name.as_str());
        let zeros = vec![0; self.length];
        self.file
            .write_all_at(&zeros, 0)
            .map_err(io_at("overwrite", &path))?;
        self.file.set_len(0).map_err(io_at("empty", &path))?;
        match rustix::fs::unlinkat(directory, self.name.as_str(), AtFlags::empty()) {
            // Somebody else removed or moved it; it is empty wherever it is.
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(io_at("remove", &path)(error)),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nobody is left to be told; `remove` tells.
        let _ = self.clear();
    }
}

fn io_at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> MountError {
    let path = path.to_owned();
    move |source| MountError::Io {
        action,
        path,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// Where every Linux system has a tmpfs (shm_overview(7)).
    const MEMORY: &str = "/dev/shm";

    fn in_memory() -> io::Result<TempDir> {
        let private = PermissionsExt::from_mode(0o700);
        tempfile::Builder::new()
            .prefix("barecount-secrets-")
            .permissions(private)
            .tempdir_in(MEMORY)
    }

    fn name(text: &str) -> Name {
        text.parse().expect("it is a name")
    }

    fn entries(folder: &Path) -> io::Result<usize> {
        Ok(std::fs::read_dir(folder)?.count())
    }

    #[test]
    fn secrets_are_files_that_only_their_owner_reads_until_they_are_removed()
    -> Result<(), Box<dyn Error>> {
        let home = in_memory()?;
        let (token, key) = (Secret::new(b"canary-token"), Secret::new(b"canary\0key"));
        let (a, b) = (name("token"), name("key"));
        let mounted = Mounted::write_into(home.path(), [(&a, &token), (&b, &key)])?;
        let path = home.path().join("token");
        assert_eq!(std::fs::read(&path)?, b"canary-token");
        assert_eq!(std::fs::read(home.path().join("key"))?, b"canary\0key");
        assert_eq!(
            std::fs::metadata(&path)?.permissions().mode() & 0o7777,
            0o400
        );
        assert!(!format!("{mounted:?}").contains("canary"));
        mounted.remove()?;
        assert_eq!(entries(home.path())?, 0);
        Ok(())
    }

    #[test]
    fn whoever_still_has_a_file_open_or_linked_finds_nothing_in_it() -> Result<(), Box<dyn Error>> {
        let home = in_memory()?;
        let (token, a) = (Secret::new(b"canary-token"), name("token"));
        let mounted = Mounted::write_into(home.path(), [(&a, &token)])?;
        let path = home.path().join("token");
        let reader = File::open(&path)?;
        std::fs::hard_link(&path, home.path().join("kept"))?;
        std::fs::rename(&path, home.path().join("moved"))?;
        drop(mounted);
        assert_eq!(reader.metadata()?.len(), 0);
        assert_eq!(std::fs::read(home.path().join("kept"))?, b"");
        assert_eq!(std::fs::read(home.path().join("moved"))?, b"");
        Ok(())
    }

    #[test]
    fn a_folder_on_a_disk_is_refused() -> Result<(), Box<dyn Error>> {
        // The place of the crate itself: sources are not kept in memory.
        let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR"))?;
        let (token, a) = (Secret::new(b"canary-token"), name("token"));
        let refused = Mounted::write_into(home.path(), [(&a, &token)]);
        assert!(
            matches!(refused, Err(MountError::NotInMemory { .. })),
            "{refused:?}"
        );
        assert_eq!(entries(home.path())?, 0);
        Ok(())
    }

    #[test]
    fn a_folder_that_others_can_use_is_refused() -> Result<(), Box<dyn Error>> {
        let home = in_memory()?;
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o750))?;
        let refused = Mounted::write_into(home.path(), []);
        assert!(
            matches!(refused, Err(MountError::Exposed { mode: 0o750, .. })),
            "{refused:?}"
        );
        Ok(())
    }

    #[test]
    fn a_failure_half_way_leaves_nothing_and_overwrites_nothing() -> Result<(), Box<dyn Error>> {
        let home = in_memory()?;
        std::fs::write(home.path().join("b"), "mine")?;
        let (token, a, b) = (Secret::new(b"canary-token"), name("a"), name("b"));
        let refused = Mounted::write_into(home.path(), [(&a, &token), (&b, &token)]);
        assert!(matches!(refused, Err(MountError::Io { .. })), "{refused:?}");
        assert_eq!(std::fs::read(home.path().join("b"))?, b"mine");
        assert_eq!(entries(home.path())?, 1);
        let refused = Mounted::write_into(home.path(), [(&a, &token), (&a, &token)]);
        assert!(
            matches!(refused, Err(MountError::Duplicate { .. })),
            "{refused:?}"
        );
        assert_eq!(entries(home.path())?, 1);
        Ok(())
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_not_followed() -> Result<(), Box<dyn Error>> {
        let home = in_memory()?;
        let link = home.path().join("link");
        std::fs::create_dir(home.path().join("real"))?;
        std::os::unix::fs::symlink("real", &link)?;
        assert!(matches!(
            Mounted::write_into(&link, []),
            Err(MountError::Io { .. })
        ));
        Ok(())
    }
}
