//! Rates: how often something may happen, and how fast bytes may flow.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

/// A token bucket that holds what one second brings.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Instant,
}

impl Rate {
    /// So much a second, with a burst of as much.
    pub fn per_second(rate: u64) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate is no less a rate for a rounding in its 53rd bit"
        )]
        let per_second = rate as f64;
        Self {
            per_second,
            state: Mutex::new(State {
                tokens: per_second,
                at: Instant::now(),
            }),
        }
    }

    /// Takes one token, if there is one.
    pub(crate) fn admit(&self) -> bool {
        let mut state = self.refilled();
        let admitted = state.tokens >= 1.0;
        if admitted {
            state.tokens -= 1.0;
        }
        admitted
    }

    /// Takes `amount` tokens, going into debt if need be, and waits until the debt is repaid.
    /// Cancel-safe: the tokens are spent either way.
    pub async fn spend(&self, amount: usize) {
        let debt = {
            let mut state = self.refilled();
            #[expect(clippy::cast_precision_loss, reason = "as for the rate")]
            let amount = amount as f64;
            state.tokens -= amount;
            -state.tokens
        };
        if debt > 0.0 && self.per_second > 0.0 {
            let wait = Duration::from_secs_f64((debt / self.per_second).min(3_600.0));
            tokio::time::sleep_until(Instant::now() + wait).await;
        }
    }

    /// How much may be moved at once so that a second is not spent in one go.
    pub(crate) fn portion(&self, most: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a quarter of a rate is not negative, and the cast saturates"
        )]
        let quarter = (self.per_second / 4.0) as usize;
        quarter.clamp(1, most)
    }

    fn refilled(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("no holder panics");
        let now = Instant::now();
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.tokens = (state.tokens + passed * self.per_second).min(self.per_second);
        state.at = now;
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_what_a_second_brings() {
        let rate = Rate::per_second(3);
        let admitted = |rate: &Rate| (0..10).filter(|_| rate.admit()).count();
        assert_eq!(admitted(&rate), 3);
        tokio::time::advance(Duration::from_millis(700)).await;
        assert_eq!(admitted(&rate), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(admitted(&rate), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_flow_at_the_rate() {
        let rate = Rate::per_second(1_000);
        let start = Instant::now();
        for _ in 0..50 {
            rate.spend(100).await;
        }
        let took = start.elapsed();
        assert!((3_990..=4_100).contains(&took.as_millis()), "{took:?}");
    }
}
