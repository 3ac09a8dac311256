//! One attempt: where it is on its way from launch to end, and what it has been told.

use std::{
    error::Error,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    Phase, RunnerError,
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

/// What an attempt has been told, now and later; and where it tells what it waits for.
#[derive(Debug, Clone)]
pub struct Orders {
    told: watch::Receiver<Order>,
    state: watch::Sender<State>,
    places: Moved,
}

/// Where an attempt's places were moved to.
type Moved = Arc<Mutex<Vec<PathBuf>>>;

impl Orders {
    /// The order in force.
    pub fn current(&self) -> Order {
        *self.told.borrow()
    }

    /// Resolves with the order to stop or destroy. Cancel-safe.
    pub async fn not_to_go_on(&mut self) -> Order {
        match self.told.wait_for(|order| *order != Order::GoOn).await {
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

    /// Tells that the attempt cannot start yet, and what it waits for: whoever launched it hears
    /// that it is being provisioned.
    pub fn waits_for(&self, what: impl Into<String>) {
        let what = what.into();
        self.state.send_if_modified(|state| match state {
            State::Launching => {
                *state = State::Provisioning(what);
                true
            }
            State::Provisioning(before) if *before != what => {
                *before = what;
                true
            }
            _ => false,
        });
    }

    /// Tells where the attempt's places are now; nowhere else than at first, if there are none.
    pub(crate) fn places_are(&self, at: Vec<PathBuf>) {
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Resolves once the attempt is to be ended at once. Cancel-safe.
    pub async fn destroyed(&mut self) {
        // An error means the same: nobody is left who could ask for the attempt.
        drop(self.told.wait_for(|order| *order == Order::Destroy).await);
    }
}

/// Where an attempt is.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Launching,
    /// It waits for this before it can start.
    Provisioning(String),
    Running(String),
    Ended(String, Arc<Ended>),
    Failed(Failure),
}

/// An attempt in the table.
#[derive(Debug)]
pub(crate) struct Attempt {
    state: watch::Sender<State>,
    order: watch::Sender<Order>,
    places: Moved,
}

impl Attempt {
    pub(crate) fn launching() -> Self {
        Self::at(State::Launching)
    }

    pub(crate) fn ended(native: String, ended: Ended) -> Self {
        Self::at(State::Ended(native, Arc::new(ended)))
    }

    fn at(state: State) -> Self {
        Self {
            state: watch::Sender::new(state),
            order: watch::Sender::new(Order::GoOn),
            places: Moved::default(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn enter(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(crate) fn orders(&self) -> Orders {
        Orders {
            told: self.order.subscribe(),
            state: self.state.clone(),
            places: self.places.clone(),
        }
    }

    /// Where its places were moved to.
    pub(crate) fn holds(&self) -> Vec<PathBuf> {
        let places = self.places.lock();
        places.unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Resolves once it has started, or waits for something before it can. Cancel-safe.
    pub(crate) async fn accepted(&self) -> Result<(), RunnerError> {
        let state = self.reach(|state| !matches!(state, State::Launching)).await;
        match state {
            State::Provisioning(_) | State::Running(_) | State::Ended(..) => Ok(()),
            State::Failed(failure) => Err(failure.into()),
            State::Launching => Err(Failure::abandoned().into()),
        }
    }

    /// Resolves with the phase once it is another one than `seen`. Cancel-safe.
    pub(crate) async fn progress(&self, seen: Option<&Phase>) -> Result<Phase, RunnerError> {
        let phase = |state: &State| match (state, seen) {
            (State::Launching, _) => None,
            (State::Provisioning(what), _) => Some(Phase::Provisioning {
                waits_for: what.as_str().into(),
            }),
            (State::Ended(..), Some(Phase::Running { .. } | Phase::Ended)) => Some(Phase::Ended),
            (State::Running(on) | State::Ended(on, _), _) => {
                Some(Phase::Running { on: on.clone() })
            }
            (State::Failed(_), _) => None,
        };
        let news = |state: &State| match phase(state) {
            Some(Phase::Ended) => true,
            Some(phase) => Some(&phase) != seen,
            None => matches!(state, State::Failed(_)),
        };
        match self.reach(news).await {
            State::Failed(failure) => Err(failure.into()),
            state => phase(&state).ok_or_else(|| Failure::abandoned().into()),
        }
    }

    /// Resolves with the end. Cancel-safe.
    pub(crate) async fn ended_as(&self) -> Result<Arc<Ended>, RunnerError> {
        match self.reach(is_settled).await {
            State::Ended(_, ended) => Ok(ended),
            State::Failed(failure) => Err(failure.into()),
            _ => Err(Failure::abandoned().into()),
        }
    }

    /// Resolves once nothing of it goes on any more. Cancel-safe.
    pub(crate) async fn settled(&self) {
        self.reach(is_settled).await;
    }

    async fn reach(&self, there: impl Fn(&State) -> bool) -> State {
        let mut states = self.state.subscribe();
        // The sender lives in `self`, so the only answer is the state.
        match states.wait_for(|state| there(state)).await {
            Ok(state) => state.clone(),
            Err(_) => self.state(),
        }
    }
}

fn is_settled(state: &State) -> bool {
    matches!(state, State::Ended(..) | State::Failed(_))
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
