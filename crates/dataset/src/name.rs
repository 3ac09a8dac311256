//! The names of datasets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The longest part of a table name, in bytes.
const MAX_PART_BYTES: usize = 63;

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

    /// The table's folder below the folder of all datasets: `<layer>/<name>`.
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
