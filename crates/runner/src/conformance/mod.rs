//! One suite for every runner: each check is a sentence of the [`Runner`] contract.
//!
//! A backend joins by a [`Subject`]: how to open a runner on a state of its own, how to make a
//! launch that behaves in a given way, and how to look for what was left behind. A test binary turns
//! each of [`CHECKS`] into one test per subject.

mod behaviour;
mod ends;
mod identity;
mod phases;
mod places;
mod stopping;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

pub use behaviour::{Behaviour, IGNORING, INPUT_CONTENTS, INPUT_FILE, Seen, behave};

use crate::{
    Handle, Runner, RunnerError,
    launch::{AttemptToken, End, Ended, Launch},
};

/// How long a check may take before a promise counts as broken. Generous: a build may share the
/// machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A backend under test, with a state folder of its own.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Opens the runner on this subject's state. A second call is what the next process of the
    /// agent sees: whatever does not survive the agent has been ended before it returns.
    async fn open(&self) -> Arc<dyn Runner>;

    /// A launch that behaves so, with places that exist and an input as [`INPUT_FILE`] and
    /// [`INPUT_CONTENTS`] say; or `None` where the backend cannot behave so at all.
    fn launch(&self, number: u32, behaviour: &Behaviour) -> Option<Launch>;

    /// What is left on the host: processes, control groups, mounts, sockets, state. Asked once
    /// every attempt has been destroyed and, for backends with warm processes, shut down.
    async fn leftovers(&self) -> Vec<String>;
}

/// A promise that was not kept.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// What was promised, and what happened.
    #[error("{promise}, but {observed}")]
    Broken {
        /// The promise.
        promise: &'static str,
        /// What was seen instead.
        observed: String,
    },
    /// A call failed that has to succeed.
    #[error(transparent)]
    Failed(#[from] RunnerError),
    /// The files that an attempt was to leave could not be read.
    #[error("what the attempt wrote cannot be read")]
    Unreadable(#[from] std::io::Error),
    /// A call did not come back.
    #[error("the check did not end within {PATIENCE:?}")]
    TookTooLong,
}

type Verdict = Result<(), Violation>;
type Checking = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One promise of the contract.
#[derive(Clone, Copy)]
pub struct Check {
    /// The promise, as a sentence with underscores.
    pub name: &'static str,
    body: fn(Session) -> Checking,
}

impl Check {
    /// Holds `subject` against the promise. `Ok(false)`: the subject cannot behave as the check
    /// needs.
    ///
    /// # Errors
    /// The promise was broken.
    pub async fn run(&self, subject: Arc<dyn Subject>) -> Result<bool, Violation> {
        let session = Session {
            runner: subject.open().await,
            subject,
            skipped: Arc::default(),
            launched: Arc::default(),
        };
        let skipped = session.skipped.clone();
        tokio::time::timeout(PATIENCE, (self.body)(session))
            .await
            .map_err(|_| Violation::TookTooLong)??;
        Ok(skipped.load(Ordering::SeqCst) == 0)
    }
}

/// Every promise, in the order of the contract.
pub const CHECKS: &[&[Check]] = &[
    identity::CHECKS,
    phases::CHECKS,
    ends::CHECKS,
    stopping::CHECKS,
    places::CHECKS,
];

/// One check at work on one subject.
#[derive(Clone)]
struct Session {
    subject: Arc<dyn Subject>,
    runner: Arc<dyn Runner>,
    skipped: Arc<AtomicU32>,
    launched: Arc<AtomicU32>,
}

impl Session {
    /// The next launch, or `None` (and the check is marked as skipped) where the backend cannot
    /// behave so.
    fn prepare(&self, behaviour: &Behaviour) -> Option<Launch> {
        let number = self.launched.fetch_add(1, Ordering::SeqCst) + 1;
        let launch = self.subject.launch(number, behaviour);
        if launch.is_none() {
            self.skipped.fetch_add(1, Ordering::SeqCst);
        }
        launch
    }

    /// Launches and waits for the end.
    async fn carry_out(&self, launch: &Launch) -> Result<(Handle, Ended), Violation> {
        let handle = self.runner.launch(launch).await?;
        let ended = self.runner.wait(&handle).await?;
        Ok((handle, ended))
    }

    /// Destroys what was launched and looks for leftovers.
    async fn finish<'a>(&self, tokens: impl IntoIterator<Item = &'a AttemptToken>) -> Verdict {
        for token in tokens {
            self.runner.destroy(token).await?;
        }
        let left = self.subject.leftovers().await;
        promise("nothing is left behind", left.is_empty(), &left)
    }
}

/// Whether an end is the success of its kind of work.
pub fn succeeded(end: &End) -> bool {
    matches!(end, End::Exited { code: 0 } | End::Answered { .. })
}

fn promise(promise: &'static str, kept: bool, observed: &dyn std::fmt::Debug) -> Verdict {
    if kept {
        return Ok(());
    }
    Err(Violation::Broken {
        promise,
        observed: format!("{observed:?}"),
    })
}

/// Polls once and drops what did not finish: a caller that lost interest.
async fn lose_interest<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}
