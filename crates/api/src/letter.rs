//! Records that were set aside.

use serde::{Deserialize, Serialize};

/// One record that was set aside, a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The dataset it was meant for, if that is known.
    pub dataset: Option<String>,
    /// What it was set aside for, in words that all such records share.
    pub reason: String,
    /// The reason, and what was found in this record.
    pub error: String,
    /// The record, or a bounded sample of it.
    pub record: String,
    /// A hash of the schema that it did not fit.
    pub schema_hash: Option<String>,
}
