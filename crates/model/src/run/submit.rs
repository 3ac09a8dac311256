//! Accepting a run.

use super::{Effects, Moment, Record, Rejection, Run, RunState, TaskState};

impl Run {
    /// Brings a run whose tasks are all [`TaskState::Waiting`] to life: readies those that need
    /// nothing.
    ///
    /// # Errors
    /// [`Rejection::NotOrdered`] if a task needs one that does not come before it.
    pub fn submit(&mut self, moment: &Moment) -> Result<Effects, Rejection> {
        for (index, task) in self.tasks.iter().enumerate() {
            if task.needs.iter().any(|&need| need >= index) {
                return Err(Rejection::NotOrdered { index });
            }
            if task.state != TaskState::Waiting {
                return Err(Rejection::WrongState {
                    state: self.state,
                    verb: "submitted",
                });
            }
        }
        let mut effects = Effects::default();
        self.state = RunState::Waiting;
        self.submitted_at = moment.now;
        effects.tasks_changed.extend(0..self.tasks.len());
        effects.record(Record::RunSubmitted);
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}
