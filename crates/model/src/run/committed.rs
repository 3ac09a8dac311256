//! Learning that a commit decision has been rolled forward into every table.

use super::{Effects, Moment, Record, Rejection, Run, TaskState};

impl Run {
    /// Completes a task whose decision is rolled forward.
    ///
    /// # Errors
    /// [`Rejection::Stale`] for any but the decided attempt, [`Rejection::NotCommitting`] unless the
    /// task has a decision that waits for this.
    pub fn committed(
        &mut self,
        index: usize,
        number: u32,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        self.fenced(index, number)?;
        let task = &self.tasks[index];
        if task.state != TaskState::Committing {
            return Err(Rejection::NotCommitting {
                task: task.id.clone(),
            });
        }
        self.fenced(index, number)?.committed_at = Some(moment.now);
        let task = &mut self.tasks[index];
        task.state = TaskState::Succeeded;
        let mut effects = Effects::default();
        effects.touch(index);
        effects.record(Record::TaskCommitted { task: index });
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}
