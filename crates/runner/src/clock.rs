//! Time as runners see it: passed in, so that tests decide when it goes on.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

/// A future that resolves when its time has come. Cancel-safe.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A clock that only goes forward.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since the clock was started.
    fn now(&self) -> Duration;

    /// Wall-clock time in milliseconds since 1970, for deadlines that work is told about.
    fn unix_millis(&self) -> u64;

    /// Wall-clock time.
    fn timestamp(&self) -> Timestamp {
        let millis = i64::try_from(self.unix_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
    }

    /// Resolves when [`now`](Clock::now) has reached `at`. Cancel-safe.
    fn sleep_until(&self, at: Duration) -> Sleep;

    /// Resolves after `duration`. Cancel-safe.
    fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now().saturating_add(duration))
    }
}

/// The host's clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::now()
    }

    fn unix_millis(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        match self.origin.checked_add(at) {
            Some(instant) => Box::pin(tokio::time::sleep_until(instant)),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
pub struct VirtualClock {
    now: watch::Sender<Duration>,
    unix_origin_millis: u64,
}

impl VirtualClock {
    /// A clock that shows `unix_origin_millis` and stands still.
    pub fn at(unix_origin_millis: u64) -> Self {
        Self {
            now: watch::Sender::new(Duration::ZERO),
            unix_origin_millis,
        }
    }

    /// Lets `by` pass and wakes whoever waited for it.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now = now.saturating_add(by));
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        *self.now.borrow()
    }

    fn unix_millis(&self) -> u64 {
        let passed = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        self.unix_origin_millis.saturating_add(passed)
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            // Without its clock, time never comes: the sleeper belongs to a world that has ended.
            if now.wait_for(|now| *now >= at).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_virtual_clock_wakes_a_sleeper_when_its_time_has_come_and_not_before() {
        let clock = VirtualClock::at(1_000);
        let mut sleep = clock.sleep(Duration::from_secs(10));
        clock.advance(Duration::from_secs(9));
        tokio::select! {
            biased;
            () = &mut sleep => panic!("woke a second early"),
            () = std::future::ready(()) => {}
        }
        clock.advance(Duration::from_secs(1));
        sleep.await;
        assert_eq!(clock.unix_millis(), 11_000);
    }
}
