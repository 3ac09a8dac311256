//! The ledger as it is listed.

use serde::{Deserialize, Serialize};

/// An entry's place in the ledger, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Its index, from 0.
    pub index: u64,
    /// What it is about.
    pub kind: String,
    /// The run, if it is about one.
    pub run: Option<String>,
    /// The pipeline.
    pub pipeline: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// When the fact was recorded.
    pub at: String,
    /// RFC 6962 leaf hash, in hexadecimal.
    pub leaf_hash: String,
}
