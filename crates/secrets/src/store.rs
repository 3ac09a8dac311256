//! The embedded store: a file per tenant, encrypted in envelopes.
//!
//! The format is described in the crate's `README.md`.

mod error;
mod format;
mod mark;
mod rotate;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use barecount_model::text::{Name, SecretName};
use jiff::Timestamp;
use serde::Serialize;

pub use error::{GetError, SetError, StoreError};
use format::{At, Body, Entry, Header, MAX_FILE_BYTES, SlotRecord, VersionRecord};
use mark::Mark;
pub use mark::Place;
pub use rotate::Rotation;

use crate::disk::{self, Disk, LocalDisk, Stamp};
use crate::key::{KeyId, KeySource, WrappingKey};
use crate::reference::{Reference, Version};
use crate::seal::KeyBytes;
use crate::secret::Secret;

/// The shortest value that can be redacted without destroying ordinary text, in bytes.
pub const MIN_VALUE_BYTES: usize = 4;

/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The most names in a store, removed ones included.
pub const MAX_NAMES: usize = 10_000;

/// What a store accepts and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The shortest value, in bytes; [`MIN_VALUE_BYTES`] if less is said.
    pub min_value_bytes: usize,
    /// The versions of a name that are kept, the newest first; one if none is said.
    pub versions_kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_value_bytes: MIN_VALUE_BYTES,
            versions_kept: 10,
        }
    }
}

/// What is known of a secret without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The name.
    pub name: SecretName,
    /// When its first version was set.
    pub created: Timestamp,
    /// When its newest version was set.
    pub rotated: Timestamp,
    /// The versions that are kept, the newest last.
    pub versions: Vec<ListedVersion>,
}

/// What is known of a version without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedVersion {
    /// Its number.
    pub number: u64,
    /// When it was set.
    pub created: Timestamp,
    /// The key that its data key is wrapped under.
    pub key: KeyId,
}

/// The secrets of one tenant, in one file.
///
/// Any number of processes may use a store at once: those who write take turns, those who read
/// wait for nobody. Calls block on the disk, and at most once a key on the stretching of a
/// passphrase. Plaintext is in memory only in what [`Store::get`] answers; the cache holds
/// ciphertext and keys.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    marks: Option<PathBuf>,
    tenant: Name,
    keys: Box<dyn KeySource>,
    limits: Limits,
    disk: Box<dyn Disk>,
    state: Mutex<State>,
}

/// What is kept between calls.
#[derive(Debug, Default)]
struct State {
    opened: Option<Arc<Opened>>,
    unlocked: BTreeMap<KeyId, WrappingKey>,
    /// The newest change that was seen.
    generation: u64,
}

/// A store's file, read and authenticated.
#[derive(Debug)]
struct Opened {
    stamp: Stamp,
    header: Header,
    body: Body,
    root: KeyBytes,
    /// Kept open so that the file's number is not given to its successor.
    _file: File,
}

impl Store {
    /// Makes an empty store for `tenant` in a folder, which is made if it is missing.
    ///
    /// Dying half-way leaves no store, or an empty one.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Exposed`] if others may use the folder;
    /// [`StoreError::Key`]; [`StoreError::Io`].
    pub fn create(
        place: impl Into<Place>,
        tenant: Name,
        keys: Box<dyn KeySource>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let place = place.into();
        let folder = &place.folder;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io_at("make", folder))?;
        check_private(folder)?;
        let store = Self::at(place, tenant, keys, limits);
        let (slot, key) = store.keys.current(&[]).map_err(StoreError::Key)?;
        let root = KeyBytes::generate()?;
        let header = Header {
            tenant: store.tenant.as_str().to_owned(),
            generation: 1,
            primary: slot.id,
            slots: vec![SlotRecord::new(
                slot,
                &key,
                store.tenant.as_str(),
                &root,
                now,
            )?],
        };
        let bytes = format::encode(&header, &Body::default(), &root)?;
        let _lock = store.lock()?;
        match disk::create(&*store.disk, &store.path, &bytes) {
            Ok(()) => Ok(store),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(StoreError::Exists { path: store.path })
            }
            Err(error) => Err(io_at("make", &store.path)(error)),
        }
    }

    /// Opens the store of `tenant` in a folder, and makes sure that its key is there and that nobody
    /// changed it or put an older copy in its place. Stretches the passphrase if there is one.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::WrongKey`]; [`StoreError::Damaged`] and whatever
    /// else keeps it from being used.
    pub fn open(
        place: impl Into<Place>,
        tenant: Name,
        keys: Box<dyn KeySource>,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        let store = Self::at(place.into(), tenant, keys, limits);
        store.load()?;
        Ok(store)
    }

    fn at(place: Place, tenant: Name, keys: Box<dyn KeySource>, limits: Limits) -> Self {
        Self {
            path: place.folder.join(format!("{tenant}.secrets")),
            marks: place.marks,
            tenant,
            keys,
            limits,
            disk: Box::new(LocalDisk),
            state: Mutex::default(),
        }
    }

    /// Whose secrets these are.
    pub fn tenant(&self) -> &Name {
        &self.tenant
    }

    /// Stores the value that `source` gives as the newest version of `name`, and forgets versions
    /// beyond those that are kept. Exactly the bytes that are read, a last line feed included.
    ///
    /// On an error the store is as before or has the new version; setting again adds another.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn set(
        &self,
        name: &SecretName,
        source: &mut dyn Read,
        now: Timestamp,
    ) -> Result<Reference, SetError> {
        let value = Secret::read(source, MAX_VALUE_BYTES).map_err(|source| SetError::Value {
            name: name.clone(),
            source,
        })?;
        let minimum = self.limits.min_value_bytes.max(MIN_VALUE_BYTES);
        if value.expose().trim_ascii().len() < minimum {
            return Err(SetError::TooShort {
                name: name.clone(),
                length: value.expose().trim_ascii().len(),
                minimum,
            });
        }
        let lock = self.lock()?;
        let opened = self.load()?;
        let (header, mut body) = (opened.header.clone(), opened.body.clone());
        if body.entries.len() >= MAX_NAMES && !body.entries.contains_key(name) {
            return Err(SetError::TooMany { limit: MAX_NAMES });
        }
        let entry = body.entries.entry(name.clone()).or_insert_with(|| Entry {
            last: 0,
            created: now,
            versions: Vec::new(),
        });
        if entry.versions.is_empty() {
            entry.created = now;
        }
        entry.last += 1;
        let number = entry.last;
        let at = At {
            tenant: self.tenant.as_str(),
            name,
            number,
        };
        let key = self.key(&opened, header.primary)?;
        let version = VersionRecord::seal(at, &key, &value, now).map_err(StoreError::Random)?;
        entry.versions.push(version);
        let kept = self.limits.versions_kept.max(1);
        entry
            .versions
            .drain(..entry.versions.len().saturating_sub(kept));
        self.write(&lock, header, &body, &opened.root)?;
        Ok(Reference::exact(name.clone(), number))
    }

    /// All secrets, by name, without their values.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let opened = self.load()?;
        let listed = opened.body.entries.iter().filter_map(|(name, entry)| {
            let newest = entry.versions.last()?;
            let versions = entry.versions.iter().map(|version| ListedVersion {
                number: version.number,
                created: version.created,
                key: version.key,
            });
            Some(Listed {
                name: name.clone(),
                created: entry.created,
                rotated: newest.created,
                versions: versions.collect(),
            })
        });
        Ok(listed.collect())
    }

    /// Removes all versions of a secret. Their numbers are not given again, so that what evidence
    /// says of `name@3` stays true.
    ///
    /// # Errors
    /// [`GetError::NotFound`], [`GetError::Store`].
    pub fn remove(&self, name: &SecretName) -> Result<(), GetError> {
        let lock = self.lock()?;
        let opened = self.load()?;
        let mut body = opened.body.clone();
        match body.entries.get_mut(name) {
            Some(entry) if !entry.versions.is_empty() => entry.versions.clear(),
            _ => return Err(GetError::NotFound { name: name.clone() }),
        }
        self.write(&lock, opened.header.clone(), &body, &opened.root)?;
        Ok(())
    }

    /// The value of a secret, with the reference that names its very version.
    ///
    /// For the platform's own use, as for the keys of a tunnel; what a run asks for goes through
    /// [`Gate`](crate::Gate), which checks and records it.
    ///
    /// # Errors
    /// [`GetError`].
    pub fn get(&self, reference: &Reference) -> Result<(Reference, Secret), GetError> {
        let name = &reference.name;
        let opened = self.load()?;
        let entry = opened.body.entries.get(name);
        let newest = entry.and_then(|entry| entry.versions.last());
        let (Some(entry), Some(newest)) = (entry, newest) else {
            return Err(GetError::NotFound { name: name.clone() });
        };
        let version = match reference.version {
            Version::Current => newest,
            Version::Number(number) => entry
                .versions
                .iter()
                .find(|version| version.number == number)
                .ok_or_else(|| GetError::NoVersion {
                    name: name.clone(),
                    version: number,
                    newest: newest.number,
                })?,
        };
        let at = At {
            tenant: self.tenant.as_str(),
            name,
            number: version.number,
        };
        let key = self.key(&opened, version.key)?;
        let value = version
            .open(at, &key)
            .map_err(|flaw| StoreError::of(flaw, &self.path))?;
        Ok((Reference::exact(name.clone(), version.number), value))
    }

    /// The keys that the store is wrapped under, the current one first: more than one only while
    /// a rotation is under way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keys(&self) -> Result<Vec<KeyId>, StoreError> {
        let opened = self.load()?;
        let primary = opened.header.primary;
        let others = opened.header.slots.iter().map(|record| record.slot.id);
        let others = others.filter(|id| *id != primary);
        Ok(std::iter::once(primary).chain(others).collect())
    }

    /// How often the store was changed. A number lower than one seen before means that somebody
    /// put an old file in place, which is refused.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn generation(&self) -> Result<u64, StoreError> {
        Ok(self.load()?.header.generation)
    }
}

/// Proof that no other process writes.
struct WriteLock {
    /// Unlocked when it is closed, by the system if the process dies.
    _file: File,
}

impl Store {
    fn lock(&self) -> Result<WriteLock, StoreError> {
        let path = self.path.with_extension("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(io_at("lock", &path))?;
        disk::clear_leftovers(&self.path).map_err(io_at("clear leftovers of", &self.path))?;
        Ok(WriteLock { _file: file })
    }

    /// Writes the next generation. On an error the file is the old one or the new one: what is
    /// cached is forgotten, so that it is read again.
    fn write(
        &self,
        _lock: &WriteLock,
        mut header: Header,
        body: &Body,
        root: &KeyBytes,
    ) -> Result<(), StoreError> {
        header.generation += 1;
        let bytes = format::encode(&header, body, root)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(StoreError::TooLarge {
                limit: MAX_FILE_BYTES,
            });
        }
        let written = disk::replace(&*self.disk, &self.path, &bytes);
        self.state().opened = None;
        written.map_err(io_at("write", &self.path))?;
        // Dying before it leaves a store that is newer than its mark, until somebody reads it.
        if let Some(mark) = self.mark(root) {
            mark.keep(header.generation);
        }
        Ok(())
    }

    /// The store as it is on disk now, from memory if the file is the same.
    fn load(&self) -> Result<Arc<Opened>, StoreError> {
        // Before the file is opened: another thread may see a newer one in the meantime.
        let seen = self.state().generation;
        let file = match disk::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing {
                    path: self.path.clone(),
                });
            }
            Err(error) => return Err(io_at("open", &self.path)(error)),
        };
        let metadata = file.metadata().map_err(io_at("inspect", &self.path))?;
        let stamp = Stamp::of(&metadata);
        if let Some(opened) = self.state().opened.clone()
            && opened.stamp == stamp
        {
            return Ok(opened);
        }
        check_private(disk::folder_of(&self.path))?;
        check_mode(&self.path, metadata.mode())?;
        if !metadata.is_file() {
            return Err(StoreError::UnknownFormat {
                path: self.path.clone(),
            });
        }
        let opened = Arc::new(self.read(file, stamp)?);
        let found = opened.header.generation;
        let mark = self.mark(&opened.root);
        let marked = mark.as_ref().map_or(Ok(0), Mark::seen)?;
        if let Some(mark) = mark.filter(|_| found > marked) {
            mark.keep(found);
        }
        let seen = seen.max(marked);
        if found < seen {
            return Err(StoreError::RolledBack {
                path: self.path.clone(),
                seen,
                found,
            });
        }
        let mut state = self.state();
        if found >= state.generation {
            state.generation = found;
            state.opened = Some(opened.clone());
        }
        Ok(opened)
    }

    fn mark(&self, root: &KeyBytes) -> Option<Mark> {
        Some(Mark::of(self.marks.as_deref()?, root))
    }

    fn read(&self, file: File, stamp: Stamp) -> Result<Opened, StoreError> {
        let bytes = disk::read_bounded(&file, MAX_FILE_BYTES)
            .map_err(io_at("read", &self.path))?
            .ok_or(StoreError::TooLarge {
                limit: MAX_FILE_BYTES,
            })?;
        let flawed = |flaw| StoreError::of(flaw, &self.path);
        let parts = format::take_apart(&bytes).map_err(flawed)?;
        let tenant = self.tenant.as_str();
        if parts.header.tenant != tenant {
            return Err(StoreError::OtherTenant {
                path: self.path.clone(),
                found: parts.header.tenant.chars().take(64).collect(),
            });
        }
        let (record, key) = self.any_key(&parts.header)?;
        let root = record.root(&key, tenant).map_err(flawed)?;
        let body = parts.open(&root).map_err(flawed)?;
        Ok(Opened {
            stamp,
            header: parts.header,
            body,
            root,
            _file: file,
        })
    }

    /// Any of the store's keys that a source has, the current one for choice.
    fn any_key<'a>(&self, header: &'a Header) -> Result<(&'a SlotRecord, WrappingKey), StoreError> {
        let (first, others): (Vec<_>, Vec<_>) = header
            .slots
            .iter()
            .partition(|record| record.slot.id == header.primary);
        for record in first.into_iter().chain(others) {
            if let Some(key) = self.unlock(record)? {
                return Ok((record, key));
            }
        }
        Err(self.wrong_key(header.primary))
    }

    /// The key `id`, which is one of those that the store lists.
    fn key(&self, opened: &Opened, id: KeyId) -> Result<WrappingKey, StoreError> {
        let record = opened
            .header
            .slots
            .iter()
            .find(|record| record.slot.id == id);
        let key = record.map(|record| self.unlock(record)).transpose()?;
        key.flatten().ok_or_else(|| self.wrong_key(id))
    }

    fn unlock(&self, record: &SlotRecord) -> Result<Option<WrappingKey>, StoreError> {
        let id = record.slot.id;
        if let Some(key) = self.state().unlocked.get(&id) {
            return Ok(Some(key.clone()));
        }
        let found = self.keys.find(&record.slot).map_err(StoreError::Key)?;
        let found = found.filter(|key| key.id() == id);
        if let Some(key) = &found {
            self.state().unlocked.insert(id, key.clone());
        }
        Ok(found)
    }

    fn wrong_key(&self, id: KeyId) -> StoreError {
        StoreError::WrongKey {
            path: self.path.clone(),
            id,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change of it is a single assignment, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_private(folder: &Path) -> Result<(), StoreError> {
    let metadata = std::fs::metadata(folder).map_err(io_at("inspect", folder))?;
    check_mode(folder, metadata.mode())
}

fn check_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    let mode = mode & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(StoreError::Exposed {
        path: path.to_owned(),
        mode,
    })
}

fn io_at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}
