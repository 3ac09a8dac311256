//! Host names, as declarations, queries and server names are compared.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A host name in lower case and without its final dot, so that equal names compare equal.
///
/// Letters, digits and hyphens only (RFC 952, RFC 1123 section 2.1), at most 253 characters in
/// labels of at most 63. International names are declared in their ASCII form (RFC 5890). A name
/// whose last label is a number is refused: programs read it as an IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(Arc<str>);

/// A text that is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host name: {fault}")]
pub struct InvalidHostName {
    text: String,
    fault: &'static str,
}

impl HostName {
    const MAX: usize = 253;

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

    fn fault(text: &str) -> Option<&'static str> {
        if text.is_empty() || text.len() > Self::MAX {
            return Some("1 to 253 characters are allowed");
        }
        let mut last = "";
        for label in text.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Some("1 to 63 characters are allowed between dots");
            }
            if !label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            {
                return Some("only letters, digits, hyphens and dots are allowed");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Some("a label neither starts nor ends with a hyphen");
            }
            last = label;
        }
        last.bytes()
            .all(|b| b.is_ascii_digit())
            .then_some("the last label is a number")
    }
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(text: &str) -> Result<Self, InvalidHostName> {
        let name = text.strip_suffix('.').unwrap_or(text);
        match Self::fault(name) {
            None => Ok(Self(name.to_ascii_lowercase().into())),
            Some(fault) => Err(InvalidHostName {
                text: printable(text),
                fault,
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

/// Text from a stranger, fit for a record: bounded, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    const LONGEST: usize = 255;
    let mut shown = String::new();
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        if shown.len() > LONGEST {
            shown.truncate(shown.floor_char_boundary(LONGEST));
            shown.push('…');
            break;
        }
    }
    shown
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
            "a_b.c",
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

    #[test]
    fn a_strangers_text_is_bounded_and_has_no_control_characters() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert!(printable(&"ü".repeat(1_000)).len() <= 258);
    }
}
