//! A run as it is shown: `barecount/run/v1`.

use std::path::PathBuf;

use barecount_model::{
    class::{NetworkProfile, RunnerClass, Size},
    digest::Digest,
    id::{RunId, TaskId},
    run::{
        Answered, AttemptState, Held, Provisioning, RunState, TaskState, Window,
        outcome::{Failure, Metrics},
    },
    untrusted::{Label, Message, Reason, Transcript},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A run that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The manifest's file.
    pub manifest: PathBuf,
    /// The window of logical time.
    pub window: Option<Window>,
    /// The name of the logical work; made from version, window and files if absent.
    pub token: Option<String>,
    /// This stage alone.
    pub stage: Option<String>,
    /// Stages whose work is done again although nothing has changed; `all`
    /// stands for every stage.
    pub force: Vec<String>,
}

/// A run in a list of runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its identifier.
    pub id: RunId,
    /// What its work is named.
    pub token: String,
    /// Whose it is.
    pub tenant: String,
    /// The pipeline.
    pub pipeline: String,
    /// Digest of manifest and lock.
    pub version: String,
    /// Where it stands.
    pub state: RunState,
    /// Whether it has not ended, and nobody works on it.
    pub interrupted: bool,
    /// The window worked on.
    pub window: Option<Window>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How many tasks it has.
    pub task_count: usize,
}

/// A run with everything that is shown of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunView {
    /// `barecount/run/v1`.
    pub schema: String,
    /// Its identifier.
    pub id: RunId,
    /// What its work is named.
    pub token: String,
    /// Whose it is.
    pub tenant: String,
    /// The pipeline.
    pub pipeline: String,
    /// Digest of manifest and lock.
    pub version: String,
    /// The environment.
    pub environment: String,
    /// The window worked on.
    pub window: Option<Window>,
    /// Where it stands.
    pub state: RunState,
    /// Whether it has not ended, and nobody works on it.
    pub interrupted: bool,
    /// What it waits for, if nothing of it is under way.
    pub waiting_reason: Option<Message>,
    /// Why it was refused, if it was: governance's explanation.
    pub refusal: Option<Value>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its tasks, each after those that it needs.
    pub tasks: Vec<TaskView>,
    /// What it made visible.
    pub outputs: Vec<OutputView>,
    /// Records that it set aside.
    pub dead_letters: u64,
    /// What its work wrote and declared no output for.
    pub undeclared: Vec<Undeclared>,
    /// How much more of the kind there was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub undeclared_left_out: u64,
    /// What it cost, at list prices.
    pub cost: Cost,
    /// Its entries in the ledger.
    pub evidence: Vec<EntryRef>,
    /// The size of the ledger that has them all.
    pub tree_size: Option<u64>,
    /// Where it is not what was signed of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// Why it was not held against the ledger, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<Message>,
}

/// Where a run is not what was signed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The entry; none where none says it.
    pub entry: Option<u64>,
    /// Which statement, and which member of it: `attempt: predicate/exit_code`.
    pub what: Label,
    /// What was signed, as JSON; none where nothing was.
    pub signed: Option<Reason>,
    /// What the store has; none where it has nothing.
    pub stored: Option<Reason>,
}

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// As a decimal number.
    pub amount: String,
    /// ISO 4217.
    pub currency: String,
}

/// A task of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskView {
    /// Its identifier.
    pub id: TaskId,
    /// The stage.
    pub stage: String,
    /// The partition of it.
    pub partition: Option<String>,
    /// The runner class.
    pub class: RunnerClass,
    /// The size.
    pub size: Size,
    /// The network profile.
    pub network_profile: NetworkProfile,
    /// What serves the class.
    pub backend: Option<String>,
    /// Where it stands.
    pub state: TaskState,
    /// Why it is put off.
    pub held: Option<Held>,
    /// The key of its work.
    pub work: Option<Digest>,
    /// What answers it in place of an attempt.
    pub answered_by: Option<Answered>,
    /// Every try, in order.
    pub attempts: Vec<AttemptView>,
}

/// One try of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttemptView {
    /// From 1.
    pub number: u32,
    /// What carried it out.
    pub runner: Option<String>,
    /// What it ran.
    pub digest: Option<String>,
    /// Where it stands.
    pub state: AttemptState,
    /// The program's exit status.
    pub exit_code: Option<i32>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was written down.
    pub intended_at: Timestamp,
    /// What was made or waited for before it could start, if that took a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning: Option<Provisioning>,
    /// When it had started.
    pub started_at: Option<Timestamp>,
    /// When its work had ended.
    pub work_ended_at: Option<Timestamp>,
    /// When what it left was staged.
    pub staged_at: Option<Timestamp>,
    /// When its end was reported.
    pub ended_at: Option<Timestamp>,
    /// When its outputs were visible.
    pub committed_at: Option<Timestamp>,
    /// How long its work took.
    pub work_seconds: Option<f64>,
    /// How long the platform took.
    pub platform_seconds: Option<f64>,
    /// What it used.
    pub metrics: Metrics,
    /// What it reached and was refused, as evidence shows it.
    pub network: Value,
    /// Which secrets it was given and refused, as evidence shows it.
    pub secrets: Value,
}

/// A version of a dataset that a run made visible.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutputView {
    /// The dataset.
    pub dataset: String,
    /// The partition that the task covered.
    pub partition: Option<String>,
    /// Where it is.
    pub uri: String,
    /// The version.
    pub version: u64,
    /// Rows that were committed.
    pub rows: u64,
    /// Bytes that were committed.
    pub bytes: u64,
    /// The content digest of those rows.
    pub digest: String,
}

/// Something that work wrote and declared no output for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Undeclared {
    /// The stage.
    pub stage: String,
    /// The partition of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// What it is called.
    pub name: Label,
}

/// What an attempt wrote to standard output and standard error.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Log {
    /// The task.
    pub task: TaskId,
    /// Its stage.
    pub stage: String,
    /// The partition of it.
    pub partition: Option<String>,
    /// The attempt's number.
    pub attempt: u32,
    /// The text.
    pub log: Transcript,
    /// Why it is not the log that was signed, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Message>,
    /// Why it could not be held against what was signed, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<Message>,
}

/// An entry's place in the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntryRef {
    /// Its index, from 0.
    pub index: u64,
    /// What it is about.
    pub kind: String,
    /// RFC 6962 leaf hash, in hexadecimal.
    pub leaf_hash: String,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
