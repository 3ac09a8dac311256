//! `dedicated_compute`: a command as of class container, alone on the processors that this host
//! keeps for such work, with named driver bundles at `/barecount/drivers/<name>`.

mod lease;

use std::path::PathBuf;

use async_trait::async_trait;
use barecount_model::class::RunnerClass;
use rustix::thread::CpuSet;

use crate::{
    Capabilities, Health, RunnerError, container,
    launch::{AttemptToken, Launch},
    local::{
        Class, Host, Orders, Started, host,
        sandboxed::{self, Input},
    },
};
use lease::CpuLeases;
pub use lease::NoFolder;

/// The class of work; see [`Local`](crate::local::Local).
pub struct DedicatedCompute {
    host: Host,
    cpus: Vec<u32>,
    leases: CpuLeases,
}

impl DedicatedCompute {
    /// Runs commands one after the other on `cpus`. Everyone on this host who leases from the same
    /// `lease_folder` respects the others' leases. A launch waits for its turn, and until
    /// then [`probe`](crate::Runner::probe) says [`Busy`](Health::Busy) and who has the processors.
    /// Without such a folder every launch fails.
    pub fn new(host: Host, cpus: Vec<u32>, lease_folder: Result<PathBuf, NoFolder>) -> Self {
        let leases = CpuLeases::of(lease_folder, &cpus, host.clock.clone());
        Self { host, cpus, leases }
    }
}

/// What the processors kept for dedicated work lack.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Lack {
    #[error("no processors are kept for dedicated work")]
    None,
    #[error("this agent has no processor {0} to lease")]
    Absent(u32),
}

const NAME_THEM: &str = "Name processors that the agent may use in the environment file.";

impl DedicatedCompute {
    fn present(&self) -> Result<(), Lack> {
        if self.cpus.is_empty() {
            return Err(Lack::None);
        }
        // Where the kernel does not tell, a launch will.
        let Ok(ours) = rustix::thread::sched_getaffinity(None) else {
            return Ok(());
        };
        let has = |cpu: u32| (cpu as usize) < CpuSet::MAX_CPU && ours.is_set(cpu as usize);
        match self.cpus.iter().find(|cpu| !has(**cpu)) {
            Some(cpu) => Err(Lack::Absent(*cpu)),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Class for DedicatedCompute {
    fn capabilities(&self) -> Capabilities {
        self.host.capabilities(RunnerClass::DedicatedCompute)
    }

    async fn probe(&self) -> Health {
        if let Err(lack) = self.present() {
            return Health::Unhealthy {
                reason: lack.to_string(),
                remedy: NAME_THEM.to_owned(),
            };
        }
        let health = self.host.health();
        if health != Health::Healthy {
            return health;
        }
        match self.leases.taken().await {
            Ok(None) => Health::Healthy,
            Ok(Some(taken)) => Health::Busy {
                reason: taken.to_string(),
                remedy: "Wait for that attempt to end, or keep more processors for such work."
                    .to_owned(),
            },
            Err(error) => Health::Unhealthy {
                reason: format!("the lease of the processors cannot be asked for: {error}"),
                remedy: "Make the folder of leases writable for the agent.".to_owned(),
            },
        }
    }

    async fn start(&self, launch: &Launch, mut orders: Orders) -> Result<Started, RunnerError> {
        let mut spec = container::command(launch)?;
        self.present().map_err(|lack| RunnerError::Unlaunchable {
            reason: lack.to_string(),
            remedy: NAME_THEM.to_owned(),
        })?;
        spec.limits.cpus = Some(self.cpus.clone());
        let holder = launch.token.to_string();
        let waits = orders.clone();
        let waits = |taken: String| waits.waits_for(taken);
        let lease = orders
            .unless_ended(self.leases.acquire(&holder, waits))
            .await;
        let lease = match lease {
            None => return Ok(Started::not_begun(&launch.token)),
            Some(lease) => lease.map_err(|error| host::failure("lease the processors", error))?,
        };
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
