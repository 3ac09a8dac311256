//! How a secret is named without saying its value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The name of a secret within its tenant, as `erp/netsuite.client-secret`: lower-case letters,
/// digits, `-`, `_`, `.` and `/`. No part between slashes is empty, `.` or `..`, so that a service
/// may use it as a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// A text that is not a secret's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a secret's name has at most {MAX_NAME_BYTES} lower-case letters, digits, `-`, `_`, `.` and \
     `/`, starts with a letter or digit, and has no empty part"
)]
pub struct InvalidName;

impl SecretName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/');
        let starts = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        let parts = || text.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if starts && text.len() <= MAX_NAME_BYTES && text.bytes().all(plain) && parts() {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName)
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

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
    #[error(transparent)]
    Name(#[from] InvalidName),
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
            return Ok(Self::current(text.parse()?));
        };
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        match digits.parse() {
            Ok(number) if plain => Ok(Self::exact(name.parse()?, number)),
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
    fn names_are_paths_of_plain_lower_case_parts() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for right in ["a", "7", "erp/netsuite.client-secret", "a_b", &longest] {
            assert!(right.parse::<SecretName>().is_ok(), "{right}");
        }
        let longer = "a".repeat(MAX_NAME_BYTES + 1);
        for wrong in [
            "", "/a", "a/", "a//b", "a/../b", "a/.", ".a", "-a", "A", "ä", "a b", "a@1", "a\n",
            &longer,
        ] {
            assert_eq!(wrong.parse::<SecretName>(), Err(InvalidName), "{wrong}");
        }
    }

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
