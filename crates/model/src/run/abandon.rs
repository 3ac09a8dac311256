//! Giving a run up that cannot come to its end by itself.

use super::{
    AttemptState, Effects, Moment, Record, Rejection, Run, TaskState,
    outcome::{CommittedDataset, Failure, FailureKind},
};
use crate::codes;

/// Who gives a run up, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandonment {
    /// Who.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// Datasets that an earlier try did make versions, of decisions that cannot be carried out
    /// whole. They stay.
    pub standing: Vec<CommittedDataset>,
}

impl Run {
    /// Strikes the commit decisions that are not rolled forward, starts nothing new, and has what is
    /// under way stopped. A task whose decision is struck has failed; what it staged is named in the
    /// record and is gone with its staging. Datasets that an earlier try did make versions stay.
    ///
    /// Whether a decision could be rolled forward after all is for the caller to find out first.
    ///
    /// # Errors
    /// [`Rejection::WrongState`] once the run has ended.
    pub fn abandon(
        &mut self,
        abandonment: Abandonment,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        if self.state.is_final() {
            return Err(Rejection::WrongState {
                state: self.state,
                verb: "abandoned",
            });
        }
        let mut effects = Effects::default();
        let Abandonment { by, reason, .. } = &abandonment;
        let mut struck = Vec::new();
        for (index, task) in self.tasks.iter_mut().enumerate() {
            match task.state {
                TaskState::Waiting | TaskState::Ready => task.state = TaskState::Cancelled,
                TaskState::Committing => {
                    task.state = TaskState::Failed;
                    if let Some(attempt) = task.attempts.last_mut() {
                        attempt.state = AttemptState::Abandoned;
                        attempt.failure = Some(Failure {
                            kind: FailureKind::Data,
                            code: codes::COMMIT_ABANDONED.id.to_owned(),
                            message: format!("the commit decision was given up by {by}: {reason}")
                                .into(),
                        });
                        struck.push((index, attempt.number));
                    }
                }
                _ => continue,
            }
            task.held = None;
            effects.touch(index);
        }
        self.cancel_requested = true;
        effects.record(Record::RunAbandoned {
            struck,
            abandonment,
        });
        self.settle(moment, &mut effects);
        Ok(effects)
    }
}
