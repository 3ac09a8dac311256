//! What goes wrong, and when: each fault is asked for by a flag, and comes at a known request.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// The longest that a client is kept out, and told so as a date; seconds are told as they are asked for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What the server was asked to do wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Each so-manieth request for orders is told to come later (429), and so is whoever does not.
    pub(crate) limit_every: Option<NonZeroU64>,
    /// How long those have to wait, in seconds; told as seconds and as a date, in turn.
    pub(crate) retry_after_s: u64,
    /// A token is refused after so many uses, though it should still be good.
    pub(crate) token_uses: Option<u64>,
    /// This page is answered with status 500 …
    pub(crate) fail_page: Option<u64>,
    /// … so many times.
    pub(crate) fail_times: u64,
    /// The answer with this page breaks off in its middle, once.
    pub(crate) drop_page: Option<u64>,
    /// The first request for this page gets no answer at all.
    pub(crate) hold_page: Option<u64>,
}

/// What becomes of a request for a page of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is answered.
    Answered,
    /// It comes too soon. Whether the time to wait is told as a date.
    Limited {
        /// As a date, not as seconds.
        as_date: bool,
    },
    /// Status 500.
    Failed,
    /// The answer breaks off.
    Dropped,
    /// It is never answered.
    Held,
}

/// Decides about one request after another.
#[derive(Debug)]
pub(crate) struct Fates {
    faults: Faults,
    requests: u64,
    limited: u64,
    closed_until: Option<Instant>,
}

impl Fates {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            faults,
            requests: 0,
            limited: 0,
            closed_until: None,
        }
    }

    /// The fate of the next request, which is for this page; the first is page 1.
    pub(crate) fn of(&mut self, page: u64) -> Fate {
        let now = Instant::now();
        if self.closed_until.is_some_and(|until| now < until) {
            return self.limit();
        }
        self.requests += 1;
        let faults = &mut self.faults;
        if faults.hold_page == Some(page) {
            faults.hold_page = None;
            return Fate::Held;
        }
        if faults.drop_page == Some(page) {
            faults.drop_page = None;
            return Fate::Dropped;
        }
        if faults.fail_page == Some(page) && faults.fail_times > 0 {
            faults.fail_times -= 1;
            return Fate::Failed;
        }
        let limited = faults
            .limit_every
            .is_some_and(|every| self.requests.is_multiple_of(every.get()));
        if limited {
            let wait = Duration::from_secs(faults.retry_after_s).min(LONGEST_WAIT);
            self.closed_until = Some(now + wait);
            return self.limit();
        }
        Fate::Answered
    }

    fn limit(&mut self) -> Fate {
        self.limited += 1;
        Fate::Limited {
            as_date: self.limited.is_multiple_of(2),
        }
    }
}
