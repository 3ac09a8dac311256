//! Taking a run up again that failed or was cancelled.

use serde_json::Value;

use super::{Effects, Moment, Record, Rejection, Run, RunState, TaskState};

impl Run {
    /// Makes everything that did not succeed wait again, with fresh retry budgets; what is
    /// committed stays. Attempt numbers go on, so an attempt from before stays fenced off.
    /// `decision` is what permitted it.
    ///
    /// # Errors
    /// [`Rejection::WrongState`] unless the run failed or was cancelled.
    pub fn resume(&mut self, decision: Value, moment: &Moment) -> Result<Effects, Rejection> {
        if !matches!(self.state, RunState::Failed | RunState::Cancelled) {
            return Err(Rejection::WrongState {
                state: self.state,
                verb: "resumed",
            });
        }
        let mut effects = Effects::default();
        for (index, task) in self.tasks.iter_mut().enumerate() {
            if task.state == TaskState::Succeeded {
                continue;
            }
            task.state = TaskState::Waiting;
            task.not_before = None;
            task.held = None;
            task.budget.application_spent = 0;
            task.budget.infrastructure_spent = 0;
            task.budget.interruptions_spent = 0;
            effects.touch(index);
        }
        self.state = RunState::Waiting;
        self.cancel_requested = false;
        self.ended_at = None;
        effects.record(Record::RunResumed { decision });
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}
