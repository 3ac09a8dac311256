//! Records of what a run's attempts reached and were given.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which records of a run are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The run's identifier, or the beginning of it.
    pub run: String,
    /// Only this stage.
    pub stage: Option<String>,
    /// Only attempts of this number, from 1.
    pub attempt: Option<u32>,
    /// Only what was refused, or could not be had.
    pub refused: bool,
}

/// What the selected attempts have of one kind of record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Records {
    /// The records, in the order of tasks and attempts.
    pub items: Vec<Value>,
    /// Each attempt with its sums, and what of it is counted only.
    pub attempts: Vec<Value>,
}
