//! Cancelling a run.

use super::{Effects, Moment, Rejection, Run, TaskState};

impl Run {
    /// Starts nothing new, and has what is under way stopped. A task whose commit decision is made is
    /// rolled forward all the same. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Rejection::WrongState`] once the run has ended.
    pub fn cancel(&mut self, moment: &Moment) -> Result<Effects, Rejection> {
        if self.state.is_final() {
            return Err(Rejection::WrongState {
                state: self.state,
                verb: "cancelled",
            });
        }
        let mut effects = Effects::default();
        self.cancel_requested = true;
        for (index, task) in self.tasks.iter_mut().enumerate() {
            if matches!(task.state, TaskState::Waiting | TaskState::Ready) {
                task.state = TaskState::Cancelled;
                task.held = None;
                effects.touch(index);
            }
        }
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}
