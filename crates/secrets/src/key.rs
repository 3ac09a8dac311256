//! Key-encryption keys: what a store's data keys are wrapped under, and where they come from.

mod file;
mod passphrase;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use file::KeyFile;
pub use passphrase::{MIN_PASSPHRASE_BYTES, Passphrase, PassphraseFile};

use crate::seal::{KEY_BYTES, KeyBytes, RandomError};

/// The context of the derivation of key ids (BLAKE3's key derivation mode).
const ID_CONTEXT: &str = "barecount secrets v1: id of a key-encryption key";

/// The name of a key-encryption key, printed `key_` and 32 hexadecimal digits.
///
/// It is derived from the key one-way, so that a key is told from another before anything is
/// decrypted, and a box cannot be made that two keys open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 16]);

/// A text that is not a key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key id is `key_` and 32 lower-case hexadecimal digits")]
pub struct InvalidKeyId;

impl KeyId {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key_{}", hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let digits = text.strip_prefix("key_").ok_or(InvalidKeyId)?;
        let mut id = [0; 16];
        let lower = !digits.bytes().any(|b| b.is_ascii_uppercase());
        match hex::decode_to_slice(digits, &mut id) {
            Ok(()) if lower => Ok(Self(id)),
            _ => Err(InvalidKeyId),
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidKeyId;

    fn try_from(text: String) -> Result<Self, InvalidKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

/// A key-encryption key of 256 bits, overwritten with zeros when it is dropped.
#[derive(Clone)]
pub struct WrappingKey {
    id: KeyId,
    bytes: KeyBytes,
}

impl WrappingKey {
    /// A new key from the operating system's random source.
    ///
    /// # Errors
    /// [`RandomError`] if the system has none.
    pub fn generate() -> Result<Self, RandomError> {
        KeyBytes::generate().map(Self::of)
    }

    /// The key in `bytes`; `None` unless there are exactly 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        debug_assert_eq!(KEY_BYTES, 32, "the documented length");
        KeyBytes::from_slice(bytes).map(Self::of)
    }

    fn of(bytes: KeyBytes) -> Self {
        let derived = blake3::derive_key(ID_CONTEXT, bytes.expose());
        let mut id = [0; 16];
        id.copy_from_slice(&derived[..16]);
        Self {
            id: KeyId(id),
            bytes,
        }
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn bytes(&self) -> &KeyBytes {
        &self.bytes
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappingKey({}, ..)", self.id)
    }
}

/// What a store says in the clear about one of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The key's name.
    pub id: KeyId,
    /// How the key comes from what a source has.
    pub derivation: Derivation,
}

/// How a key comes from what a source has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Derivation {
    /// The source has the key itself.
    Stored,
    /// The key is stretched from a passphrase by Argon2id, version 1.3 (RFC 9106).
    Argon2id {
        /// 16 random bytes, as hexadecimal digits.
        salt: String,
        /// The cost.
        cost: Argon2Cost,
    },
}

/// What stretching a passphrase costs (RFC 9106, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argon2Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes, which a verifier may compute in parallel.
    pub lanes: u32,
}

impl Argon2Cost {
    /// The second recommended option of RFC 9106 (section 4): 64 MiB, three passes, four lanes.
    pub const RECOMMENDED: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 4,
    };
    /// More than this is not computed, whatever a store asks for: 1 GiB, 16 passes, 16 lanes.
    pub const MAX: Self = Self {
        memory_kib: 1024 * 1024,
        passes: 16,
        lanes: 16,
    };
}

/// Where key-encryption keys are kept: a key file, a passphrase, a service of the host.
///
/// Asked again when a store names a key that has not been seen, so that a key that was added while
/// this process runs is found without a restart.
pub trait KeySource: fmt::Debug + Send + Sync {
    /// The key of a slot; `None` if this source does not have it.
    ///
    /// # Errors
    /// [`KeyError`] if the source cannot be used at all.
    fn find(&self, slot: &Slot) -> Result<Option<WrappingKey>, KeyError>;

    /// The key that new data keys are to be wrapped under, with the slot that will tell of it.
    /// `slots` are those that the store has; a source that can make its current key in several
    /// ways answers with one of them where it can.
    ///
    /// # Errors
    /// [`KeyError`] if the source cannot be used at all.
    fn current(&self, slots: &[Slot]) -> Result<(Slot, WrappingKey), KeyError>;
}

impl KeySource for std::sync::Arc<dyn KeySource> {
    fn find(&self, slot: &Slot) -> Result<Option<WrappingKey>, KeyError> {
        (**self).find(slot)
    }

    fn current(&self, slots: &[Slot]) -> Result<(Slot, WrappingKey), KeyError> {
        (**self).current(slots)
    }
}

/// Several sources: the first has the current key, all are searched. For changing from one kind
/// of source to another without downtime.
#[derive(Debug)]
pub struct KeySources {
    current: Box<dyn KeySource>,
    others: Vec<Box<dyn KeySource>>,
}

impl KeySources {
    /// Takes the current key from `current`, and older ones from `others` as well.
    pub fn new(current: Box<dyn KeySource>, others: Vec<Box<dyn KeySource>>) -> Self {
        Self { current, others }
    }
}

impl KeySource for KeySources {
    fn find(&self, slot: &Slot) -> Result<Option<WrappingKey>, KeyError> {
        for source in std::iter::once(&self.current).chain(&self.others) {
            if let Some(key) = source.find(slot)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn current(&self, slots: &[Slot]) -> Result<(Slot, WrappingKey), KeyError> {
        self.current.current(slots)
    }
}

/// A source of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others than the owner may read or write the key file.
    #[error("key file {} has mode {mode:04o}, so that others than its owner can use it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file belongs to somebody else.
    #[error("key file {} belongs to user {owner}", path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// The key file is not a file of keys.
    #[error("{} is not a key file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The key file exists, and a new one was to be made in its place.
    #[error("key file {} exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The key is the current one, or not in the file, and cannot be removed.
    #[error("{id} is not among the former keys of {}", path.display())]
    NotFormer {
        /// The file.
        path: PathBuf,
        /// The key.
        id: KeyId,
    },
    /// The system refused.
    #[error("cannot {action} key file {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A passphrase is too short to withstand guessing.
    #[error("the passphrase has fewer than {MIN_PASSPHRASE_BYTES} bytes")]
    WeakPassphrase,
    /// Stretching a passphrase would cost more than any store needs, or less than is possible.
    #[error(
        "a passphrase is to be stretched with {} KiB, {} passes and {} lanes, which is out of bounds",
        cost.memory_kib, cost.passes, cost.lanes
    )]
    Cost {
        /// The cost that is asked for.
        cost: Argon2Cost,
    },
    /// There are no random bytes to make a key of.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl KeyError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Exposed { path, .. } => {
                format!(
                    "Run `chmod 600 {0}`, and rotate if others may have read it.",
                    path.display()
                )
            }
            Self::ForeignOwner { .. } => {
                "Run as the owner of the key file, or give the file to the user who runs."
                    .to_owned()
            }
            Self::Malformed { .. } => {
                "Name the file that was made for this store, or restore it from a backup."
                    .to_owned()
            }
            Self::Exists { .. } => "Use it, or choose another path for the new one.".to_owned(),
            Self::NotFormer { .. } => "Rotate first; then remove what `rotate` names.".to_owned(),
            Self::WeakPassphrase => {
                format!("Use a passphrase of {MIN_PASSPHRASE_BYTES} bytes or more.")
            }
            Self::Cost { .. } => "Use the recommended cost of RFC 9106.".to_owned(),
            Self::Io { .. } | Self::Random(_) => return None,
        })
    }
}
