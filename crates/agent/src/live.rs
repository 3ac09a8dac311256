//! An attempt that is under way here: what it does now, and whether it is told to stop.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use barecount_api::{
    activity::{Activity, Phase},
    attempt::AttemptRef,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

/// Follows the platform's reading of what an attempt left, and says when that is to end because the
/// attempt is stopped. Cheap to clone; clones follow the same reading.
#[derive(Debug, Clone, Default)]
pub struct StagingWatch {
    read: Arc<(AtomicU64, AtomicU64)>,
    stop: CancellationToken,
}

impl StagingWatch {
    /// So many more rows and bytes were read.
    pub fn advanced(&self, rows: u64, bytes: u64) {
        self.read.0.fetch_add(rows, Ordering::Relaxed);
        self.read.1.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the reading is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves when the reading is to end. Cancel-safe.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

/// An attempt that this agent has under way.
#[derive(Debug)]
pub(crate) struct Live {
    attempt: AttemptRef,
    phase: Mutex<(Phase, Timestamp)>,
    /// Set before `watch` is told to stop.
    grace: OnceLock<Duration>,
    watch: StagingWatch,
}

impl Live {
    pub(crate) fn new(attempt: AttemptRef, now: Timestamp) -> Self {
        Self {
            attempt,
            phase: Mutex::new((Phase::Preparing, now)),
            grace: OnceLock::new(),
            watch: StagingWatch::default(),
        }
    }

    /// Another part of it begins.
    pub(crate) fn enter(&self, phase: Phase, now: Timestamp) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = (phase, now);
    }

    /// Tells it to stop. What it was told first holds.
    pub(crate) fn stop(&self, grace: Duration) {
        // A second order changes nothing.
        let _ = self.grace.set(grace);
        self.watch.stop.cancel();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.watch.is_stopped()
    }

    /// Resolves, with the grace that its work has, when it is told to stop. Cancel-safe.
    pub(crate) async fn stopped(&self) -> Duration {
        self.watch.stopped().await;
        self.grace.get().copied().unwrap_or_default()
    }

    pub(crate) fn watch(&self) -> &StagingWatch {
        &self.watch
    }

    pub(crate) fn activity(&self) -> Activity {
        let (phase, since) = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        Activity {
            attempt: self.attempt.clone(),
            phase,
            since,
            rows: self.watch.read.0.load(Ordering::Relaxed),
            bytes: self.watch.read.1.load(Ordering::Relaxed),
        }
    }
}
