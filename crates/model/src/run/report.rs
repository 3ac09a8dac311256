//! Learning how an attempt ended: the fenced commit decision, or a retry, or the end of the task.

use super::{
    AttemptState, Effects, Moment, Record, Rejection, RetryBudget, Run, TaskState, backoff,
    outcome::{AttemptResult, Failure, FailureKind, Outcome},
};

impl Run {
    /// Takes an attempt's outcome. For a successful one this *is* the commit decision: once the
    /// change is durable, these staged datasets and no others are the task's outputs, and they are
    /// rolled forward however often the platform dies on the way.
    ///
    /// # Errors
    /// [`Rejection::Stale`] for any but the current attempt, [`Rejection::AlreadyEnded`] for a second
    /// report: no attempt is decided twice.
    pub fn report(
        &mut self,
        index: usize,
        number: u32,
        outcome: Outcome,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        let cancelled = self.cancel_requested;
        let attempt = self.fenced(index, number)?;
        if !attempt.state.is_open() {
            return Err(Rejection::AlreadyEnded {
                task: self.tasks[index].id.clone(),
                number,
            });
        }
        attempt.ended_at = Some(moment.now);
        // Who carried it out knows better than who only heard of it.
        attempt.started_at = outcome.timeline.started_at.or(attempt.started_at);
        attempt.work_ended_at = outcome.timeline.work_ended_at;
        attempt.staged_at = outcome.timeline.staged_at;
        attempt.exit_code = outcome.exit_code;
        attempt.metrics = outcome.metrics;
        attempt.detail = outcome.detail;
        let nothing_to_commit =
            matches!(&outcome.result, AttemptResult::Done(staged) if staged.is_empty());
        let failure = match outcome.result {
            AttemptResult::Done(staged) => {
                attempt.state = AttemptState::Succeeded;
                attempt.staged = Some(staged);
                None
            }
            AttemptResult::Stopped => {
                attempt.state = AttemptState::Stopped;
                None
            }
            AttemptResult::Failed(failure) => {
                attempt.state = AttemptState::Failed;
                attempt.failure = Some(failure.clone());
                Some(failure)
            }
        };
        let ended = attempt.state;
        if nothing_to_commit {
            attempt.committed_at = Some(moment.now);
        }
        let task = &mut self.tasks[index];
        task.state = match (ended, failure) {
            // There is nothing to roll forward: the decision is the whole commit.
            (AttemptState::Succeeded, _) if nothing_to_commit => TaskState::Succeeded,
            (AttemptState::Succeeded, _) => TaskState::Committing,
            (_, Some(failure)) if !cancelled => {
                retry(&mut task.budget, &failure, moment, &mut task.not_before)
            }
            (AttemptState::Stopped, None) if !cancelled => TaskState::Ready,
            _ => TaskState::Cancelled,
        };
        let mut effects = Effects::default();
        effects.touch(index);
        effects.record(Record::AttemptEnded {
            task: index,
            number,
        });
        if nothing_to_commit {
            effects.record(Record::TaskCommitted { task: index });
        }
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}

fn retry(
    budget: &mut RetryBudget,
    failure: &Failure,
    moment: &Moment,
    not_before: &mut Option<jiff::Timestamp>,
) -> TaskState {
    let (spent, allowed) = match failure.kind {
        FailureKind::Application | FailureKind::Timeout => {
            (&mut budget.application_spent, budget.application)
        }
        FailureKind::Infrastructure => (&mut budget.infrastructure_spent, budget.infrastructure),
        FailureKind::Data | FailureKind::Policy => return TaskState::Failed,
    };
    *spent = spent.saturating_add(1);
    let failures = *spent;
    if failures > allowed {
        return TaskState::Failed;
    }
    // A delay past the end of representable time is as good as none: the task is just due.
    *not_before = moment
        .now
        .checked_add(backoff::delay(budget, failures, moment.entropy))
        .ok();
    TaskState::Ready
}
