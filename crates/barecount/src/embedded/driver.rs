//! The loop between control plane and agent: whatever is pending is done, once per process.
//!
//! It holds no state of its own that matters: after a crash, the runs' states say again what is
//! left to do, and what an earlier process had under way is recovered before it is tried again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use barecount_agent::{Agent, Assignment, Attempt, DataError, Event, Order};
use barecount_control::{CommandError, Control, Fenced, Update, clock::Clock};
use barecount_model::{
    class::RunnerClass,
    codes,
    digest::Digest,
    id::RunId,
    identity::SignedIdentity,
    plan::Plan,
    run::{
        Pending, Run, TaskState,
        outcome::{CommittedDataset, Staged},
    },
};
use barecount_network::health::PathHealth;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    answers::Answers,
    path_gate::PathGate,
    reporting::{durably, report, roll_forward},
};
use crate::failure::chain;

mod placing;

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
}

/// How many attempts may be under way at once.
#[derive(Debug, Clone)]
pub(crate) struct Caps {
    /// Over all classes.
    pub(crate) total: usize,
    /// Of one class.
    pub(crate) class: HashMap<RunnerClass, usize>,
}

impl Caps {
    /// The tasks of a new run that may be placed with its submission, where nothing else is under
    /// way.
    pub(crate) fn first(&self, run: &Run, plan: &Plan) -> Vec<usize> {
        let mut of_class: HashMap<RunnerClass, usize> = HashMap::new();
        let mut of_stage: HashMap<&str, u32> = HashMap::new();
        let mut first = Vec::new();
        for (index, task) in run.tasks.iter().enumerate() {
            let class_cap = self.class.get(&task.class).copied().unwrap_or(usize::MAX);
            let stage = plan.stage(&task.stage);
            let stage_cap = stage.map_or(u32::MAX, |stage| stage.concurrency_limit);
            let in_class = of_class.entry(task.class).or_default();
            let in_stage = of_stage.entry(&task.stage).or_default();
            let full =
                first.len() >= self.total || *in_class >= class_cap || *in_stage >= stage_cap;
            // Whether a path is up is found out once the run is there to be held.
            let guarded = stage.is_some_and(PathGate::guards);
            if task.needs.is_empty() && !full && !guarded {
                (*in_class, *in_stage) = (*in_class + 1, *in_stage + 1);
                first.push(index);
            }
        }
        first
    }
}

/// What the loop tells those who watch.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A run has changed.
    Changed(Update),
    /// The platform itself failed; nothing is lost, but nothing goes on.
    Broken {
        /// The error code.
        code: &'static str,
        /// What happened, for a person.
        reason: String,
    },
}

/// The loop's own state. None of it outlives the process.
pub(crate) struct Driver {
    control: Control,
    agent: Agent,
    committer: Arc<dyn Committer>,
    gate: Arc<PathGate>,
    answers: Arc<Answers>,
    clock: Arc<dyn Clock>,
    caps: Caps,
    notices: mpsc::UnboundedSender<Notice>,
    done: mpsc::UnboundedSender<Done>,
    /// What attempts have told, on its way to the control plane. Polled here, oldest first, so that
    /// an attempt's start is told before its end.
    reports: FuturesUnordered<BoxFuture<'static, Result<(), CommandError>>>,
    runs: HashMap<RunId, Update>,
    /// Attempts that this process has opened: for these a launch is a launch, for all others it
    /// begins with a recovery.
    opened: HashSet<Fenced>,
    begun: HashSet<(RunId, Pending)>,
    swept: HashSet<Fenced>,
    placing: HashSet<(RunId, usize)>,
    /// How the paths of tasks were when they were placed.
    measured: HashMap<(RunId, usize), PathHealth>,
}

/// What a task passes before it is placed.
pub(crate) struct Gates {
    /// Whether the paths that it needs are up.
    pub(crate) paths: Arc<PathGate>,
    /// Whether its work has been done.
    pub(crate) answers: Arc<Answers>,
}

/// Results of what the loop started in the background.
enum Done {
    Placed {
        run: RunId,
        task: usize,
        path: Option<PathHealth>,
        result: Result<Update, CommandError>,
    },
    /// It was put off, or answered.
    NotPlaced {
        run: RunId,
        task: usize,
        result: Result<Update, CommandError>,
    },
    /// What earlier runs answer cannot be told.
    Unjudged {
        run: RunId,
        task: usize,
        reason: String,
    },
    RolledForward {
        attempt: Fenced,
        result: Result<Vec<CommittedDataset>, DataError>,
    },
}

/// Where the loop listens.
pub(crate) struct Inbox {
    pub(crate) updates: mpsc::UnboundedReceiver<Update>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
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
        agent: Agent,
        committer: Arc<dyn Committer>,
        gates: Gates,
        clock: Arc<dyn Clock>,
        caps: Caps,
        inbox: Inbox,
    ) -> mpsc::UnboundedReceiver<Notice> {
        let (notices, watcher) = mpsc::unbounded_channel();
        let (done, results) = mpsc::unbounded_channel();
        let driver = Self {
            control,
            agent,
            committer,
            gate: gates.paths,
            answers: gates.answers,
            clock,
            caps,
            notices,
            done,
            reports: FuturesUnordered::new(),
            runs: HashMap::new(),
            opened: HashSet::new(),
            begun: HashSet::new(),
            swept: HashSet::new(),
            placing: HashSet::new(),
            measured: HashMap::new(),
        };
        tokio::spawn(driver.run(inbox, results));
        watcher
    }

    async fn run(mut self, mut inbox: Inbox, mut results: mpsc::UnboundedReceiver<Done>) {
        let clock = Arc::clone(&self.clock);
        loop {
            let due = self
                .runs
                .values()
                .filter_map(|update| update.run.next_due())
                .min();
            tokio::select! {
                update = inbox.updates.recv() => match update {
                    Some(update) if self.runs.contains_key(&update.run.id) => self.changed(update),
                    Some(_) => {}
                    None => return,
                },
                Some(followed) = inbox.followed.recv() => self.follow(followed),
                Some(event) = inbox.events.recv() => self.told(event),
                Some(done) = results.recv() => self.finished(done),
                Some(told) = self.reports.next(), if !self.reports.is_empty() => {
                    self.heard(told);
                }
                () = clock.sleep_until(due.unwrap_or_default()), if due.is_some() => {}
            }
            self.place();
        }
    }

    fn follow(&mut self, followed: Followed) {
        let update = match followed {
            Followed::Existing(update) => update,
            Followed::New(update) => {
                let run = &update.run;
                let open = run.tasks.iter().enumerate().filter_map(|(task, found)| {
                    let number = found.current()?.number;
                    let run = run.id.clone();
                    Some(Fenced { run, task, number })
                });
                self.opened.extend(open);
                update
            }
        };
        self.changed(update);
    }

    /// Does whatever a changed run has left to do. An attempt that is being opened by this process
    /// waits until that is known, lest it be taken for an earlier process's.
    fn changed(&mut self, update: Update) {
        let run = Arc::clone(&update.run);
        for pending in run.pending() {
            if self.placing.contains(&(run.id.clone(), pending.task())) {
                continue;
            }
            if self.begun.insert((run.id.clone(), pending)) {
                self.begin(&update, pending);
            }
        }
        self.sweep(&update);
        if run.state.is_final() {
            if self.runs.remove(&run.id).is_some() {
                self.agent.order(Order::Release(run.id.clone()));
            }
        } else {
            self.runs.insert(run.id.clone(), update.clone());
        }
        self.notify(Notice::Changed(update));
    }

    fn begin(&mut self, update: &Update, pending: Pending) {
        let (task, number) = (pending.task(), pending.number());
        let fenced = Fenced {
            run: update.run.id.clone(),
            task,
            number,
        };
        let ours = self.opened.contains(&fenced);
        let attempt = attempt(update, task, number);
        if let Pending::RollForward { .. } = pending {
            return self.roll_forward(update, fenced);
        }
        if !ours {
            self.give(update, attempt.clone(), Order::Recover);
        }
        match pending {
            Pending::Launch { .. } if ours => self.give(update, attempt, Order::Launch),
            Pending::Stop { .. } => {
                let grace = grace(update, task);
                self.agent.order(Order::Stop { attempt, grace });
            }
            // Its end comes as an event.
            _ => {}
        }
    }

    /// Gives the agent an attempt, to be launched or to be gone on with.
    fn give(
        &mut self,
        update: &Update,
        attempt: Attempt,
        order: impl FnOnce(Box<Assignment>) -> Order,
    ) {
        let fenced = fenced(&attempt);
        let identity = match self.control.identify(&fenced, self.clock.now()) {
            Ok(identity) => identity,
            Err(error) => return self.notify(unwritable(chain(&error))),
        };
        let path = self.measured.remove(&(fenced.run.clone(), fenced.task));
        match assignment(update, attempt, identity) {
            Some(assignment) => {
                let assignment = Assignment { path, ..assignment };
                self.agent.order(order(Box::new(assignment)));
            }
            None => {
                let text = format!("the plan of {} lacks one of its stages", fenced.run);
                self.notify(unwritable(text));
            }
        }
    }

    /// Cleans up after attempts that have ended and are not waiting for their roll-forward.
    fn sweep(&mut self, update: &Update) {
        for (index, task) in update.run.tasks.iter().enumerate() {
            let Some(current) = task.current() else {
                continue;
            };
            if current.state.is_open() || task.state == TaskState::Committing {
                continue;
            }
            let fenced = Fenced {
                run: update.run.id.clone(),
                task: index,
                number: current.number,
            };
            if self.swept.insert(fenced) {
                self.agent.order(Order::Sweep {
                    attempt: attempt(update, index, current.number),
                    class: task.class,
                });
            }
        }
    }

    /// Hands on what an attempt told, until it is durable. Only then the agent may forget it.
    fn told(&mut self, event: Event) {
        let (control, clock) = (self.control.clone(), Arc::clone(&self.clock));
        let agent = self.agent.clone();
        self.reports.push(Box::pin(async move {
            let result = durably(&*clock, || report(control.clone(), event.clone())).await;
            let known = matches!(result, Ok(()) | Err(CommandError::Rejected(_)));
            match event {
                Event::Ended { attempt, .. } | Event::Lost { attempt } if known => {
                    agent.order(Order::Acknowledge(attempt));
                }
                _ => {}
            }
            result
        }));
    }

    fn finished(&mut self, done: Done) {
        match done {
            Done::Placed {
                run,
                task,
                path,
                result,
            } => {
                self.placing.remove(&(run.clone(), task));
                if let Ok(update) = &result {
                    let number = update.run.tasks[task].current().map_or(0, |a| a.number);
                    self.measured
                        .extend(path.map(|path| ((run.clone(), task), path)));
                    self.opened.insert(Fenced { run, task, number });
                }
                self.decided(result);
            }
            Done::NotPlaced { run, task, result } => {
                self.placing.remove(&(run, task));
                self.decided(result);
            }
            // It stays marked as being placed: nobody tries again while this process lives.
            Done::Unjudged { run, task, reason } => {
                let text = format!("task {task} of {run} cannot be placed: {reason}");
                self.notify(unwritable(text));
            }
            Done::RolledForward {
                attempt,
                result: Ok(outputs),
            } => {
                let (control, clock) = (self.control.clone(), Arc::clone(&self.clock));
                self.reports.push(Box::pin(async move {
                    durably(&*clock, || {
                        let (control, outputs) = (control.clone(), outputs.clone());
                        let attempt = attempt.clone();
                        async move { control.committed(&attempt, outputs).await.map(drop) }
                    })
                    .await
                }));
            }
            Done::RolledForward {
                attempt,
                result: Err(error),
            } => {
                let Fenced { run, task, .. } = attempt;
                let reason = format!(
                    "the outputs of task {task} of {run} are decided for but not committed: {error}"
                );
                let code = error.code();
                self.notify(Notice::Broken { code, reason });
            }
        }
    }

    /// What the control plane said to what an attempt told.
    fn heard(&self, answer: Result<(), CommandError>) {
        match answer {
            // A rejection is a report of something that was fenced off: it has no effect, rightly.
            Ok(()) | Err(CommandError::Rejected(_)) => {}
            Err(error) => self.notify(unwritable(chain(&error))),
        }
    }

    /// Goes on with what came of placing or holding a task.
    fn decided(&mut self, result: Result<Update, CommandError>) {
        match result {
            Ok(update) => self.changed(update),
            Err(CommandError::Rejected(_)) => {}
            Err(error) => self.notify(unwritable(chain(&error))),
        }
    }

    fn roll_forward(&self, update: &Update, attempt: Fenced) {
        let current = update.run.tasks[attempt.task].current();
        let tenant = update.run.tenant.clone();
        let decided = current.and_then(|found| Some((found.staged.clone()?, found.ended_at?)));
        // An empty decision would be rolled forward to nothing, and the outputs were lost.
        let Some((staged, decided_at)) = decided else {
            let text = format!(
                "task {} of {} has no decision to commit",
                attempt.task, attempt.run
            );
            return self.notify(unwritable(text));
        };
        let (committer, done, clock) = (
            Arc::clone(&self.committer),
            self.done.clone(),
            Arc::clone(&self.clock),
        );
        tokio::spawn(async move {
            let moment = decided_at.as_millisecond();
            let result = roll_forward(&*committer, &tenant, &staged, moment, &*clock).await;
            // The loop has ended only if the program is ending.
            let _ = done.send(Done::RolledForward { attempt, result });
        });
    }

    fn notify(&self, notice: Notice) {
        // Nobody watches only while the program ends.
        let _ = self.notices.send(notice);
    }
}

/// Nothing goes on because what was decided cannot be written down.
fn unwritable(reason: String) -> Notice {
    let code = codes::STATE_UNWRITABLE.id;
    Notice::Broken { code, reason }
}

fn assignment(update: &Update, attempt: Attempt, identity: SignedIdentity) -> Option<Assignment> {
    let (run, plan) = (&update.run, &update.plan);
    let task = &run.tasks[attempt.index];
    let stage = plan.stage(&task.stage)?.clone();
    // The boundary too: what a warm process or a cache holds is of the data that it worked on.
    let boundary = serde_json::to_string(&stage.boundary).ok()?;
    let shared = [
        &plan.tenant,
        &plan.pipeline,
        &plan.lock_digest,
        &stage.name,
        &boundary,
    ]
    .map(String::as_str);
    Some(Assignment {
        attempt,
        run_token: run.token.clone(),
        tenant: run.tenant.clone(),
        pipeline: run.pipeline.clone(),
        version: run.version.clone(),
        partition: task.partition.clone(),
        identity,
        window: run.window.clone(),
        reuse: Digest::of(shared.join("\n").as_bytes()).hex(),
        path: None,
        reads: task
            .work
            .as_ref()
            .map_or_else(Default::default, |work| work.reads.clone()),
        stage,
    })
}

fn attempt(update: &Update, task: usize, number: u32) -> Attempt {
    let run = &update.run;
    Attempt {
        run: run.id.clone(),
        index: task,
        task: run.tasks[task].id.clone(),
        number,
    }
}

fn grace(update: &Update, task: usize) -> Duration {
    let stage = update.plan.stage(&update.run.tasks[task].stage);
    Duration::from_millis(stage.map_or(0, |stage| stage.grace_ms))
}

pub(super) fn fenced(attempt: &Attempt) -> Fenced {
    Fenced {
        run: attempt.run.clone(),
        task: attempt.index,
        number: attempt.number,
    }
}
