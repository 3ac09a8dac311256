//! Identifiers: a newtype per kind, printed as `<prefix>_<32 hexadecimal digits>`.
//!
//! Identifiers are made from bytes that the caller supplies (random or derived), so that the
//! domain stays a function of its arguments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Digits of an identifier.
const DIGITS: usize = 32;
const HEX: &[u8; 16] = b"0123456789abcdef";

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
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(with = "String")]
        pub struct $name(
            /// The printed form, in place: there are many of them, and they are copied often.
            [u8; concat!($prefix, "_").len() + DIGITS],
        );

        impl $name {
            const PREFIX: &str = concat!($prefix, "_");

            /// Makes an identifier from 16 bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                let mut text = [b'_'; concat!($prefix, "_").len() + DIGITS];
                let (prefix, digits) = text.split_at_mut(Self::PREFIX.len());
                prefix.copy_from_slice(Self::PREFIX.as_bytes());
                for (byte, pair) in bytes.iter().zip(digits.chunks_mut(2)) {
                    pair[0] = HEX[usize::from(byte >> 4)];
                    pair[1] = HEX[usize::from(byte & 0xf)];
                }
                Self(text)
            }

            /// The printed form.
            pub fn as_str(&self) -> &str {
                str::from_utf8(&self.0).expect("an identifier is ASCII")
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = text.strip_prefix(Self::PREFIX);
                let valid = digits.is_some_and(|digits| {
                    digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                });
                let whole = text.as_bytes().try_into().ok().filter(|_| valid);
                whole.map(Self).ok_or_else(|| InvalidId {
                    text: text.chars().take(64).collect(),
                    prefix: $prefix,
                    article: $article,
                })
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
                id.as_str().to_owned()
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
id!(
    /// An exception that somebody asked for.
    ApprovalId, "apr", "an approval"
);
