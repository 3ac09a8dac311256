//! The loop between control plane and agent: what the [`Reconciler`] says is to be done is done here,
//! and what comes of it is told to it.
//!
//! Nothing is decided here, and nothing is remembered that matters: after a crash, the runs' states
//! say again what is left to do, and what an earlier process had under way is recovered before it is
//! tried again.

mod doing;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use barecount_agent::{
    DataError,
    link::{LocalControl, LocalOrders},
};
use barecount_api::{
    assignment::{Event, Order},
    attempt::AttemptRef,
};
use barecount_control::{
    Control, Fenced, Update,
    clock::Clock,
    reconcile::{Input, Reconciler, Todo, Trouble},
};
use barecount_model::{
    codes,
    id::RunId,
    run::outcome::{CommittedDataset, Staged},
};
use barecount_network::health::PathHealth;
use barecount_runner::Registry;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{answers::Answers, path_gate::PathGate};
use crate::failure::chain;

/// Rolls a commit decision forward into tables.
#[async_trait]
pub(crate) trait Committer: Send + Sync {
    /// Makes all datasets of a decision versions of their tenant's tables, then its checkpoint that
    /// of its stage and partition. Idempotent.
    async fn roll_forward(
        &self,
        tenant: &str,
        staged: &Staged,
        decided_at_ms: i64,
    ) -> Result<Vec<CommittedDataset>, DataError>;

    /// Those datasets of a decision that an earlier try did make versions. Nothing is changed.
    async fn standing(
        &self,
        tenant: &str,
        staged: &Staged,
    ) -> Result<Vec<CommittedDataset>, DataError>;
}

/// What the loop tells those who watch.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A run has changed.
    Changed(Update),
    /// The platform itself failed; nothing is lost, but something does not go on.
    Broken {
        /// The error code.
        code: &'static str,
        /// What happened, for a person.
        reason: String,
    },
}

/// What carries out what is decided.
pub(crate) struct Driver {
    control: Control,
    agent: LocalOrders,
    committer: Arc<dyn Committer>,
    gates: Arc<Gates>,
    clock: Arc<dyn Clock>,
    reconciler: Reconciler,
    notices: mpsc::UnboundedSender<Notice>,
    done: mpsc::UnboundedSender<Done>,
    /// What attempts have told, on its way to the control plane. Polled here, oldest first, so that
    /// an attempt's start is told before its end.
    reports: FuturesUnordered<BoxFuture<'static, Input>>,
    /// How the paths of tasks were when they were looked at, until they are launched.
    measured: HashMap<(RunId, usize), PathHealth>,
}

/// What came of something that was done in the background.
struct Done {
    input: Input,
    path: Option<PathHealth>,
}

/// What a task passes before it is placed.
pub(crate) struct Gates {
    /// Whether the paths that it needs are up.
    paths: Arc<PathGate>,
    /// Whether its work has been done.
    answers: Arc<Answers>,
    /// Whether its backend takes it.
    backends: Registry,
}

impl Gates {
    pub(crate) fn new(paths: Arc<PathGate>, answers: &Arc<Answers>, backends: Registry) -> Self {
        Self {
            paths,
            answers: Arc::clone(answers),
            backends,
        }
    }
}

/// Where the loop listens.
pub(crate) struct Inbox {
    pub(crate) updates: mpsc::UnboundedReceiver<Update>,
    /// Runs that somebody asks for: these are worked on, and no others.
    pub(crate) followed: mpsc::UnboundedReceiver<Followed>,
}

/// A run to be worked on.
#[derive(Debug)]
pub(crate) enum Followed {
    /// This process submitted it: what is open of it, was opened by this process.
    New(Update),
    /// It was there before.
    Existing(Update),
}

impl Driver {
    /// Starts the loop; it ends when the control plane's updates do.
    pub(crate) fn spawn(
        control: Control,
        agent: LocalControl,
        committer: Arc<dyn Committer>,
        gates: Gates,
        clock: Arc<dyn Clock>,
        reconciler: Reconciler,
        inbox: Inbox,
    ) -> mpsc::UnboundedReceiver<Notice> {
        let (notices, watcher) = mpsc::unbounded_channel();
        let (done, results) = mpsc::unbounded_channel();
        let driver = Self {
            control,
            agent: agent.orders,
            committer,
            gates: Arc::new(gates),
            clock,
            reconciler,
            notices,
            done,
            reports: FuturesUnordered::new(),
            measured: HashMap::new(),
        };
        tokio::spawn(driver.run(inbox, agent.events, results));
        watcher
    }

    async fn run(
        mut self,
        mut inbox: Inbox,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut results: mpsc::UnboundedReceiver<Done>,
    ) {
        let clock = Arc::clone(&self.clock);
        loop {
            let due = self.reconciler.next_due();
            let input = tokio::select! {
                update = inbox.updates.recv() => match update {
                    Some(update) => Input::Changed(update),
                    None => return,
                },
                Some(followed) = inbox.followed.recv() => match followed {
                    Followed::New(update) => Input::Followed { runs: vec![update], new: true },
                    Followed::Existing(update) => Input::Followed { runs: vec![update], new: false },
                },
                Some(event) = events.recv() => event.into(),
                Some(done) = results.recv() => self.finished(done),
                Some(input) = self.reports.next(), if !self.reports.is_empty() => input,
                () = clock.sleep_until(due.unwrap_or_default()), if due.is_some() => Input::Passed,
            };
            for todo in self.reconciler.step(input, self.clock.now()) {
                self.carry_out(todo);
            }
        }
    }

    fn finished(&mut self, done: Done) -> Input {
        if let (Input::Looked { run, task, .. }, Some(path)) = (&done.input, done.path) {
            self.measured.insert((run.clone(), *task), path);
        }
        done.input
    }

    fn carry_out(&mut self, todo: Todo) {
        match todo {
            Todo::Look { run, task } => self.look(run, task),
            Todo::Decide {
                run,
                task,
                decision,
            } => {
                let control = self.control.clone();
                self.in_background(async move {
                    let result = control.decide(&run, task, decision).await;
                    Input::Decided { run, task, result }
                });
            }
            Todo::Launch(attempt) => self.give(attempt, Order::Launch),
            Todo::Recover(attempt) => self.give(attempt, Order::Recover),
            Todo::Stop { attempt, grace } => {
                if let Some(attempt) = self.agents_name(&attempt) {
                    self.agent.order(Order::Stop { attempt, grace });
                }
            }
            Todo::Sweep(attempt) => {
                let update = self.reconciler.run(&attempt.run);
                if let Some(order) = update.and_then(|update| update.sweep(&attempt)) {
                    self.agent.order(order);
                }
            }
            // Of a run that is cleaned up after, nothing is kept any more.
            Todo::Acknowledge(attempt) => {
                if let Some(attempt) = self.agents_name(&attempt) {
                    self.agent.order(Order::Acknowledge(attempt));
                }
            }
            Todo::Release(run) => self.agent.order(Order::Release(run)),
            Todo::Record { attempt, report } => {
                let control = self.control.clone();
                self.reports.push(Box::pin(async move {
                    let kind = report.kind();
                    let result = control.tell(&attempt, report).await.map(drop);
                    Input::Recorded {
                        attempt,
                        kind,
                        result,
                    }
                }));
            }
            Todo::RollForward(attempt) => self.roll_forward(attempt),
            Todo::Announce(update) => self.notify(Notice::Changed(update)),
            Todo::Complain(trouble) => self.notify(broken(trouble)),
        }
    }

    /// What the agent calls an attempt, if its run is worked on.
    fn agents_name(&self, fenced: &Fenced) -> Option<AttemptRef> {
        self.reconciler.run(&fenced.run)?.attempt(fenced)
    }

    fn in_background(&self, doing: impl Future<Output = Input> + Send + 'static) {
        let done = self.done.clone();
        tokio::spawn(async move {
            let (input, path) = (doing.await, None);
            // The loop has ended only if the program is ending.
            let _ = done.send(Done { input, path });
        });
    }

    fn tell(&self, input: Input) {
        // As above.
        let _ = self.done.send(Done { input, path: None });
    }

    fn notify(&self, notice: Notice) {
        // Nobody watches only while the program ends.
        let _ = self.notices.send(notice);
    }
}

fn broken(trouble: Trouble) -> Notice {
    let unwritable = codes::STATE_UNWRITABLE.id;
    let (code, reason) = match trouble {
        Trouble::NotDurable(error) => (unwritable, chain(&error)),
        Trouble::NotPlaced { run, task, reason } => {
            let text = format!("task {task} of {run} cannot be placed: {reason}");
            (unwritable, text)
        }
        Trouble::NotGiven { reason, .. } => (unwritable, reason),
        Trouble::NotRolledForward { attempt, error } => {
            let text = format!(
                "the outputs of task {} of {} are decided for but not committed: {}",
                attempt.task, attempt.run, error.reason
            );
            (error.code, text)
        }
    };
    Notice::Broken { code, reason }
}
