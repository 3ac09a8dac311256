//! The contract between an agent and whatever carries its attempts out.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use barecount_model::{capability::Capabilities, id::RunId, untrusted::Message};
use serde::{Deserialize, Serialize};

use crate::launch::{AttemptToken, Ended, Launch};

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Takes work.
    Healthy,
    /// Takes work, but a launch now would wait until something that is taken is free; dropping or
    /// stopping the launch gives the wait up.
    Busy {
        /// What is taken, and by whom, as far as that is known.
        reason: String,
        /// What would make the wait shorter.
        remedy: String,
    },
    /// Takes no work; why, and what would change that.
    Unhealthy {
        /// What is wrong.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

/// An opaque reference to a launched attempt, durable enough to be written down and handed back to
/// [`Runner::recover`] by a later process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Handle {
    /// The attempt's fencing token, which is also the backend's idempotency token.
    pub token: AttemptToken,
    /// What the backend calls it: a sandbox, a task, an instance.
    pub native: String,
}

/// How far an attempt has come with its backend. It goes one way, and is followed by
/// [`Runner::progress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The backend has it, and what carries it out is being made or waited for.
    Provisioning {
        /// What is waited for, for a person.
        waits_for: Message,
    },
    /// Its work runs.
    Running {
        /// What the backend calls the thing that it runs on.
        on: String,
    },
    /// Its work has ended.
    Ended,
}

/// What became of an attempt that some earlier process launched, or was about to.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovered {
    /// It is provisioned or runs still, and can be followed and waited for.
    Running(Handle),
    /// It ended, and this is how.
    Ended(Box<Ended>),
    /// Nothing of it runs any more and nothing is known of its end. Whatever was left behind has
    /// been removed; its outputs are to be discarded.
    Gone,
}

/// Why a backend could not do what it was asked. None of them is the work's failure, which comes
/// through [`Ended`].
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The launch can never succeed as it stands: a missing artifact, a limit the host lacks.
    #[error("the attempt cannot be launched: {reason}")]
    Unlaunchable {
        /// What is wrong.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// The backend failed this time; another try may succeed.
    #[error("{operation} failed on {backend}")]
    Backend {
        /// The backend's name.
        backend: String,
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The handle names nothing this backend knows.
    #[error("no attempt {0} is known here")]
    Unknown(AttemptToken),
}

/// A backend for one class of work.
///
/// The caller writes its intent down *before* it calls [`launch`](Runner::launch); the attempt token
/// makes the launch idempotent, so that a crash between the two neither loses nor doubles work.
/// Dropping any returned future is safe: the attempt goes on and can be waited for again.
#[async_trait]
pub trait Runner: Send + Sync {
    /// What this backend can carry out.
    fn capabilities(&self) -> Capabilities;

    /// Whether it can take work now. Cheap enough to be asked before every placement.
    async fn probe(&self) -> Health;

    /// The folders of this host in which an attempt's places are now, beside those that it was launched
    /// with: a backend may have moved them to where its work sees them. None where it has not, or
    /// where the work runs elsewhere. Cheap.
    fn holds(&self, _token: &AttemptToken) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Starts an attempt; resolves once the backend has accepted it, whether its work runs already
    /// or what carries it out is still to be provisioned. A second call with the same token answers
    /// with the first launch's handle and starts nothing, also after the attempt has ended, until it
    /// is destroyed.
    async fn launch(&self, launch: &Launch) -> Result<Handle, RunnerError>;

    /// Resolves with the attempt's phase as soon as it is another one than `seen`; with the first
    /// one that is told if none was seen. That it runs is told of every attempt that ever did, also
    /// if it has ended since. Repeatable until it is destroyed. Cancel-safe.
    ///
    /// A backend whose launches resolve when the work runs has nothing to provision, and need not
    /// say anything else than this.
    ///
    /// # Errors
    /// What cannot be provisioned fails here, or where it is waited for.
    async fn progress(&self, handle: &Handle, seen: Option<&Phase>) -> Result<Phase, RunnerError> {
        match seen {
            None | Some(Phase::Provisioning { .. }) => Ok(Phase::Running {
                on: handle.native.clone(),
            }),
            Some(Phase::Running { .. } | Phase::Ended) => {
                self.wait(handle).await.map(|_| Phase::Ended)
            }
        }
    }

    /// Resolves when the attempt has ended; repeatable until it is destroyed. Cancel-safe.
    async fn wait(&self, handle: &Handle) -> Result<Ended, RunnerError>;

    /// Asks the attempt to stop (`SIGTERM`), and ends it after `grace`. Returns once it has ended.
    /// Stopping an ended attempt does nothing.
    async fn stop(&self, handle: &Handle, grace: Duration) -> Result<(), RunnerError>;

    /// Ends the attempt at once if it still runs, and removes whatever it holds: processes, control
    /// groups, mounts, sockets. Destroying twice, or what never was, does nothing.
    async fn destroy(&self, token: &AttemptToken) -> Result<(), RunnerError>;

    /// Finds out what became of an attempt whose launch was written down by an earlier process.
    async fn recover(&self, token: &AttemptToken) -> Result<Recovered, RunnerError>;

    /// Ends what is kept warm for this run alone: it has ended. Its attempts are left as they are.
    /// A backend that keeps nothing warm has nothing to do.
    async fn release(&self, _run: &RunId) {}
}
