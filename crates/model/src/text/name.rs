//! Names of pipelines, stages, datasets, columns and drivers.

use super::{InvalidText, text_value, wireguard::is_key};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                let check: fn(&str) -> Result<(), InvalidText> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A name of a pipeline, tenant, stage, input or secret: it fits into a file name, a label and
    /// a host label as it is.
    Name, name_rule
);
text_value!(
    Name,
    "barecount-name",
    "a name",
    "^[a-z0-9][a-z0-9_-]{0,62}$",
    "At most 63 lower-case letters, digits, `-` and `_`; the first is a letter or digit."
);

name!(
    /// A dataset: `<layer>.<name>`, as in `raw.fx_rates`.
    DatasetName, |text| {
        let rule = "written `<layer>.<name>`, as in `raw.orders`";
        let (layer, name) = text.split_once('.').ok_or_else(|| InvalidText::new(rule))?;
        name_rule(layer).and_then(|()| name_rule(name))
    }
);
text_value!(
    DatasetName,
    "barecount-dataset",
    "a dataset",
    "^[a-z0-9][a-z0-9_-]{0,62}\\.[a-z0-9][a-z0-9_-]{0,62}$",
    "`<layer>.<name>`, as in `raw.orders`; both parts are names."
);

impl DatasetName {
    /// The layer, as `raw`, `gdp` or `kpi`.
    pub fn layer(&self) -> &str {
        self.0.split_once('.').map_or("", |(layer, _)| layer)
    }

    /// The name within the layer.
    pub fn name(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, name)| name)
    }
}

name!(
    /// A column. Case is kept, and matters.
    ColumnName, |text| {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if first && rest && text.len() <= 127 {
            Ok(())
        } else {
            Err(InvalidText::new("at most 127 letters, digits and `_`, and no digit comes first"))
        }
    }
);
text_value!(
    ColumnName,
    "barecount-column",
    "a column",
    "^[A-Za-z_][A-Za-z0-9_]{0,126}$",
    "At most 127 letters, digits and `_`, and no digit comes first. Case is kept."
);

name!(
    /// A driver bundle by name, or by name and version: `sqlite`, `sqlite@3.46`.
    DriverName, |text| {
        let (name, version) = text.split_once('@').unwrap_or((text, "0"));
        name_rule(name)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+');
        let starts = version.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if starts && version.len() <= 63 && version.bytes().all(plain) {
            Ok(())
        } else {
            Err(InvalidText::new("the version after `@` has letters, digits, `.`, `_`, `-`, `+`"))
        }
    }
);
text_value!(
    DriverName,
    "barecount-driver",
    "a driver",
    "^[a-z0-9][a-z0-9_-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._+-]{0,62})?$",
    "A driver bundle by name, or by name and version: `sqlite`, `sqlite@3.46`."
);

name!(
    /// A secret within its tenant, as `erp/netsuite.client-secret`. No part between slashes is empty
    /// or made of dots alone, so that a service may use the name as a path.
    SecretName, |text| {
        if is_key(text) {
            return Err(InvalidText::new(
                "this looks like a key itself, which others may have read by now: make a new one, \
                 keep it in the secrets store (`barecount secrets set`), and write its name here",
            ));
        }
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let parts = text.split('/').all(|part| part.bytes().any(|b| b != b'.'));
        if starts && text.len() <= SecretName::MAX_BYTES && text.bytes().all(plain) && parts {
            Ok(())
        } else {
            Err(InvalidText::new(
                "at most 128 lower-case letters, digits, `-`, `_`, `.` and `/`; the first is a \
                 letter or digit, and no part between slashes is empty or of dots alone",
            ))
        }
    }
);
text_value!(
    SecretName,
    "barecount-secret",
    "the name of a secret",
    "^[a-z0-9][a-z0-9._-]*(/[.]*[a-z0-9_-][a-z0-9._-]*)*$",
    "At most 128 lower-case letters, digits, `-`, `_`, `.` and `/`, as in `erp/client-secret`."
);

impl SecretName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 128;
}

impl Name {
    /// A name that is known to follow the rule, which a test checks.
    pub(crate) fn literal(text: &'static str) -> Self {
        debug_assert!(name_rule(text).is_ok(), "{text} is a name");
        Self(text.to_owned())
    }
}

fn name_rule(text: &str) -> Result<(), InvalidText> {
    let reason = match text.as_bytes() {
        [] => "a name is not empty",
        [b'-' | b'_', ..] => "a name starts with a letter or a digit",
        bytes if bytes.len() > 63 => "a name has at most 63 characters",
        bytes => {
            let plain = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            if bytes.iter().all(plain) {
                return Ok(());
            }
            "a name has lower-case letters, digits, `-` and `_` only"
        }
    };
    Err(InvalidText::new(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_paths_of_plain_lower_case_parts() {
        let longest = "a".repeat(SecretName::MAX_BYTES);
        for right in [
            "a",
            "7",
            "erp/netsuite.client-secret",
            "a_b",
            "a/.b",
            &longest,
        ] {
            assert!(right.parse::<SecretName>().is_ok(), "{right}");
        }
        let longer = "a".repeat(SecretName::MAX_BYTES + 1);
        for wrong in [
            "", "/a", "a/", "a//b", "a/../b", "a/.", "a/...", ".a", "-a", "A", "ä", "a b", "a@1",
            "a\n", &longer,
        ] {
            assert!(wrong.parse::<SecretName>().is_err(), "{wrong}");
        }
    }
}
