//! What is left to do for a run, derived from its state.

use super::{AttemptState, Run, TaskState};

/// One thing to be done outside the state machine. All of them are idempotent, so that doing one
/// again after a crash is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pending {
    /// Launch this attempt: its intent is written down.
    Launch {
        /// The task's index.
        task: usize,
        /// The attempt's number.
        number: u32,
    },
    /// Wait for this attempt, which a runner has, and report its end.
    Await {
        /// The task's index.
        task: usize,
        /// The attempt's number.
        number: u32,
    },
    /// Stop this attempt: the run is being cancelled.
    Stop {
        /// The task's index.
        task: usize,
        /// The attempt's number.
        number: u32,
    },
    /// Roll this attempt's commit decision forward.
    RollForward {
        /// The task's index.
        task: usize,
        /// The attempt's number.
        number: u32,
    },
}

impl Pending {
    /// The task's index.
    pub fn task(self) -> usize {
        let (Self::Launch { task, .. }
        | Self::Await { task, .. }
        | Self::Stop { task, .. }
        | Self::RollForward { task, .. }) = self;
        task
    }

    /// The attempt's number.
    pub fn number(self) -> u32 {
        let (Self::Launch { number, .. }
        | Self::Await { number, .. }
        | Self::Stop { number, .. }
        | Self::RollForward { number, .. }) = self;
        number
    }
}

impl Run {
    /// Everything that is left to do, in task order.
    pub fn pending(&self) -> Vec<Pending> {
        let mut pending = Vec::new();
        for (index, task) in self.tasks.iter().enumerate() {
            let Some(attempt) = task.current() else {
                continue;
            };
            let number = attempt.number;
            match (task.state, attempt.state) {
                (TaskState::Active, _) if self.cancel_requested => {
                    pending.push(Pending::Stop {
                        task: index,
                        number,
                    });
                }
                (TaskState::Active, AttemptState::Intended) => {
                    pending.push(Pending::Launch {
                        task: index,
                        number,
                    });
                }
                (TaskState::Active, AttemptState::Provisioning | AttemptState::Running) => {
                    pending.push(Pending::Await {
                        task: index,
                        number,
                    });
                }
                (TaskState::Committing, _) => {
                    pending.push(Pending::RollForward {
                        task: index,
                        number,
                    });
                }
                _ => {}
            }
        }
        pending
    }
}
