//! What an agent is made of.

use std::sync::Arc;

use barecount_api::assignment::Event;
use barecount_runner::{Registry, clock::Clock};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::{
    access::IdentityVerifier,
    data::{Artifacts, DataPlane},
    disk::Disk,
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
