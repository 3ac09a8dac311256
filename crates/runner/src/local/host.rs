//! What the embedded backends of one agent share: the launcher, a clock, a name.

use std::{error::Error, io::ErrorKind, sync::Arc};

use barecount_model::{
    capability::Most,
    class::{NetworkProfile, RunnerClass},
};
use barecount_network::path::Paths;
use barecount_sandbox::{Availability, HostReport, LaunchError, Launcher, Step};

use crate::{
    Capabilities, Health, RunnerError,
    clock::Clock,
    launch::{Isolation, Limits},
};

/// The name of the embedded backends in evidence.
pub(crate) const BACKEND: &str = "local";

/// One less than `PID_MAX_LIMIT`, for the sandbox's own first process.
const PIDS_MAX: u64 = (4 << 20) - 1;

/// This host, as the embedded backends use it.
#[derive(Clone)]
pub struct Host {
    /// Starts sandboxes.
    pub launcher: Arc<Launcher>,
    /// Graces and idle times run on it.
    pub clock: Arc<dyn Clock>,
    /// By which way connections leave, for each network profile.
    pub paths: Paths,
    /// The weakest boundary that this agent is allowed to give. With [`Isolation::Process`] a host
    /// without user namespaces still takes work that asks for no more.
    pub weakest: Isolation,
}

impl Host {
    pub(crate) fn capabilities(&self, class: RunnerClass) -> Capabilities {
        Capabilities {
            class,
            backend: BACKEND.to_owned(),
            most: Bounds::here().most(),
            architectures: vec![architecture().to_owned()],
            network_profiles: NetworkProfile::ALL.to_vec(),
            // Handlers and jobs have folders that only namespaces give.
            bare_processes: matches!(
                class,
                RunnerClass::Container | RunnerClass::DedicatedCompute
            ),
            graceful_stop: true,
            survives_agent: false,
        }
    }

    /// Whether sandboxes can be started here.
    pub(crate) fn health(&self) -> Health {
        health(self.launcher.host(), self.weakest)
    }
}

fn health(report: &HostReport, weakest: Isolation) -> Health {
    match (&report.user_namespaces, weakest) {
        (Availability::Unavailable { reason, remedy }, Isolation::Sandbox) => Health::Unhealthy {
            reason: reason.clone(),
            remedy: remedy.clone(),
        },
        _ => Health::Healthy,
    }
}

/// This host's processors, as OCI calls them.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A failure of the embedded backends that another try may cure.
pub(crate) fn failure(
    operation: &'static str,
    source: impl Into<Box<dyn Error + Send + Sync>>,
) -> RunnerError {
    RunnerError::Backend {
        backend: BACKEND.to_owned(),
        operation,
        source: source.into(),
    }
}

/// What of a launch's limits a host may be unable to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Open files per process: nobody inside a sandbox can have more than its launcher may.
    pub(crate) open_files: u64,
    /// Processes and threads that the kernel counts to.
    pub(crate) pids: u64,
}

impl Bounds {
    /// Those of this process, which its launcher inherited.
    pub(crate) fn here() -> Self {
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        Self {
            open_files: open_files.unwrap_or(u64::MAX),
            pids: PIDS_MAX,
        }
    }

    /// The same as placement is told. Memory, processors and disk are caps here and no reservation:
    /// a size may be worth more than the host has.
    pub(crate) fn most(self) -> Most {
        Most {
            pids: Some(self.pids),
            open_files: Some(self.open_files),
            ..Most::default()
        }
    }

    /// Refuses limits that can never be given, and says which.
    pub(crate) fn admit(self, limits: &Limits) -> Result<(), RunnerError> {
        let asked = [
            ("open files", u64::from(limits.open_files), self.open_files),
            ("processes", u64::from(limits.pids), self.pids),
        ];
        for (what, wanted, most) in asked {
            if wanted > most {
                return Err(RunnerError::Unlaunchable {
                    reason: format!("a limit of {wanted} {what} is above the {most} of this host"),
                    remedy: format!("Choose a smaller size, or raise the host's limit of {what}."),
                });
            }
        }
        Ok(())
    }
}

/// Tells launches that can never succeed from those that may another time.
pub(crate) fn launch_failure(error: LaunchError) -> RunnerError {
    let remedy = match &error {
        LaunchError::UserNamespaces { remedy, .. } => remedy.clone(),
        LaunchError::InvalidSpec(_) => {
            "Correct the stage's command, variables or size in the manifest.".to_owned()
        }
        LaunchError::Execute { .. } => {
            "Check that the program is in the image or package, is executable, and is built for \
             this host."
                .to_owned()
        }
        LaunchError::SetUp {
            step: Step::ControlGroup | Step::ResourceLimits | Step::PinCpus,
            source,
            ..
        } if source.kind() == ErrorKind::InvalidInput
            || source.kind() == ErrorKind::PermissionDenied =>
        {
            "Choose a smaller size, or give the agent's own control group more.".to_owned()
        }
        _ => return failure("start a sandbox", error),
    };
    RunnerError::Unlaunchable {
        reason: chain(&error),
        remedy,
    }
}

/// An error and its sources in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
