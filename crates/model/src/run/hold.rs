//! Putting a task off that could be placed, because something outside of the platform is not ready.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Effects, Moment, Rejection, RetryBudget, Run, backoff};
use crate::{
    capability::Unfit,
    class::{NetworkProfile, RunnerClass},
};

/// The first delay before the task is looked at again, in milliseconds.
const INITIAL_MS: u64 = 1_000;
/// The longest, in milliseconds.
const LONGEST_MS: u64 = 30_000;

/// Why a task is not placed that otherwise could be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WaitingReason {
    /// The way to its destinations does not lead there now.
    PathDown {
        /// The network profile whose way it is.
        profile: NetworkProfile,
        /// What was found.
        found: String,
    },
    /// What is to carry it out takes no work now.
    BackendDown {
        /// The class.
        class: RunnerClass,
        /// Its backend.
        backend: String,
        /// What was found.
        found: String,
        /// What would change that, as a whole sentence.
        remedy: String,
    },
    /// Nothing here can carry it out as it is declared.
    Unfit {
        /// Why.
        unfit: Unfit,
        /// What would change that, as a whole sentence.
        remedy: String,
    },
}

impl fmt::Display for WaitingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathDown { profile, found } => {
                write!(f, "the path of network profile {profile} is down: {found}")
            }
            Self::BackendDown {
                class,
                backend,
                found,
                remedy,
            } => {
                write!(
                    f,
                    "backend `{backend}` takes no {class} now: {found}; {remedy}"
                )
            }
            Self::Unfit { unfit, remedy } => write!(f, "{unfit}; {remedy}"),
        }
    }
}

/// That a task is put off, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Why, as it was found the last time.
    pub reason: WaitingReason,
    /// When it was first put off.
    pub since: Timestamp,
    /// How often it has been.
    pub times: u32,
}

impl Run {
    /// Puts a task off that is ready and due, for a second at first and up to half a minute later
    /// on. Its retry budget is not touched: nothing was tried.
    ///
    /// # Errors
    /// [`Rejection::NotPlaceable`] unless the task is ready and due.
    pub fn hold(
        &mut self,
        index: usize,
        reason: WaitingReason,
        moment: &Moment,
    ) -> Result<Effects, Rejection> {
        self.expect_placeable(index, moment.now)?;
        let task = &mut self.tasks[index];
        let (since, before) = match &task.held {
            Some(held) => (held.since, held.times),
            None => (moment.now, 0),
        };
        let times = before.saturating_add(1);
        let patience = RetryBudget {
            initial_backoff_ms: INITIAL_MS,
            max_backoff_ms: LONGEST_MS,
            ..task.budget.clone()
        };
        let delay = backoff::delay(&patience, times, moment.entropy);
        task.not_before = moment.now.checked_add(delay).ok();
        task.held = Some(Box::new(Held {
            reason,
            since,
            times,
        }));
        let mut effects = Effects::default();
        effects.touch(index);
        Ok(effects)
    }
}
