//! Learning that a backend has an attempt, whose work does not run yet.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AttemptState, Effects, Moment, Rejection, Run};
use crate::untrusted::Message;

/// That what carries an attempt out is being made, or waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioning {
    /// What the backend calls the attempt: what it is recovered and cleaned up by.
    pub runner: String,
    /// What is waited for, for a person.
    pub waits_for: Message,
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
        waits_for: &Message,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        let mut effects = Effects::default();
        let attempt = self.fenced(index, number)?;
        match attempt.state {
            AttemptState::Intended | AttemptState::Provisioning => {
                let before = attempt.provisioning.as_ref();
                let now = Provisioning {
                    runner: runner.to_owned(),
                    waits_for: waits_for.clone(),
                    since: before.map_or(moment.now, |before| before.since),
                };
                attempt.state = AttemptState::Provisioning;
                if attempt.provisioning.as_deref() != Some(&now) {
                    attempt.provisioning = Some(Box::new(now));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::compile::{Asked, CompileError, fixture::Documents},
        run::Pending,
    };

    fn moment(second: i64) -> Moment {
        Moment {
            now: Timestamp::from_second(second).unwrap_or_default(),
            entropy: 0,
        }
    }

    /// A run whose only task has an attempt that was intended at the first second.
    fn placed() -> Result<Run, CompileError> {
        let rest = "      command: [/app/a]\n";
        let documents = Documents::of_stage("class: container, image: images/a", rest);
        let mut run = documents.run(1, &Asked::default())?;
        run.submit(&moment(0)).expect("its tasks wait");
        run.place(0, &moment(1)).expect("it is ready");
        Ok(run)
    }

    #[test]
    fn an_attempt_that_is_provisioned_is_waited_for_and_not_launched_again()
    -> Result<(), CompileError> {
        let mut run = placed()?;
        let launch = Pending::Launch { task: 0, number: 1 };
        assert_eq!(run.pending(), [launch]);
        let told = |run: &mut Run, what: &str, second| {
            run.provisioning(0, 1, "arn:1", &what.into(), &moment(second))
        };
        told(&mut run, "a host", 2).expect("it is the current attempt");
        let awaited = Pending::Await { task: 0, number: 1 };
        assert_eq!(run.pending(), [awaited]);
        let again = told(&mut run, "a host", 3).expect("it may be told twice");
        assert!(again.tasks_changed.is_empty(), "nothing has changed");
        told(&mut run, "an image", 4).expect("it waits for something else");
        let attempt = &run.tasks[0].attempts[0];
        assert_eq!(attempt.state, AttemptState::Provisioning);
        let found = attempt.provisioning.as_ref().expect("it is provisioned");
        assert_eq!(found.waits_for.raw(), "an image");
        assert_eq!(found.since, moment(2).now);
        run.started(0, 1, "host-1", &moment(9)).expect("it runs");
        let late = told(&mut run, "a host", 10).expect("late changes nothing");
        assert!(late.tasks_changed.is_empty());
        let attempt = &run.tasks[0].attempts[0];
        assert_eq!(attempt.state, AttemptState::Running);
        assert_eq!(attempt.started_at, Some(moment(9).now));
        Ok(())
    }

    #[test]
    fn an_attempt_that_is_over_is_not_provisioned() -> Result<(), CompileError> {
        let mut run = placed()?;
        run.lost(0, 1, &moment(2))
            .expect("it is the current attempt");
        let late = run.provisioning(0, 1, "arn:1", &"a host".into(), &moment(3));
        assert!(matches!(late, Err(Rejection::AlreadyEnded { .. })));
        let other = run.provisioning(0, 7, "arn:1", &"a host".into(), &moment(3));
        assert!(matches!(other, Err(Rejection::Stale { .. })));
        Ok(())
    }
}
