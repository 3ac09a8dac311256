//! What the embedded backends of one agent share: the launcher, a clock, a name.

use std::{error::Error, io::ErrorKind, sync::Arc};

use barecount_model::{
    capability::{Most, OPEN_FILES, PROCESSES, above},
    class::{NetworkProfile, RunnerClass},
};
use barecount_network::path::Paths;
use barecount_sandbox::{Availability, Controller, HostReport, LaunchError, Launcher, Step};

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
            most: Bounds::here().held_by(self.launcher.host()).most(),
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

    /// The same on a host whose control groups count no processes: then the hard limit of the user
    /// bounds what the payload's own can be, less the sandbox's first process.
    fn held_by(self, report: &HostReport) -> Self {
        let counted = report.controllers.get(&Controller::Pids);
        if counted.is_some_and(Availability::is_available) {
            return self;
        }
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum;
        Self {
            pids: self
                .pids
                .min(hard.map_or(u64::MAX, |hard| hard.saturating_sub(1))),
            ..self
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
            (OPEN_FILES, u64::from(limits.open_files), self.open_files),
            (PROCESSES, u64::from(limits.pids), self.pids),
        ];
        for (what, wanted, most) in asked {
            if wanted > most {
                return Err(RunnerError::Unlaunchable {
                    reason: format!("a limit of {wanted} {what} is above the {most} of this host"),
                    remedy: above(what).to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Tells launches that can never succeed from those that may another time.
pub(crate) fn launch_failure(error: LaunchError) -> RunnerError {
    let Some(remedy) = remedy(&error) else {
        return failure("start a sandbox", error);
    };
    RunnerError::Unlaunchable {
        reason: chain(&error),
        remedy,
    }
}

fn remedy(error: &LaunchError) -> Option<String> {
    let remedy = match error {
        LaunchError::UserNamespaces { remedy, .. } | LaunchError::Refused { remedy, .. } => remedy,
        LaunchError::InvalidSpec(_) => {
            "Correct the stage's command, variables or size in the manifest."
        }
        LaunchError::NoOverlay(_) => {
            "Load it on the host (as root: modprobe overlay), or use a kernel that has it."
        }
        LaunchError::Execute { program, source }
            if source.kind() == ErrorKind::PermissionDenied && is_on_noexec(program) =>
        {
            "The state folder is on a file system that is mounted noexec: name a folder elsewhere \
             with `--state`, or mount that one without noexec."
        }
        LaunchError::Execute { .. } => {
            "Check that the program is in the image or package, is executable, and is built for \
             this host."
        }
        LaunchError::SetUp {
            step: Step::ResourceLimits,
            source,
            ..
        } if source.kind() == ErrorKind::PermissionDenied => {
            "Raise the agent's hard limits of open files and processes (ulimit -Hn and -Hu; \
             LimitNOFILE= and LimitNPROC= in its unit) to those of the stage's size."
        }
        LaunchError::SetUp {
            step: Step::ControlGroup | Step::ResourceLimits | Step::PinCpus,
            source,
            ..
        } if source.kind() == ErrorKind::InvalidInput
            || source.kind() == ErrorKind::PermissionDenied =>
        {
            "Choose a smaller size, or give the agent's own control group more."
        }
        _ => return None,
    };
    Some(remedy.to_owned())
}

/// Whether nothing can be run from where a program of the host is.
fn is_on_noexec(program: &str) -> bool {
    use rustix::fs::StatVfsMountFlags;
    let found = rustix::fs::statvfs(program);
    found.is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::NOEXEC))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: LaunchError) -> Result<String, RunnerError> {
        match launch_failure(error) {
            RunnerError::Unlaunchable { remedy, .. } => Ok(remedy),
            other => Err(other),
        }
    }

    fn set_up(step: Step, errno: rustix::io::Errno) -> LaunchError {
        LaunchError::SetUp {
            step,
            path: None,
            source: errno.into(),
        }
    }

    #[test]
    fn what_a_host_lacks_is_told_with_what_would_help() -> Result<(), RunnerError> {
        let no_overlay = LaunchError::NoOverlay(rustix::io::Errno::NODEV.into());
        assert!(told(no_overlay)?.contains("modprobe overlay"));
        let limits = told(set_up(Step::ResourceLimits, rustix::io::Errno::PERM))?;
        assert!(
            limits.contains("LimitNPROC=") && !limits.contains("smaller size"),
            "{limits}"
        );
        let refused = LaunchError::Refused {
            step: Step::PivotRoot,
            path: None,
            source: rustix::io::Errno::PERM.into(),
            remedy: "Run it under no filter.".to_owned(),
        };
        assert_eq!(told(refused)?, "Run it under no filter.");
        let busy = told(set_up(Step::CreateNamespaces, rustix::io::Errno::AGAIN));
        assert!(busy.is_err(), "another try may cure it");
        Ok(())
    }

    /// `cargo xtask vm` has the other case: this machine may have no such file system.
    #[test]
    fn a_program_that_cannot_be_run_where_others_can_is_told_as_such() -> Result<(), RunnerError> {
        let refused = LaunchError::Execute {
            program: "/bin/sh".to_owned(),
            source: std::io::Error::from(ErrorKind::PermissionDenied),
        };
        assert!(told(refused)?.contains("is executable"));
        Ok(())
    }
}
