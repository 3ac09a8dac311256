//! Deciding that a task's next attempt is to be launched: the intent, written before the launch.

use jiff::Timestamp;

use super::{Attempt, AttemptState, Effects, Moment, Rejection, Run, TaskState, outcome::Metrics};
use crate::work::Work;

impl Run {
    /// Indices of the tasks that may be placed now, in order.
    pub fn placeable(&self, now: Timestamp) -> impl Iterator<Item = usize> + '_ {
        self.tasks
            .iter()
            .enumerate()
            .filter_map(move |(index, task)| {
                let due = task.not_before.is_none_or(|instant| instant <= now);
                (task.state == TaskState::Ready && due && !self.cancel_requested).then_some(index)
            })
    }

    /// The earliest instant at which a task that waits for its backoff may be placed.
    pub fn next_due(&self) -> Option<Timestamp> {
        let ready = self
            .tasks
            .iter()
            .filter(|task| task.state == TaskState::Ready);
        ready.filter_map(|task| task.not_before).min()
    }

    /// Opens the task's next attempt. Once this is durable the launch may happen; a process that
    /// dies in between leaves an [`AttemptState::Intended`] attempt, which recovery looks for by its
    /// token.
    ///
    /// # Errors
    /// [`Rejection::NotPlaceable`] unless the task is ready and due.
    pub fn place(&mut self, index: usize, moment: &Moment) -> Result<Effects, Rejection> {
        self.expect_placeable(index, moment.now)?;
        let task = &mut self.tasks[index];
        let number = task.attempts.last().map_or(0, |attempt| attempt.number) + 1;
        task.attempts.push(Attempt {
            number,
            state: AttemptState::Intended,
            runner: None,
            intended_at: moment.now,
            held: task.held.take(),
            provisioning: None,
            started_at: None,
            work_ended_at: None,
            staged_at: None,
            ended_at: None,
            committed_at: None,
            exit_code: None,
            failure: None,
            metrics: Metrics::default(),
            staged: None,
            detail: serde_json::Value::Null,
        });
        task.state = TaskState::Active;
        task.not_before = None;
        let mut effects = Effects::default();
        effects.touch(index);
        self.settle(moment, &mut effects);
        Ok(effects)
    }

    /// As [`Run::place`], and keeps what work the attempt is for: what it comes to answers that work
    /// from then on.
    ///
    /// # Errors
    /// [`Rejection::NotPlaceable`] unless the task is ready and due.
    pub fn place_for(
        &mut self,
        index: usize,
        work: Work,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        let effects = self.place(index, moment)?;
        self.tasks[index].work = Some(Box::new(work));
        Ok(effects)
    }

    pub(super) fn expect_placeable(&self, index: usize, now: Timestamp) -> Result<(), Rejection> {
        if self.placeable(now).any(|placeable| placeable == index) {
            return Ok(());
        }
        let task = self
            .tasks
            .get(index)
            .ok_or(Rejection::UnknownTask { index })?;
        Err(Rejection::NotPlaceable {
            task: task.id.clone(),
        })
    }
}
