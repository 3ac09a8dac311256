//! What follows from a command, and why a command may be rejected.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{Abandonment, RunState};
use crate::id::TaskId;

/// What the outside world contributes to a transition.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// Random bits, for jitter.
    pub entropy: u64,
}

/// What follows from a command, beside the changed run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Whether the run's own row changed.
    pub run_changed: bool,
    /// Indices of the tasks whose rows changed.
    pub tasks_changed: BTreeSet<usize>,
    /// What the ledger is to hold, in order; entered in the transaction that persists the change.
    pub records: Vec<Record>,
}

impl Effects {
    pub(super) fn touch(&mut self, task: usize) {
        self.tasks_changed.insert(task);
    }

    pub(super) fn record(&mut self, record: Record) {
        self.records.push(record);
    }
}

/// A fact for the ledger. Only a reference: the statement is made from the state it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A run was accepted, on whose decision.
    RunSubmitted,
    /// A run was refused, on whose decision.
    RunRefused,
    /// A run that had ended or was interrupted was taken up again.
    RunResumed {
        /// On whose decision, as evidence keeps it: nothing else has it.
        decision: Value,
    },
    /// An attempt came to its end.
    AttemptEnded {
        /// The task's index.
        task: usize,
        /// The attempt's number.
        number: u32,
    },
    /// A task's outputs were committed.
    TaskCommitted {
        /// The task's index.
        task: usize,
    },
    /// The run was given up.
    RunAbandoned {
        /// The tasks' indices and the attempts' numbers whose decisions were struck.
        struck: Vec<(usize, u32)>,
        /// By whom, and why: nothing else has it.
        abandonment: Abandonment,
    },
    /// A task's work had been done before, and stands.
    TaskAnswered {
        /// The task's index.
        task: usize,
    },
    /// The run came to its end.
    RunEnded,
}

/// Why a command does not apply. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The run has no such task.
    #[error("the run has no task number {index}")]
    UnknownTask {
        /// The index.
        index: usize,
    },
    /// The report is of an attempt that is no longer the task's current one.
    #[error("attempt {number} of {task} is not its current one ({current})")]
    Stale {
        /// The task.
        task: TaskId,
        /// The attempt reported on.
        number: u32,
        /// The task's current attempt.
        current: u32,
    },
    /// The attempt's end is known already.
    #[error("attempt {number} of {task} has already ended")]
    AlreadyEnded {
        /// The task.
        task: TaskId,
        /// The attempt.
        number: u32,
    },
    /// The task cannot be placed now.
    #[error("{task} cannot be placed now")]
    NotPlaceable {
        /// The task.
        task: TaskId,
    },
    /// The task has no commit decision to roll forward.
    #[error("{task} has no commit decision to roll forward")]
    NotCommitting {
        /// The task.
        task: TaskId,
    },
    /// The run is in a state in which the command means nothing.
    #[error("a run that is {state:?} cannot be {verb}")]
    WrongState {
        /// The run's state.
        state: RunState,
        /// What was asked.
        verb: &'static str,
    },
    /// A run needs tasks, and tasks may need only earlier ones.
    #[error("task number {index} needs a task that does not come before it")]
    NotOrdered {
        /// The index.
        index: usize,
    },
}
