//! Records that were set aside.

use barecount_model::untrusted::{Label, Reason, Sample};
use serde::{Deserialize, Serialize};

/// One record that was set aside, a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The dataset it was meant for, if that is known.
    pub dataset: Option<Label>,
    /// What it was set aside for, in words that all such records share.
    pub reason: Reason,
    /// The reason, and what was found in this record.
    pub error: Reason,
    /// The record, or a bounded sample of it.
    pub record: Sample,
    /// A hash of the schema that it did not fit.
    pub schema_hash: Option<Label>,
}

/// Records that were set aside for one reason, or data of which there is no record to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The dataset they were meant for, if that is known.
    pub dataset: Option<Label>,
    /// What they were set aside for, in words that all of them share; empty of one that is older
    /// than groups.
    pub reason: Reason,
    /// How many they are.
    pub count: u64,
    /// The first of them, or a bounded sample of it.
    pub record: Sample,
    /// Why the first was set aside.
    pub error: Reason,
    /// A hash of the schema that they did not fit.
    pub schema_hash: Option<Label>,
    /// The digest of the file beside the attempt's log that has all its records, if there is one.
    pub digest: Option<String>,
}

impl DeadLetter {
    /// What all of them have in common: of one record, all there is to say.
    pub fn told(&self) -> &Reason {
        match self.count {
            1 => &self.error,
            _ => &self.reason,
        }
    }
}

/// Records that were set aside for one reason, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDeadLetter {
    /// Its number in the queue.
    pub id: u64,
    /// The tenant.
    pub tenant: String,
    /// The run.
    pub run: String,
    /// The task.
    pub task: String,
    /// The attempt that was decided for.
    pub attempt: u32,
    /// The stage.
    pub stage: String,
    /// The records.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// When it was kept.
    pub at: String,
}
