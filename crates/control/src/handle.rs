//! What the rest of the program holds of the control plane.

use std::{path::Path, sync::Arc};

use barecount_model::{
    evidence::Statement,
    id::RunId,
    identity::SignedIdentity,
    plan::Plan,
    run::{
        Rejection, Run, RunState, WaitingReason,
        outcome::{CommittedDataset, Outcome},
    },
};
use ed25519_dalek::VerifyingKey;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    entries::Entries,
    governance::{Action, Permit},
    identity::{IdentityError, Issuer},
    store::{DeadLetter, OpenError, Store, StoreError},
    writer::{self, Command, Reply, Verb, Writer},
};

/// Commands that wait for the writer at most; further callers wait for a place.
const QUEUE: usize = 4096;

/// A handle on the control plane. Cheap to clone; the writer ends with the last one.
#[derive(Clone)]
pub struct Control {
    commands: mpsc::Sender<(Command, Reply)>,
    length: watch::Receiver<u64>,
    issuer: Arc<Issuer>,
}

/// A run to be accepted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The run, its tasks all waiting.
    pub run: Run,
    /// What it carries out.
    pub plan: Arc<Plan>,
    /// Tasks whose first attempts are opened in the same transaction, because there is room for
    /// them: their launches may follow at once. Nothing is placed where the token names a run that
    /// exists already.
    pub place: Vec<usize>,
}

/// The answer to a submission.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// The run is new.
    New(Update),
    /// The token names a run that exists already; this is it.
    Existing(Update),
}

/// A run as it stands after a durable change.
#[derive(Debug, Clone)]
pub struct Update {
    /// The run.
    pub run: Arc<Run>,
    /// What it carries out.
    pub plan: Arc<Plan>,
    /// The ledger's length once the change's evidence is in it.
    pub ledger_length: u64,
}

/// Names an attempt within a run: what every report is fenced by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fenced {
    /// The run.
    pub run: RunId,
    /// The task's index.
    pub task: usize,
    /// The attempt's number.
    pub number: u32,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// The state machine rejected it.
    #[error("the command does not apply")]
    Rejected(#[from] Rejection),
    /// The permit is for something else.
    #[error("governance has not permitted run {0}")]
    NotPermitted(RunId),
    /// The report hands over a dataset that the task's stage does not write.
    #[error("a task of run {run} handed over {dataset}, which its stage does not write")]
    OutOfPlan {
        /// The run.
        run: RunId,
        /// The dataset.
        dataset: String,
    },
    /// There is no such run.
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// The run token names a run of another pipeline version.
    #[error("the run token is already used by {run}, of version {version}")]
    TokenConflict {
        /// The run that has it.
        run: RunId,
        /// That run's version.
        version: String,
    },
    /// The change could not be made durable; nothing of it has happened.
    #[error("the change could not be made durable")]
    Store(#[source] Arc<StoreError>),
    /// The writer has ended.
    #[error("the control plane has shut down")]
    Closed,
}

impl Control {
    /// Opens a state folder and starts its writer. `updates` gets every durable change; `entries`
    /// gets every ledger entry, in order, starting with those that no checkpoint covers yet.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        folder: &Path,
        clock: Arc<dyn Clock>,
        updates: mpsc::UnboundedSender<Update>,
        entries: mpsc::UnboundedSender<Entries>,
    ) -> Result<Self, OpenError> {
        let store = Store::open(folder)?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let (writer, length) = Writer::new(store, clock, updates, entries).map_err(|source| {
            OpenError::Unreadable {
                path: folder.to_owned(),
                source: Box::new(source),
            }
        })?;
        writer::spawn(writer, queue).map_err(|source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let issuer = Issuer::new().map_err(|source| OpenError::Folder {
            path: folder.to_owned(),
            source: source.into(),
        })?;
        Ok(Self {
            commands,
            length,
            issuer: Arc::new(issuer),
        })
    }

    /// The ledger's durable length, as it grows.
    pub fn ledger_length(&self) -> watch::Receiver<u64> {
        self.length.clone()
    }

    /// Accepts a run, or answers with the one that has its token. Governance's permit has to be
    /// for exactly this run: its tenant, environment, pipeline, version, and every stage.
    ///
    /// # Errors
    /// [`CommandError::NotPermitted`] if the permit is for something else;
    /// [`CommandError::TokenConflict`] if the token belongs to another version's run; a rejection
    /// if a task to be placed needs another one first.
    pub async fn submit(
        &self,
        submission: Submission,
        permit: &Permit,
    ) -> Result<Submitted, CommandError> {
        let run = &submission.run;
        let whole = permit.covers(
            Action::Run,
            &run.tenant,
            &run.environment,
            &run.pipeline,
            &run.version,
        );
        if !whole
            || !run
                .tasks
                .iter()
                .all(|task| permit.covers_stage(&task.stage))
        {
            return Err(CommandError::NotPermitted(run.id.clone()));
        }
        let id = submission.run.id.clone();
        let environment = submission.run.environment.clone();
        let update = self.send(Command::Submit(Box::new(submission))).await?;
        let update = update.ok_or(CommandError::Closed)?;
        // The token may name a run of another environment, or of other stages.
        let permitted = update.run.environment == environment
            && update
                .run
                .tasks
                .iter()
                .all(|task| permit.covers_stage(&task.stage));
        let is_over = matches!(update.run.state, RunState::Succeeded | RunState::Refused);
        if permitted && !is_over {
            self.issuer.permit(&update);
        }
        Ok(if update.run.id == id {
            Submitted::New(update)
        } else {
            Submitted::Existing(update)
        })
    }

    /// Opens the next attempt of a task; the launch may follow.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the task cannot be placed now.
    pub async fn place(&self, run: &RunId, task: usize) -> Result<Update, CommandError> {
        self.apply(run, Verb::Place { task }).await
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
    /// [`IdentityError::NotPermitted`] unless the run was submitted with a permit in this process.
    pub fn identify(
        &self,
        attempt: &Fenced,
        now: Timestamp,
    ) -> Result<SignedIdentity, IdentityError> {
        self.issuer.mint(attempt, now)
    }

    /// The key that identities of this process are verified with.
    pub fn identity_key(&self) -> VerifyingKey {
        self.issuer.verifying_key()
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

    /// Cancels a run.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the run has ended.
    pub async fn cancel(&self, run: &RunId) -> Result<Update, CommandError> {
        self.apply(run, Verb::Cancel).await
    }

    /// Takes a run up again that failed or was cancelled.
    ///
    /// # Errors
    /// [`CommandError`]; a rejection if the run did neither.
    pub async fn resume(&self, run: &RunId) -> Result<Update, CommandError> {
        self.apply(run, Verb::Resume).await
    }

    /// Enters a fact in the ledger that belongs to no run: a refusal, a build.
    ///
    /// # Errors
    /// [`CommandError::Store`] if it could not be made durable.
    pub async fn enter(&self, statement: Statement) -> Result<(), CommandError> {
        self.send(Command::Enter(statement)).await.map(drop)
    }

    /// Lets the store forget the bytes of entries that a durable checkpoint covers, with its next
    /// transaction.
    ///
    /// # Errors
    /// [`CommandError::Closed`] once the control plane has shut down.
    pub async fn integrated(&self, size: u64) -> Result<(), CommandError> {
        self.send(Command::Integrated { size }).await.map(drop)
    }

    async fn apply(&self, run: &RunId, verb: Verb) -> Result<Update, CommandError> {
        let update = self
            .send(Command::Apply {
                run: run.clone(),
                verb,
            })
            .await?;
        let update = update.ok_or(CommandError::Closed)?;
        if update.run.state == RunState::Succeeded {
            // Others may be resumed.
            self.issuer.forget(&update.run.id);
        }
        Ok(update)
    }

    /// Cancel-safe in the sense that a command, once sent, takes effect whether or not its answer
    /// is awaited.
    async fn send(&self, command: Command) -> Result<Option<Update>, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send((command, reply))
            .await
            .map_err(|_| CommandError::Closed)?;
        answer.await.map_err(|_| CommandError::Closed)?
    }
}
