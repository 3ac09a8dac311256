//! The world's time, which goes on when the world says so. Sleepers wake in the order of their times,
//! and of their sleeping.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use barecount_runner::clock::{Clock, Sleep};
use jiff::Timestamp;

/// When every history begins, in milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;

#[derive(Debug, Clone, Default)]
pub(crate) struct WorldClock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Duration,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    slept: u64,
}

impl WorldClock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.state().now.as_millis()).unwrap_or(u64::MAX)
    }

    /// When the next sleeper is to wake.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let next = self.state().sleepers.keys().next().map(|(at, _)| *at)?;
        // A sleeper wakes no sooner than its time.
        u64::try_from(next.as_nanos().div_ceil(1_000_000)).ok()
    }

    pub(crate) fn advance_to(&self, ms: u64) {
        let mut woken = Vec::new();
        let mut state = self.state();
        state.now = state.now.max(Duration::from_millis(ms));
        while let Some(first) = state.sleepers.first_entry() {
            if first.key().0 > Duration::from_millis(ms) {
                break;
            }
            woken.push(first.remove());
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn sleeper(&self, at: Duration) -> Sleep {
        let mut state = self.state();
        state.slept += 1;
        let key = (at, state.slept);
        drop(state);
        let clock = self.clone();
        Box::pin(Sleeper { clock, key })
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Duration {
        self.state().now
    }

    fn unix_millis(&self) -> u64 {
        BEGINNING + self.now_ms()
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        self.sleeper(at)
    }
}

/// The clock of one host: it goes on as the world's does, and tells another time, which is set now
/// and then. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct HostClock {
    world: WorldClock,
    ahead_ms: Arc<AtomicI64>,
}

impl HostClock {
    pub(crate) fn new(world: &WorldClock, ahead_ms: i64) -> Self {
        let world = world.clone();
        let ahead_ms = Arc::new(AtomicI64::new(ahead_ms));
        Self { world, ahead_ms }
    }

    /// Somebody sets it.
    pub(crate) fn set(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    pub(crate) fn stamp(&self) -> Timestamp {
        Clock::timestamp(self)
    }
}

impl Clock for HostClock {
    fn now(&self) -> Duration {
        Clock::now(&self.world)
    }

    fn unix_millis(&self) -> u64 {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        self.world.unix_millis().saturating_add_signed(ahead)
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        self.world.sleeper(at)
    }
}

impl barecount_control::clock::Clock for HostClock {
    fn now(&self) -> Timestamp {
        self.stamp()
    }

    fn sleep_until(&self, instant: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let left = instant.duration_since(self.stamp());
        Clock::sleep(self, Duration::try_from(left).unwrap_or_default())
    }
}

struct Sleeper {
    clock: WorldClock,
    key: (Duration, u64),
}

impl Future for Sleeper {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state();
        if state.now >= self.key.0 {
            return Poll::Ready(());
        }
        state.sleepers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.clock.state().sleepers.remove(&self.key);
    }
}
