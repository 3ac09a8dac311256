//! The bytes of a store. Reading them is bounded, and trusts nothing before it is authenticated.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{KeyId, Slot, WrappingKey};
use crate::seal::{KeyBytes, NONCE_BYTES, Place, RandomError, Sealed, TAG_BYTES};
use crate::secret::Secret;
use barecount_model::text::SecretName;

/// The first line. Its number changes with the format.
pub(super) const MAGIC: &str = "barecount/secrets/v1";

/// The largest store, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;

/// The longest second line, in bytes.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// The most keys that a store is wrapped under at once.
const MAX_SLOTS: usize = 16;

/// Sizes are visible in steps of this many bytes only.
const PADDING: usize = 4096;

/// Why bytes are not those of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The first line is another.
    Magic,
    /// The header does not parse or contradicts itself.
    Header(&'static str),
    /// What is encrypted is not what was written.
    Unauthentic,
    /// What was authentic does not parse or contradicts itself.
    Body(&'static str),
}

/// What everybody may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) tenant: String,
    /// Counts the changes.
    pub(super) generation: u64,
    /// The key that new data keys are wrapped under.
    pub(super) primary: KeyId,
    /// Every key that something is wrapped under.
    pub(super) slots: Vec<SlotRecord>,
}

/// The root key, wrapped under one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlotRecord {
    pub(super) slot: Slot,
    pub(super) added: Timestamp,
    root: Sealed,
}

impl SlotRecord {
    pub(super) fn new(
        slot: Slot,
        key: &WrappingKey,
        tenant: &str,
        root: &KeyBytes,
        added: Timestamp,
    ) -> Result<Self, RandomError> {
        debug_assert_eq!(slot.id, key.id(), "a slot tells of its own key");
        let root = Sealed::seal(key.bytes(), &root_place(tenant, key.id()), root.expose())?;
        Ok(Self { slot, added, root })
    }

    pub(super) fn root(&self, key: &WrappingKey, tenant: &str) -> Result<KeyBytes, Flaw> {
        let root = self.root.open(key.bytes(), &root_place(tenant, key.id()));
        let root = root.map_err(|_| Flaw::Unauthentic)?;
        KeyBytes::from_slice(root.as_slice()).ok_or(Flaw::Unauthentic)
    }
}

/// What only a holder of a key may read; no value is in it but as ciphertext of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub(super) entries: BTreeMap<SecretName, Entry>,
}

/// All of one name. Without versions: the name was removed, and its numbers are not given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The number of the last version there ever was.
    pub(super) last: u64,
    /// When the first version since the last removal was set.
    pub(super) created: Timestamp,
    /// In ascending order.
    pub(super) versions: Vec<VersionRecord>,
}

/// One value under a data key of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionRecord {
    pub(super) number: u64,
    pub(super) created: Timestamp,
    /// The key that the data key is wrapped under.
    pub(super) key: KeyId,
    data_key: Sealed,
    value: Sealed,
}

/// Where a version belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) tenant: &'a str,
    pub(super) name: &'a SecretName,
    pub(super) number: u64,
}

impl At<'_> {
    fn data_key(self, key: KeyId) -> Place {
        let number = self.number.to_le_bytes();
        let name = self.name.as_str().as_bytes();
        let parts = [self.tenant.as_bytes(), name, &number, key.as_bytes()];
        Place::new("barecount/secrets/v1 data key", &parts)
    }

    fn value(self) -> Place {
        let number = self.number.to_le_bytes();
        let parts = [
            self.tenant.as_bytes(),
            self.name.as_str().as_bytes(),
            &number,
        ];
        Place::new("barecount/secrets/v1 value", &parts)
    }
}

impl VersionRecord {
    pub(super) fn seal(
        at: At<'_>,
        key: &WrappingKey,
        value: &Secret,
        created: Timestamp,
    ) -> Result<Self, RandomError> {
        let data_key = KeyBytes::generate()?;
        Ok(Self {
            number: at.number,
            created,
            key: key.id(),
            data_key: Sealed::seal(key.bytes(), &at.data_key(key.id()), data_key.expose())?,
            value: Sealed::seal(&data_key, &at.value(), value.expose())?,
        })
    }

    fn unwrap(&self, at: At<'_>, key: &WrappingKey) -> Result<KeyBytes, Flaw> {
        let data_key = self.data_key.open(key.bytes(), &at.data_key(key.id()));
        let data_key = data_key.map_err(|_| Flaw::Unauthentic)?;
        KeyBytes::from_slice(data_key.as_slice()).ok_or(Flaw::Unauthentic)
    }

    pub(super) fn open(&self, at: At<'_>, key: &WrappingKey) -> Result<Secret, Flaw> {
        let value = self.value.open(&self.unwrap(at, key)?, &at.value());
        value.map(Secret::from).map_err(|_| Flaw::Unauthentic)
    }

    /// Wraps the data key under `new` instead of `old`; the value's ciphertext stays.
    pub(super) fn rewrap(
        &mut self,
        at: At<'_>,
        old: &WrappingKey,
        new: &WrappingKey,
    ) -> Result<Result<(), Flaw>, RandomError> {
        let data_key = match self.unwrap(at, old) {
            Ok(data_key) => data_key,
            Err(flaw) => return Ok(Err(flaw)),
        };
        self.data_key = Sealed::seal(new.bytes(), &at.data_key(new.id()), data_key.expose())?;
        self.key = new.id();
        Ok(Ok(()))
    }
}

fn root_place(tenant: &str, key: KeyId) -> Place {
    let parts = [tenant.as_bytes(), key.as_bytes()];
    Place::new("barecount/secrets/v1 root key", &parts)
}

fn body_place(clear: &[u8]) -> Place {
    Place::new("barecount/secrets/v1 body", &[clear])
}

/// The bytes of a store: two lines in the clear, and the encrypted body that is bound to them.
pub(super) fn encode(
    header: &Header,
    body: &Body,
    root: &KeyBytes,
) -> Result<Vec<u8>, RandomError> {
    let mut bytes = format!("{MAGIC}\n").into_bytes();
    serde_json::to_writer(&mut bytes, header).expect("a header has only string keys");
    bytes.push(b'\n');
    let mut text = Zeroizing::new(Vec::new());
    serde_json::to_writer(&mut *text, body).expect("a body has only string keys");
    // White space, which the parser skips.
    let padded = (text.len() + NONCE_BYTES + TAG_BYTES).next_multiple_of(PADDING);
    text.resize(padded - NONCE_BYTES - TAG_BYTES, b' ');
    let sealed = Sealed::seal(root, &body_place(&bytes), &text)?;
    bytes.extend_from_slice(sealed.as_bytes());
    Ok(bytes)
}

/// A store's bytes, taken apart but not believed yet.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) header: Header,
    clear: &'a [u8],
    sealed: &'a [u8],
}

/// Takes a store's bytes apart. The header is not authentic before the body is opened.
pub(super) fn take_apart(bytes: &[u8]) -> Result<Parts<'_>, Flaw> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes()).ok_or(Flaw::Magic)?;
    let rest = rest.strip_prefix(b"\n").ok_or(Flaw::Magic)?;
    let window = &rest[..rest.len().min(MAX_HEADER_BYTES)];
    let end = window.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or(Flaw::Header("it does not end"))?;
    let header: Header =
        serde_json::from_slice(&rest[..end]).map_err(|_| Flaw::Header("it does not parse"))?;
    let distinct: BTreeSet<KeyId> = header.slots.iter().map(|record| record.slot.id).collect();
    if header.slots.len() > MAX_SLOTS || distinct.len() != header.slots.len() {
        return Err(Flaw::Header("it has too many keys, or one twice"));
    }
    if !distinct.contains(&header.primary) {
        return Err(Flaw::Header("it does not have its own current key"));
    }
    let clear = &bytes[..bytes.len() - rest.len() + end + 1];
    Ok(Parts {
        header,
        clear,
        sealed: &rest[end + 1..],
    })
}

impl Parts<'_> {
    /// Opens the body, and with it authenticates the header.
    pub(super) fn open(&self, root: &KeyBytes) -> Result<Body, Flaw> {
        let sealed = Sealed::from_bytes(self.sealed.to_vec()).ok_or(Flaw::Unauthentic)?;
        let text = sealed.open_document(root, &body_place(self.clear));
        let text = text.map_err(|_| Flaw::Unauthentic)?;
        let body: Body =
            serde_json::from_slice(&text).map_err(|_| Flaw::Body("its content does not parse"))?;
        for entry in body.entries.values() {
            let ascending = entry
                .versions
                .windows(2)
                .all(|pair| pair[0].number < pair[1].number);
            let newest = entry.versions.last().map_or(0, |version| version.number);
            if !ascending || newest > entry.last {
                return Err(Flaw::Body("its versions are not in order"));
            }
            let keys = |id| self.header.slots.iter().any(|record| record.slot.id == id);
            if !entry.versions.iter().all(|version| keys(version.key)) {
                return Err(Flaw::Body("a version is under a key that is not listed"));
            }
        }
        Ok(body)
    }
}
