//! Finding that what finished tasks of an open run came to is no longer true.

use serde_json::Value;

use super::{Effects, Moment, Record, Rejection, Run, TaskState};

impl Run {
    /// Lets these tasks, and all that need them, be decided on anew where they have succeeded:
    /// something else was written since, or what they read has changed. Attempt numbers go on.
    /// `decision` is what permitted it.
    ///
    /// # Errors
    /// [`Rejection::WrongState`] once the run has ended, or comes to its end because it was
    /// cancelled: nothing starts then, and what is open would stay so. [`Rejection::UnknownTask`].
    pub fn reopen(
        &mut self,
        tasks: &[usize],
        decision: Value,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        if !self.state.starts_tasks() {
            return Err(Rejection::WrongState {
                state: self.state,
                verb: "reopened",
            });
        }
        if let Some(&index) = tasks.iter().find(|&&index| index >= self.tasks.len()) {
            return Err(Rejection::UnknownTask { index });
        }
        let mut effects = Effects::default();
        effects.record(Record::RunResumed { decision });
        let mut open: Vec<bool> = (0..self.tasks.len())
            .map(|index| tasks.contains(&index))
            .collect();
        // A task needs only tasks before it, so one pass sees every need first.
        for index in 0..self.tasks.len() {
            let task = &mut self.tasks[index];
            open[index] |= task.needs.iter().any(|&need| open[need]);
            if !open[index] {
                continue;
            }
            match task.state {
                TaskState::Succeeded => {
                    task.state = TaskState::Waiting;
                    task.answered = None;
                }
                TaskState::Ready if task.needs.iter().any(|&need| open[need]) => {
                    task.state = TaskState::Waiting;
                    // It waits for another reason now.
                    task.held = None;
                    task.not_before = None;
                }
                _ => continue,
            }
            effects.touch(index);
        }
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}
