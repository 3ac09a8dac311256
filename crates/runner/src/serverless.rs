//! `serverless`: functions, in sandboxes that stay warm.

use std::path::Path;

use async_trait::async_trait;
use barecount_model::{class::RunnerClass, id::RunId};

use crate::{
    Capabilities, Health, RunnerError,
    handler::{Handlers, PoolLimits},
    launch::{AttemptToken, Launch},
    local::{Class, Host, Orders, Started, sandboxed},
};

/// The class of work; see [`Local`](crate::local::Local).
pub struct Serverless {
    host: Host,
    handlers: Handlers,
}

impl Serverless {
    /// Runs functions on this host. `folder` is for the runner alone, on the file system of the
    /// attempts' places; what an earlier process left in it is removed. Blocking. To be called
    /// inside the runtime, which then ends idle sandboxes.
    ///
    /// # Errors
    /// The folder can be neither made nor emptied.
    pub fn new(host: Host, limits: PoolLimits, folder: &Path) -> std::io::Result<Self> {
        let handlers = Handlers::new(host.clone(), limits, folder)?;
        Ok(Self { host, handlers })
    }

    /// How many sandboxes are warm and without work.
    pub fn warm(&self) -> usize {
        self.handlers.warm()
    }
}

#[async_trait]
impl Class for Serverless {
    fn capabilities(&self) -> Capabilities {
        self.host.capabilities(RunnerClass::Serverless)
    }

    async fn probe(&self) -> Health {
        self.host.health()
    }

    async fn start(&self, launch: &Launch, orders: Orders) -> Result<Started, RunnerError> {
        self.handlers.start(launch, orders).await
    }

    async fn sweep(&self, _: &AttemptToken) -> Result<(), RunnerError> {
        sandboxed::sweep(&self.host).await
    }

    async fn release(&self, run: &RunId) {
        self.handlers.release(run).await;
    }

    async fn shut_down(&self) {
        self.handlers.shut_down().await;
    }
}
