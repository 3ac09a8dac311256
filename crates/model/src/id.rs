//! Identifiers: a newtype per kind, printed as `<prefix>_<32 hexadecimal digits>`.
//!
//! Identifiers are made from bytes that the caller supplies (random or derived), so that the
//! domain stays a function of its arguments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {article} id (expected `{prefix}_` and 32 hexadecimal digits)")]
pub struct InvalidId {
    text: String,
    prefix: &'static str,
    article: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $article:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes an identifier from 16 bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(format!(concat!($prefix, "_{}"), hex::encode(bytes)))
            }

            /// The printed form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid = text.strip_prefix(concat!($prefix, "_")).is_some_and(|digits| {
                    digits.len() == 32
                        && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                });
                if valid {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { text: text.chars().take(64).collect(), prefix: $prefix, article: $article })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id!(
    /// One execution of a pipeline for one logical window.
    RunId, "run", "a run"
);
id!(
    /// One stage, or one partition of it, of a run.
    TaskId, "task", "a task"
);
