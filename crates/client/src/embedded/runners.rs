//! The embedded backend of each class.

use std::{path::Path, sync::Arc, time::Duration};

use barecount_model::environment::Environment;
use barecount_network::path::Paths;
use barecount_runner::{
    Capabilities, Registry, Runner,
    clock::SystemClock,
    container::Container,
    dedicated_compute::DedicatedCompute,
    handler::PoolLimits,
    launch::{Isolation, inside},
    local::{Host, Local},
    managed_etl::{EngineProgram, ManagedEtl},
    serverless::Serverless,
};
use barecount_sandbox::Launcher;

use super::engine::RESULT;

/// How long a handler's sandbox stays warm.
const IDLE: Duration = Duration::from_secs(60);

/// The runners of this process.
pub(super) struct Runners {
    /// Those that the environment has.
    pub(super) registry: Registry,
    /// Serves the jobs that put acceptance tests.
    pub(super) tests: Arc<dyn Runner>,
    serverless: Arc<Local<Serverless>>,
    container: Arc<Local<Container>>,
    managed_etl: Arc<Local<ManagedEtl>>,
    dedicated_compute: Arc<Local<DedicatedCompute>>,
}

impl Runners {
    /// Opens the backends; each has a folder of its own in the state folder.
    pub(super) fn open(
        launcher: Launcher,
        state: &Path,
        environment: &Environment,
        paths: Paths,
    ) -> std::io::Result<Self> {
        let weakest = if environment.process_isolation {
            Isolation::Process
        } else {
            Isolation::Sandbox
        };
        let host = Host {
            launcher: Arc::new(launcher),
            clock: Arc::new(SystemClock::start()),
            paths,
            weakest,
        };
        let folder = state.join("runners");
        // Tests are put again by the attempt that asked for them.
        remove(&folder.join("acceptance"))?;
        let sandboxes = std::thread::available_parallelism().map_or(2, usize::from) * 4;
        let pool = PoolLimits {
            sandboxes,
            idle: IDLE,
        };
        let functions = Serverless::new(host.clone(), pool, &folder.join("functions"))?;
        let engine = EngineProgram {
            path: std::env::current_exe()?.canonicalize()?,
            args: vec![
                "engine-job".to_owned(),
                format!("{}/{RESULT}", inside::OUTPUT),
            ],
        };
        let jobs = || ManagedEtl::new(host.clone(), engine.clone());
        let dedicated = DedicatedCompute::new(host.clone(), processors()?, leases()?);
        let serverless = Arc::new(Local::open(functions, &folder.join("serverless"))?);
        let container = Container::new(host.clone(), pool, &folder.join("handlers"))?;
        let container = Arc::new(Local::open(container, &folder.join("container"))?);
        let managed_etl = Arc::new(Local::open(jobs(), &folder.join("managed_etl"))?);
        let dedicated_compute =
            Arc::new(Local::open(dedicated, &folder.join("dedicated_compute"))?);
        let tests = Arc::new(Local::open(jobs(), &folder.join("acceptance/records"))?);
        let all: [Arc<dyn Runner>; 4] = [
            serverless.clone(),
            container.clone(),
            managed_etl.clone(),
            dedicated_compute.clone(),
        ];
        let served = |runner: &Arc<dyn Runner>| {
            let Capabilities { class, backend, .. } = runner.capabilities();
            let named = environment.backends.get(&class);
            named.is_some_and(|named| named.as_str() == backend)
        };
        Ok(Self {
            registry: all.into_iter().filter(served).collect(),
            tests,
            serverless,
            container,
            managed_etl,
            dedicated_compute,
        })
    }

    /// Ends everything that still runs or is kept warm.
    pub(super) async fn shut_down(&self) {
        self.serverless.shut_down().await;
        self.container.shut_down().await;
        self.managed_etl.shut_down().await;
        self.dedicated_compute.shut_down().await;
    }
}

/// The processors that this process may use, all of which dedicated work gets.
fn processors() -> std::io::Result<Vec<u32>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    let all = 0..rustix::thread::CpuSet::MAX_CPU;
    Ok(all
        .filter(|cpu| set.is_set(*cpu))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect())
}

/// One folder for all state folders of a user on this host: they share its processors.
#[expect(
    clippy::disallowed_methods,
    reason = "the binary decides where things are, and this is for all of a user's processes"
)]
fn leases() -> std::io::Result<std::path::PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("barecount-processors-{user}"));
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            let message = format!(
                "{}: {error}; `TMPDIR` names the folder that it is made in",
                folder.display()
            );
            return Err(std::io::Error::new(error.kind(), message));
        }
        _ => {}
    }
    let found = std::fs::symlink_metadata(&folder)?;
    if found.is_dir() && found.uid() == user {
        return Ok(folder);
    }
    let message = format!("{} belongs to somebody else", folder.display());
    Err(std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        message,
    ))
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
