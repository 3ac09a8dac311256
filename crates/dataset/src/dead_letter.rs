//! Rows that were refused, each with the reason and a bounded sample.

use barecount_model::untrusted::Sample;
use serde::{Deserialize, Serialize};

/// One refused row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRecord {
    /// The row as it was written.
    pub record: Sample,
    /// What is wrong, in words that all rows share where it is: the column, what was expected.
    pub reason: String,
    /// The reason, and what was found in this row.
    pub error: String,
    /// The schema it was checked against, as [`crate::schema::TableSchema::hash`] names it.
    pub schema_hash: String,
    /// The file it came from, relative to the output's folder.
    pub file: String,
    /// Its first line in that file, from 1; in a Parquet file, the number of the row.
    pub line: u64,
}

/// Why a row is refused: what is wrong, in words that all rows share where it is, and what was
/// found in this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What is wrong: the column, what was expected.
    pub(crate) reason: String,
    detail: Option<String>,
}

impl Refusal {
    pub(crate) fn new(reason: String) -> Self {
        Self {
            reason,
            detail: None,
        }
    }

    /// What was found instead.
    pub(crate) fn found(self, found: String) -> Self {
        self.at(format!("found {found}"))
    }

    /// Anything else that is told of this row alone.
    pub(crate) fn at(self, detail: String) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }

    /// Puts the place before the reason.
    pub(crate) fn within(self, place: &str) -> Self {
        Self {
            reason: format!("{place}{}", self.reason),
            ..self
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)?;
        match &self.detail {
            Some(detail) => write!(f, ", {detail}"),
            None => Ok(()),
        }
    }
}
