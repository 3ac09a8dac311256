//! Reads a source folder in one order everywhere: sorted by path, bytewise.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Limits;
use crate::digest::{Digest, FieldHasher};
use crate::entry::{EntryPath, NameFault};

/// What goes into an archive, by its place there: each place once, in the archive's order.
pub type Contents = BTreeMap<EntryPath, Content>;

/// One entry to be packed; of a mode only *executable* counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Where its bytes are now.
        from: PathBuf,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// The target as it is written.
        target: String,
    },
}

/// A source folder that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file name that no archive should carry.
    #[error("cannot take {} along", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: NameFault,
    },
    /// A socket, device, named pipe.
    #[error("{} is neither a file, a folder nor a link", path.display())]
    Kind {
        /// The entry.
        path: PathBuf,
    },
    /// More entries than allowed.
    #[error("{} holds more than {limit} entries", path.display())]
    Entries {
        /// The source folder.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> WalkError {
    let path = path.to_owned();
    |source| WalkError::Io { path, source }
}

/// Lists everything below `root`, folders before what they hold; links are not followed.
/// Entries that `skip` accepts are left out with all below them.
///
/// # Errors
/// See [`WalkError`].
pub fn walk(
    root: &Path,
    limits: &Limits,
    skip: &dyn Fn(&EntryPath) -> bool,
) -> Result<Contents, WalkError> {
    let mut found = Contents::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).map_err(io_at(&folder))? {
            let file = entry.map_err(io_at(&folder))?.path();
            let path = inside(root, &file, limits)?;
            if skip(&path) {
                continue;
            }
            let content = content(&file)?;
            if content == Content::Folder {
                pending.push(file);
            }
            found.insert(path, content);
            if found.len() as u64 > limits.entries {
                return Err(WalkError::Entries {
                    path: root.to_owned(),
                    limit: limits.entries,
                });
            }
        }
    }
    Ok(found)
}

fn inside(root: &Path, file: &Path, limits: &Limits) -> Result<EntryPath, WalkError> {
    let relative = file.strip_prefix(root).unwrap_or(file);
    EntryPath::parse(relative.as_os_str().as_encoded_bytes(), limits).map_err(|source| {
        WalkError::Name {
            path: file.to_owned(),
            source,
        }
    })
}

fn content(file: &Path) -> Result<Content, WalkError> {
    let metadata = std::fs::symlink_metadata(file).map_err(io_at(file))?;
    if metadata.is_dir() {
        Ok(Content::Folder)
    } else if metadata.is_file() {
        let executable = metadata.permissions().mode() & 0o100 != 0;
        Ok(Content::File {
            from: file.to_owned(),
            executable,
        })
    } else if metadata.is_symlink() {
        let target = std::fs::read_link(file).map_err(io_at(file))?;
        let target = target
            .into_os_string()
            .into_string()
            .map_err(|_| WalkError::Name {
                path: file.to_owned(),
                source: NameFault::NotUtf8,
            })?;
        Ok(Content::Link { target })
    } else {
        Err(WalkError::Kind {
            path: file.to_owned(),
        })
    }
}

/// Opens a file to be packed.
///
/// # Errors
/// The file cannot be opened.
pub fn open(from: &Path) -> Result<File, WalkError> {
    File::open(from).map_err(io_at(from))
}

/// Digests places, kinds, executable bits and bytes of what is to be packed.
///
/// # Errors
/// A file cannot be read.
pub fn digest(contents: &Contents) -> Result<Digest, WalkError> {
    let mut hasher = FieldHasher::new("barecount source tree v1");
    for (path, content) in contents {
        hasher.field(path.as_str().as_bytes());
        match content {
            Content::Folder => hasher.field(b"folder"),
            Content::Link { target } => {
                hasher.field(b"link");
                hasher.field(target.as_bytes());
            }
            Content::File { from, executable } => {
                hasher.field(if *executable { b"executable" } else { b"file" });
                let (digest, _) = crate::digest::of_reader(open(from)?).map_err(io_at(from))?;
                hasher.field(digest.hex().as_bytes());
            }
        }
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn the_digest_follows_content_name_and_executable_bit() -> Outcome {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("a");
        let now = || digest(&walk(folder.path(), &Limits::default(), &|_| false)?);
        std::fs::write(&file, "one")?;
        let first = now()?;
        assert_eq!(now()?, first);
        std::fs::write(&file, "two")?;
        let second = now()?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
        let third = now()?;
        std::fs::rename(&file, folder.path().join("b"))?;
        let digests = std::collections::BTreeSet::from([first, second, third, now()?]);
        assert_eq!(digests.len(), 4);
        Ok(())
    }

    #[test]
    fn a_socket_among_the_sources_is_refused() -> Outcome {
        let folder = tempfile::tempdir()?;
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("socket"))?;
        let refused = walk(folder.path(), &Limits::default(), &|_| false);
        assert!(matches!(refused, Err(WalkError::Kind { .. })));
        Ok(())
    }
}
