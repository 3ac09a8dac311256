//! The launcher: the agent's handle here, the process itself in the modules below.

mod birth;
mod enforce;
mod host;
mod identities;
mod readable;
mod server;
mod tunnel;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags};
use rustix::process::Signal;

use crate::error::{LaunchError, SandboxError, StartError, TunnelError};
use crate::report::HostReport;
use crate::sandbox::Sandbox;
use crate::spec::{HostIdentity, Spec, Stdio, is_name};
use crate::sys::{self, Forked};
use crate::tunnel::{TunnelNamespace, TunnelNetwork};
use crate::wire::{self, Answer, Request, Start};

/// How a launcher is set up.
#[derive(Clone, Debug)]
pub struct LauncherConfig {
    /// Begins the names of its control groups; the same for every launcher that may clear up after
    /// this one, and for no other. 1 to 64 lower-case letters, digits, hyphens.
    pub cgroup_prefix: String,
    /// Who payloads are on the host when the launcher runs as root, unless a specification says
    /// otherwise: the last of [`Self::payload_identities`]. Not used as an ordinary user.
    pub payload_identity: HostIdentity,
    /// How many identities there are for payloads, so that what the kernel counts for a user is each
    /// sandbox's own: pages of pipes, descriptors on their way. A sandbox gets the next one, or the
    /// one to which a writable source of its own belongs already.
    pub payload_identities: u32,
    /// Whether brokered networks are redirected by nf_tables where the kernel has them; without,
    /// only declared ports are listened on.
    pub use_nf_tables: bool,
    /// Whether what is refused in them is logged where the kernel can, which takes nf_tables too.
    pub use_packet_log: bool,
}

impl LauncherConfig {
    /// A configuration with a prefix and payload identities that nothing else should have: above
    /// the ranges of users, of subordinate ids and of systemd.
    pub fn new(cgroup_prefix: impl Into<String>) -> Self {
        let payload_identity = HostIdentity {
            uid: 1_999_999_999,
            gid: 1_999_999_999,
        };
        Self {
            cgroup_prefix: cgroup_prefix.into(),
            payload_identity,
            payload_identities: 1 << 20,
            use_nf_tables: true,
            use_packet_log: true,
        }
    }
}

/// What a sweep did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// How many control groups it removed.
    pub removed: u32,
}

/// The agent's handle of the launcher process. Dropping it ends the launcher and all its sandboxes.
#[derive(Debug)]
pub struct Launcher {
    process: Process,
    host: HostReport,
}

/// A launcher process that has done nothing yet. Dropping it ends the process.
#[derive(Debug)]
pub struct ForkedLauncher(Process);

#[derive(Debug)]
struct Process {
    control: OwnedFd,
    pid: i32,
}

impl ForkedLauncher {
    /// Forks the launcher process, which then waits to be started: whoever finds that nothing is to
    /// be launched has not paid for more than the fork.
    ///
    /// Must be called from the main thread while there is no other, before an async runtime starts
    /// and before secrets are loaded: the launcher is a copy of this process.
    ///
    /// # Errors
    /// [`StartError::Threads`] when there are other threads; the others when the host refuses.
    pub fn fork(config: LauncherConfig) -> Result<Self, StartError> {
        if !is_name(&config.cgroup_prefix) {
            return Err(StartError::Prefix {
                prefix: config.cgroup_prefix,
            });
        }
        let threads = std::fs::read_dir("/proc/self/task")
            .map_err(system("count the threads of this process"))?
            .count();
        if threads != 1 {
            return Err(StartError::Threads { threads });
        }
        let agent = std::process::id() as i32;
        let (control, theirs) =
            wire::socket_pair().map_err(|errno| system("open a socket pair")(errno.into()))?;
        let forked = sys::fork_into(0, None)
            .map_err(|errno| system("fork the launcher process")(errno.into()))?;
        let pid = match forked {
            Forked::Child => {
                // The agent's end must be closed here, or its death would not show.
                drop(control);
                server::run(config, theirs, agent)
            }
            Forked::Parent { pid, .. } => pid.as_raw_nonzero().get(),
        };
        Ok(Self(Process { control, pid }))
    }

    /// Starts it and waits until it has found out what the host can do. Threads may have been started
    /// since it was forked. Blocks for milliseconds; not cancellable.
    ///
    /// # Errors
    /// [`StartError::System`] when it has died.
    pub fn start(self) -> Result<Launcher, StartError> {
        let Self(process) = self;
        let none = SendFlags::empty();
        let told = wire::send(&process.control, &Start, &[], none);
        // Who could not be told to start has said before why.
        match wire::receive(&process.control, RecvFlags::empty()) {
            Ok(Some((Answer::Host(host), _))) => Ok(Launcher {
                process,
                host: *host,
            }),
            Ok(Some((Answer::Failed(failure), _))) => Err(StartError::SetUp {
                step: failure.step,
                source: io::Error::from_raw_os_error(failure.errno),
            }),
            Ok(_) => {
                told.map_err(|errno| system("start the launcher process")(errno.into()))?;
                let died = io::Error::from(io::ErrorKind::UnexpectedEof);
                Err(system("hear from the launcher process")(died))
            }
            Err(errno) => Err(system("hear from the launcher process")(errno.into())),
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

impl Launcher {
    /// Forks the launcher process and waits until it has found out what the host can do.
    ///
    /// # Errors
    /// As [`ForkedLauncher::fork`], where it may be called, and [`ForkedLauncher::start`].
    pub fn start(config: LauncherConfig) -> Result<Self, StartError> {
        ForkedLauncher::fork(config)?.start()
    }

    /// What this host can enforce.
    pub fn host(&self) -> &HostReport {
        &self.host
    }

    /// Process id of the launcher.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Starts a sandbox and waits until its payload runs its program. May be called from several
    /// threads at once. Blocks for milliseconds; not cancellable.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing is left of the sandbox then.
    pub fn launch(&self, spec: &Spec, stdio: Stdio) -> Result<Sandbox, LaunchError> {
        spec.validate()?;
        let gone = |errno: rustix::io::Errno| LaunchError::LauncherGone(errno.into());
        let (session, theirs) = wire::socket_pair().map_err(gone)?;
        let request = Request::Launch(Box::new(spec.clone()));
        let descriptors = [
            theirs.as_fd(),
            stdio.stdin.as_fd(),
            stdio.stdout.as_fd(),
            stdio.stderr.as_fd(),
        ];
        wire::send(
            &self.process.control,
            &request,
            &descriptors,
            SendFlags::empty(),
        )
        .map_err(gone)?;
        drop(theirs);
        drop(stdio);
        match wire::receive(&session, RecvFlags::empty()).map_err(gone)? {
            Some((answer @ Answer::Launched { .. }, beside)) => {
                Sandbox::launched(spec.name.clone(), answer, beside, session)
                    .ok_or_else(|| gone(rustix::io::Errno::BADMSG))
            }
            Some((Answer::NameInUse, _)) => Err(LaunchError::NameInUse {
                name: spec.name.clone(),
            }),
            Some((Answer::NoUserNamespaces { reason, remedy }, _)) => {
                Err(LaunchError::UserNamespaces { reason, remedy })
            }
            Some((Answer::Failed(failure), _)) => Err(failure.into_error()),
            Some((Answer::Died, _)) => Err(LaunchError::Died),
            Some(_) => Err(gone(rustix::io::Errno::BADMSG)),
            None => Err(gone(rustix::io::Errno::PIPE)),
        }
    }

    /// Makes a network namespace out of which leads one TUN device, and waits until it is ready.
    /// Blocks for milliseconds; not cancellable.
    ///
    /// # Errors
    /// [`TunnelError`]; nothing is left of it then.
    pub fn tunnel(&self, network: &TunnelNetwork) -> Result<TunnelNamespace, TunnelError> {
        TunnelNamespace::open(&self.process.control, network)
    }

    /// Kills and removes the control groups of our prefix that no live launcher owns: what is left
    /// after the agent and its launcher were killed.
    ///
    /// # Errors
    /// [`SandboxError::Sweep`] names those that would not go.
    pub fn sweep(&self) -> Result<Swept, SandboxError> {
        let channel = |errno: rustix::io::Errno| SandboxError::Channel(errno.into());
        let (ours, theirs) = wire::socket_pair().map_err(channel)?;
        wire::send(
            &self.process.control,
            &Request::Sweep,
            &[theirs.as_fd()],
            SendFlags::empty(),
        )
        .map_err(channel)?;
        drop(theirs);
        match wire::receive(&ours, RecvFlags::empty()).map_err(channel)? {
            Some((Answer::Swept { removed, left }, _)) if left.is_empty() => Ok(Swept { removed }),
            Some((Answer::Swept { left, .. }, _)) => Err(SandboxError::Sweep {
                detail: left.join(", "),
            }),
            Some(_) => Err(channel(rustix::io::Errno::BADMSG)),
            None => Err(SandboxError::LauncherGone),
        }
    }
}

impl Drop for Process {
    /// Waits for the launcher to end, so that nothing of it outlives the handle.
    fn drop(&mut self) {
        let (stand_in, _) = match wire::socket_pair() {
            Ok(pair) => pair,
            // The launcher sees the socket close as soon as the field is dropped.
            Err(_) => return,
        };
        drop(std::mem::replace(&mut self.control, stand_in));
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            let options = rustix::process::WaitOptions::empty();
            let waited = wire::retry(|| rustix::process::waitpid(Some(pid), options));
            if waited.is_err() {
                _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}
