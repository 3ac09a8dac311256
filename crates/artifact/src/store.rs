//! The artifacts of a state folder, by digest.
//!
//! ```text
//! artifacts/
//!   lock                 held shared while writing, exclusively while collecting garbage
//!   blobs/sha256/<hex>   archives, manifests, layers: laid out as an OCI image layout has them
//!   unpacked/<hex>/      read-only trees, named by the digest of what they were unpacked from
//!   lists/<hex>          what has to be in such a tree, under a seal; locked while it is replaced
//! ```
//!
//! A name appears only when its content is complete and on disk. Any number of processes may
//! write at once: two that bring the same content replace a file by its equal.

mod listing;
mod trees;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barecount_model::seal::SealKey;
use barecount_tree::Left;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::digest::HashingWriter;
use crate::tree::STAGING_PREFIX;
use trees::Trees;

/// Some content in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A store that could not be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The content is not in the store.
    #[error("artifact {digest} is not in the store")]
    Missing {
        /// What was looked for.
        digest: Digest,
    },
    /// The content is not what its name says.
    #[error("artifact {expected} has the digest {actual}: it was damaged or replaced")]
    DigestMismatch {
        /// The name.
        expected: Digest,
        /// The content.
        actual: Digest,
    },
    /// The content has another size than the reference to it says.
    #[error("artifact {digest} has {actual} bytes where {expected} are declared")]
    SizeMismatch {
        /// The name.
        digest: Digest,
        /// The declared size in bytes.
        expected: u64,
        /// The size in bytes.
        actual: u64,
    },
    /// The content is larger than allowed here.
    #[error("the content is larger than {limit} bytes")]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// What was being unpacked was changed meanwhile.
    #[error("what was being unpacked was changed meanwhile: {reason}")]
    ChangedMeanwhile {
        /// What of it.
        reason: String,
    },
    /// The content to be stored could not be read.
    #[error("cannot read the content to be stored")]
    Content(#[source] io::Error),
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn io_at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

/// A folder of blobs named by their digests: that of a store, or of somebody's image layout.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// The blobs in `folder` (the one that holds `sha256/`).
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Where the content called `digest` is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("sha256").join(digest.hex())
    }

    /// Opens a blob after reading all of it once to verify digest and, if given, size.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::SizeMismatch`], [`StoreError::DigestMismatch`].
    pub fn open(&self, digest: &Digest, size: Option<u64>) -> Result<(File, Blob), StoreError> {
        let path = self.path(digest);
        // Not blocking: a named pipe planted as a blob must not hang the reader.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
        let flags = i32::try_from(flags.bits()).expect("open flags fit a C int");
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), flags);
        let mut file = options.open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { digest: *digest },
            _ => StoreError::Io {
                action: "open",
                path: path.clone(),
                source,
            },
        })?;
        let metadata = file.metadata().map_err(io_at("read", &path))?;
        if !metadata.is_file() {
            return Err(StoreError::Missing { digest: *digest });
        }
        if let Some(expected) = size
            && expected != metadata.len()
        {
            let actual = metadata.len();
            return Err(StoreError::SizeMismatch {
                digest: *digest,
                expected,
                actual,
            });
        }
        let (actual, size) = crate::digest::of_reader(&mut file).map_err(io_at("read", &path))?;
        if actual != *digest {
            return Err(StoreError::DigestMismatch {
                expected: *digest,
                actual,
            });
        }
        file.seek(SeekFrom::Start(0))
            .map_err(io_at("read", &path))?;
        Ok((
            file,
            Blob {
                digest: *digest,
                size,
            },
        ))
    }

    /// Reads a blob of at most `limit` bytes, verified.
    ///
    /// # Errors
    /// As [`Blobs::open`], and [`StoreError::TooLarge`].
    pub fn read(
        &self,
        digest: &Digest,
        size: Option<u64>,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > limit) {
            return Err(StoreError::TooLarge { limit });
        }
        let (file, blob) = self.open(digest, size)?;
        let mut content = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        file.take(limit)
            .read_to_end(&mut content)
            .map_err(io_at("read", &path))?;
        match Digest::of(&content) {
            actual if actual == *digest => Ok(content),
            actual => Err(StoreError::DigestMismatch {
                expected: *digest,
                actual,
            }),
        }
    }
}

/// The artifact store of one state folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    blobs: Blobs,
    /// What trees are held against; without, they are what their names say.
    trees: Option<Arc<Trees>>,
}

/// What a garbage collection took away.
#[derive(Debug, Default, Serialize)]
pub struct Collected {
    /// Blobs that nothing named any more.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Unpacked trees that nothing named any more.
    pub trees: u64,
    /// Unfinished files and trees of processes that died.
    pub unfinished: u64,
    /// Trees that could not be removed; the next collection tries them again.
    #[serde(skip)]
    pub left: Vec<Left>,
}

impl Store {
    /// Opens the store in `root` (`<state>/artifacts`), making it if need be.
    ///
    /// What is unpacked here has no list of what has to be in it before [`Store::sealed`] gave the
    /// key for that, and a store with a key unpacks it anew. Nothing is to be run from a store without
    /// one: the trees in it are believed to be what their names say.
    ///
    /// # Errors
    /// [`StoreError::Io`] when a folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        for folder in ["blobs/sha256", "unpacked", "lists"] {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).map_err(io_at("make", &folder))?;
        }
        Ok(Self {
            root: root.to_owned(),
            blobs: Blobs::at(root.join("blobs")),
            trees: None,
        })
    }

    /// The same store, in which each tree is held against its list before it is answered with for the
    /// first time, and unpacked anew where it is not what that says. The lists have seals under `key`,
    /// which whoever writes the store's folder must not have.
    #[must_use]
    pub fn sealed(mut self, key: SealKey) -> Self {
        self.trees = Some(Arc::new(Trees::new(key)));
        self
    }

    /// The folder of the store.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Whether the store has a verified blob of this digest.
    ///
    /// # Errors
    /// As [`Blobs::open`], but a missing or damaged blob is `false`.
    pub fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        match self.blobs.open(digest, None) {
            Ok(_) => Ok(true),
            Err(StoreError::Missing { .. } | StoreError::DigestMismatch { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores bytes unless they are there. Once [`Store::sync`] has returned they survive a power
    /// failure: whoever brought them may have died before their name did.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn keep_bytes(&self, content: &[u8]) -> Result<Blob, StoreError> {
        let (digest, size) = (Digest::of(content), content.len() as u64);
        match self.has(&digest)? {
            true => Ok(Blob { digest, size }),
            false => self.put_bytes(content),
        }
    }

    /// Has all names that are there survive a power failure.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sync(&self) -> Result<(), StoreError> {
        sync_folder(&self.root.join("blobs/sha256"))
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn put_bytes(&self, content: &[u8]) -> Result<Blob, StoreError> {
        self.put(content, None, u64::MAX)
    }

    /// Stores what `content` gives, at most `limit` bytes, durably: once this returns, the blob
    /// survives a power failure. With `expected`, other content is refused.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`], [`StoreError::TooLarge`], [`StoreError::Content`],
    /// [`StoreError::Io`].
    pub fn put(
        &self,
        mut content: impl Read,
        expected: Option<&Digest>,
        limit: u64,
    ) -> Result<Blob, StoreError> {
        let (blob, ()) = self.write(expected, |writer| {
            let mut buffer = vec![0; 64 * 1024];
            let mut left = limit;
            loop {
                let count = match content.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(StoreError::Content(error)),
                };
                left = left
                    .checked_sub(count as u64)
                    .ok_or(StoreError::TooLarge { limit })?;
                writer
                    .write_all(&buffer[..count])
                    .map_err(io_at("write to", &self.root))?;
            }
        })?;
        Ok(blob)
    }

    /// Stores what `produce` writes, as [`Store::put`] does.
    ///
    /// # Errors
    /// Those of `produce`, [`StoreError::DigestMismatch`], [`StoreError::Io`].
    pub fn write<T, E: From<StoreError>>(
        &self,
        expected: Option<&Digest>,
        produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> Result<(Blob, T), E> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let folder = self.root.join("blobs/sha256");
        let temporary = tempfile::Builder::new()
            .prefix(STAGING_PREFIX)
            .tempfile_in(&folder)
            .map_err(io_at("write to", &folder))?;
        // Died from here to the rename: an unfinished file that `collect` sweeps.
        let mut writer = HashingWriter::new(io::BufWriter::new(temporary));
        let made = produce(&mut writer)?;
        let (digest, size, writer) = writer.finish();
        let temporary = writer
            .into_inner()
            .map_err(|error| io_at("write to", &folder)(error.into_error()))?;
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(StoreError::DigestMismatch {
                expected: *expected,
                actual: digest,
            }
            .into());
        }
        let path = self.blobs.path(&digest);
        let file = temporary.as_file();
        file.set_permissions(PermissionsExt::from_mode(0o444))
            .map_err(io_at("write", &path))?;
        file.sync_all().map_err(io_at("write", &path))?;
        // Renamed over what may be there: equal content, or a damaged file that this heals.
        temporary
            .persist(&path)
            .map_err(|error| io_at("write", &path)(error.error))?;
        // Died before this sync: the name may be gone after a power failure, and the blob is
        // simply not there; nobody was told that it is.
        sync_folder(&folder)?;
        Ok((Blob { digest, size }, made))
    }

    /// A file without a name in the store's file system, for content that is written out of
    /// order before it is stored.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn scratch_file(&self) -> Result<File, StoreError> {
        tempfile::tempfile_in(&self.root).map_err(io_at("write to", &self.root))
    }

    /// Removes every blob and tree that `keep` does not name, and what dead processes left
    /// unfinished; `None` while another process is writing. `keep` must name the layers and
    /// configurations of images too: see [`crate::image::closure`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<Option<Collected>, StoreError> {
        let _lock = match self.lock(FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => lock,
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let names: BTreeSet<String> = keep.iter().map(Digest::hex).collect();
        let mut collected = Collected::default();
        for (path, name) in entries(&self.root.join("blobs/sha256"))? {
            if names.contains(&name) {
                continue;
            }
            let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            std::fs::remove_file(&path).map_err(io_at("remove", &path))?;
            if name.starts_with(STAGING_PREFIX) {
                collected.unfinished += 1;
            } else {
                collected.blobs += 1;
                collected.blob_bytes += size;
            }
        }
        for (path, name) in entries(&self.root.join("unpacked"))? {
            if names.contains(&name) {
                continue;
            }
            let unfinished = name.starts_with(STAGING_PREFIX);
            let doomed = match unfinished {
                true => path,
                false => {
                    // Renamed first: died during the removal, no half tree stands under a digest.
                    let doomed = path.with_file_name(format!("{STAGING_PREFIX}doomed-{name}"));
                    std::fs::rename(&path, &doomed).map_err(io_at("remove", &path))?;
                    doomed
                }
            };
            if let Err(why) = barecount_tree::remove(&doomed, &barecount_tree::to_the_end) {
                // It is no artifact any more, and in nobody's way.
                collected.left.push(Left {
                    was: doomed.clone(),
                    now: Some(doomed),
                    why: why.into(),
                });
            } else if unfinished {
                collected.unfinished += 1;
            } else {
                collected.trees += 1;
            }
        }
        for (path, name) in entries(&self.root.join("lists"))? {
            if !names.contains(&name) {
                std::fs::remove_file(&path).map_err(io_at("remove", &path))?;
            }
        }
        Ok(Some(collected))
    }

    /// The kernel drops the lock with the file, however its holder ends.
    fn lock(&self, operation: FlockOperation) -> Result<File, StoreError> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_at("open", &path))?;
        lock(&file, &path, operation)?;
        Ok(file)
    }
}

fn lock(file: &File, path: &Path, operation: FlockOperation) -> Result<(), StoreError> {
    rustix::fs::flock(file, operation).map_err(|errno| io_at("lock", path)(errno.into()))
}

fn entries(folder: &Path) -> Result<Vec<(PathBuf, String)>, StoreError> {
    std::fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| {
                    let entry = entry?;
                    Ok((
                        entry.path(),
                        entry.file_name().to_string_lossy().into_owned(),
                    ))
                })
                .collect()
        })
        .map_err(io_at("read", folder))
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io_at("sync", folder))
}

#[cfg(test)]
mod tests;
