//! How fast the requests of one function process are taken. What it asks beyond that waits in its own
//! sockets, where it costs the agent nothing.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use barecount_network::limit::Rate;

/// Requests and connections a second, with a burst of as many for each event. A function that works as
/// intended makes two or three for each event.
const PER_SECOND: u64 = 100;
/// So many requests of an invocation may be refused before each costs its connection.
const REFUSALS: u32 = 32;
/// So many parts of a body count as a request: a large body comes in some hundred parts, unless each
/// byte is sent by itself.
const PARTS: u32 = 64;

/// The pace of one function process.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Mutex<Arc<Rate>>,
    refused: AtomicU32,
    parts: AtomicU32,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            rate: Mutex::new(Arc::new(Rate::per_second(PER_SECOND))),
            refused: AtomicU32::new(0),
            parts: AtomicU32::new(0),
        }
    }

    /// Waits until one more request or connection may be taken. Cancel-safe: it counts either way.
    pub(super) async fn take(&self) {
        let rate = Arc::clone(&*self.rate.lock().unwrap_or_else(PoisonError::into_inner));
        rate.spend(1).await;
    }

    /// Waits until one more part of a body may be taken. Cancel-safe, as [`take`](Self::take) is.
    pub(super) async fn take_part(&self) {
        if self.parts.fetch_add(1, Ordering::Relaxed) % PARTS == PARTS - 1 {
            self.take().await;
        }
    }

    /// Whether a request that was refused is one too many.
    pub(super) fn refuse(&self) -> bool {
        let before = self.refused.fetch_add(1, Ordering::Relaxed);
        before.saturating_add(1) >= REFUSALS
    }

    /// Begins anew: the function has been given an event, and nothing that it does for one waits for
    /// what it did for another.
    pub(super) fn renew(&self) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        *rate = Arc::new(Rate::per_second(PER_SECOND));
        self.refused.store(0, Ordering::Relaxed);
    }
}
