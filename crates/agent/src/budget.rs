//! What an attempt may have on its host's disk, which no control group bounds.
//!
//! Quotas of the file system would need one that has them, and root. So an attempt's folders are
//! measured, but only where they can have grown too large: nobody can have written more than the disk
//! has lost since the last look.

use std::{io, time::Duration};

use barecount_api::{
    assignment::{Assignment, SetAside},
    attempt::AttemptToken,
};
use barecount_model::{
    codes::{self, Code},
    run::outcome::{AttemptResult, Failure, FailureKind, Outcome},
};
use barecount_tree::{Amount, Measured};
use serde_json::json;

use crate::{
    chain::warn,
    config::Agent,
    executor::{Found, failed},
    files::Room,
    live::Live,
};

/// How often the disk is asked for its room at most.
const GLANCE: Duration = Duration::from_millis(250);
/// No disk takes more in a second: before that, what is left cannot be used up.
const FASTEST: Amount = Amount {
    bytes: 4 << 30,
    files: 1 << 18,
};
/// How often an attempt's folders are measured though the disk has lost little: somebody else may
/// have freed what the attempt has taken.
const LOOK: Duration = Duration::from_secs(30);
/// So much longer than measuring took it is not done again.
const REST: u32 = 20;
/// One file for so many bytes of a budget, as file systems are made by default (mke2fs(8)).
const BYTES_A_FILE: u64 = 16 << 10;
/// What is left to the platform's own store and to others: so much, or a sixteenth of a small disk.
const RESERVE: Amount = Amount {
    bytes: 512 << 20,
    files: 16 << 10,
};
const SHARE: u64 = 16;

/// What the attempt has, and how much of it is its cache.
struct Held {
    all: Measured,
    cache: Amount,
}

impl Held {
    /// Of folders that nobody could look at.
    const UNSEEN: Self = {
        let nothing = Amount { bytes: 0, files: 0 };
        Self {
            all: Measured {
                amount: nothing,
                whole: false,
            },
            cache: nothing,
        }
    };
}

/// Why an attempt is ended.
struct Overdrawn {
    failure: Failure,
    /// Whether another attempt would find its cache as full.
    by_cache: bool,
}

impl Agent {
    /// Carries an attempt out as long as it keeps to its budget of the disk.
    pub(crate) async fn carry_out_within_budget(
        &self,
        assignment: &Assignment,
        live: &Live,
        found: Option<Found>,
    ) -> (Outcome, Vec<SetAside>) {
        if let Err(failure) = self.room_to_begin(found.is_some()).await {
            return (failed(failure, json!({})), Vec::new());
        }
        let mut carried = std::pin::pin!(self.carry_out(assignment, live, found));
        let overdrawn = tokio::select! {
            biased;
            done = &mut carried => return done,
            // What is stopped ends by that.
            overdrawn = self.overdrawn(assignment), if !live.is_stopped() => overdrawn,
        };
        let stopped_before = live.is_stopped();
        live.stop(Duration::ZERO);
        let (mut outcome, set_aside) = carried.await;
        if !stopped_before && outcome.result == AttemptResult::Stopped {
            outcome.result = AttemptResult::Failed(overdrawn.failure);
        }
        if overdrawn.by_cache {
            self.clear_cache(assignment).await;
        }
        (outcome, set_aside)
    }

    /// Whether another attempt can begin: twice the reserve has to be left, so that what begins is
    /// not ended at once. What runs already is gone on with.
    async fn room_to_begin(&self, runs: bool) -> Result<(), Failure> {
        let Some(room) = self.room().await else {
            // Making its folders will tell what is wrong with them.
            return Ok(());
        };
        let needed = reserve(&room).and(reserve(&room));
        if !runs && needed.exceeds(room.left) {
            return Err(full(&room));
        }
        Ok(())
    }

    /// The disk's room, as far as it says so.
    async fn room(&self) -> Option<Room> {
        let folders = self.inner.folders.clone();
        self.inner.disk.run(move || folders.room()).await.ok()
    }

    /// Resolves when the attempt has more on the disk than it may, or much of a disk that is nearly
    /// full. Cancel-safe.
    async fn overdrawn(&self, assignment: &Assignment) -> Overdrawn {
        let clock = &self.inner.clock;
        let resources = &assignment.stage.resources;
        let budget = resources.disk_bytes.map_or(Amount::ENDLESS, budget);
        let mut held = Amount::default();
        let mut latest = self.room().await;
        let mut at_look = latest;
        let mut looked_at = clock.timestamp();
        let mut rest = Duration::ZERO;
        let mut warned = false;
        loop {
            let left = latest.map_or(Amount::default(), |room| {
                least(less(budget, held), less(room.left, reserve(&room)))
            });
            match pause(left) {
                Some(pause) => clock.sleep(pause.max(rest)).await,
                None => std::future::pending().await,
            }
            rest = Duration::ZERO;
            latest = self.room().await;
            let Some(room) = latest else {
                continue;
            };
            let at_most = held.and(lost(at_look.get_or_insert(room), &room));
            let is_low = reserve(&room).exceeds(room.left);
            let began = clock.timestamp();
            let due = LOOK <= since(looked_at, began);
            if !at_most.exceeds(budget) && !is_low && !due {
                continue;
            }
            let found = self.measured(assignment, budget).await;
            let found = found.unwrap_or_else(|error| {
                if !std::mem::replace(&mut warned, true) {
                    let what = "an attempt's folders cannot be measured";
                    warn(&assignment.attempt, what, &error);
                }
                Held::UNSEEN
            });
            looked_at = clock.timestamp();
            rest = since(began, looked_at) * REST;
            at_look = latest;
            held = found.all.amount;
            if !found.all.whole {
                held.bytes = held.bytes.max(at_most.bytes);
                held.files = held.files.max(at_most.files);
            }
            if let Some(overdrawn) = overdrawn(held, found.cache, budget, &room) {
                return overdrawn;
            }
        }
    }

    async fn measured(&self, assignment: &Assignment, budget: Amount) -> io::Result<Held> {
        let folders = self.inner.folders.clone();
        let (token, cache): (AttemptToken, _) =
            (assignment.attempt.token(), assignment.reuse.clone());
        let runner = self.inner.runners.fit(&assignment.stage).ok();
        let moved = runner.map_or(Vec::new(), |runner| runner.holds(&token));
        let measure = move || folders.measure(&token, &cache, &moved, budget);
        let (all, cache) = self.inner.disk.run(measure).await?;
        Ok(Held { all, cache })
    }

    async fn clear_cache(&self, assignment: &Assignment) {
        let (folders, key) = (self.inner.folders.clone(), assignment.reuse.clone());
        if let Err(error) = self.inner.disk.run(move || folders.clear_cache(&key)).await {
            let attempt = &assignment.attempt;
            warn(
                attempt,
                "a cache that is too large cannot be removed",
                &error,
            );
        }
    }
}

/// Whether what an attempt has is too much, of its budget or of a disk that has only this room left.
fn overdrawn(held: Amount, cache: Amount, budget: Amount, room: &Room) -> Option<Overdrawn> {
    let by_cache = cache.bytes > held.bytes / 2 || cache.files > held.files / 2;
    let reserve = reserve(room);
    // Those that have little of it would free little of it.
    let much = Amount {
        bytes: reserve.bytes / 8,
        files: reserve.files / 8,
    };
    let failure = if held.exceeds(budget) {
        used_up(held, budget, by_cache)
    } else if reserve.exceeds(room.left) && held.exceeds(much) {
        full(room)
    } else {
        return None;
    };
    Some(Overdrawn { failure, by_cache })
}

fn since(then: jiff::Timestamp, now: jiff::Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn budget(bytes: u64) -> Amount {
    Amount {
        bytes,
        files: bytes / BYTES_A_FILE,
    }
}

fn reserve(room: &Room) -> Amount {
    Amount {
        bytes: RESERVE.bytes.min(room.total.bytes / SHARE),
        files: RESERVE.files.min(room.total.files / SHARE),
    }
}

/// How long nobody has to look, with so much left; for ever where that is without end.
fn pause(left: Amount) -> Option<Duration> {
    let seconds = (left.bytes / FASTEST.bytes).min(left.files / FASTEST.files);
    let pause = Duration::from_secs(seconds).clamp(GLANCE, LOOK);
    (left != Amount::ENDLESS).then_some(pause)
}

/// What a disk has less than before.
fn lost(before: &Room, now: &Room) -> Amount {
    Amount {
        bytes: before.left.bytes.saturating_sub(now.left.bytes),
        files: before.left.files.saturating_sub(now.left.files),
    }
}

fn least(one: Amount, other: Amount) -> Amount {
    Amount {
        bytes: one.bytes.min(other.bytes),
        files: one.files.min(other.files),
    }
}

/// What is left of an amount, which is endless still if it was.
fn less(amount: Amount, taken: Amount) -> Amount {
    let less = |amount, taken| match amount {
        u64::MAX => u64::MAX,
        amount => u64::saturating_sub(amount, taken),
    };
    Amount {
        bytes: less(amount.bytes, taken.bytes),
        files: less(amount.files, taken.files),
    }
}

fn used_up(held: Amount, budget: Amount, by_cache: bool) -> Failure {
    let cache = match by_cache {
        true => "; most of it is its cache, which is emptied now",
        false => "",
    };
    let message = format!(
        "the attempt took more of the disk than it may: its size has {} MiB in {} files, and it had \
         {} MiB in {} or more{cache}; write less, or choose a larger size",
        budget.bytes >> 20,
        budget.files,
        held.bytes >> 20,
        held.files,
    );
    failure(FailureKind::Application, codes::DISK_USED_UP, message)
}

fn full(room: &Room) -> Failure {
    let message = format!(
        "the disk under the state folder is nearly full, with {} MiB and {} files left: make room \
         there, with `barecount gc` for one",
        room.left.bytes >> 20,
        room.left.files,
    );
    failure(FailureKind::Infrastructure, codes::DISK_FULL, message)
}

fn failure(kind: FailureKind, code: Code, message: String) -> Failure {
    Failure {
        kind,
        code: code.id.to_owned(),
        message: message.into(),
    }
}
