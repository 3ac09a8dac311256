//! What attempts that are under way do now.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attempt::AttemptRef;

/// Which part of an attempt is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The platform puts together what the work needs, and starts it.
    Preparing,
    /// The backend makes what will carry the work out, or waits for it.
    Provisioning,
    /// The work runs.
    Running,
    /// The platform reads what the work left, checks it, tests it and makes it durable.
    Staging,
}

/// What an attempt that is under way does now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activity {
    /// The attempt.
    pub attempt: AttemptRef,
    /// The part that is under way.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// Rows staged so far.
    pub rows: u64,
    /// Bytes of what the work left that were read so far.
    pub bytes: u64,
}
