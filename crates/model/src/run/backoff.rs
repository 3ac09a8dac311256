//! Exponential backoff with jitter.

use std::time::Duration;

use super::RetryBudget;

/// The delay before the retry that follows the `failures`-th failure (from 1): drawn evenly from
/// the upper half of `initial × 2^(failures-1)`, capped. Half of it is fixed so that a retry is never
/// immediate, half is random so that many tasks do not return together.
pub fn delay(budget: &RetryBudget, failures: u32, entropy: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(32);
    let ceiling = budget
        .initial_backoff_ms
        .saturating_mul(1 << doublings)
        .min(budget.max_backoff_ms);
    let floor = ceiling / 2;
    Duration::from_millis(floor + entropy % (ceiling - floor + 1))
}
