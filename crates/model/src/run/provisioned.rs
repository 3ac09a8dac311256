//! Learning that a backend has an attempt, whose work does not run yet.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AttemptState, Effects, Moment, Rejection, Run};

/// That what carries an attempt out is being made, or waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioning {
    /// What the backend calls the attempt: what it is recovered and cleaned up by.
    pub runner: String,
    /// What is waited for, for a person.
    pub waits_for: String,
    /// Since when.
    pub since: Timestamp,
}

impl Run {
    /// Notes that a backend has accepted the attempt, and provisions what will carry it out. Once
    /// this is durable, whoever goes on after a crash waits for it rather than launch it. Repeating
    /// it changes nothing, and so does hearing of it late.
    ///
    /// # Errors
    /// [`Rejection::Stale`] for any but the current attempt, [`Rejection::AlreadyEnded`] after its end.
    pub fn provisioning(
        &mut self,
        index: usize,
        number: u32,
        runner: &str,
        waits_for: &str,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        let mut effects = Effects::default();
        let attempt = self.fenced(index, number)?;
        match attempt.state {
            AttemptState::Intended | AttemptState::Provisioning => {
                let before = attempt.provisioning.as_ref();
                let now = Provisioning {
                    runner: runner.to_owned(),
                    waits_for: waits_for.to_owned(),
                    since: before.map_or(moment.now, |before| before.since),
                };
                attempt.state = AttemptState::Provisioning;
                if attempt.provisioning.as_ref() != Some(&now) {
                    attempt.provisioning = Some(now);
                    effects.touch(index);
                }
                Ok(effects)
            }
            AttemptState::Running => Ok(effects),
            _ => Err(Rejection::AlreadyEnded {
                task: self.tasks[index].id.clone(),
                number,
            }),
        }
    }
}
