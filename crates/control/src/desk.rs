//! The control plane without threads, files and time of its own: for simulations, which decide what
//! goes wrong and when. Writer, shard and state machine are those of [`Control`](crate::Control).

use std::sync::Arc;

use barecount_model::{id::RunId, identity::SignedIdentity, run::Abandonment};
use ed25519_dalek::{SigningKey, VerifyingKey};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

pub use crate::journal::memory::{Fault, Memory};
use crate::{
    clock::Clock,
    entries::Entries,
    error::CommandError,
    governance::Permit,
    identity::{IdentityError, Issuer},
    reconcile::{Decision, Report},
    shard::{Command, Verb},
    store::StoreError,
    told::{Fenced, Submission, Update},
    writer::{Listeners, Writer},
};

/// What is asked of the control plane.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Accept a run.
    Submit(Box<Submission>),
    /// Carry out what was decided about a task.
    Decide {
        /// The run.
        run: RunId,
        /// The task's index.
        task: usize,
        /// The decision.
        decision: Decision,
    },
    /// Take what is told of an attempt.
    Tell {
        /// The attempt.
        attempt: Fenced,
        /// What is told.
        report: Report,
    },
    /// Cancel a run.
    Cancel {
        /// The run.
        run: RunId,
        /// By which permit.
        permit: Arc<Permit>,
    },
    /// Take a run up again.
    Resume {
        /// The run.
        run: RunId,
        /// By which permit.
        permit: Arc<Permit>,
    },
    /// Have tasks of an open run that succeeded, and what needs them, decided on anew.
    Reopen {
        /// The run.
        run: RunId,
        /// Which tasks.
        tasks: Vec<usize>,
        /// By which permit.
        permit: Arc<Permit>,
    },
    /// Give a run up.
    Abandon {
        /// The run.
        run: RunId,
        /// By whom, and why.
        abandonment: Abandonment,
        /// By which permit.
        permit: Arc<Permit>,
    },
    /// The ledger has taken so many entries over.
    Integrated(u64),
}

/// One owner of a state that is in memory. It is dropped as a process is killed: what was not durable
/// is gone.
pub struct Desk {
    writer: Writer,
    issuer: Arc<Issuer>,
    updates: mpsc::UnboundedReceiver<Update>,
    entries: mpsc::UnboundedReceiver<Entries>,
}

impl Desk {
    /// Takes the state over from whoever had it. Jitter follows from `entropy`.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn open(
        memory: &Memory,
        key: [u8; 32],
        clock: Arc<dyn Clock>,
        entropy: u64,
    ) -> Result<Self, StoreError> {
        let (updates_in, updates) = mpsc::unbounded_channel();
        let (entries_in, entries) = mpsc::unbounded_channel();
        let listeners = Listeners {
            updates: updates_in,
            entries: entries_in,
        };
        let issuer = Arc::new(Issuer::with(SigningKey::from_bytes(&key)));
        let storage = Box::new(memory.take_over());
        let (writer, _) = Writer::new(storage, clock, Arc::clone(&issuer), listeners, entropy)?;
        Ok(Self {
            writer,
            issuer,
            updates,
            entries,
        })
    }

    /// Has one batch made of what is asked, in order, and answers each.
    pub fn commit(&mut self, asked: Vec<Ask>) -> Vec<Result<Option<Update>, CommandError>> {
        let count = asked.len();
        let (reply, mut answers) = oneshot::channel();
        let commands = asked.into_iter().map(Ask::command).collect();
        self.writer.commit(vec![(commands, reply)]);
        let none = || (0..count).map(|_| Err(CommandError::Closed)).collect();
        answers.try_recv().unwrap_or_else(|_| none())
    }

    /// Whether nobody knows what became of the last batch. It is found out by the next one, empty or
    /// not, which does not wait for anything to ask.
    pub fn is_in_doubt(&self) -> bool {
        self.writer.is_in_doubt()
    }

    /// The changes that became durable since this was asked last; at first, every open run.
    pub fn updates(&mut self) -> Vec<Update> {
        std::iter::from_fn(|| self.updates.try_recv().ok()).collect()
    }

    /// The ledger's entries that became durable since this was asked last; at first, those that no
    /// checkpoint is known to cover.
    pub fn entries(&mut self) -> Vec<Entries> {
        std::iter::from_fn(|| self.entries.try_recv().ok()).collect()
    }

    /// As [`Control::identify`](crate::Control::identify).
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

    /// The key that identities are verified with.
    pub fn identity_key(&self) -> VerifyingKey {
        self.issuer.verifying_key()
    }

    /// Whether what is held in memory is what is durable. True where the owner knows that it does
    /// not know, or that it is none any more.
    pub fn agrees_with(&self, memory: &Memory) -> bool {
        self.writer.is_in_doubt() || self.writer.is_fenced() || memory.holds(self.writer.shard())
    }
}

impl Ask {
    fn command(self) -> Command {
        match self {
            Self::Submit(submission) => Command::Submit(submission),
            Self::Decide {
                run,
                task,
                decision,
            } => Command::Apply {
                run,
                verb: decision.verb(task),
            },
            Self::Tell { attempt, report } => Command::Apply {
                run: attempt.run.clone(),
                verb: report.verb(&attempt),
            },
            Self::Cancel { run, permit } => {
                let by = permit.shared();
                let verb = Verb::Cancel { by };
                Command::Apply { run, verb }
            }
            Self::Resume { run, permit } => {
                let by = permit.shared();
                let rules = serde_json::Value::Null;
                let verb = Verb::Resume { by, rules };
                Command::Apply { run, verb }
            }
            Self::Reopen { run, tasks, permit } => {
                let by = permit.shared();
                let rules = serde_json::Value::Null;
                let verb = Verb::Reopen { tasks, by, rules };
                Command::Apply { run, verb }
            }
            Self::Abandon {
                run,
                abandonment,
                permit,
            } => {
                let by = permit.shared();
                let verb = Verb::Abandon { by, abandonment };
                Command::Apply { run, verb }
            }
            Self::Integrated(size) => Command::Integrated { size },
        }
    }
}
