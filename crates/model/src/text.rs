//! Values that documents spell as text and that are parsed at the edge into types that cannot be
//! wrong: names, paths, durations, sizes, column types, schedules.
//!
//! Each type has a `format` and a `pattern` in the JSON Schemas. An editor checks the pattern; our
//! validation checks the format by parsing, so that what the schema passes is also what parses.

mod column_type;
mod cron;
mod instant;
mod name;
mod network;
mod path;
mod pattern;
mod quantity;
mod wireguard;

pub use column_type::{ColumnType, MAX_COLUMNS};
pub use cron::{Cron, TimeZoneName};
pub use instant::Instant;
pub use name::{ColumnName, DatasetName, DriverName, Name, SecretName};
pub use network::{DomainName, EgressHost, IpRange, SocketAddress};
pub use path::{ImageSource, RelativePath};
pub use pattern::whole_value_pattern;
pub use quantity::{ByteSize, DecimalText, Duration};
pub use wireguard::{HostPort, OwnAddress, PeerKey};

use crate::codes::{self, Code};
use crate::digest::Digest;

/// Why a text is not a value of the expected type: a lower-case fragment without the text itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidText {
    reason: String,
}

impl InvalidText {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// One `format` of the JSON Schemas.
pub(crate) struct Format {
    /// The value of the keyword `format`.
    pub(crate) name: &'static str,
    /// The code under which a text that does not parse is reported.
    pub(crate) code: Code,
    /// What the values are, with an article.
    pub(crate) article: &'static str,
    /// Parses, and tells why not.
    pub(crate) check: fn(&str) -> Result<(), InvalidText>,
}

/// Every format that the schemas use.
pub(crate) const FORMATS: &[Format] = &[
    format::<Name>(codes::INVALID_NAME),
    format::<DatasetName>(codes::INVALID_NAME),
    format::<ColumnName>(codes::INVALID_NAME),
    format::<DriverName>(codes::INVALID_NAME),
    format::<SecretName>(codes::INVALID_NAME),
    format::<RelativePath>(codes::INVALID_PATH),
    format::<ImageSource>(codes::INVALID_PATH),
    format::<DomainName>(codes::INVALID_VALUE),
    format::<EgressHost>(codes::INVALID_VALUE),
    format::<IpRange>(codes::INVALID_VALUE),
    format::<SocketAddress>(codes::INVALID_VALUE),
    format::<HostPort>(codes::INVALID_VALUE),
    format::<OwnAddress>(codes::INVALID_VALUE),
    format::<PeerKey>(codes::INVALID_VALUE),
    format::<Duration>(codes::INVALID_VALUE),
    format::<Instant>(codes::INVALID_VALUE),
    format::<ByteSize>(codes::INVALID_VALUE),
    format::<DecimalText>(codes::INVALID_VALUE),
    format::<ColumnType>(codes::UNKNOWN_VALUE),
    format::<Cron>(codes::INVALID_SCHEDULE),
    format::<TimeZoneName>(codes::INVALID_SCHEDULE),
    format::<Digest>(codes::INVALID_VALUE),
];

/// The `format` of [`SecretName`].
pub(crate) const SECRET_NAME_FORMAT: &str = SecretName::FORMAT;

/// A type that documents spell as text.
pub(crate) trait TextValue: std::str::FromStr<Err = InvalidText> {
    /// The keyword `format` of its schema.
    const FORMAT: &'static str;
    /// What a value is, with an article.
    const ARTICLE: &'static str;
}

const fn format<T: TextValue>(code: Code) -> Format {
    let check = |text: &str| text.parse::<T>().map(drop);
    Format {
        name: T::FORMAT,
        code,
        article: T::ARTICLE,
        check,
    }
}

/// Gives a type with `FromStr<Err = InvalidText>` and `Display` its serde form and its schema.
macro_rules! text_value {
    ($type:ident, $format:literal, $article:literal, $pattern:literal, $description:literal) => {
        impl $crate::text::TextValue for $type {
            const FORMAT: &'static str = $format;
            const ARTICLE: &'static str = $article;
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "format": $format,
                    "pattern": $pattern,
                    "description": $description,
                })
            }
        }
    };
}
pub(crate) use text_value;
