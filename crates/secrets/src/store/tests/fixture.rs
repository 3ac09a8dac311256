//! A store in a folder of its own.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use barecount_model::text::Name;
use jiff::Timestamp;
use tempfile::TempDir;

use super::super::{Limits, Store, StoreError};
use crate::disk::{Disk, LocalDisk};
use crate::key::KeyFile;
use crate::reference::Reference;
use barecount_model::text::SecretName;

pub(super) type TestResult = Result<(), Box<dyn Error>>;

pub(super) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

pub(super) struct Fixture {
    home: TempDir,
    pub(super) key: KeyFile,
}

impl Fixture {
    pub(super) fn new() -> Result<(Self, Store), Box<dyn Error>> {
        let home = tempfile::tempdir()?;
        let key = KeyFile::create(home.path().join("key"))?;
        let fixture = Self { home, key };
        let keys = Box::new(fixture.key.clone());
        let store = Store::create(
            &fixture.folder(),
            tenant("acme"),
            keys,
            Limits::default(),
            NOW,
        )?;
        Ok((fixture, store))
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.home.path().join("secrets")
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder().join("acme.secrets")
    }

    pub(super) fn open(&self) -> Result<Store, StoreError> {
        self.open_for("acme")
    }

    pub(super) fn open_for(&self, name: &str) -> Result<Store, StoreError> {
        let keys = Box::new(self.key.clone());
        Store::open(&self.folder(), tenant(name), keys, Limits::default())
    }

    /// The store on a disk that fails at the step `at`, counted from 0.
    pub(super) fn open_faulty(&self, at: usize, when: When) -> Result<Store, StoreError> {
        let mut store = self.open()?;
        store.disk = Box::new(FaultyDisk {
            steps: AtomicUsize::new(0),
            at,
            when,
        });
        Ok(store)
    }

    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }
}

pub(super) fn tenant(text: &str) -> Name {
    text.parse().expect("it is a name")
}

pub(super) fn name(text: &str) -> SecretName {
    text.parse().expect("it is a name")
}

pub(super) fn reference(text: &str) -> Reference {
    text.parse().expect("it is a reference")
}

pub(super) fn set(store: &Store, secret: &str, value: &str) -> Result<Reference, Box<dyn Error>> {
    Ok(store.set(&name(secret), &mut value.as_bytes(), NOW)?)
}

pub(super) fn get(store: &Store, text: &str) -> Result<String, Box<dyn Error>> {
    let (_, value) = store.get(&reference(text))?;
    Ok(String::from_utf8(value.expose().to_vec())?)
}

pub(super) fn names(store: &Store) -> Result<BTreeSet<String>, StoreError> {
    let listed = store.list()?;
    Ok(listed
        .into_iter()
        .map(|secret| secret.name.to_string())
        .collect())
}

/// Whether a step that fails has had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    Before,
    After,
}

/// A disk on which one step fails, and every step after it: the process is as good as dead.
#[derive(Debug)]
struct FaultyDisk {
    steps: AtomicUsize,
    at: usize,
    when: When,
}

impl FaultyDisk {
    fn step<T>(&self, step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        let failed = || Err(io::Error::other("the disk failed"));
        match number.cmp(&self.at) {
            std::cmp::Ordering::Less => step(),
            std::cmp::Ordering::Equal if self.when == When::After => step().and_then(|_| failed()),
            _ => failed(),
        }
    }
}

impl Disk for FaultyDisk {
    fn stage(&self, target: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
        self.step(|| LocalDisk.stage(target, bytes))
    }

    fn publish(&self, staged: &Path, target: &Path) -> io::Result<()> {
        self.step(|| LocalDisk.publish(staged, target))
    }

    fn settle(&self, target: &Path) -> io::Result<()> {
        self.step(|| LocalDisk.settle(target))
    }
}
