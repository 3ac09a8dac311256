//! What an agent is made of.

use std::sync::Arc;

use barecount_api::assignment::Event;
use barecount_runner::{Registry, clock::Clock};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::{
    access::IdentityVerifier,
    data::{Artifacts, DataPlane},
    outbox::Outbox,
    places::StagingFolders,
    register::Register,
    secrets::SecretsService,
};

/// What an agent works with.
pub struct AgentConfig {
    /// The backends that this agent has.
    pub runners: Registry,
    /// Datasets.
    pub data: Arc<dyn DataPlane>,
    /// Artifacts.
    pub artifacts: Arc<dyn Artifacts>,
    /// Where attempts' folders are.
    pub folders: StagingFolders,
    /// Where secrets come from; nowhere if absent.
    pub secrets: Option<SecretsService>,
    /// Checks identities: nothing is carried out, read or written without one.
    pub identities: IdentityVerifier,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How it waits for its disk.
    pub disk: Disk,
}

/// How an agent waits for its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// On threads of their own: nothing else waits meanwhile.
    Threads,
    /// On the caller's, between two of its turns, so that what happens in which order is decided by
    /// nobody else. For simulations.
    Inline,
}

impl Disk {
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        match self {
            Self::Threads => {
                let done = tokio::task::spawn_blocking(work).await;
                done.unwrap_or_else(|error| Err(error.into()))
            }
            Self::Inline => {
                tokio::task::yield_now().await;
                let done = work();
                tokio::task::yield_now().await;
                done
            }
        }
    }

    /// As [`run`](Self::run), of work that also awaits.
    pub(crate) async fn run_all<W>(self, work: W) -> Result<W::Output, tokio::task::JoinError>
    where
        W: Future<Output: Send> + Send + 'static,
    {
        match self {
            Self::Threads => {
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(work)).await
            }
            Self::Inline => Ok(work.await),
        }
    }
}

/// Owns attempts. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    pub(crate) inner: Arc<AgentConfig>,
    pub(crate) register: Arc<Register>,
    pub(crate) outbox: Outbox,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) orders: TaskTracker,
}

impl Agent {
    /// An agent that tells what happens through `events`.
    pub fn new(config: AgentConfig, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            outbox: Outbox::new(config.folders.clone()),
            inner: Arc::new(config),
            register: Arc::default(),
            events,
            orders: TaskTracker::new(),
        }
    }
}
