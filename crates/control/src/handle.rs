//! What the rest of the program holds of the control plane.

mod approvals;
mod ledger;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use barecount_model::{
    evidence::Statement,
    id::RunId,
    identity::SignedIdentity,
    plan::Plan,
    run::{
        Abandonment, Answered, Run, WaitingReason,
        outcome::{CommittedDataset, Outcome},
    },
    work::Work,
};
use ed25519_dalek::VerifyingKey;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

pub use self::ledger::LedgerPort;
use crate::{
    authority::{self, NotCovered, PlanRecord},
    clock::Clock,
    entries::Entries,
    error::{CommandError, StartError},
    governance::{Permit, Refusal},
    identity::{IdentityError, Issuer},
    journal::{
        Storage,
        ending::{EndAt, Ending},
    },
    reconcile::{Decision, Report},
    seat::Commands,
    shard::{Command, Verb},
    store::{DeadLetter, OpenError, Sealing, Store, lock::FolderLock},
    told::{Fenced, Submission, Submitted, Update},
    writer::{self, Answer, Listeners, Writer},
};

/// Commands that wait for the writer at most; further callers wait for a place.
const QUEUE: usize = 4096;

/// A handle on the control plane. Cheap to clone; the writer ends with the last one, or when it is
/// [closed](Control::close).
#[derive(Clone)]
pub struct Control {
    commands: Commands,
    length: watch::Receiver<u64>,
    issuer: Arc<Issuer>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Control {
    /// Opens a state folder that is held and starts its writer. `updates` gets every durable change;
    /// `entries` gets every ledger entry, in order, starting with those that no checkpoint covers yet.
    ///
    /// # Errors
    /// See [`OpenError`]; the folder is given up then.
    pub fn open(
        (lock, sealing): (FolderLock, Sealing),
        clock: Arc<dyn Clock>,
        updates: mpsc::UnboundedSender<Update>,
        entries: mpsc::UnboundedSender<Entries>,
    ) -> Result<Self, OpenError> {
        Self::open_until((lock, sealing), clock, (updates, entries), None)
    }

    /// As [`Control::open`]; the process ends at the append that is named, as if it was killed
    /// there.
    ///
    /// # Errors
    /// See [`OpenError`]; the folder is given up then.
    pub fn open_until(
        (lock, sealing): (FolderLock, Sealing),
        clock: Arc<dyn Clock>,
        (updates, entries): (
            mpsc::UnboundedSender<Update>,
            mpsc::UnboundedSender<Entries>,
        ),
        end: Option<EndAt>,
    ) -> Result<Self, OpenError> {
        let folder = &lock.folder().to_owned();
        let store = Box::new(Store::open(lock, sealing)?);
        let issuer = Issuer::open(folder).map_err(|source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let listeners = Listeners { updates, entries };
        let storage: Box<dyn Storage> = match end {
            None => store,
            Some(at) => Box::new(Ending {
                storage: store,
                at,
                appends: 0,
            }),
        };
        Self::over(storage, issuer, clock, listeners).map_err(|error| match error {
            StartError::Storage(source) => OpenError::Unreadable {
                path: folder.to_owned(),
                source: Box::new(source),
            },
            StartError::Thread(source) => OpenError::Folder {
                path: folder.to_owned(),
                source,
            },
        })
    }

    /// Starts the writer of any storage.
    pub(crate) fn over(
        storage: Box<dyn Storage>,
        issuer: Issuer,
        clock: Arc<dyn Clock>,
        listeners: Listeners,
    ) -> Result<Self, StartError> {
        let issuer = Arc::new(issuer);
        let (commands, queue) = mpsc::channel(QUEUE);
        let (writer, length) = Writer::new(
            storage,
            clock,
            Arc::clone(&issuer),
            listeners,
            writer::seed(),
        )?;
        let (seat, thread) = writer::spawn(writer, queue)?;
        Ok(Self {
            commands: Commands::new(commands, seat),
            length,
            issuer,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Ends the control plane in good order: no more commands are taken, those that wait are carried
    /// out, everything is told, and the writer has let go of its state when this returns. Other
    /// handles answer with [`CommandError::Closed`] from then on.
    pub async fn close(self) {
        self.commands.close().await;
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // The thread's own panic was reported when it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// What the ledger may tell.
    pub fn ledger_port(&self) -> LedgerPort {
        LedgerPort::new(&self.commands)
    }

    /// The ledger's durable length, as it grows.
    pub fn ledger_length(&self) -> watch::Receiver<u64> {
        self.length.clone()
    }

    /// Accepts a run, or answers with the one that has its token. The run has to be one of the plan
    /// that was permitted.
    ///
    /// # Errors
    /// [`CommandError::NotPermitted`] if the run is another plan's;
    /// [`CommandError::TokenConflict`] if the token belongs to another version's run; a rejection
    /// if a task to be placed needs another one first.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, CommandError> {
        let id = submission.run.id.clone();
        submission
            .plan
            .admits(&submission.run)
            .map_err(|error| CommandError::NotPermitted(id.clone(), error))?;
        let update = self.send(Command::Submit(Box::new(submission))).await?;
        submitted(&id, update)
    }

    /// As [`Control::submit`], of several at once, which become durable together. Each is answered for
    /// itself, in their order.
    ///
    /// # Errors
    /// [`CommandError::Closed`] once the control plane has shut down.
    pub async fn submit_all(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Result<Submitted, CommandError>>, CommandError> {
        let ids: Vec<RunId> = submissions.iter().map(|of| of.run.id.clone()).collect();
        let mut refused = Vec::with_capacity(ids.len());
        let mut commands = Vec::with_capacity(ids.len());
        for submission in submissions {
            let id = &submission.run.id;
            let admitted = submission.plan.admits(&submission.run);
            refused.push(admitted.map_err(|error| CommandError::NotPermitted(id.clone(), error)));
            if matches!(refused.last(), Some(Ok(()))) {
                commands.push(Command::Submit(Box::new(submission)));
            }
        }
        let mut answers = self.commands.all(commands).await?.into_iter();
        let mut answer = || answers.next().unwrap_or(Err(CommandError::Closed));
        let submitted = ids.iter().zip(refused).map(|(id, refused)| {
            refused?;
            submitted(id, answer()?)
        });
        Ok(submitted.collect())
    }

    /// Keeps a run that governance refused, with the reasons, so that whoever asks finds it. It has a
    /// token of its own: the work that it names may be permitted another time. `plan` is what would
    /// have been carried out, its decision holding what else evidence has of it.
    ///
    /// # Errors
    /// [`CommandError::NotPermitted`] if it cannot be written down; [`CommandError::Store`] if it
    /// could not be made durable.
    pub async fn refuse(
        &self,
        mut run: Run,
        mut plan: Plan,
        refusal: &Refusal,
    ) -> Result<Update, CommandError> {
        let unwritable = |error: serde_json::Error| {
            CommandError::NotPermitted(run.id.clone(), NotCovered::Unwritable(Arc::new(error)))
        };
        let rules = plan.decision["rules"].take();
        plan.decision = authority::for_evidence(&refusal.explanation, rules).map_err(unwritable)?;
        let plan = Arc::new(PlanRecord::new(plan).map_err(unwritable)?);
        run.token = format!("refused/{}", run.id);
        let run = Box::new(run);
        let update = self.send(Command::Refuse { run, plan }).await?;
        update.ok_or(CommandError::Closed)
    }

    /// Opens the next attempt of a task; the launch may follow.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the task cannot be placed now.
    pub async fn place(&self, run: &RunId, task: usize) -> Result<Update, CommandError> {
        self.apply(run, Verb::Place { task, work: None }).await
    }

    /// As [`Control::place`], and keeps what work the attempt is for: what it comes to answers that
    /// work from then on.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the task cannot be placed now.
    pub async fn place_for(
        &self,
        run: &RunId,
        task: usize,
        work: Work,
    ) -> Result<Update, CommandError> {
        let work = Some(Box::new(work));
        self.apply(run, Verb::Place { task, work }).await
    }

    /// Completes a task without an attempt: its work has been done, and what that wrote stands.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the task cannot be placed now.
    pub async fn answer(
        &self,
        run: &RunId,
        task: usize,
        work: Work,
        answered: Answered,
    ) -> Result<Update, CommandError> {
        let work = Box::new(work);
        let verb = Verb::Answer {
            task,
            work,
            answered,
        };
        self.apply(run, verb).await
    }

    /// Lets succeeded tasks of an open run, and all that need them, be decided on anew, because
    /// what they came to does not stand any more: by a permit to
    /// [`Action::Resume`](crate::governance::Action::Resume) every stage of its plan. `rules` is what
    /// the permit was decided by, for evidence.
    ///
    /// # Errors
    /// [`CommandError::NotPermitted`] if the permit is for something else; a rejection if the run
    /// has ended.
    pub async fn reopen(
        &self,
        run: &RunId,
        tasks: Vec<usize>,
        permit: &Permit,
        rules: Value,
    ) -> Result<Update, CommandError> {
        let by = permit.shared();
        let verb = Verb::Reopen { tasks, by, rules };
        self.apply(run, verb).await
    }

    /// Puts a task off that could be placed; it is due again after a while.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the task cannot be placed now.
    pub async fn hold(
        &self,
        run: &RunId,
        task: usize,
        reason: WaitingReason,
    ) -> Result<Update, CommandError> {
        self.apply(run, Verb::Hold { task, reason }).await
    }

    /// Mints the identity of an attempt that was placed, which opens what its stage's plan
    /// declares. It takes nothing from the caller but which attempt it is: the rest is what was
    /// submitted with a permit.
    ///
    /// # Errors
    /// [`IdentityError::NotPermitted`] unless the run is under way by a permit.
    pub fn identify(
        &self,
        attempt: &Fenced,
        now: Timestamp,
    ) -> Result<SignedIdentity, IdentityError> {
        self.issuer.mint(attempt, now)
    }

    /// The key that identities of this state are verified with.
    pub fn identity_key(&self) -> VerifyingKey {
        self.issuer.verifying_key()
    }

    /// Takes what is told of an attempt.
    ///
    /// # Errors
    /// Those of [`started`](Self::started), [`report`](Self::report), [`lost`](Self::lost) and
    /// [`committed`](Self::committed).
    pub async fn tell(&self, attempt: &Fenced, report: Report) -> Result<Update, CommandError> {
        self.apply(&attempt.run, report.verb(attempt)).await
    }

    /// As [`Control::tell`], of several reports at once, which become durable together. Each is
    /// answered for itself, in their order.
    ///
    /// # Errors
    /// [`CommandError::Closed`] once the control plane has shut down.
    pub async fn tell_all(
        &self,
        reports: Vec<(Fenced, Report)>,
    ) -> Result<Vec<Result<Update, CommandError>>, CommandError> {
        let commands = reports.into_iter().map(|(attempt, report)| {
            let verb = report.verb(&attempt);
            let run = attempt.run;
            Command::Apply { run, verb }
        });
        let answers = self.commands.all(commands.collect()).await?;
        let update = |answer: Answer| answer?.ok_or(CommandError::Closed);
        Ok(answers.into_iter().map(update).collect())
    }

    /// Carries out what was decided about a task that could be placed.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the task cannot be placed now.
    pub async fn decide(
        &self,
        run: &RunId,
        task: usize,
        decision: Decision,
    ) -> Result<Update, CommandError> {
        self.apply(run, decision.verb(task)).await
    }

    /// Notes that a runner has started an attempt.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the attempt is not the current one.
    pub async fn started(&self, attempt: &Fenced, runner: &str) -> Result<Update, CommandError> {
        let Fenced { run, task, number } = attempt;
        let verb = Verb::Started {
            task: *task,
            number: *number,
            runner: runner.to_owned(),
        };
        self.apply(run, verb).await
    }

    /// Takes an attempt's outcome: for a successful one, the commit decision. Dead letters are kept
    /// in the same transaction.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the attempt is not the current one, or has ended.
    pub async fn report(
        &self,
        attempt: &Fenced,
        outcome: Outcome,
        dead_letters: Vec<DeadLetter>,
    ) -> Result<Update, CommandError> {
        let Fenced { run, task, number } = attempt;
        let verb = Verb::Report {
            task: *task,
            number: *number,
            outcome: Box::new(outcome),
            dead_letters,
        };
        self.apply(run, verb).await
    }

    /// Completes a task whose commit decision is rolled forward, and makes its datasets visible.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the task has no such decision.
    pub async fn committed(
        &self,
        attempt: &Fenced,
        outputs: Vec<CommittedDataset>,
    ) -> Result<Update, CommandError> {
        let Fenced { run, task, number } = attempt;
        self.apply(
            run,
            Verb::Committed {
                task: *task,
                number: *number,
                outputs,
            },
        )
        .await
    }

    /// Gives up an attempt that ended with an earlier process.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the attempt is not the current one, or has ended.
    pub async fn lost(&self, attempt: &Fenced) -> Result<Update, CommandError> {
        let Fenced { run, task, number } = attempt;
        self.apply(
            run,
            Verb::Lost {
                task: *task,
                number: *number,
            },
        )
        .await
    }

    /// Cancels a run, by a permit to [`Action::Cancel`](crate::governance::Action::Cancel) it.
    ///
    /// # Errors
    /// [`CommandError::NotPermitted`] if the permit is for something else; a rejection if the run
    /// has ended.
    pub async fn cancel(&self, run: &RunId, permit: &Permit) -> Result<Update, CommandError> {
        let by = permit.shared();
        self.apply(run, Verb::Cancel { by }).await
    }

    /// Cancels a run that the caller's own process works on, by the permit by which it does that: to
    /// run or to resume this very work. Who may start something may always stop it.
    ///
    /// # Errors
    /// [`CommandError::NotPermitted`] if the permit is for something else; a rejection if the run
    /// has ended.
    pub async fn stop(&self, run: &RunId, permit: &Permit) -> Result<Update, CommandError> {
        let by = permit.shared();
        self.apply(run, Verb::Stop { by }).await
    }

    /// Gives a run up, by a permit to [`Action::Cancel`](crate::governance::Action::Cancel) it: its
    /// commit decisions that are not rolled forward are struck, on record.
    ///
    /// # Errors
    /// [`CommandError::NotPermitted`] if the permit is for something else; a rejection if the run
    /// has ended.
    pub async fn abandon(
        &self,
        run: &RunId,
        abandonment: Abandonment,
        permit: &Permit,
    ) -> Result<Update, CommandError> {
        let by = permit.shared();
        self.apply(run, Verb::Abandon { by, abandonment }).await
    }

    /// Takes a run up again that failed or was cancelled, by a permit to
    /// [`Action::Resume`](crate::governance::Action::Resume) every stage of its plan. `rules` is what
    /// the permit was decided by, for evidence.
    ///
    /// # Errors
    /// [`CommandError::NotPermitted`] if the permit is for something else; a rejection if the run
    /// did neither.
    pub async fn resume(
        &self,
        run: &RunId,
        permit: &Permit,
        rules: Value,
    ) -> Result<Update, CommandError> {
        let by = permit.shared();
        self.apply(run, Verb::Resume { by, rules }).await
    }

    /// Enters a fact in the ledger that belongs to no run: a refusal, a build.
    ///
    /// # Errors
    /// [`CommandError::Store`] if it could not be made durable.
    pub async fn enter(&self, statement: Statement) -> Result<(), CommandError> {
        self.send(Command::Enter(statement)).await.map(drop)
    }

    async fn apply(&self, run: &RunId, verb: Verb) -> Result<Update, CommandError> {
        let update = self
            .send(Command::Apply {
                run: run.clone(),
                verb,
            })
            .await?;
        update.ok_or(CommandError::Closed)
    }

    async fn send(&self, command: Command) -> Result<Option<Update>, CommandError> {
        one(&self.commands, command).await
    }
}

/// What a submission of run `id` has come to.
fn submitted(id: &RunId, update: Option<Update>) -> Result<Submitted, CommandError> {
    let update = update.ok_or(CommandError::Closed)?;
    Ok(if update.run.id == *id {
        Submitted::New(update)
    } else {
        Submitted::Existing(update)
    })
}

async fn one(commands: &Commands, command: Command) -> Result<Option<Update>, CommandError> {
    let answer = commands.all(vec![command]).await?.pop();
    answer.unwrap_or(Err(CommandError::Closed))
}
