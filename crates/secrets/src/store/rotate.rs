//! Changing the key that a store is wrapped under, while it is in use.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::Timestamp;
use serde::Serialize;

use super::format::{At, Header, SlotRecord};
use super::{Opened, Store, StoreError, WriteLock};
use crate::key::{KeyId, WrappingKey};
use crate::seal::KeyBytes;

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// The one key that the store is wrapped under now.
    pub current: KeyId,
    /// The keys that it is no longer wrapped under, by what this call did.
    pub retired: Vec<KeyId>,
    /// The versions whose data keys were wrapped anew.
    pub rewrapped: u64,
}

impl Store {
    /// Wraps everything under the current key of the key source: an extra key beside the old ones
    /// at first; then, once it was found to open the store, as the only one.
    ///
    /// Each of the two steps replaces the file as a whole, so that every secret can be read at
    /// every moment by whoever has both keys: dying before the first leaves the old key, dying
    /// between them leaves both listed and new secrets under the new one, dying after the second
    /// leaves the new one. Rotating again goes on from each. Without a new key in the source
    /// nothing is written.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::WrongKey`] if a key that something is wrapped under is gone.
    pub fn rotate(&self, now: Timestamp) -> Result<Rotation, StoreError> {
        let lock = self.lock()?;
        let current = self.introduce(&lock, now)?;
        self.retire_others(&lock, current, now)
    }

    /// Lists the source's current key, for new secrets to be wrapped under it.
    fn introduce(&self, lock: &WriteLock, now: Timestamp) -> Result<KeyId, StoreError> {
        let opened = self.load()?;
        let mut header = opened.header.clone();
        let slots: Vec<_> = header
            .slots
            .iter()
            .map(|record| record.slot.clone())
            .collect();
        let (slot, key) = self.keys.current(&slots).map_err(StoreError::Key)?;
        let id = slot.id;
        if header.primary == id {
            return Ok(id);
        }
        if !slots.contains(&slot) {
            let tenant = self.tenant.as_str();
            let record = SlotRecord::new(slot, &key, tenant, &opened.root, now)?;
            header.slots.push(record);
        }
        header.primary = id;
        self.write(lock, header, &opened.body, &opened.root)?;
        // The source is asked again below: a key that it does not really have must not become
        // the only one.
        self.state().unlocked.remove(&id);
        Ok(id)
    }

    /// Wraps every data key, and a new root key, under `current` alone.
    fn retire_others(
        &self,
        lock: &WriteLock,
        current: KeyId,
        now: Timestamp,
    ) -> Result<Rotation, StoreError> {
        let opened = self.load()?;
        let others = opened.header.slots.iter().map(|record| record.slot.id);
        let retired: Vec<_> = others.filter(|id| *id != current).collect();
        if retired.is_empty() {
            return Ok(Rotation {
                current,
                retired,
                rewrapped: 0,
            });
        }
        let new = self.key(&opened, current)?;
        let old = self.keys_of(&opened)?;
        let (mut body, mut rewrapped) = (opened.body.clone(), 0);
        for (name, entry) in &mut body.entries {
            for version in entry
                .versions
                .iter_mut()
                .filter(|version| version.key != current)
            {
                let at = At {
                    tenant: self.tenant.as_str(),
                    name,
                    number: version.number,
                };
                let key = old
                    .get(&version.key)
                    .ok_or_else(|| self.wrong_key(version.key))?;
                version
                    .rewrap(at, key, &new)?
                    .map_err(|flaw| StoreError::of(flaw, &self.path))?;
                rewrapped += 1;
            }
        }
        let root = KeyBytes::generate()?;
        let header = self.only(&opened.header, &new, &root, now)?;
        self.write(lock, header, &body, &root)?;
        let mut state = self.state();
        for id in &retired {
            state.unlocked.remove(id);
        }
        Ok(Rotation {
            current,
            retired,
            rewrapped,
        })
    }

    fn keys_of(&self, opened: &Opened) -> Result<BTreeMap<KeyId, WrappingKey>, StoreError> {
        let versions = opened
            .body
            .entries
            .values()
            .flat_map(|entry| &entry.versions);
        let mut keys = BTreeMap::new();
        for version in versions {
            if let Entry::Vacant(vacant) = keys.entry(version.key) {
                vacant.insert(self.key(opened, version.key)?);
            }
        }
        Ok(keys)
    }

    /// The header with no key but `key`.
    fn only(
        &self,
        header: &Header,
        key: &WrappingKey,
        root: &KeyBytes,
        now: Timestamp,
    ) -> Result<Header, StoreError> {
        let record = header
            .slots
            .iter()
            .find(|record| record.slot.id == key.id());
        let record = record.ok_or_else(|| self.wrong_key(key.id()))?;
        let (slot, added) = (record.slot.clone(), record.added.min(now));
        let record = SlotRecord::new(slot, key, self.tenant.as_str(), root, added)?;
        Ok(Header {
            slots: vec![record],
            primary: key.id(),
            ..header.clone()
        })
    }
}
