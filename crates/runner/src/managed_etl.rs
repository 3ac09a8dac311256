//! `managed_etl`: a job for the embedded engine, which runs as a program of its own in a sandbox, so
//! that its memory is bounded and its crash is nobody else's. It spills into the scratch folder.

use std::path::PathBuf;

use async_trait::async_trait;
use barecount_model::class::RunnerClass;
use barecount_sandbox::Spec;

use crate::{
    Capabilities, Health, RunnerError,
    launch::{AttemptToken, Isolation, Launch, Work},
    local::{
        Class, Host, Orders, Started,
        places::{self, Access, Seen},
        sandboxed::{self, Input},
    },
};

/// Where the engine program is inside.
const ENGINE: &str = "/barecount/engine";

/// The program that carries jobs out: reads the job from its standard input, ends with the exit
/// statuses of the task contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineProgram {
    /// The program on this host; it may use the host's shared libraries.
    pub path: PathBuf,
    /// What makes it an engine.
    pub args: Vec<String>,
}

/// The class of work; see [`Local`](crate::local::Local).
pub struct ManagedEtl {
    host: Host,
    engine: EngineProgram,
}

impl ManagedEtl {
    /// Runs jobs on this host.
    pub fn new(host: Host, engine: EngineProgram) -> Self {
        Self { host, engine }
    }

    fn spec(&self, launch: &Launch) -> Result<Spec, RunnerError> {
        if launch.isolation == Isolation::Process {
            return Err(RunnerError::Unlaunchable {
                reason: "a job names its places as they are inside a sandbox".to_owned(),
                remedy: "Use `isolation: sandbox` for stages of class managed_etl.".to_owned(),
            });
        }
        let mut argv = vec![ENGINE.to_owned()];
        argv.extend(self.engine.args.iter().cloned());
        let mut spec = Spec::new(sandboxed::name(&launch.token)?, argv);
        spec.mounts = places::mounts(launch);
        spec.mounts
            .push(places::bind(&self.engine.path, ENGINE, Access::Run));
        spec.env = places::environment(launch, &launch.env, Seen::by(launch).variables());
        spec.limits = sandboxed::limits(&launch.limits);
        Ok(spec)
    }
}

#[async_trait]
impl Class for ManagedEtl {
    fn capabilities(&self) -> Capabilities {
        self.host.capabilities(RunnerClass::ManagedEtl)
    }

    async fn probe(&self) -> Health {
        self.host.health()
    }

    async fn start(&self, launch: &Launch, orders: Orders) -> Result<Started, RunnerError> {
        let Work::Job { spec: job } = &launch.work else {
            return Err(RunnerError::Unlaunchable {
                reason: "a job was expected".to_owned(),
                remedy: "Give the stage a `job`.".to_owned(),
            });
        };
        let spec = self.spec(launch)?;
        let input = Input::Text(job.to_string().into_bytes());
        sandboxed::one_process(self.host.clone(), launch, orders, spec, input).await
    }

    async fn sweep(&self, _: &AttemptToken) -> Result<(), RunnerError> {
        sandboxed::sweep(&self.host).await
    }
}
