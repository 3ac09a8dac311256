//! The time that flow records carry.

use std::{fmt, time::SystemTime};

/// Wall-clock time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970.
    fn unix_millis(&self) -> u64;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_millis(&self) -> u64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }
}
