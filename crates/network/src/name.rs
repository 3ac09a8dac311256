//! Host names, as declarations, queries and server names are compared.

use std::{fmt, str::FromStr, sync::Arc};

use barecount_model::{
    text::{DomainName, InvalidText},
    untrusted::Label,
};
use serde::{Deserialize, Serialize};

/// A host name in lower case and without its final dot, so that equal names compare equal.
///
/// What a name may be is [`DomainName`]'s to say. International names are declared in their ASCII
/// form (RFC 5890).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(Arc<str>);

/// A text that is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host name")]
pub struct InvalidHostName {
    text: Label,
    source: InvalidText,
}

impl HostName {
    /// The name in lower case, without a final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `zone` or a name below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        self.0
            .strip_suffix(zone.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl From<&DomainName> for HostName {
    fn from(name: &DomainName) -> Self {
        Self(name.as_str().into())
    }
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(text: &str) -> Result<Self, InvalidHostName> {
        let name = text.strip_suffix('.').unwrap_or(text);
        match name.parse::<DomainName>() {
            Ok(name) => Ok(Self::from(&name)),
            Err(source) => Err(InvalidHostName {
                text: text.into(),
                source,
            }),
        }
    }
}

impl TryFrom<String> for HostName {
    type Error = InvalidHostName;

    fn try_from(text: String) -> Result<Self, InvalidHostName> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_or_a_final_dot_are_one() {
        assert_eq!(
            "API.Example.".parse::<HostName>(),
            "api.example".parse::<HostName>()
        );
        assert!("my_account.db.example".parse::<HostName>().is_ok());
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let long = format!("{}.example", "a".repeat(64));
        let longer = vec!["abcdefg"; 33].join(".");
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a..",
            "-a.b",
            "a-.b",
            "a b",
            "ü.example",
            "*.example",
            "10.0.0.1",
            "1",
            "a.1",
            "a\0b",
            &long,
            &longer,
        ] {
            assert!(text.parse::<HostName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_zone_holds_itself_and_what_is_below() {
        let zone: HostName = "plant.example".parse().expect("a name");
        for (name, within) in [
            ("plant.example", true),
            ("db.plant.example", true),
            ("xplant.example", false),
            ("example", false),
        ] {
            let name: HostName = name.parse().expect("a name");
            assert_eq!(name.is_within(&zone), within, "{name}");
        }
    }
}
