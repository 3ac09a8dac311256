//! What the embedded backends have in common: one table of attempts, by token.
//!
//! A class of work says how an attempt is started and when it has ended ([`Class`]); everything that
//! the contract promises about tokens, repeated calls, dropped futures, stopping and recovery is
//! kept here, once.
//!
//! A local attempt dies with its agent, so that `recover` finds one running only within one
//! process. What had ended is known from its record; of everything else whatever is left
//! is swept away, and it is gone.

pub(crate) mod attempt;
pub(crate) mod host;
pub(crate) mod log;
pub(crate) mod network;
pub(crate) mod places;
pub(crate) mod records;
mod redaction;
pub(crate) mod sandboxed;

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use barecount_model::id::RunId;

use attempt::{Attempt, Failure, State};
pub use attempt::{Order, Orders};
pub(crate) use host::Bounds;
pub use host::Host;
use records::Records;

use crate::{
    Capabilities, Handle, Health, Phase, Recovered, Runner, RunnerError,
    launch::{AttemptToken, End, Ended, Launch, LogSummary, Usage},
};

/// What a class of work does differently from the others.
#[async_trait]
pub trait Class: Send + Sync + 'static {
    /// See [`Runner::capabilities`].
    fn capabilities(&self) -> Capabilities;

    /// See [`Runner::probe`].
    async fn probe(&self) -> Health;

    /// Starts an attempt; resolves once it runs. Whatever it waits for, it waits for only as long
    /// as the orders are to go on, and answers with [`Started::not_begun`] otherwise.
    async fn start(&self, launch: &Launch, orders: Orders) -> Result<Started, RunnerError>;

    /// Removes what an attempt of an earlier process may have left on the host.
    async fn sweep(&self, token: &AttemptToken) -> Result<(), RunnerError>;

    /// See [`Runner::release`].
    async fn release(&self, _run: &RunId) {}

    /// Ends whatever is kept for attempts to come.
    async fn shut_down(&self) {}
}

/// An attempt on its way to its end.
pub type Ending = Pin<Box<dyn Future<Output = Result<Ended, RunnerError>> + Send>>;

/// A started attempt.
pub struct Started {
    /// What the backend calls it.
    pub native: String,
    /// Resolves when it has ended, of itself or by its [`Orders`], and holds nothing any more. An
    /// error is a failure of the infrastructure.
    pub ended: Ending,
}

impl Started {
    /// An attempt that was told to end before anything of it had been started.
    pub fn not_begun(token: &AttemptToken) -> Self {
        Self {
            native: token.to_string(),
            ended: Box::pin(std::future::ready(Ok(never_begun()))),
        }
    }
}

/// The end of an attempt of which nothing had been started.
pub(crate) fn never_begun() -> Ended {
    Ended {
        end: End::Stopped,
        usage: Usage::default(),
        metered: Vec::new(),
        enforcement: serde_json::Value::Null,
        log: LogSummary::default(),
        warm: false,
        flows: None,
        saved: false,
    }
}

/// A [`Runner`] for one class of work on this host.
pub struct Local<C> {
    class: Arc<C>,
    table: Arc<Table>,
}

/// The attempts that have been launched and not destroyed.
struct Table {
    attempts: Mutex<HashMap<AttemptToken, Arc<Attempt>>>,
    records: Records,
}

impl<C: Class> Local<C> {
    /// Opens the runner; `state` is a folder of its own, made if need be, in which the ends of
    /// attempts are recorded. Blocking, proportional to the attempts not yet destroyed.
    ///
    /// # Errors
    /// The folder can be neither made nor read.
    pub fn open(class: C, state: &Path) -> std::io::Result<Self> {
        let (records, ended) = Records::open(state)?;
        let attempts = ended
            .into_iter()
            .map(|(handle, ended)| (handle.token, Arc::new(Attempt::ended(handle.native, ended))))
            .collect();
        Ok(Self {
            class: Arc::new(class),
            table: Arc::new(Table {
                attempts: Mutex::new(attempts),
                records,
            }),
        })
    }

    /// The class of work.
    pub fn class(&self) -> &C {
        &self.class
    }

    /// Ends every running attempt and every warm process, as the death of this process would, but
    /// orderly. What had ended can still be recovered by the next process.
    pub async fn shut_down(&self) {
        let attempts: Vec<_> = self.table.lock().values().cloned().collect();
        for attempt in &attempts {
            attempt.order(Order::Destroy);
        }
        for attempt in &attempts {
            attempt.settled().await;
        }
        self.class.shut_down().await;
    }

    fn known(&self, token: &AttemptToken) -> Result<Arc<Attempt>, RunnerError> {
        let found = self.table.lock().get(token).cloned();
        found.ok_or_else(|| RunnerError::Unknown(token.clone()))
    }

    fn attempt_of(&self, launch: &Launch) -> Arc<Attempt> {
        let mut attempts = self.table.lock();
        match attempts.entry(launch.token.clone()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(vacant) => {
                let attempt = Arc::new(Attempt::launching());
                vacant.insert(attempt.clone());
                // A task of its own: whoever called may lose interest, the attempt goes on.
                tokio::spawn(carry(
                    self.class.clone(),
                    self.table.clone(),
                    attempt.clone(),
                    launch.clone(),
                ));
                attempt
            }
        }
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<AttemptToken, Arc<Attempt>>> {
        // Single insertions and removals: a panic elsewhere leaves the table sound.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an attempt, unless the token has been given to another since.
    fn forget(&self, token: &AttemptToken, attempt: &Arc<Attempt>) {
        let mut attempts = self.lock();
        if attempts
            .get(token)
            .is_some_and(|known| Arc::ptr_eq(known, attempt))
        {
            attempts.remove(token);
        }
    }
}

/// What an attempt is called before anybody knows on what it will run.
fn handle(token: &AttemptToken) -> Handle {
    Handle {
        token: token.clone(),
        native: token.to_string(),
    }
}

/// Carries one attempt from its launch to its end.
async fn carry<C: Class>(class: Arc<C>, table: Arc<Table>, attempt: Arc<Attempt>, launch: Launch) {
    let orders = attempt.orders();
    let started = match orders.current() {
        Order::GoOn => match Bounds::here().admit(&launch.limits) {
            Ok(()) => class.start(&launch, orders).await,
            Err(refused) => Err(refused),
        },
        Order::Stop { .. } | Order::Destroy => Ok(Started::not_begun(&launch.token)),
    };
    let Started { native, ended } = match started {
        Ok(started) => started,
        Err(error) => {
            // Forgotten before anybody hears of it, so that another try starts afresh; but for one
            // that was accepted: whoever follows it hears why it failed.
            if matches!(attempt.state(), State::Launching) {
                table.forget(&launch.token, &attempt);
            }
            attempt.enter(State::Failed(Failure::from(error)));
            return;
        }
    };
    attempt.enter(State::Running(native.clone()));
    match ended.await {
        Ok(mut ended) => {
            if let Some(secrets) = &launch.secrets {
                redaction::redact(&mut ended, &secrets.redactor);
            }
            let ended = Arc::new(ended);
            // Should the process die before this record is there, recovery finds nothing and the
            // attempt is gone; after it, the end is known. Nobody has heard of the end before.
            if !attempt.is_destroyed() {
                table.records.write(&launch.token, &native, &ended);
            }
            attempt.enter(State::Ended(native, ended));
        }
        Err(error) => attempt.enter(State::Failed(Failure::from(error))),
    }
}

#[async_trait]
impl<C: Class> Runner for Local<C> {
    fn capabilities(&self) -> Capabilities {
        self.class.capabilities()
    }

    async fn probe(&self) -> Health {
        self.class.probe().await
    }

    fn holds(&self, token: &AttemptToken) -> Vec<PathBuf> {
        self.known(token).map_or(Vec::new(), |known| known.holds())
    }

    async fn launch(&self, launch: &Launch) -> Result<Handle, RunnerError> {
        let attempt = self.attempt_of(launch);
        attempt.accepted().await?;
        Ok(handle(&launch.token))
    }

    async fn progress(&self, handle: &Handle, seen: Option<&Phase>) -> Result<Phase, RunnerError> {
        self.known(&handle.token)?.progress(seen).await
    }

    async fn wait(&self, handle: &Handle) -> Result<Ended, RunnerError> {
        let attempt = self.known(&handle.token)?;
        let ended = attempt.ended_as().await?;
        Ok(Arc::unwrap_or_clone(ended))
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Result<(), RunnerError> {
        let attempt = self.known(&handle.token)?;
        attempt.order(Order::Stop { grace });
        attempt.ended_as().await.map(drop)
    }

    async fn destroy(&self, token: &AttemptToken) -> Result<(), RunnerError> {
        let known = self.table.lock().get(token).cloned();
        match known {
            Some(attempt) => {
                attempt.order(Order::Destroy);
                attempt.settled().await;
                // Should the process die between the two, the record is found by the next one and
                // destroyed by whoever asks again.
                self.table.records.remove(token);
                self.table.forget(token, &attempt);
                Ok(())
            }
            None => self.class.sweep(token).await,
        }
    }

    async fn recover(&self, token: &AttemptToken) -> Result<Recovered, RunnerError> {
        if let Ok(attempt) = self.known(token) {
            match attempt.accepted().await.map(|()| attempt.state()) {
                Ok(State::Ended(_, ended)) => {
                    return Ok(Recovered::Ended(Box::new(Arc::unwrap_or_clone(ended))));
                }
                Ok(State::Provisioning(_) | State::Running(_)) => {
                    return Ok(Recovered::Running(handle(token)));
                }
                Ok(_) | Err(_) => {}
            }
        }
        self.destroy(token).await?;
        Ok(Recovered::Gone)
    }

    async fn release(&self, run: &RunId) {
        self.class.release(run).await;
    }
}
