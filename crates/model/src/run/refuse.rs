//! Keeping a run that governance refused.

use super::{Effects, Moment, Record, Run, RunState, TaskState};

impl Run {
    /// Makes a run one that was refused: nothing of it ever starts, and it is kept so that whoever
    /// asks finds what was asked and why it was not done.
    pub fn refuse(&mut self, moment: &Moment) -> Effects {
        for task in &mut self.tasks {
            task.state = TaskState::Skipped;
        }
        self.state = RunState::Refused;
        self.submitted_at = moment.now;
        self.ended_at = Some(moment.now);
        let mut effects = Effects::default();
        effects.tasks_changed.extend(0..self.tasks.len());
        effects.run_changed = true;
        effects.record(Record::RunRefused);
        effects
    }
}
