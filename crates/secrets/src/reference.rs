//! How a secret is named without saying its value.

use std::fmt;
use std::str::FromStr;

use barecount_model::text::{InvalidText, SecretName};
use serde::{Deserialize, Serialize};

/// Which version of a secret is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The newest at the time of the fetch.
    Current,
    /// One, by its number, counted from 1 and never given twice, not even after a removal.
    Number(u64),
}

/// A secret by name and version, printed `name` or `name@3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// The name.
    pub name: SecretName,
    /// The version.
    pub version: Version,
}

/// A text that is not a reference to a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// What comes before `@` is not a name.
    #[error("a secret's name has {0}")]
    Name(InvalidText),
    /// What comes after `@` is not a version.
    #[error("a version after `@` is a number from 1, without leading zeros")]
    Version,
}

impl Reference {
    /// The newest version of `name`.
    pub fn current(name: SecretName) -> Self {
        Self {
            name,
            version: Version::Current,
        }
    }

    /// The version `number` of `name`.
    pub fn exact(name: SecretName, number: u64) -> Self {
        Self {
            name,
            version: Version::Number(number),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let Some((name, digits)) = text.split_once('@') else {
            return text
                .parse()
                .map(Self::current)
                .map_err(InvalidReference::Name);
        };
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        match digits.parse() {
            Ok(number) if plain => {
                let name = name.parse().map_err(InvalidReference::Name)?;
                Ok(Self::exact(name, number))
            }
            _ => Err(InvalidReference::Version),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Current => write!(f, "{}", self.name),
            Version::Number(number) => write!(f, "{}@{number}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_as_it_is_printed() -> Result<(), InvalidReference> {
        for text in ["erp/key", "erp/key@1", "erp/key@18446744073709551615"] {
            assert_eq!(text.parse::<Reference>()?.to_string(), text);
        }
        for wrong in [
            "a@",
            "a@0",
            "a@01",
            "a@+1",
            "a@1@2",
            "a@18446744073709551616",
            "@1",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
