//! Learning that a runner has started an attempt.

use super::{AttemptState, Effects, Moment, Rejection, Run};

impl Run {
    /// Notes that `runner` has started the attempt. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Rejection::Stale`] for any but the current attempt, [`Rejection::AlreadyEnded`] after its end.
    pub fn started(
        &mut self,
        index: usize,
        number: u32,
        runner: &str,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        let mut effects = Effects::default();
        let attempt = self.fenced(index, number)?;
        match attempt.state {
            AttemptState::Intended | AttemptState::Provisioning => {
                attempt.state = AttemptState::Running;
                attempt.runner = Some(runner.to_owned());
                attempt.started_at = Some(moment.now);
                effects.touch(index);
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
