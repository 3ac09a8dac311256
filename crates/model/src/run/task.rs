//! Tasks and their attempts.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    answer::Answered,
    hold::Held,
    outcome::{Failure, Metrics, Staged},
    provisioned::Provisioning,
    stage_name::StageName,
};
use crate::{
    class::{NetworkProfile, RunnerClass, Size},
    id::TaskId,
    work::Work,
};

/// One stage of a run, or one partition of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its identifier.
    pub id: TaskId,
    /// The stage it carries out.
    pub stage: StageName,
    /// The partition of it, if the stage has partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The class it is placed on, and no other.
    pub class: RunnerClass,
    /// Its size.
    pub size: Size,
    /// What it may reach.
    pub network_profile: NetworkProfile,
    /// Indices of the tasks whose outputs it reads or that it names; all smaller than its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<usize>,
    /// Where it stands.
    pub state: TaskState,
    /// What it may still spend on retries.
    pub budget: RetryBudget,
    /// It is not placed before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Why it has been put off, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Box<Held>>,
    /// The work that its latest attempt was placed for, or that is answered; unknown of tasks that
    /// are older than keys of work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Box<Work>>,
    /// What answers it in place of an attempt of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Box<Answered>>,
    /// Every try, in order.
    pub attempts: Vec<Attempt>,
}

impl Task {
    /// What people call it: its stage, with its partition if it has one.
    pub fn name(&self) -> String {
        match &self.partition {
            Some(partition) => format!("{}/{partition}", self.stage),
            None => self.stage.to_string(),
        }
    }

    /// The latest attempt.
    pub fn current(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.attempts.is_empty() && matches!(self.state, TaskState::Waiting | TaskState::Ready)
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its needs are not met.
    Waiting,
    /// It may be placed, from `not_before` on.
    Ready,
    /// An attempt is intended or under way.
    Active,
    /// The commit decision is made and durable; it is being rolled forward.
    Committing,
    /// Its outputs are committed.
    Succeeded,
    /// Its retries are spent, or the failure is of a kind that no retry mends.
    Failed,
    /// It was cancelled before it came to a result.
    Cancelled,
    /// Something it needs failed or was cancelled.
    Skipped,
}

impl TaskState {
    /// Whether nothing changes any more unless somebody resumes the run.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped
        )
    }

    pub(super) fn blocks_dependents(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::Skipped)
    }
}

/// What a task may spend on retries. Failures of the work and of the infrastructure are counted
/// apart, so that a flaky host does not use up the patience for flaky code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryBudget {
    /// Retries after failures of the work itself.
    pub application: u32,
    /// Retries after failures of the runner.
    pub infrastructure: u32,
    /// Retries after the platform's own process ended under the attempt.
    pub interruptions: u32,
    /// The first delay, in milliseconds; doubled each time.
    pub initial_backoff_ms: u64,
    /// The longest delay, in milliseconds.
    pub max_backoff_ms: u64,
    /// Application failures so far.
    pub application_spent: u32,
    /// Infrastructure failures so far.
    pub infrastructure_spent: u32,
    /// Interruptions so far.
    pub interruptions_spent: u32,
}

/// One try of a task on one runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The fencing number: from 1, never reused within a task.
    pub number: u32,
    /// Where it stands.
    pub state: AttemptState,
    /// The runner that carries it out, once it has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// When the intent to launch was written down.
    pub intended_at: Timestamp,
    /// Why it could not be made earlier, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Box<Held>>,
    /// What was made or waited for before its work could run, if that took a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning: Option<Box<Provisioning>>,
    /// When the runner had started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When its work had ended. From then on its time is the platform's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_ended_at: Option<Timestamp>,
    /// When what its work left had been read, checked and tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_at: Option<Timestamp>,
    /// When its end was reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When its commit decision had been rolled forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<Timestamp>,
    /// The program's exit status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What it used.
    #[serde(default, skip_serializing_if = "Metrics::is_empty")]
    pub metrics: Metrics,
    /// What it left in staging, once it succeeded: with [`TaskState::Committing`] this *is* the
    /// commit decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// What only evidence needs: log digest, enforcement, warm or cold.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}

impl Attempt {
    /// How long its work took, and nothing else: it is priced by that, and its `timeout` is for that.
    /// None if the work never began, or its end is not known yet. Of an attempt whose end nobody
    /// saw, the time until it was given up.
    pub fn work_time(&self) -> Option<Duration> {
        let end = self.work_ended_at.or(self.ended_at)?;
        Some(between(self.started_at?, end))
    }

    /// How long the platform took over it so far, before the work and after: preparing, staging,
    /// committing. None if it has not ended.
    pub fn platform_time(&self) -> Option<Duration> {
        let end = self.committed_at.or(self.ended_at)?;
        let whole = between(self.intended_at, end);
        Some(whole.saturating_sub(self.work_time().unwrap_or_default()))
    }
}

/// None where a clock went back.
fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Written down; the launch may or may not have happened.
    Intended,
    /// Its backend has it, and makes or waits for what will carry it out.
    Provisioning,
    /// The runner has started it.
    Running,
    /// It did its work, and its outputs were decided for.
    Succeeded,
    /// It failed.
    Failed,
    /// It was stopped because the run was cancelled.
    Stopped,
    /// The platform's process ended under it; nothing is known of its end.
    Lost,
    /// Its outputs were decided for and could not be rolled forward; the decision was struck.
    Abandoned,
}

impl AttemptState {
    /// Whether it has not ended, as far as is known.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Intended | Self::Provisioning | Self::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million of them wait in 300 MB, with what else there is of them.
    #[test]
    fn a_task_that_waits_is_small() {
        assert!(size_of::<Task>() <= 200, "{} bytes", size_of::<Task>());
    }
}
