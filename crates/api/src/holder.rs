//! Who holds a state folder.

use barecount_model::untrusted::Label;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The process that works on a state folder, as it describes itself to those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// What it was started for, as on its command line: `run`, `datasets restore`.
    pub verb: Label,
    /// The pipeline that this is about, if it is about one.
    #[serde(default)]
    pub pipeline: Option<Label>,
    /// Since when it holds the folder.
    pub since: Timestamp,
}
