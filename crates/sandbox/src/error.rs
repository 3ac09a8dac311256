//! What can go wrong, per operation.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::refused;
use crate::spec::{SandboxName, SpecError};

/// Why the launcher could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The process has more than one thread already.
    #[error("the launcher must be started while the process has one thread; it has {threads}")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// The prefix is no name.
    #[error("control group prefix {prefix:?} is not 1 to 64 lower-case letters, digits, hyphens")]
    Prefix {
        /// What was given.
        prefix: String,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The launcher process could not be set up.
    #[error("the launcher process cannot {step}")]
    SetUp {
        /// Which step failed.
        step: Step,
        /// The reason.
        source: io::Error,
    },
}

impl StartError {
    /// What to do about it, where that is known: whole sentences.
    pub fn remedy(&self) -> Option<String> {
        let (Self::System { source, .. } | Self::SetUp { source, .. }) = self else {
            return None;
        };
        refused::remedy(source.raw_os_error()?)
    }
}

/// Why a sandbox did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The specification is not acceptable.
    #[error("the sandbox specification is not valid")]
    InvalidSpec(#[from] SpecError),
    /// A sandbox of this name lives.
    #[error("a sandbox named {name} is running already")]
    NameInUse {
        /// The name.
        name: SandboxName,
    },
    /// The host gives no user namespaces. `reason` and `remedy` are whole sentences.
    #[error("no sandbox can be made on this host: {reason}")]
    UserNamespaces {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// The program could not be run inside.
    #[error("cannot run {program} in the sandbox")]
    Execute {
        /// The program as it was given.
        program: String,
        /// The reason.
        source: io::Error,
    },
    /// The kernel has no overlay file system, and the root lacks places that something is mounted on.
    #[error(
        "cannot make the root file system: this kernel has no overlay file system, and the image \
         lacks folders that something is mounted on"
    )]
    NoOverlay(#[source] io::Error),
    /// The host does not let a step of setting sandboxes up be done, for any.
    #[error("this host refuses to {step}{}", at(path.as_ref()))]
    Refused {
        /// Which.
        step: Step,
        /// On what, if on a path.
        path: Option<PathBuf>,
        /// The reason.
        source: io::Error,
        /// What to do about it: whole sentences.
        remedy: String,
    },
    /// A step of setting the sandbox up failed.
    #[error("cannot {step}{}", at(path.as_ref()))]
    SetUp {
        /// Which.
        step: Step,
        /// On what, if on a path.
        path: Option<PathBuf>,
        /// The reason.
        source: io::Error,
    },
    /// The init of the sandbox died before the payload ran.
    #[error("the sandbox died while it was being set up")]
    Died,
    /// The launcher is gone or does not answer.
    #[error("the launcher process is gone")]
    LauncherGone(#[source] io::Error),
}

/// Why a tunnel's namespace was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// What was asked for is not acceptable.
    #[error("the tunnel's network is not valid: {reason}")]
    Network {
        /// What holds of one that is.
        reason: &'static str,
    },
    /// The host gives no user namespaces. `reason` and `remedy` are whole sentences.
    #[error("no network namespace can be made on this host: {reason}")]
    UserNamespaces {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// A step of setting it up failed.
    #[error("cannot {step}{}", at(path.as_ref()))]
    SetUp {
        /// Which.
        step: Step,
        /// On what, if on a path.
        path: Option<PathBuf>,
        /// The reason.
        source: io::Error,
    },
    /// The launcher is gone or does not answer.
    #[error("the launcher process is gone")]
    LauncherGone(#[source] io::Error),
}

/// Why a running sandbox could not be asked or told something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The launcher died, and the sandbox with it; how it ended is not known.
    #[error("the launcher process died, and the sandbox with it")]
    LauncherGone,
    /// A system call failed.
    #[error("cannot reach the launcher process")]
    Channel(#[source] io::Error),
    /// Stale control groups could not be removed.
    #[error("cannot remove stale control groups: {detail}")]
    Sweep {
        /// Which and why.
        detail: String,
    },
}

fn at(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| format!(" {}", path.display()))
}

/// A step of setting a sandbox up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Receiving the request.
    Receive,
    /// Keeping the launcher's memory to itself.
    Hide,
    /// Preparing the launcher.
    Prepare,
    /// `clone3` with the namespaces.
    CreateNamespaces,
    /// Writing the user and group maps.
    MapIdentity,
    /// Giving a writable source to the payload's host identity.
    GiveSource,
    /// Opening a bind source.
    OpenSource,
    /// Creating or limiting a control group.
    ControlGroup,
    /// Entering the control group.
    JoinControlGroup,
    /// Becoming the payload's identity.
    BecomePayload,
    /// Tying the life of the sandbox to the launcher's.
    TieLife,
    /// Bringing the loopback device up.
    Loopback,
    /// Setting the host name.
    HostName,
    /// Making the root file system.
    MakeRoot,
    /// Mounting a bind or tmpfs.
    Mount,
    /// Mounting `/proc`.
    MountProc,
    /// Hiding a kernel path.
    MaskPath,
    /// Making `/dev`.
    MakeDev,
    /// Changing the root.
    PivotRoot,
    /// Opening a listening socket.
    Listen,
    /// Leading what the payload sends to the agent.
    Intercept,
    /// Opening the device that TUN devices are made with.
    OpenTun,
    /// Making a TUN device.
    MakeTun,
    /// Giving a TUN device its addresses and routes.
    ConfigureTun,
    /// Setting resource limits.
    ResourceLimits,
    /// Pinning to cores.
    PinCpus,
    /// Dropping capabilities.
    DropCapabilities,
    /// Installing Landlock rules.
    Landlock,
    /// Installing the system call filter.
    Seccomp,
    /// Wiring the standard streams.
    Streams,
    /// Entering the working directory.
    WorkingDirectory,
    /// Starting the payload's process.
    Fork,
    /// Running the program.
    Execute,
}

impl Step {
    /// Whether it is the same for all sandboxes of a host, so that who is refused with this number once
    /// is refused always.
    fn is_of_the_host(self, errno: i32) -> bool {
        match self {
            // Who is told so otherwise may not pass a folder, or open a file.
            _ if errno == libc::EACCES => {
                matches!(self, Self::MakeRoot | Self::MountProc | Self::PivotRoot)
            }
            Self::CreateNamespaces
            | Self::OpenSource
            | Self::BecomePayload
            | Self::TieLife
            | Self::Loopback
            | Self::HostName
            | Self::MakeRoot
            | Self::Mount
            | Self::MountProc
            | Self::MaskPath
            | Self::MakeDev
            | Self::PivotRoot
            | Self::Intercept
            | Self::DropCapabilities
            | Self::Landlock
            | Self::Seccomp
            | Self::Fork => true,
            Self::Receive
            | Self::Hide
            | Self::Prepare
            | Self::MapIdentity
            | Self::GiveSource
            | Self::ControlGroup
            | Self::JoinControlGroup
            | Self::Listen
            | Self::OpenTun
            | Self::MakeTun
            | Self::ConfigureTun
            | Self::ResourceLimits
            | Self::PinCpus
            | Self::Streams
            | Self::WorkingDirectory
            | Self::Execute => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receive => "receive the request",
            Self::Hide => "keep its memory from being read or dumped",
            Self::Prepare => "make what it waits on",
            Self::CreateNamespaces => "create the namespaces",
            Self::MapIdentity => "map the user into the sandbox",
            Self::GiveSource => "give the payload's user the writable directory",
            Self::OpenSource => "open the mount source",
            Self::ControlGroup => "prepare the control group",
            Self::JoinControlGroup => "enter the control group",
            Self::BecomePayload => "become the payload's user",
            Self::TieLife => "tie the sandbox to the launcher",
            Self::Loopback => "bring up the loopback device",
            Self::HostName => "set the host name",
            Self::MakeRoot => "make the root file system",
            Self::Mount => "mount on",
            Self::MountProc => "mount /proc",
            Self::MaskPath => "mask",
            Self::MakeDev => "make",
            Self::PivotRoot => "change the root",
            Self::Listen => "listen on",
            Self::Intercept => "intercept the network",
            Self::OpenTun => "open",
            Self::MakeTun => "make the tunnel's device",
            Self::ConfigureTun => "set the tunnel's addresses and routes",
            Self::ResourceLimits => "set resource limits",
            Self::PinCpus => "pin to the given cores",
            Self::DropCapabilities => "drop capabilities",
            Self::Landlock => "install the Landlock rules",
            Self::Seccomp => "install the system call filter",
            Self::Streams => "wire the standard streams",
            Self::WorkingDirectory => "enter the working directory",
            Self::Fork => "start the payload's process",
            Self::Execute => "run",
        })
    }
}

/// A failed step as it travels from the child to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) path: Option<PathBuf>,
    pub(crate) errno: i32,
}

impl Failure {
    pub(crate) fn new(step: Step, errno: rustix::io::Errno) -> Self {
        Self {
            step,
            path: None,
            errno: errno.raw_os_error(),
        }
    }

    pub(crate) fn at(step: Step, path: impl Into<PathBuf>, errno: rustix::io::Errno) -> Self {
        Self {
            step,
            path: Some(path.into()),
            errno: errno.raw_os_error(),
        }
    }

    pub(crate) fn io(step: Step, error: &io::Error) -> Self {
        Self {
            step,
            path: None,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    /// The error that the caller sees who asked for a tunnel.
    pub(crate) fn into_tunnel_error(self) -> TunnelError {
        let source = io::Error::from_raw_os_error(self.errno);
        let Self { step, path, .. } = self;
        TunnelError::SetUp { step, path, source }
    }

    /// The error that the caller of a launch sees.
    pub(crate) fn into_error(self) -> LaunchError {
        let source = io::Error::from_raw_os_error(self.errno);
        match self {
            Self {
                step: Step::Execute,
                path: Some(path),
                ..
            } => LaunchError::Execute {
                program: path.display().to_string(),
                source,
            },
            // Nothing else of the root is a file system that a kernel may lack.
            Self {
                step: Step::MakeRoot,
                errno: libc::ENODEV,
                ..
            } => LaunchError::NoOverlay(source),
            Self { step, path, errno }
                if step.is_of_the_host(errno) && refused::NUMBERS.contains(&errno) =>
            {
                match refused::remedy(errno) {
                    Some(remedy) => LaunchError::Refused {
                        step,
                        path,
                        source,
                        remedy,
                    },
                    None => LaunchError::SetUp { step, path, source },
                }
            }
            Self { step, path, .. } => LaunchError::SetUp { step, path, source },
        }
    }
}

/// Names the step that a system call belongs to.
pub(crate) trait InStep<T> {
    fn step(self, step: Step) -> Result<T, Failure>;
    fn step_at(self, step: Step, path: impl Into<PathBuf>) -> Result<T, Failure>;
}

impl<T> InStep<T> for rustix::io::Result<T> {
    fn step(self, step: Step) -> Result<T, Failure> {
        self.map_err(|errno| Failure::new(step, errno))
    }

    fn step_at(self, step: Step, path: impl Into<PathBuf>) -> Result<T, Failure> {
        self.map_err(|errno| Failure::at(step, path, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_overlays_is_told_as_such() {
        let failure = Failure::new(Step::MakeRoot, rustix::io::Errno::NODEV);
        let error = failure.into_error();
        assert!(matches!(error, LaunchError::NoOverlay(_)), "{error}");
        assert!(error.to_string().contains("overlay"), "{error}");
        let failure = Failure::new(Step::MakeRoot, rustix::io::Errno::NOMEM);
        assert!(matches!(failure.into_error(), LaunchError::SetUp { .. }));
    }
}
