//! What goes wrong with a store, an operation at a time.

use std::io;
use std::path::PathBuf;

use super::format::Flaw;
use crate::key::{KeyError, KeyId};
use crate::seal::RandomError;
use crate::secret::ReadError;
use barecount_model::text::SecretName;

/// A store that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no store.
    #[error("there is no store of secrets at {}", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is a store already.
    #[error("there is a store of secrets at {} already", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Others than the owner may use the store's folder or file.
    #[error("{} has mode {mode:04o}, so that others than its owner can use it", path.display())]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The store was made for another tenant.
    #[error("{} is the store of tenant `{found}`", path.display())]
    OtherTenant {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
    },
    /// The file is not a store of this version of the format.
    #[error("{} is not a store of secrets that this program can read", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what was written: damaged, cut, or changed by somebody without the key.
    #[error("{} was damaged or tampered with: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        reason: &'static str,
    },
    /// The file is older than what was read before.
    #[error("{} went back from change {seen} to change {found}", path.display())]
    RolledBack {
        /// The file.
        path: PathBuf,
        /// The newest change that was seen.
        seen: u64,
        /// The change that is there now.
        found: u64,
    },
    /// The store is larger than allowed.
    #[error("the store of secrets has more than {limit} bytes")]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// No source has the key that something is encrypted under.
    #[error("the key or passphrase is not the one of {} ({id})", path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// The key that is missing.
        id: KeyId,
    },
    /// A source of keys cannot be used.
    #[error("no key for the store of secrets")]
    Key(#[source] KeyError),
    /// There are no random bytes for keys.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => "Make it with `barecount secrets set`.".to_owned(),
            Self::Exists { .. } => "Open it instead.".to_owned(),
            Self::Exposed { path, .. } => {
                format!("Run `chmod go-rwx {}`.", path.display())
            }
            Self::OtherTenant { .. } => "Name the tenant's own store.".to_owned(),
            Self::UnknownFormat { .. } => {
                "Use the version that wrote it, or a newer one.".to_owned()
            }
            Self::Damaged { .. } => {
                "Restore the file from a backup, and find out who can write to its folder."
                    .to_owned()
            }
            Self::RolledBack { .. } => {
                "Put back the newest copy of the store; what was removed or replaced since is in this \
                 one. If it is to stand, remove the store's `.generation` file beside the keys."
                    .to_owned()
            }
            Self::TooLarge { .. } => "Remove secrets that nothing uses any more.".to_owned(),
            Self::WrongKey { id, .. } => {
                format!("Give the key file or passphrase that has {id}.")
            }
            Self::Key(error) => return error.help(),
            Self::Random(_) | Self::Io { .. } => return None,
        })
    }

    pub(super) fn of(flaw: Flaw, path: &std::path::Path) -> Self {
        let path = path.to_owned();
        let reason = match flaw {
            Flaw::Magic => return Self::UnknownFormat { path },
            Flaw::Header(reason) | Flaw::Body(reason) => reason,
            Flaw::Unauthentic => "it is not what was written with its key",
        };
        Self::Damaged { path, reason }
    }
}

/// A value that was not stored.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The value cannot be read, or has too many bytes.
    #[error("no value for secret `{name}`")]
    Value {
        /// The secret.
        name: SecretName,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// The value is so short that redacting it would destroy logs.
    #[error("the value of secret `{name}` has {length} bytes, fewer than {minimum}")]
    TooShort {
        /// The secret.
        name: SecretName,
        /// Its length in bytes.
        length: usize,
        /// The shortest that is allowed, in bytes.
        minimum: usize,
    },
    /// There are as many names as a store may have, removed ones included.
    #[error("the store has {limit} names, and takes no more")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SetError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Value { .. } => "Pipe the value into standard input.".to_owned(),
            Self::TooShort { minimum, .. } => format!(
                "A value this short occurs in ordinary text, which redaction would destroy; use \
                 {minimum} bytes or more."
            ),
            Self::TooMany { .. } => "Use the store of another tenant.".to_owned(),
            Self::Store(error) => return error.help(),
        })
    }
}

/// A version that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// There is no such name, or it was removed.
    #[error("there is no secret `{name}`")]
    NotFound {
        /// The secret.
        name: SecretName,
    },
    /// The name is there, the version is not, or not any more.
    #[error("secret `{name}` has no version {version}; its newest is {newest}")]
    NoVersion {
        /// The secret.
        name: SecretName,
        /// The version that was asked for.
        version: u64,
        /// The newest there is.
        newest: u64,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl GetError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotFound { name } => format!("Set it with `barecount secrets set {name}`."),
            Self::NoVersion { name, .. } => {
                format!("Refer to `{name}` without a version, or to one that `secrets ls` shows.")
            }
            Self::Store(error) => return error.help(),
        })
    }
}
