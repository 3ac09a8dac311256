//! Keys that are stretched from a passphrase.

use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use barecount_sandbox::LockedBytes;

use super::file::read_private;
use super::{Argon2Cost, Derivation, KeyError, KeySource, Slot, WrappingKey};
use crate::seal::{KEY_BYTES, RandomError};
use crate::secret::Secret;

/// The shortest passphrase for a new key, in bytes.
pub const MIN_PASSPHRASE_BYTES: usize = 12;

/// The longest passphrase in a file, in bytes.
const MAX_PASSPHRASE_BYTES: usize = 4096;

const SALT_BYTES: usize = 16;

/// A passphrase, and former ones that a store may still be wrapped under.
///
/// Stretching takes about 0.1 s at the recommended cost. A store does it once for each key and
/// keeps the key, not the passphrase's answer to every fetch.
#[derive(Debug)]
pub struct Passphrase {
    current: Secret,
    former: Vec<Secret>,
    cost: Argon2Cost,
}

impl Passphrase {
    /// Takes the current passphrase, the former ones, and the cost for keys that are made new.
    ///
    /// # Errors
    /// [`KeyError::WeakPassphrase`], [`KeyError::Cost`].
    pub fn new(current: Secret, former: Vec<Secret>, cost: Argon2Cost) -> Result<Self, KeyError> {
        if current.len() < MIN_PASSPHRASE_BYTES {
            return Err(KeyError::WeakPassphrase);
        }
        argon2(cost)?;
        Ok(Self {
            current,
            former,
            cost,
        })
    }
}

/// A passphrase in a file of its owner, white space at its ends left out. Nobody else may read or
/// write the file; that is checked at every use, at which it is read again.
#[derive(Debug, Clone)]
pub struct PassphraseFile {
    path: PathBuf,
    cost: Argon2Cost,
}

impl PassphraseFile {
    /// Takes the file at `path`, which is first looked at when a key is needed, and the cost for
    /// keys that are made new.
    pub fn at(path: impl Into<PathBuf>, cost: Argon2Cost) -> Self {
        Self {
            path: path.into(),
            cost,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<Passphrase, KeyError> {
        let too_long = "it has more bytes than a passphrase may have";
        let text = read_private(&self.path, MAX_PASSPHRASE_BYTES, too_long)?;
        Passphrase::new(
            Secret::new(text.expose().trim_ascii()),
            Vec::new(),
            self.cost,
        )
    }
}

impl KeySource for PassphraseFile {
    fn find(&self, slot: &Slot) -> Result<Option<WrappingKey>, KeyError> {
        self.read()?.find(slot)
    }

    fn current(&self, slots: &[Slot]) -> Result<(Slot, WrappingKey), KeyError> {
        self.read()?.current(slots)
    }
}

impl KeySource for Passphrase {
    fn find(&self, slot: &Slot) -> Result<Option<WrappingKey>, KeyError> {
        for passphrase in std::iter::once(&self.current).chain(&self.former) {
            if let Some(key) = unlock(passphrase, slot)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn current(&self, slots: &[Slot]) -> Result<(Slot, WrappingKey), KeyError> {
        for slot in slots {
            let same_cost =
                matches!(&slot.derivation, Derivation::Argon2id { cost, .. } if *cost == self.cost);
            if same_cost && let Some(key) = unlock(&self.current, slot)? {
                return Ok((slot.clone(), key));
            }
        }
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(RandomError)?;
        let key = stretch(&self.current, &salt, self.cost)?;
        let derivation = Derivation::Argon2id {
            salt: hex::encode(salt),
            cost: self.cost,
        };
        let id = key.id();
        Ok((Slot { id, derivation }, key))
    }
}

/// The key of `slot`, if it is made of `passphrase`: told by its id, before anything is decrypted.
fn unlock(passphrase: &Secret, slot: &Slot) -> Result<Option<WrappingKey>, KeyError> {
    let Derivation::Argon2id { salt, cost } = &slot.derivation else {
        return Ok(None);
    };
    let mut bytes = [0; SALT_BYTES];
    if hex::decode_to_slice(salt, &mut bytes).is_err() {
        return Ok(None);
    }
    let key = stretch(passphrase, &bytes, *cost)?;
    Ok((key.id() == slot.id).then_some(key))
}

fn stretch(passphrase: &Secret, salt: &[u8], cost: Argon2Cost) -> Result<WrappingKey, KeyError> {
    let mut key = LockedBytes::zeroed(KEY_BYTES);
    argon2(cost)?
        .hash_password_into(passphrase.expose(), salt, key.as_mut_slice())
        .map_err(|_| KeyError::Cost { cost })?;
    WrappingKey::from_slice(key.as_slice()).ok_or(KeyError::Cost { cost })
}

fn argon2(cost: Argon2Cost) -> Result<Argon2<'static>, KeyError> {
    let max = Argon2Cost::MAX;
    let bounded =
        cost.memory_kib <= max.memory_kib && cost.passes <= max.passes && cost.lanes <= max.lanes;
    match Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_BYTES)) {
        Ok(params) if bounded => Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params)),
        _ => Err(KeyError::Cost { cost }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Cost = Argon2Cost {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };

    fn passphrase(current: &str, former: &[&str]) -> Result<Passphrase, KeyError> {
        let former = former
            .iter()
            .map(|text| Secret::new(text.as_bytes()))
            .collect();
        Passphrase::new(Secret::new(current.as_bytes()), former, CHEAP)
    }

    #[test]
    fn a_passphrase_finds_its_own_slot_and_no_other() -> Result<(), KeyError> {
        let source = passphrase("correct horse battery", &[])?;
        let (slot, key) = source.current(&[])?;
        let found = source.find(&slot)?.expect("it is the slot's passphrase");
        assert_eq!(found.id(), key.id());
        let (again, _) = source.current(std::slice::from_ref(&slot))?;
        assert_eq!(again, slot, "a slot of the same passphrase is used again");
        let other = passphrase("incorrect horse battery", &[])?;
        assert!(other.find(&slot)?.is_none());
        assert_ne!(other.current(std::slice::from_ref(&slot))?.0, slot);
        let after = passphrase("incorrect horse battery", &["correct horse battery"])?;
        assert!(after.find(&slot)?.is_some());
        Ok(())
    }

    #[test]
    fn a_passphrase_in_a_file_is_the_one_that_was_given_and_its_owners_alone()
    -> Result<(), Box<dyn std::error::Error>> {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir()?;
        let path = home.path().join("passphrase");
        std::fs::write(&path, "correct horse battery\n")?;
        let source = PassphraseFile::at(&path, CHEAP);
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode));
        mode(0o640)?;
        let refused = source.current(&[]);
        assert!(matches!(
            refused,
            Err(KeyError::Exposed { mode: 0o640, .. })
        ));
        mode(0o600)?;
        let (slot, key) = source.current(&[])?;
        let given = passphrase("correct horse battery", &[])?.find(&slot)?;
        assert_eq!(given.expect("it is the same").id(), key.id());
        std::fs::write(&path, "short")?;
        assert!(matches!(source.find(&slot), Err(KeyError::WeakPassphrase)));
        Ok(())
    }

    #[test]
    fn a_store_cannot_ask_for_a_ruinous_cost() -> Result<(), KeyError> {
        let source = passphrase("correct horse battery", &[])?;
        let (mut slot, _) = source.current(&[])?;
        let ruinous = Argon2Cost {
            memory_kib: u32::MAX,
            ..CHEAP
        };
        slot.derivation = Derivation::Argon2id {
            salt: "00".repeat(SALT_BYTES),
            cost: ruinous,
        };
        let refused = source.find(&slot);
        assert!(matches!(refused, Err(KeyError::Cost { cost }) if cost == ruinous));
        Ok(())
    }

    #[test]
    fn a_short_passphrase_is_refused() {
        let refused = passphrase("eleven byte", &[]);
        assert!(matches!(refused, Err(KeyError::WeakPassphrase)));
    }

    #[test]
    fn the_stretching_is_argon2id_of_rfc_9106() -> Result<(), KeyError> {
        // The reference implementation's `argon2 somesalt -id -t 2 -m 8 -p 1 -l 32`.
        let cost = Argon2Cost {
            memory_kib: 256,
            passes: 2,
            lanes: 1,
        };
        let key = stretch(&Secret::new(b"password"), b"somesalt", cost)?;
        assert_eq!(
            hex::encode(key.bytes().expose()),
            "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"
        );
        Ok(())
    }
}
