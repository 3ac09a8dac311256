//! The names of datasets, and of the tenants whose they are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The longest part of a table name, in bytes.
const MAX_PART_BYTES: usize = 63;

/// The longest name of a tenant, in bytes.
const MAX_TENANT_BYTES: usize = 63;

/// A text that is not the name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the name of a tenant (expected lower-case letters, digits, `-` and `_`, at \
     most {MAX_TENANT_BYTES}, of which the first is a letter or digit)"
)]
pub struct InvalidTenant {
    text: String,
}

/// Whose tables they are. The name is a folder's name as it is: it has no upper case, so that two
/// of them are never one folder, and nothing that leads out of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for Tenant {
    type Err = InvalidTenant;

    fn from_str(text: &str) -> Result<Self, InvalidTenant> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let starts = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if starts && text.len() <= MAX_TENANT_BYTES && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            let text = text.chars().take(160).collect();
            Err(InvalidTenant { text })
        }
    }
}

/// A text that is not a table name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a dataset name (expected `layer.name`, each a lower-case letter followed by \
     letters, digits or `_`, at most {MAX_PART_BYTES})"
)]
pub struct InvalidTableName {
    text: String,
}

/// A dataset's name, `layer.name`, safe to use as a path and as an SQL identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    layer: String,
    name: String,
}

impl TableName {
    /// The part before the dot, such as `raw` or `kpi`.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// The part after the dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table's folder below the folder of its tenant's datasets: `<layer>/<name>`.
    pub fn relative_path(&self) -> PathBuf {
        PathBuf::from(&self.layer).join(&self.name)
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}.{}", self.layer, self.name))
    }
}

impl std::str::FromStr for TableName {
    type Err = InvalidTableName;

    fn from_str(text: &str) -> Result<Self, InvalidTableName> {
        let is_part = |part: &str| {
            part.len() <= MAX_PART_BYTES
                && part.starts_with(|c: char| c.is_ascii_lowercase())
                && part
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        match text.split_once('.') {
            Some((layer, name)) if is_part(layer) && is_part(name) => Ok(Self {
                layer: layer.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(InvalidTableName {
                text: text.chars().take(160).collect(),
            }),
        }
    }
}

impl TryFrom<String> for TableName {
    type Error = InvalidTableName;

    fn try_from(text: String) -> Result<Self, InvalidTableName> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_could_leave_its_folder_or_be_in_anothers_is_refused() {
        let longer = "a".repeat(MAX_TENANT_BYTES + 1);
        for text in [
            "", ".", "..", "a/b", "../a", "Acme", "a.b", "a b", "-a", "_a", "ä", &longer,
        ] {
            assert!(text.parse::<Tenant>().is_err(), "{text} was accepted");
        }
        for text in ["acme", "7", "a-b_c", &longer[1..]] {
            assert!(text.parse::<Tenant>().is_ok(), "{text} was refused");
        }
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for text in [
            "raw",
            "raw.",
            ".fx",
            "raw.fx.rates",
            "../x.y",
            "raw./etc",
            "Raw.fx",
            "a.b c",
        ] {
            assert!(text.parse::<TableName>().is_err(), "{text} was accepted");
        }
        assert_eq!(
            "raw.fx_rates"
                .parse::<TableName>()
                .map(|n| n.relative_path()),
            Ok("raw/fx_rates".into())
        );
    }
}
