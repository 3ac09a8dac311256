//! One attempt: where it is on its way from launch to end, and what it has been told.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    RunnerError,
    launch::{AttemptToken, Ended},
};

/// What an attempt has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To go on.
    GoOn,
    /// To end by itself within the grace, and to be ended then.
    Stop {
        /// How long it has.
        grace: Duration,
    },
    /// To be ended at once.
    Destroy,
}

/// What an attempt has been told, now and later.
#[derive(Debug, Clone)]
pub struct Orders(watch::Receiver<Order>);

impl Orders {
    /// The order in force.
    pub fn current(&self) -> Order {
        *self.0.borrow()
    }

    /// Resolves with the order to stop or destroy. Cancel-safe.
    pub async fn not_to_go_on(&mut self) -> Order {
        match self.0.wait_for(|order| *order != Order::GoOn).await {
            Ok(order) => *order,
            // Nobody is left who could ask for the attempt.
            Err(_) => Order::Destroy,
        }
    }

    /// Resolves with what `wait` gives, or with `None` as soon as the attempt is to go on no more.
    /// Cancel-safe if `wait` is.
    pub async fn unless_ended<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.not_to_go_on() => None,
            done = wait => Some(done),
        }
    }

    /// Resolves once the attempt is to be ended at once. Cancel-safe.
    pub async fn destroyed(&mut self) {
        // An error means the same: nobody is left who could ask for the attempt.
        drop(self.0.wait_for(|order| *order == Order::Destroy).await);
    }
}

/// Where an attempt is.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Launching,
    Running(String),
    Ended(String, Arc<Ended>),
    Failed(Failure),
}

/// An attempt in the table.
#[derive(Debug)]
pub(crate) struct Attempt {
    phase: watch::Sender<Phase>,
    order: watch::Sender<Order>,
}

impl Attempt {
    pub(crate) fn launching() -> Self {
        Self::at(Phase::Launching)
    }

    pub(crate) fn ended(native: String, ended: Ended) -> Self {
        Self::at(Phase::Ended(native, Arc::new(ended)))
    }

    fn at(phase: Phase) -> Self {
        Self {
            phase: watch::Sender::new(phase),
            order: watch::Sender::new(Order::GoOn),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn orders(&self) -> Orders {
        Orders(self.order.subscribe())
    }

    /// Gives an order. Destruction cannot be taken back.
    pub(crate) fn order(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let changes = *current != Order::Destroy;
            if changes {
                *current = order;
            }
            changes
        });
    }

    pub(crate) fn is_destroyed(&self) -> bool {
        *self.order.borrow() == Order::Destroy
    }

    /// Resolves with the native name once it has started. Cancel-safe.
    pub(crate) async fn launched(&self) -> Result<String, RunnerError> {
        let phase = self.reach(|phase| !matches!(phase, Phase::Launching)).await;
        match phase {
            Phase::Running(native) | Phase::Ended(native, _) => Ok(native),
            Phase::Failed(failure) => Err(failure.into()),
            Phase::Launching => Err(Failure::abandoned().into()),
        }
    }

    /// Resolves with the end. Cancel-safe.
    pub(crate) async fn ended_as(&self) -> Result<Arc<Ended>, RunnerError> {
        match self.reach(is_settled).await {
            Phase::Ended(_, ended) => Ok(ended),
            Phase::Failed(failure) => Err(failure.into()),
            Phase::Launching | Phase::Running(_) => Err(Failure::abandoned().into()),
        }
    }

    /// Resolves once nothing of it goes on any more. Cancel-safe.
    pub(crate) async fn settled(&self) {
        self.reach(is_settled).await;
    }

    async fn reach(&self, there: impl Fn(&Phase) -> bool) -> Phase {
        let mut phases = self.phase.subscribe();
        // The sender lives in `self`, so the only answer is the phase.
        match phases.wait_for(|phase| there(phase)).await {
            Ok(phase) => phase.clone(),
            Err(_) => self.phase(),
        }
    }
}

fn is_settled(phase: &Phase) -> bool {
    matches!(phase, Phase::Ended(..) | Phase::Failed(_))
}

/// A [`RunnerError`] that several callers hear of.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    Unlaunchable {
        reason: String,
        remedy: String,
    },
    Backend {
        backend: String,
        operation: &'static str,
        source: Shared,
    },
    Unknown(AttemptToken),
}

impl Failure {
    fn abandoned() -> Self {
        #[derive(Debug, thiserror::Error)]
        #[error("its task ended without a result")]
        struct Abandoned;

        Self::Backend {
            backend: super::host::BACKEND.to_owned(),
            operation: "carry the attempt",
            source: Shared(Arc::new(Abandoned)),
        }
    }
}

impl From<RunnerError> for Failure {
    fn from(error: RunnerError) -> Self {
        match error {
            RunnerError::Unlaunchable { reason, remedy } => Self::Unlaunchable { reason, remedy },
            RunnerError::Backend {
                backend,
                operation,
                source,
            } => Self::Backend {
                backend,
                operation,
                source: Shared(source.into()),
            },
            RunnerError::Unknown(token) => Self::Unknown(token),
        }
    }
}

impl From<Failure> for RunnerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unlaunchable { reason, remedy } => Self::Unlaunchable { reason, remedy },
            Failure::Backend {
                backend,
                operation,
                source,
            } => Self::Backend {
                backend,
                operation,
                source: Box::new(source),
            },
            Failure::Unknown(token) => Self::Unknown(token),
        }
    }
}

/// One error in several hands.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<dyn Error + Send + Sync>);

impl Shared {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
