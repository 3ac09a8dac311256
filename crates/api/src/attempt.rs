//! What an attempt is called.

use std::fmt;

use barecount_model::id::{RunId, TaskId};
use serde::{Deserialize, Serialize};

/// The fencing token of one attempt: the task and a number that only grows. It is a sandbox's name,
/// a staging folder's name, and every backend's idempotency token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptToken {
    /// The task being tried.
    pub task: TaskId,
    /// The try, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptToken {
    /// Lower-case letters, digits and `-` only, at most 64 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}",
            self.task.printed().replace('_', "-"),
            self.number
        )
    }
}

/// Names an attempt, with all that a report of it needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttemptRef {
    /// The run.
    pub run: RunId,
    /// The task's index in the run.
    pub index: usize,
    /// The task.
    pub task: TaskId,
    /// The attempt's number.
    pub number: u32,
}

impl AttemptRef {
    /// The attempt's fencing token.
    pub fn token(&self) -> AttemptToken {
        AttemptToken {
            task: self.task.clone(),
            number: self.number,
        }
    }
}
