//! Learning that the platform's own process ended under an attempt.

use super::{
    AttemptState, Effects, Moment, Record, Rejection, Run, TaskState,
    outcome::{Failure, FailureKind},
};

impl Run {
    /// Gives an attempt up whose end nobody knows, after the runner made sure that nothing of it
    /// runs any more. The task is ready again at once: neither the work nor the runner failed. The
    /// interruptions are bounded all the same, lest work that brings the host down repeats for ever.
    ///
    /// # Errors
    /// [`Rejection::Stale`] or [`Rejection::AlreadyEnded`], as for any report.
    pub fn lost(
        &mut self,
        index: usize,
        number: u32,
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
        attempt.state = AttemptState::Lost;
        attempt.ended_at = Some(moment.now);
        attempt.failure = Some(Failure {
            kind: FailureKind::Infrastructure,
            code: "BC0801".to_owned(),
            message: "the platform's process ended while the attempt was under way".into(),
        });
        let task = &mut self.tasks[index];
        task.budget.interruptions_spent = task.budget.interruptions_spent.saturating_add(1);
        task.state = if cancelled {
            TaskState::Cancelled
        } else if task.budget.interruptions_spent > task.budget.interruptions {
            TaskState::Failed
        } else {
            TaskState::Ready
        };
        let mut effects = Effects::default();
        effects.touch(index);
        effects.record(Record::AttemptEnded {
            task: index,
            number,
        });
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}
