//! The run state machine: runs, their tasks, and the tasks' attempts.
//!
//! Pure: `(state, command, moment) → effects`. A command changes the run in memory and says what
//! else follows ([`Effects`]): rows to persist, records for the ledger. What is to be *done* is
//! never stored apart from the state: [`Run::pending`] derives it, so a process that starts after
//! a crash does exactly what its predecessor had left to do.
//!
//! One verb, one file: [`submit`], [`hold`], [`place`], [`provisioned`], [`started`], [`report`],
//! [`committed`], [`lost`], [`cancel`], [`abandon`], [`refuse`], [`resume`], [`answer`], [`reopen`].
//! Start reading at [`Run`], then [`report`].

pub mod abandon;
pub mod answer;
pub mod backoff;
pub mod cancel;
pub mod committed;
pub mod effects;
pub mod hold;
pub mod lost;
pub mod outcome;
pub mod pending;
pub mod place;
mod planned;
pub mod provisioned;
pub mod refuse;
pub mod reopen;
pub mod report;
pub mod resume;
mod stage_name;
pub mod started;
pub mod submit;
mod task;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use abandon::Abandonment;
pub use answer::{Answered, StandingOutput};
pub use effects::{Effects, Moment, Record, Rejection};
pub use hold::{Held, WaitingReason};
pub use pending::Pending;
pub use provisioned::Provisioning;
pub use stage_name::StageName;
pub use task::{Attempt, AttemptState, RetryBudget, Task, TaskState};

use crate::id::RunId;

/// One execution of a pipeline for one logical window or event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its identifier.
    pub id: RunId,
    /// Names the logical work; a second submission under it answers with this run.
    pub token: String,
    /// The tenant it belongs to.
    pub tenant: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Digest of manifest and lock: what exactly runs.
    pub version: String,
    /// The environment's name.
    pub environment: String,
    /// The window worked on, if the pipeline has one.
    pub window: Option<Window>,
    /// Where it stands.
    pub state: RunState,
    /// Whether somebody asked for it to be cancelled.
    pub cancel_requested: bool,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it ended, if it has.
    pub ended_at: Option<Timestamp>,
    /// Its tasks; each depends only on tasks before it.
    pub tasks: Vec<Task>,
}

/// A run as it is written where its tasks are kept apart: read, it is a run without tasks.
#[derive(Debug, Serialize)]
pub struct Header<'r> {
    id: &'r RunId,
    token: &'r str,
    tenant: &'r str,
    pipeline: &'r str,
    version: &'r str,
    environment: &'r str,
    window: &'r Option<Window>,
    state: RunState,
    cancel_requested: bool,
    submitted_at: Timestamp,
    ended_at: Option<Timestamp>,
    tasks: [Task; 0],
}

/// A half-open interval of logical time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first instant inside.
    pub start: Timestamp,
    /// The first instant after.
    pub end: Timestamp,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Nothing of it has started.
    Waiting,
    /// Attempts are being made.
    Running,
    /// Nothing new starts; what is under way comes to its end.
    Finishing,
    /// Every task succeeded, its outputs are committed.
    Succeeded,
    /// A task failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Governance said no; nothing of it ever started.
    Refused,
}

impl RunState {
    /// The state as JSON spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }

    /// Whether tasks of it may still be started.
    pub fn starts_tasks(self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }

    /// Whether nothing changes any more unless somebody resumes it.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Refused
        )
    }
}

impl Run {
    /// The run without its tasks, which a store keeps apart.
    pub fn header(&self) -> Header<'_> {
        Header {
            id: &self.id,
            token: &self.token,
            tenant: &self.tenant,
            pipeline: &self.pipeline,
            version: &self.version,
            environment: &self.environment,
            window: &self.window,
            state: self.state,
            cancel_requested: self.cancel_requested,
            submitted_at: self.submitted_at,
            ended_at: self.ended_at,
            tasks: [],
        }
    }

    /// Moves the run to the state that its tasks imply, and records its end in `effects`.
    fn settle(&mut self, moment: &Moment, effects: &mut Effects) {
        self.release(effects);
        let all_final = self.tasks.iter().all(|task| task.state.is_final());
        let next = match (all_final, self.cancel_requested) {
            (false, true) => RunState::Finishing,
            (false, false) if self.tasks.iter().all(Task::is_untouched) => RunState::Waiting,
            (false, false) => RunState::Running,
            (true, _) => self.final_state(),
        };
        if next.is_final() && !self.state.is_final() {
            self.ended_at = Some(moment.now);
            effects.record(Record::RunEnded);
        }
        self.state = next;
        effects.run_changed = true;
    }

    /// Readies tasks whose needs are met, and skips those whose needs never will be.
    fn release(&mut self, effects: &mut Effects) {
        for index in 0..self.tasks.len() {
            if self.tasks[index].state != TaskState::Waiting {
                continue;
            }
            let needs = &self.tasks[index].needs;
            let next = if needs
                .iter()
                .any(|&need| self.tasks[need].state.blocks_dependents())
            {
                TaskState::Skipped
            } else if needs
                .iter()
                .all(|&need| self.tasks[need].state == TaskState::Succeeded)
            {
                TaskState::Ready
            } else {
                continue;
            };
            self.tasks[index].state = next;
            effects.touch(index);
        }
    }

    fn final_state(&self) -> RunState {
        let any = |state| self.tasks.iter().any(|task| task.state == state);
        if any(TaskState::Failed) {
            RunState::Failed
        } else if any(TaskState::Cancelled) {
            RunState::Cancelled
        } else {
            RunState::Succeeded
        }
    }

    /// The task's current attempt, if `number` is it: the fence that every report passes.
    fn fenced(&mut self, task: usize, number: u32) -> Result<&mut Attempt, Rejection> {
        let found = self
            .tasks
            .get_mut(task)
            .ok_or(Rejection::UnknownTask { index: task })?;
        let current = found.attempts.last().map_or(0, |attempt| attempt.number);
        match found.attempts.last_mut() {
            Some(attempt) if attempt.number == number => Ok(attempt),
            _ => Err(Rejection::Stale {
                task: found.id.clone(),
                number,
                current,
            }),
        }
    }
}
