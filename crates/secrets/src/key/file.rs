//! Keys in a file of their owner.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Derivation, KeyError, KeyId, KeySource, Slot, WrappingKey};
use crate::disk::{self, LocalDisk};
use crate::seal::KEY_BYTES;
use crate::secret::{ReadError, Secret};

/// The first line of a key file.
const MAGIC: &str = "barecount/secrets-key/v1";

/// The most keys in one file.
const MAX_KEYS: usize = 16;

/// The largest key file, in bytes.
const MAX_BYTES: usize = 2048;

/// A text file of keys: a line that says what it is, then a key a line in base64, the current
/// one first. Nobody but its owner may read or write it; that is checked at every use.
///
/// It is read again at each use, so that a rotation by another process is seen at once. Changes
/// are made by one process at a time, which the caller sees to.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// Makes a file with one new key. Dying half-way leaves no key file.
    ///
    /// # Errors
    /// [`KeyError::Exists`], [`KeyError::Random`], [`KeyError::Io`].
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, KeyError> {
        let file = Self { path: path.into() };
        let text = encode(&[WrappingKey::generate()?]);
        match disk::create(&LocalDisk, &file.path, text.as_bytes()) {
            Ok(()) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(KeyError::Exists { path: file.path })
            }
            Err(error) => Err(file.io("make")(error)),
        }
    }

    /// Takes the file at `path`, which is first looked at when a key is needed.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Takes the file at `path` after checking that it can be used.
    ///
    /// # Errors
    /// [`KeyError::Exposed`], [`KeyError::ForeignOwner`], [`KeyError::Malformed`],
    /// [`KeyError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyError> {
        let file = Self { path: path.into() };
        file.read()?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its keys, the current one first.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn ids(&self) -> Result<Vec<KeyId>, KeyError> {
        Ok(self.read()?.iter().map(WrappingKey::id).collect())
    }

    /// Puts a new key first and keeps the others: the first step of a rotation. Dying half-way
    /// leaves the file as it was, or with the new key; stores go on with the key they have until
    /// they are rotated.
    ///
    /// # Errors
    /// As [`Self::open`]; [`KeyError::Random`]; [`KeyError::Malformed`] if the file is full.
    pub fn add(&self) -> Result<KeyId, KeyError> {
        let mut keys = self.read()?;
        if keys.len() == MAX_KEYS {
            return Err(self.malformed("it is full of former keys, which are removed first"));
        }
        keys.insert(0, WrappingKey::generate()?);
        self.write(&keys)?;
        Ok(keys[0].id())
    }

    /// Removes a former key: the last step of a rotation, once no store is wrapped under it.
    /// Dying half-way leaves the file with or without it.
    ///
    /// # Errors
    /// As [`Self::open`]; [`KeyError::NotFormer`].
    pub fn remove(&self, id: KeyId) -> Result<(), KeyError> {
        let mut keys = self.read()?;
        match keys.iter().position(|key| key.id() == id) {
            None | Some(0) => Err(KeyError::NotFormer {
                path: self.path.clone(),
                id,
            }),
            Some(index) => {
                keys.remove(index);
                self.write(&keys)
            }
        }
    }

    fn write(&self, keys: &[WrappingKey]) -> Result<(), KeyError> {
        disk::replace(&LocalDisk, &self.path, encode(keys).as_bytes()).map_err(self.io("write"))
    }

    fn read(&self) -> Result<Vec<WrappingKey>, KeyError> {
        let text = read_private(&self.path, MAX_BYTES, "it is larger than any key file")?;
        decode(text.expose()).map_err(|reason| self.malformed(reason))
    }

    fn malformed(&self, reason: &'static str) -> KeyError {
        KeyError::Malformed {
            path: self.path.clone(),
            reason,
        }
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> KeyError {
        let path = self.path.clone();
        move |source| KeyError::Io {
            action,
            path,
            source,
        }
    }
}

impl KeySource for KeyFile {
    fn find(&self, slot: &Slot) -> Result<Option<WrappingKey>, KeyError> {
        match slot.derivation {
            Derivation::Stored => Ok(self.read()?.into_iter().find(|key| key.id() == slot.id)),
            Derivation::Argon2id { .. } => Ok(None),
        }
    }

    fn current(&self, _: &[Slot]) -> Result<(Slot, WrappingKey), KeyError> {
        let key = self.read()?.into_iter().next();
        let key = key.ok_or_else(|| self.malformed("it has no key"))?;
        let slot = Slot {
            id: key.id(),
            derivation: Derivation::Stored,
        };
        Ok((slot, key))
    }
}

/// Reads a file of at most `limit` bytes, or it is `too_long`, that belongs to this user or root, and
/// that nobody else may read or write.
pub(super) fn read_private(
    path: &Path,
    limit: usize,
    too_long: &'static str,
) -> Result<Secret, KeyError> {
    let io = |action: &'static str| {
        move |source: io::Error| KeyError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let malformed = |reason| KeyError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let file = disk::open(path).map_err(io("open"))?;
    let metadata = file.metadata().map_err(io("inspect"))?;
    if !metadata.is_file() {
        return Err(malformed("it is not a regular file"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let owner = metadata.uid();
    if owner != rustix::process::geteuid().as_raw() && owner != 0 {
        return Err(KeyError::ForeignOwner {
            path: path.to_owned(),
            owner,
        });
    }
    match Secret::read(&mut &file, limit) {
        Ok(text) => Ok(text),
        Err(ReadError::TooLong { .. }) => Err(malformed(too_long)),
        Err(ReadError::Io(error)) => Err(io("read")(error)),
    }
}

fn encode(keys: &[WrappingKey]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES));
    text.push_str(MAGIC);
    text.push('\n');
    for key in keys {
        STANDARD.encode_string(key.bytes().expose(), &mut text);
        text.push('\n');
    }
    text
}

fn decode(text: &[u8]) -> Result<Vec<WrappingKey>, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text")?;
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err("its first line is not `barecount/secrets-key/v1`");
    }
    let mut keys: Vec<WrappingKey> = Vec::new();
    for line in lines {
        // The decoder asks for room for a whole number of its blocks.
        let mut bytes = Zeroizing::new([0; KEY_BYTES + 4]);
        let length = STANDARD
            .decode_slice(line, &mut *bytes)
            .map_err(|_| "a line is not a key in base64")?;
        let key = WrappingKey::from_slice(&bytes[..length]).ok_or("a key has not 32 bytes")?;
        if keys.iter().any(|other| other.id() == key.id()) {
            return Err("a key is there twice");
        }
        keys.push(key);
    }
    match keys.len() {
        0 => Err("it has no key"),
        1..=MAX_KEYS => Ok(keys),
        _ => Err("it has too many keys"),
    }
}
