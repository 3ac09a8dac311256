//! Answering a task from work that was done before.

use serde::{Deserialize, Serialize};

use super::{Effects, Moment, Record, Rejection, Run, TaskState};
use crate::{
    id::{RunId, TaskId},
    work::Work,
};

/// The task whose result is this one's, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The run that it is of.
    pub run: RunId,
    /// The task that did the work.
    pub task: TaskId,
    /// What it committed, and what still stands.
    pub outputs: Vec<StandingOutput>,
}

/// A dataset, or part of one, that still is what a task committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingOutput {
    /// The dataset.
    pub dataset: String,
    /// Rows that were committed.
    pub rows: u64,
    /// The content digest of those rows.
    pub digest: String,
}

impl Run {
    /// Completes a task that is ready and due without an attempt: its work has been done, and what
    /// that wrote stands.
    ///
    /// # Errors
    /// [`Rejection::NotPlaceable`] unless the task is ready and due.
    pub fn answer(
        &mut self,
        index: usize,
        work: Work,
        answered: Answered,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        self.expect_placeable(index, moment.now)?;
        let task = &mut self.tasks[index];
        task.work = Some(Box::new(work));
        task.answered = Some(Box::new(answered));
        task.state = TaskState::Succeeded;
        task.held = None;
        task.not_before = None;
        let mut effects = Effects::default();
        effects.touch(index);
        effects.record(Record::TaskAnswered { task: index });
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}
