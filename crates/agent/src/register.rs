//! What an agent knows of each attempt it was told of, so that an order which comes twice, or late,
//! changes nothing.
//!
//! An attempt goes one way: *live* from its first `Launch` or `Recover`, *ended* once its end is
//! told, *over* once that is acknowledged or the attempt is swept. It is live once at most.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use barecount_api::{activity::Activity, assignment::Event, attempt::AttemptRef};
use barecount_runner::launch::AttemptToken;
use jiff::Timestamp;

use crate::live::Live;

/// So many attempts that are over are remembered. An order for one that is forgotten is refused by
/// what it carries: its identity has expired long since.
const REMEMBERED: usize = 65_536;

/// Every attempt's standing.
#[derive(Debug, Default)]
pub(crate) struct Register {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<AttemptToken, Held>,
    over: HashSet<AttemptToken>,
    oldest_over: VecDeque<AttemptToken>,
}

#[derive(Debug)]
enum Held {
    /// Told to stop before it was told to begin.
    StopFirst(Duration),
    Live(Arc<Live>),
    Ended(Event),
}

/// What an order to begin an attempt comes to.
pub(crate) enum Opened {
    /// It begins, and nothing else of it is under way.
    Begin(Arc<Live>),
    /// It has ended already, and this is how: whoever asks has not heard.
    Ended(Event),
    /// It is under way, or over.
    Nothing,
}

impl Register {
    /// Opens an attempt that is not known yet.
    pub(crate) fn open(&self, attempt: &AttemptRef, now: Timestamp) -> Opened {
        let (token, mut state) = (attempt.token(), self.state());
        if state.over.contains(&token) {
            return Opened::Nothing;
        }
        let live = Arc::new(Live::new(attempt.clone(), now));
        match state.held.entry(token) {
            Entry::Vacant(vacant) => {
                vacant.insert(Held::Live(Arc::clone(&live)));
            }
            Entry::Occupied(mut known) => match known.get() {
                Held::StopFirst(grace) => {
                    live.stop(*grace);
                    known.insert(Held::Live(Arc::clone(&live)));
                }
                Held::Live(_) => return Opened::Nothing,
                Held::Ended(told) => return Opened::Ended(told.clone()),
            },
        }
        Opened::Begin(live)
    }

    /// Tells an attempt to stop, also one that has not begun yet.
    pub(crate) fn stop(&self, attempt: &AttemptRef, grace: Duration) {
        let (token, mut state) = (attempt.token(), self.state());
        if state.over.contains(&token) {
            return;
        }
        match state.held.entry(token).or_insert(Held::StopFirst(grace)) {
            Held::Live(live) => live.stop(grace),
            Held::StopFirst(_) | Held::Ended(_) => {}
        }
    }

    /// Notes how a live attempt ended.
    pub(crate) fn end(&self, attempt: &AttemptRef, told: Event) {
        self.state().held.insert(attempt.token(), Held::Ended(told));
    }

    /// Forgets how an attempt ended: whoever had to know does. False if that is not so.
    pub(crate) fn acknowledge(&self, attempt: &AttemptRef) -> bool {
        let (token, mut state) = (attempt.token(), self.state());
        let ended = matches!(state.held.get(&token), Some(Held::Ended(_)));
        if ended {
            state.close(token);
        }
        ended
    }

    /// Whether an attempt may be cleaned up after; it is over then. One that is live may not.
    pub(crate) fn sweep(&self, attempt: &AttemptRef) -> bool {
        let (token, mut state) = (attempt.token(), self.state());
        let live = matches!(state.held.get(&token), Some(Held::Live(_)));
        if !live {
            state.close(token);
        }
        !live
    }

    /// What the attempts that are under way do now, in no order.
    pub(crate) fn activities(&self) -> Vec<Activity> {
        let state = self.state();
        let live = state.held.values().filter_map(|held| match held {
            Held::Live(live) => Some(live.activity()),
            _ => None,
        });
        live.collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a poisoned state is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn close(&mut self, token: AttemptToken) {
        self.held.remove(&token);
        if self.over.insert(token.clone()) {
            self.oldest_over.push_back(token);
        }
        if self.oldest_over.len() > REMEMBERED
            && let Some(oldest) = self.oldest_over.pop_front()
        {
            self.over.remove(&oldest);
        }
    }
}
