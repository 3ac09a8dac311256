//! Identifiers: a newtype per kind, printed as `<prefix>_<32 hexadecimal digits>`.
//!
//! Identifiers are made from bytes that the caller supplies (random or derived), so that the
//! domain stays a function of its arguments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Digits of an identifier.
const DIGITS: usize = 32;
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Bytes of the longest printed form.
const LONGEST: usize = "task_".len() + DIGITS;

/// The printed form of an identifier: text, in place.
#[derive(Clone, Copy)]
pub struct Printed {
    text: [u8; LONGEST],
    length: usize,
}

impl Printed {
    fn of(prefix: &str, bytes: &[u8; 16]) -> Self {
        let mut text = [0; LONGEST];
        let length = prefix.len() + DIGITS;
        text[..prefix.len()].copy_from_slice(prefix.as_bytes());
        let (digits, _) = text[prefix.len()..length].as_chunks_mut();
        for (byte, [high, low]) in bytes.iter().zip(digits) {
            *high = HEX[usize::from(byte >> 4)];
            *low = HEX[usize::from(byte & 0xf)];
        }
        Self { text, length }
    }
}

impl std::ops::Deref for Printed {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.text[..self.length]).expect("an identifier is ASCII")
    }
}

/// What the printed form after its prefix stands for, where it is one.
fn bytes_of(digits: &str) -> Option<[u8; 16]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; DIGITS] = digits.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks().0) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

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
            /// As bytes: there are many of them, in memory for long.
            [u8; 16],
        );

        impl $name {
            const PREFIX: &str = concat!($prefix, "_");

            /// Makes an identifier from 16 bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The printed form.
            pub fn printed(&self) -> Printed {
                Printed::of(Self::PREFIX, &self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&&*self.printed()).finish()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.printed())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.printed())
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let bytes = text.strip_prefix(Self::PREFIX).and_then(bytes_of);
                bytes.map(Self).ok_or_else(|| InvalidId {
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
                id.to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_read_as_it_is_printed_and_as_nothing_else() {
        let id = RunId::from_bytes([0x0f; 16]);
        let text = format!("run_{}", "0f".repeat(16));
        assert_eq!((&*id.printed(), id.to_string()), (&*text, text.clone()));
        assert_eq!(text.parse(), Ok(id));
        let upper = text.replace('f', "F");
        let others = [
            &text[..35],
            &text[4..],
            &upper,
            &(text.clone() + "0"),
            "",
            "run_",
        ];
        for other in others {
            assert!(other.parse::<RunId>().is_err(), "{other}");
        }
        assert!(text.parse::<TaskId>().is_err());
    }

    #[test]
    fn identifiers_are_in_the_order_of_what_is_printed() {
        let ids = [[0x9f; 16], [0xa0; 16], [0x0a; 16]].map(TaskId::from_bytes);
        let (mut by_id, mut by_text) = (ids.clone(), ids.map(|id| id.to_string()));
        by_id.sort();
        by_text.sort();
        assert_eq!(by_id.map(|id| id.to_string()), by_text);
    }
}
