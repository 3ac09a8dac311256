//! Secrets at run time: an encrypted store, leases within a declared scope, files in memory, and
//! redaction of whatever leaves.
//!
//! The plaintext of a secret lives in this crate's types and in the attempt's memory-backed folder,
//! and nowhere else. It is never in an error, a debug output or a serialized form.
//!
//! - [`Store`]: the embedded store, with the verbs `set`, `list`, `remove`, `rotate`.
//! - [`Gate`], [`SecretsProvider`], [`Lease`]: fetching what a manifest declares, on the record.
//! - [`MemoryFolder`], [`Mounted`]: values as files in memory.
//! - [`Redactor`]: finding values, also encoded ones, in logs and everything else that leaves.
//! - [`KeyFile`], [`Passphrase`]: what the store is encrypted under.

mod access;
mod disk;
mod dump;
mod key;
mod mount;
mod provider;
mod redact;
mod reference;
mod seal;
mod secret;
mod store;

pub use access::{Access, AccessLog, NotRecorded, Scope, Verdict};
pub use barecount_model::text::SecretName;
pub use barecount_sandbox::unlocked_bytes;
pub use dump::forbid_dumps;
pub use key::{
    Argon2Cost, Derivation, InvalidKeyId, KeyError, KeyFile, KeyId, KeySource, KeySources,
    MIN_PASSPHRASE_BYTES, Passphrase, PassphraseFile, Slot, WrappingKey,
};
pub use mount::{MemoryFolder, MountError, Mounted};
pub use provider::{
    EmbeddedProvider, EmbeddedStores, Expired, FetchError, Gate, Lease, Permitted, ProviderError,
    SecretsProvider,
};
pub use redact::{RedactingStream, Redactor, RedactorError};
pub use reference::{InvalidReference, Reference, Version};
pub use seal::RandomError;
pub use secret::{ReadError, Secret};
pub use store::{
    GetError, Limits, Listed, ListedVersion, MAX_NAMES, MAX_VALUE_BYTES, MIN_VALUE_BYTES, Place,
    Rotation, SetError, Store, StoreError,
};
