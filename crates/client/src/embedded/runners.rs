//! The embedded backend of each class.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barecount_model::environment::Environment;
use barecount_network::path::Paths;
use barecount_runner::{
    Capabilities, Registry, Runner,
    clock::SystemClock,
    container::Container,
    dedicated_compute::{DedicatedCompute, NoFolder},
    handler::PoolLimits,
    launch::{Isolation, inside},
    local::{Host, Local},
    managed_etl::{EngineProgram, ManagedEtl},
    serverless::Serverless,
};
use barecount_sandbox::Launcher;
use barecount_tree::{Aside, Left, Stop};

use super::{engine::RESULT, ledger, private_folder};

/// How long a handler's sandbox stays warm.
const IDLE: Duration = Duration::from_secs(60);

/// The runners of this process.
pub(super) struct Runners {
    /// Those that the environment has.
    pub(super) registry: Registry,
    /// Serves the jobs that put acceptance tests.
    pub(super) tests: Arc<dyn Runner>,
    /// What a person is to know of limits that this host gives in part.
    pub(super) host_hint: Option<String>,
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
    ) -> io::Result<Self> {
        let host_hint = launcher.host().hint();
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
        let dedicated = DedicatedCompute::new(host.clone(), processors()?, leases());
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
            host_hint,
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
fn processors() -> io::Result<Vec<u32>> {
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
fn leases() -> Result<PathBuf, NoFolder> {
    let user = rustix::process::geteuid().as_raw();
    let usual = std::env::temp_dir().join(format!("barecount-processors-{user}"));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let own = boot.ok().and_then(|boot| {
        let folder = ledger::user_folder()?;
        Some(folder.join(format!("processors-{}", boot.trim_end())))
    });
    leases_in(&usual, own.as_deref())
}

/// The usual folder, unless it is another user's or cannot be made; then one that no other user
/// reaches, which is used from then on until this host starts anew.
fn leases_in(usual: &Path, own: Option<&Path>) -> Result<PathBuf, NoFolder> {
    if let Some(own) = own.filter(|own| barecount_tree::is_ours(own)) {
        return Ok(own.to_owned());
    }
    let cannot = |folder: &Path, error: &io::Error| format!("{}: {error}", folder.display());
    let made = DirBuilder::new().mode(0o700).create(usual);
    let (kind, why) = match made {
        _ if barecount_tree::is_ours(usual) => match barecount_tree::close_to_others(usual) {
            Ok(()) => return Ok(usual.to_owned()),
            Err(error) => (error.kind(), cannot(usual, &error)),
        },
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            (error.kind(), cannot(usual, &error))
        }
        _ => {
            let why = format!("{} belongs to somebody else", usual.display());
            (io::ErrorKind::PermissionDenied, why)
        }
    };
    let none = |reason: String| NoFolder {
        kind,
        reason: format!("{reason}; name a folder that can be written by `TMPDIR`, or set HOME"),
    };
    let Some(own) = own else {
        let reason = format!("{why}, and this user has no folder for configuration");
        return Err(none(reason));
    };
    private_folder::make(own)
        .map_err(|error| none(format!("{why}, and {}", cannot(own, &error))))?;
    tracing::warn!(
        why,
        used = %own.display(),
        "processors are not leased in the usual folder; another one is used"
    );
    Ok(own.to_owned())
}

/// Removes what an earlier process left of work that ends with its process: the folders of warm
/// sandboxes, and those of acceptance tests, which are put again by the attempt that asked for them.
/// What cannot be removed is moved aside, and answered with. Blocks.
pub(super) fn clear(state: &Path, stop: Stop<'_>) -> Vec<Left> {
    let aside = Aside::of(state);
    ["acceptance", "functions", "handlers"]
        .into_iter()
        .filter_map(|name| aside.remove(&state.join("runners").join(name), stop).err())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn a_folder_of_another_user_where_processors_are_leased_keeps_nobody_from_them() -> TestResult {
        let place = tempfile::tempdir()?;
        let (usual, own) = (place.path().join("usual"), place.path().join("config/own"));
        for kind in 0..3 {
            match kind {
                0 => std::fs::create_dir(&usual)?,
                1 => std::fs::write(&usual, "")?,
                _ => symlink("/nowhere", &usual)?,
            }
            // Only root can give something away: a test that cannot is no test.
            std::os::unix::fs::lchown(&usual, Some(42_424), Some(42_424))?;
            assert!(
                leases_in(&usual, None).is_err(),
                "without a place of its own"
            );
            assert_eq!(leases_in(&usual, Some(&own))?, own);
            let found = std::fs::metadata(&own)?;
            assert_eq!(found.mode() & 0o777, 0o700);
            // Whoever took the name gives it back: those who have leases there are not left alone.
            barecount_tree::remove(&usual, &barecount_tree::to_the_end)?;
            assert_eq!(leases_in(&usual, Some(&own))?, own);
            std::fs::remove_dir(&own)?;
        }
        assert_eq!(leases_in(&usual, Some(&own))?, usual);
        Ok(())
    }

    #[test]
    fn where_no_folder_for_leases_can_be_made_one_of_the_users_own_is_used() -> TestResult {
        let place = tempfile::tempdir()?;
        let own = place.path().join("config/own");
        std::fs::write(place.path().join("file"), "")?;
        // A folder that is not there, a file system that takes nothing, a file.
        for around in ["none", "/proc", "file"] {
            let usual = place.path().join(around).join("usual");
            let none = leases_in(&usual, None).err().ok_or("there is none")?;
            assert!(none.reason.contains("`TMPDIR`"), "{none}");
            let neither = leases_in(&usual, Some(Path::new("/proc/none/own")));
            let neither = neither.err().ok_or("there is none")?;
            assert!(neither.reason.contains("/proc/none"), "{neither}");
            assert_eq!(leases_in(&usual, Some(&own))?, own);
            std::fs::remove_dir(&own)?;
        }
        Ok(())
    }

    #[test]
    fn a_folder_of_leases_that_others_could_write_to_is_closed_and_theirs_removed() -> TestResult {
        let place = tempfile::tempdir()?;
        let usual = place.path().join("usual");
        std::fs::create_dir(&usual)?;
        std::fs::set_permissions(&usual, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        std::fs::write(usual.join("cpu-0.lock"), "")?;
        chown(usual.join("cpu-0.lock"), Some(42_424), Some(42_424))?;
        assert_eq!(leases_in(&usual, None)?, usual);
        assert_eq!(std::fs::metadata(&usual)?.mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&usual)?.count(), 0);
        Ok(())
    }
}
