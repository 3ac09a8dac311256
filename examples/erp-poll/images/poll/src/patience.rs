//! How long to wait before the next try, and when to leave it to another attempt.

use std::time::{Duration, SystemTime};

/// Tries of one request.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A server that asks for more is left alone until another attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What is left of an attempt's time when it stops waiting: enough to end in good order.
const RESERVE: Duration = Duration::from_secs(5);

/// The tries of one request.
pub(crate) struct Patience {
    deadline: SystemTime,
    failed: u32,
}

impl Patience {
    /// None goes on beyond the deadline, which is the attempt's.
    pub(crate) fn until(deadline: SystemTime) -> Self {
        Self {
            deadline,
            failed: 0,
        }
    }

    /// How long to wait after a try that failed; `None` if there is to be no other. `asked` is what
    /// the server asks for, which holds if it is longer than our own pause.
    pub(crate) fn pause(&mut self, asked: Option<Duration>, now: SystemTime) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= TRIES {
            return None;
        }
        let own = FIRST_PAUSE * 2_u32.pow(self.failed - 1);
        let pause = asked.unwrap_or_default().max(own);
        // Before anything is reckoned with it: a server may ask for more than a clock can say.
        if pause > LONGEST_PAUSE {
            return None;
        }
        (now + pause + RESERVE < self.deadline).then_some(pause)
    }
}

/// What a `Retry-After` header asks for: seconds, or a date (RFC 9110 section 10.2.3).
pub(crate) fn asked(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    // A date in the past asks for nothing.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn pauses_double_until_there_is_no_other_try() {
        let mut patience = Patience::until(NOW + HOUR);
        let pauses: Vec<_> = std::iter::from_fn(|| patience.pause(None, NOW)).collect();
        assert_eq!(pauses, [200, 400, 800, 1600].map(Duration::from_millis));
    }

    #[test]
    fn what_the_server_asks_for_is_waited_for_unless_it_is_too_long() {
        let pause = |asked, left| Patience::until(NOW + left).pause(Some(asked), NOW);
        assert_eq!(pause(7 * SECOND, HOUR), Some(7 * SECOND));
        assert_eq!(pause(Duration::ZERO, HOUR), Some(FIRST_PAUSE));
        assert_eq!(pause(31 * SECOND, HOUR), None);
        // More than any clock can say, and still no reason to fall over.
        assert_eq!(pause(Duration::MAX, HOUR), None);
        let longest = asked(&u64::MAX.to_string(), NOW).expect("it is a number of seconds");
        assert_eq!(pause(longest, 12 * SECOND), None);
        // The attempt would be over before.
        assert_eq!(pause(7 * SECOND, 12 * SECOND), None);
        assert_eq!(pause(7 * SECOND, 13 * SECOND), Some(7 * SECOND));
    }

    #[test]
    fn seconds_and_dates_are_understood_and_nothing_else() {
        assert_eq!(asked(" 12 ", NOW), Some(12 * SECOND));
        let date = httpdate::fmt_http_date(NOW + 90 * SECOND);
        assert_eq!(asked(&date, NOW), Some(90 * SECOND));
        assert_eq!(asked(&date, NOW + 91 * SECOND), Some(Duration::ZERO));
        for wrong in ["", "soon", "-1", "1.5"] {
            assert_eq!(asked(wrong, NOW), None, "{wrong}");
        }
    }
}
