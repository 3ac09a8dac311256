//! Orders, taken as they come: each begins, stops, forgets or cleans up an attempt, or changes
//! nothing.

use std::{io, sync::Arc, time::Duration};

use barecount_api::{
    activity::Activity,
    assignment::{Assignment, Event, Order, SetAside},
    attempt::AttemptRef,
};
use barecount_model::{
    class::RunnerClass,
    codes,
    id::RunId,
    run::outcome::{AttemptResult, Failure, FailureKind, Outcome},
};
use barecount_runner::{Recovered, Runner};

use crate::{chain::warn, config::Agent, executor::Found, live::Live, register::Opened};

/// So often a runner or a disk is asked for something of an attempt before that is given up.
const RECOVERY_TRIES: u32 = 5;
/// The first pause between two of these questions; doubled each time.
const RECOVERY_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two tries to end an attempt that nobody can go on with.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Agent {
    /// Resolves when every order given so far is carried out. Cancel-safe.
    pub async fn idle(&self) {
        self.orders.close();
        self.orders.wait().await;
        self.orders.reopen();
    }

    /// What the attempts that are under way do now, in no order. Cheap enough to be asked often.
    pub fn activities(&self) -> Vec<Activity> {
        self.register.activities()
    }

    /// Takes an order: what it changes is decided here, in the order of these calls, and carried out
    /// in the background. The end of an attempt is an [`Event`].
    pub fn order(&self, order: Order) {
        let agent = self.clone();
        match order {
            Order::Launch(assignment) => {
                if let Some(live) = self.open(&assignment.attempt) {
                    let attempt = async move { agent.attempt(&assignment, &live, None).await };
                    self.orders.spawn(attempt);
                }
            }
            Order::Recover(assignment) => {
                if let Some(live) = self.open(&assignment.attempt) {
                    let recovery = async move { agent.recover(&assignment, &live).await };
                    self.orders.spawn(recovery);
                }
            }
            Order::Stop { attempt, grace } => self.register.stop(&attempt, grace),
            Order::Acknowledge(attempt) => {
                if self.register.acknowledge(&attempt) {
                    let forget = async move { agent.forget(&attempt).await };
                    self.orders.spawn(forget);
                }
            }
            Order::Sweep {
                attempt,
                class,
                backend,
            } => {
                if self.register.sweep(&attempt) {
                    self.orders.spawn(async move {
                        if agent.sweep(&attempt, class, &backend).await {
                            agent.tell(Event::Swept { attempt });
                        }
                    });
                } else {
                    let attempt = attempt.token();
                    tracing::warn!(%attempt, "an attempt that is under way is not cleaned up");
                }
            }
            Order::Release(run) => {
                self.orders.spawn(async move { agent.release(&run).await });
            }
        }
    }

    /// What begins an attempt that is not under way and has not ended. An end that nobody has
    /// acknowledged is told again.
    fn open(&self, attempt: &AttemptRef) -> Option<Arc<Live>> {
        match self.register.open(attempt, self.inner.clock.timestamp()) {
            Opened::Begin(live) => Some(live),
            Opened::Ended(told) => {
                self.tell(told);
                None
            }
            Opened::Nothing => None,
        }
    }

    async fn attempt(&self, assignment: &Assignment, live: &Live, found: Option<Found>) {
        let (outcome, set_aside) = self.carry_out_within_budget(assignment, live, found).await;
        let attempt = assignment.attempt.clone();
        let (outcome, set_aside) = self.keep_end(assignment, outcome, set_aside).await;
        let outcome = Box::new(outcome);
        self.ended(Event::Ended {
            attempt,
            outcome,
            set_aside,
        });
    }

    /// Goes on with an attempt of an earlier process: its end if that was kept, what its runner has
    /// of it, or else its loss.
    async fn recover(&self, assignment: &Assignment, live: &Live) {
        let attempt = &assignment.attempt;
        if let Some(told) = self.kept_end(attempt).await {
            return self.ended(told);
        }
        match self.found(assignment).await {
            Some(found) => self.attempt(assignment, live, Some(found)).await,
            None => {
                // Until it is certain that nothing of it runs, another attempt would run beside it.
                let mut pause = RECOVERY_PAUSE;
                let stage = &assignment.stage;
                while !self.sweep(attempt, stage.class, &stage.backend).await {
                    self.wait_longer(&mut pause).await;
                }
                let attempt = attempt.clone();
                self.ended(Event::Lost { attempt });
            }
        }
    }

    /// The end of an attempt, if it was kept. A disk that does not answer is asked again: work would be
    /// done again that is done. Where that does not help, its runner may still know.
    async fn kept_end(&self, attempt: &AttemptRef) -> Option<Event> {
        let mut pause = RECOVERY_PAUSE;
        for _ in 0..RECOVERY_TRIES {
            let (outbox, asked) = (self.outbox.clone(), attempt.clone());
            match self.inner.disk.run(move || outbox.find(&asked)).await {
                Ok(found) => return found,
                Err(error) => warn(
                    attempt,
                    "an attempt's end that was kept cannot be read",
                    &error,
                ),
            }
            self.wait_longer(&mut pause).await;
        }
        None
    }

    /// Ends what a runner may have of an attempt, however long that takes: until it is certain that
    /// nothing of it runs, another attempt would run beside it.
    pub(crate) async fn end_for_certain(&self, runner: &dyn Runner, attempt: &AttemptRef) {
        let token = attempt.token();
        let mut pause = RECOVERY_PAUSE;
        while let Err(error) = runner.destroy(&token).await {
            warn(attempt, "an attempt could not be ended", &error);
            self.wait_longer(&mut pause).await;
        }
    }

    async fn wait_longer(&self, pause: &mut Duration) {
        self.inner.clock.sleep(*pause).await;
        *pause = LONGEST_PAUSE.min(*pause * 2);
    }

    /// What the attempt's runner has of it that can be gone on with. What was given secrets cannot:
    /// nobody here could find them any more in what it says.
    async fn found(&self, assignment: &Assignment) -> Option<Found> {
        let attempt = &assignment.attempt;
        let stage = &assignment.stage;
        let runner = self.inner.runners.get(stage.class, &stage.backend)?;
        let launched_at = self.inner.folders.launched_at(&attempt.token());
        let goes_on = assignment.stage.secrets.is_empty();
        let launched_at = launched_at.filter(|_| goes_on)?;
        let mut pause = RECOVERY_PAUSE;
        for _ in 0..RECOVERY_TRIES {
            match runner.recover(&attempt.token()).await {
                Ok(Recovered::Running(handle)) => {
                    return Some(Found::Running {
                        handle,
                        launched_at,
                    });
                }
                Ok(Recovered::Ended(ended)) => return Some(Found::Ended { ended, launched_at }),
                Ok(Recovered::Gone) => return None,
                Err(error) => {
                    warn(
                        attempt,
                        "a runner could not say what became of an attempt",
                        &error,
                    );
                    self.inner.clock.sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        None
    }

    /// Makes an end durable, and answers with what is told of it. A success that cannot be kept is
    /// none: it would be decided for while a later process, which finds nothing of it, sweeps what it
    /// staged. Any other end is told all the same, once nothing is left of the attempt: else a later
    /// process might find its work done and tell that, while this end is still on its way. It is lost
    /// only if this process ends before it is heard: then the work was for nothing anyway.
    async fn keep_end(
        &self,
        assignment: &Assignment,
        outcome: Outcome,
        set_aside: Vec<SetAside>,
    ) -> (Outcome, Vec<SetAside>) {
        let attempt = &assignment.attempt;
        let mut pause = RECOVERY_PAUSE;
        let mut tries = 1;
        let told = loop {
            let (outbox, kept) = (self.outbox.clone(), attempt.clone());
            let (of, aside) = (outcome.clone(), set_aside.clone());
            let keep = move || outbox.keep(kept, of, aside);
            let Err(error) = self.inner.disk.run(keep).await else {
                return (outcome, set_aside);
            };
            warn(attempt, "an attempt's end is not kept", &error);
            let is_done = matches!(outcome.result, AttemptResult::Done(_));
            if !is_done {
                break (outcome, set_aside);
            }
            if tries == RECOVERY_TRIES || error.kind() == io::ErrorKind::FileTooLarge {
                break (not_kept(outcome, &error), Vec::new());
            }
            tries += 1;
            self.wait_longer(&mut pause).await;
        };
        self.withdraw(assignment).await;
        told
    }

    /// Leaves nothing of an attempt that a later process could find, however long that takes.
    async fn withdraw(&self, assignment: &Assignment) {
        let attempt = &assignment.attempt;
        let mut pause = RECOVERY_PAUSE;
        loop {
            let (outbox, token) = (self.outbox.clone(), attempt.token());
            let Err(error) = self.inner.disk.run(move || outbox.withdraw(&token)).await else {
                break;
            };
            let what = "what is left of an attempt's end is not removed";
            warn(attempt, what, &error);
            self.wait_longer(&mut pause).await;
        }
        let (class, backend) = (assignment.stage.class, &assignment.stage.backend);
        if let Some(runner) = self.inner.runners.get(class, backend) {
            self.end_for_certain(&**runner, attempt).await;
        }
    }

    async fn forget(&self, attempt: &AttemptRef) {
        let (outbox, token) = (self.outbox.clone(), attempt.token());
        if let Err(error) = self.inner.disk.run(move || outbox.remove(&token)).await {
            warn(
                attempt,
                "an attempt's end that is known could not be removed",
                &error,
            );
        }
    }

    /// Ends and cleans up everything that is still held of an attempt. False if something is left.
    async fn sweep(&self, attempt: &AttemptRef, class: RunnerClass, backend: &str) -> bool {
        let mut clean = true;
        if let Some(runner) = self.inner.runners.get(class, backend)
            && let Err(error) = runner.destroy(&attempt.token()).await
        {
            clean = false;
            warn(attempt, "an attempt could not be cleaned up", &error);
        }
        let (folders, token) = (self.inner.folders.clone(), attempt.token());
        if let Err(error) = self.inner.disk.run(move || folders.sweep(&token)).await {
            clean = false;
            warn(attempt, "an attempt's folder could not be removed", &error);
        }
        clean
    }

    /// Ends what runners keep warm for a run that has ended.
    async fn release(&self, run: &RunId) {
        for runner in self.inner.runners.iter() {
            runner.release(run).await;
        }
    }

    fn ended(&self, told: Event) {
        self.register.end(told.attempt(), told.clone());
        self.tell(told);
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody listens only while the program ends; what is kept and what recovery finds say the
        // rest.
        let _ = self.events.send(event);
    }
}

/// The end of work that is done, where that cannot be written down.
fn not_kept(outcome: Outcome, error: &io::Error) -> Outcome {
    let message = format!(
        "the work is done, and that could not be written down on this host: {error}; free space on \
         the disk of the state folder, or see what its errors are"
    );
    Outcome {
        result: AttemptResult::Failed(Failure {
            kind: FailureKind::Infrastructure,
            code: codes::FOLDERS_FAILED.id.to_owned(),
            message: message.into(),
        }),
        ..outcome
    }
}

#[cfg(test)]
mod tests;
