//! What is reported of an attempt's end.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    meter::Metered,
    untrusted::{Label, Message},
};

/// How an attempt ended, as the agent reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The result.
    pub result: AttemptResult,
    /// The program's exit status, where there was one.
    pub exit_code: Option<i32>,
    /// What it used.
    pub metrics: Metrics,
    /// When its parts came to pass.
    #[serde(default)]
    pub timeline: Timeline,
    /// What only evidence needs.
    pub detail: serde_json::Value,
}

/// When the parts of an attempt came to pass, by the clock of whoever carried it out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The work had been started.
    pub started_at: Option<Timestamp>,
    /// The work had ended, however it did.
    pub work_ended_at: Option<Timestamp>,
    /// What the work left had been read, checked and tested.
    pub staged_at: Option<Timestamp>,
}

/// The result of an attempt. As JSON it is named from without: a failure has a `kind` of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// The work is done and its outputs are staged, durable and accepted.
    Done(Staged),
    /// It failed.
    Failed(Failure),
    /// It was told to stop, and did.
    Stopped,
}

/// What an attempt left in staging: all its datasets, to be committed together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    /// One entry per declared output.
    pub datasets: Vec<StagedDataset>,
    /// How many records were set aside.
    pub dead_letters: u64,
    /// What the work wrote beside its declared outputs, by name: nobody takes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undeclared: Vec<Label>,
    /// How many more of these there are.
    #[serde(default)]
    pub undeclared_left_out: u64,
    /// What the work saved for the next time, if it did; it counts from the commit on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<StagedCheckpoint>,
}

impl Staged {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.datasets.is_empty() && self.checkpoint.is_none()
    }
}

/// A checkpoint in staging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagedCheckpoint {
    /// The digest of its files.
    pub digest: String,
    /// How many files it has.
    pub files: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// What whoever keeps checkpoints needs to roll the decision forward; opaque here.
    pub commit: serde_json::Value,
}

/// One dataset in staging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagedDataset {
    /// Its name.
    pub dataset: String,
    /// Rows staged.
    pub rows: u64,
    /// Bytes staged.
    pub bytes: u64,
    /// The content digest of the rows.
    pub digest: String,
    /// What the dataset layer needs to roll the decision forward; opaque here.
    pub commit: serde_json::Value,
}

/// One dataset version that a decision became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedDataset {
    /// Its name.
    pub dataset: String,
    /// Where it is.
    pub uri: String,
    /// The version that the commit made.
    pub version: u64,
    /// Rows committed.
    pub rows: u64,
    /// Bytes committed.
    pub bytes: u64,
    /// The content digest of the rows.
    pub digest: String,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose failure it is; decides on retries.
    pub kind: FailureKind,
    /// The error code, which has a page.
    pub code: String,
    /// What happened, for a person; mostly in words of the work.
    pub message: Message,
}

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The work's.
    Application,
    /// The runner's.
    Infrastructure,
    /// The data's; a retry would meet the same data.
    Data,
    /// A permission's or policy's.
    Policy,
    /// The work took longer than it may.
    Timeout,
}

/// What an attempt used; null where the host cannot tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Processor time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Most memory in use at once, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Bytes read from block devices.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub io_write_bytes: Option<u64>,
    /// Bytes sent to destinations through the broker.
    #[serde(default)]
    pub network_sent_bytes: Option<u64>,
    /// Bytes received from destinations through the broker.
    #[serde(default)]
    pub network_received_bytes: Option<u64>,
    /// Connections that the broker made.
    #[serde(default)]
    pub network_connections: Option<u64>,
    /// Connections and lookups that the broker refused.
    #[serde(default)]
    pub network_refusals: Option<u64>,
    /// What the backend was billed for it; nothing of one that bills nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metered: Vec<Metered>,
}

impl Metrics {
    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
