//! The warm pool: which sandbox serves which attempt, how many there are, and when they end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use barecount_model::id::RunId;
use barecount_secrets::Secret;
use tokio::sync::watch;

use super::worker::Worker;
use crate::{
    clock::Clock,
    launch::{HandlerProgram, Launch, Limits, ReuseKey},
};

/// Bounds of the warm pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Sandboxes at a time, busy and warm together. Further attempts wait, after warm sandboxes of
    /// other programs have been ended for them.
    pub sandboxes: usize,
    /// How long a sandbox stays warm without work: scale to zero.
    pub idle: Duration,
}

/// What has to be equal for a process to serve one attempt after another.
#[derive(Debug, PartialEq)]
pub(super) struct Key {
    pub(super) reuse: Option<ReuseKey>,
    pub(super) program: HandlerProgram,
    pub(super) limits: Limits,
    pub(super) env: std::collections::BTreeMap<String, String>,
    pub(super) cache: Option<std::path::PathBuf>,
    pub(super) drivers: std::collections::BTreeMap<String, std::path::PathBuf>,
    /// What its environment has of secrets; `None` where it has a place for none.
    pub(super) secrets: Option<std::collections::BTreeMap<String, Secret>>,
}

impl Key {
    pub(super) fn of(launch: &Launch, program: &HandlerProgram) -> Self {
        Self {
            reuse: launch.reuse.clone(),
            program: program.clone(),
            limits: launch.limits.clone(),
            env: super::payload::lasting(&launch.env),
            cache: launch.places.cache.clone(),
            drivers: launch.places.drivers.clone(),
            secrets: launch
                .secrets
                .as_ref()
                .map(|secrets| secrets.variables.clone()),
        }
    }

    /// Whether no attempt of another run can have it.
    fn is_of(&self, run: &RunId) -> bool {
        let only = self.reuse.as_ref().and_then(|reuse| reuse.run.as_ref());
        only == Some(run)
    }
}

/// Where an attempt is to be carried out.
pub(super) enum Place {
    Warm(Box<Worker>),
    Cold(Permit),
}

/// What there is for an attempt now.
enum Try {
    Place(Place),
    /// Nothing, but one is about to be given back.
    Soon,
    /// Nothing: as many as there may be are at work.
    Full,
}

/// The sandboxes of one runner.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    limits: PoolLimits,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Told of every change that somebody may wait for.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// The longest idle first.
    idle: Vec<Idle>,
    /// Keys of those that have answered and may soon be warm.
    settling: Vec<Arc<Key>>,
    sandboxes: usize,
    closed: bool,
}

struct Idle {
    worker: Box<Worker>,
    since: Duration,
}

/// The right to have one sandbox.
pub(super) struct Permit(Weak<Inner>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            let mut state = inner.lock();
            state.sandboxes = state.sandboxes.saturating_sub(1);
            drop(state);
            inner.changed();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Single pushes and removals: a panic elsewhere leaves the pool sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Pool {
    pub(super) fn new(limits: PoolLimits, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            limits,
            clock,
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        }))
    }

    /// Finds a warm sandbox for `key`, or the right to start one. Waits while there are as many as
    /// there may be, and tells `full` that they all work, if they do. Cancel-safe.
    pub(super) async fn acquire(&self, key: &Key, full: impl Fn() + Send) -> Place {
        let mut changes = self.0.changes.subscribe();
        loop {
            changes.mark_unchanged();
            match self.try_acquire(key) {
                Try::Place(place) => return place,
                Try::Soon => {}
                Try::Full => full(),
            }
            // The sender lives in `self`.
            drop(changes.changed().await);
        }
    }

    fn try_acquire(&self, key: &Key) -> Try {
        let mut state = self.0.lock();
        let mut ended = Vec::new();
        let place = if key.reuse.is_some() {
            let (dead, alive) = std::mem::take(&mut state.idle)
                .into_iter()
                .partition(|idle| idle.worker.has_ended());
            state.idle = alive;
            ended = dead;
            // The latest first: the others may then end by being idle.
            let found = state.idle.iter().rposition(|idle| *idle.worker.key == *key);
            found.map(|index| Place::Warm(state.idle.remove(index).worker))
        } else {
            None
        };
        let soon = key.reuse.is_some() && state.settling.iter().any(|other| **other == *key);
        let place = match place {
            Some(place) => Try::Place(place),
            None if soon => Try::Soon,
            None if state.sandboxes < self.0.limits.sandboxes => {
                state.sandboxes += 1;
                Try::Place(Place::Cold(Permit(Arc::downgrade(&self.0))))
            }
            None if state.idle.is_empty() => Try::Full,
            None => {
                ended.push(state.idle.remove(0));
                Try::Soon
            }
        };
        drop(state);
        // Outside the lock, for a worker gives its permit back, which takes the lock.
        drop(ended);
        place
    }

    /// Announces that a worker of this key may be warm soon.
    pub(super) fn settling(&self, key: &Arc<Key>) {
        self.0.lock().settling.push(key.clone());
    }

    /// Takes a worker that serves again, or learns that it does not. One whose run was released
    /// meanwhile is not taken.
    pub(super) fn settled(&self, key: &Arc<Key>, worker: Option<Box<Worker>>) {
        let mut state = self.0.lock();
        let announced = state
            .settling
            .iter()
            .position(|other| Arc::ptr_eq(other, key));
        if let Some(index) = announced {
            state.settling.swap_remove(index);
        }
        let refused = match worker {
            Some(worker) if announced.is_some() && !state.closed => {
                let since = self.0.clock.now();
                state.idle.push(Idle { worker, since });
                None
            }
            other => other,
        };
        drop(state);
        drop(refused);
        self.0.changed();
    }

    /// How many sandboxes are warm and without work.
    pub(super) fn idle(&self) -> usize {
        self.0.lock().idle.len()
    }

    /// Takes the warm sandboxes of this run alone out; those that settle are not taken in.
    pub(super) fn release(&self, run: &RunId) -> Vec<Worker> {
        let mut state = self.0.lock();
        state.settling.retain(|key| !key.is_of(run));
        let (released, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut state.idle)
            .into_iter()
            .partition(|idle| idle.worker.key.is_of(run));
        state.idle = kept;
        drop(state);
        self.0.changed();
        released.into_iter().map(|idle| *idle.worker).collect()
    }

    /// Takes all warm sandboxes out; none is taken in any more.
    pub(super) fn close(&self) -> Vec<Worker> {
        let mut state = self.0.lock();
        state.closed = true;
        state.idle.drain(..).map(|idle| *idle.worker).collect()
    }

    /// Waits until no worker settles any more.
    pub(super) async fn all_settled(&self) {
        let mut changes = self.0.changes.subscribe();
        while !self.0.lock().settling.is_empty() {
            drop(changes.changed().await);
        }
    }

    /// Ends sandboxes that have been idle for too long, until the pool is gone.
    pub(super) async fn scale_to_zero(self) {
        let pool = Arc::downgrade(&self.0);
        drop(self);
        while let Some(inner) = pool.upgrade() {
            let mut changes = inner.changes.subscribe();
            let now = inner.clock.now();
            let (ended, next) = inner.expire(now);
            let sleep = next.map(|at| inner.clock.sleep_until(at));
            drop(inner);
            for worker in ended {
                worker.retire().await;
            }
            let wake = async {
                match sleep {
                    Some(sleep) => sleep.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = wake => {}
            }
        }
    }
}

impl Inner {
    /// Those idle for too long, and when the next one will be.
    fn expire(&self, now: Duration) -> (Vec<Worker>, Option<Duration>) {
        let mut state = self.lock();
        let (expired, alive): (Vec<_>, Vec<_>) = std::mem::take(&mut state.idle)
            .into_iter()
            .partition(|idle| idle.since + self.limits.idle <= now || idle.worker.has_ended());
        state.idle = alive;
        let next = state.idle.first().map(|idle| idle.since + self.limits.idle);
        (expired.into_iter().map(|idle| *idle.worker).collect(), next)
    }
}
