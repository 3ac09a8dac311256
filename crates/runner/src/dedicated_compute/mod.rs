//! `dedicated_compute`: a command as of class container, alone on the processors that this host
//! keeps for such work, with named driver bundles at `/barecount/drivers/<name>`.

mod lease;

use std::path::PathBuf;

use async_trait::async_trait;
use barecount_model::class::RunnerClass;

use crate::{
    Capabilities, Health, RunnerError, container,
    launch::{AttemptToken, Launch},
    local::{
        Class, Host, Orders, Started, host,
        sandboxed::{self, Input},
    },
};
use lease::CpuLeases;

/// The class of work; see [`Local`](crate::local::Local).
pub struct DedicatedCompute {
    host: Host,
    cpus: Vec<u32>,
    leases: CpuLeases,
}

impl DedicatedCompute {
    /// Runs commands one after the other on `cpus`. Everyone on this host who leases from the same
    /// `lease_folder` respects the others' leases. A launch waits for its turn.
    pub fn new(host: Host, cpus: Vec<u32>, lease_folder: PathBuf) -> Self {
        let leases = CpuLeases::of(lease_folder, &cpus, host.clock.clone());
        Self { host, cpus, leases }
    }
}

#[async_trait]
impl Class for DedicatedCompute {
    fn capabilities(&self) -> Capabilities {
        self.host.capabilities(RunnerClass::DedicatedCompute)
    }

    async fn probe(&self) -> Health {
        if self.cpus.is_empty() {
            return Health::Unhealthy {
                reason: "no processors are kept for dedicated work".to_owned(),
                remedy: "Name them in the environment file.".to_owned(),
            };
        }
        self.host.health()
    }

    async fn start(&self, launch: &Launch, orders: Orders) -> Result<Started, RunnerError> {
        let mut spec = container::command(launch)?;
        spec.limits.cpus = Some(self.cpus.clone());
        let lease = self
            .leases
            .acquire()
            .await
            .map_err(|error| host::failure("lease the processors", error))?;
        let Started { native, ended } =
            sandboxed::one_process(self.host.clone(), launch, orders, spec, Input::Nothing).await?;
        Ok(Started {
            native,
            ended: Box::pin(async move {
                let result = ended.await;
                // Not before the sandbox has ended and nothing of it runs any more.
                drop(lease);
                result
            }),
        })
    }

    async fn sweep(&self, _: &AttemptToken) -> Result<(), RunnerError> {
        sandboxed::sweep(&self.host).await
    }
}
