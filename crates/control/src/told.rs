//! What is handed over, and what is told of it.

use std::sync::Arc;

use barecount_model::{id::RunId, plan::Plan, run::Run};

use crate::authority::Authorised;

/// A run to be accepted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The run, its tasks all waiting.
    pub run: Run,
    /// What it carries out, and by which permit.
    pub plan: Authorised,
    /// Tasks whose first attempts are opened in the same transaction, because there is room for
    /// them: their launches may follow at once. Nothing is placed where the token names a run that
    /// exists already.
    pub place: Vec<usize>,
}

/// The answer to a submission.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// The run is new.
    New(Update),
    /// The token names a run that exists already; this is it.
    Existing(Update),
}

/// A run as it stands after a durable change.
#[derive(Debug, Clone)]
pub struct Update {
    /// The run.
    pub run: Arc<Run>,
    /// What it carries out.
    pub plan: Arc<Plan>,
    /// The ledger's length once the change's evidence is in it.
    pub ledger_length: u64,
    /// How many batches were durable when it stood so: of two updates of a run, the one that has
    /// more is the later one.
    pub seq: u64,
}

/// Names an attempt within a run: what every report is fenced by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fenced {
    /// The run.
    pub run: RunId,
    /// The task's index.
    pub task: usize,
    /// The attempt's number.
    pub number: u32,
}
