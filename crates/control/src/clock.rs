//! Time, as the control plane knows it: virtual in tests.

use std::{future::Future, pin::Pin};

use jiff::Timestamp;

/// A source of time.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Resolves at `instant`, or at once if that is past. Cancel-safe.
    fn sleep_until(&self, instant: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that all others pass on"
    )]
    fn sleep_until(&self, instant: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let span = instant.duration_since(self.now());
        let left = std::time::Duration::try_from(span).unwrap_or_default();
        Box::pin(tokio::time::sleep(left))
    }
}
