//! Linux isolation: namespaces, control groups, seccomp, mounts, capabilities, and the launcher process.
//!
//! The only crate with unsafe code. Knows nothing of pipelines or runners.
//!
//! # Processes
//! ```text
//! agent ──► launcher ──► init of a sandbox ──► payload
//!        └─ many threads   └─ one thread each, forks, never another program
//! ```
//! [`Launcher::start`] forks the *launcher* off while the agent has one thread, since forking a
//! threaded process is safe only to run another program; an agent that may find that it launches
//! nothing forks it alone ([`ForkedLauncher`]), and starts it once it has threads. The launcher forks an *init* into new
//! namespaces per sandbox; the init builds the sandbox from inside, starts the payload, reaps.
//! The agent holds a socket per sandbox: dropping [`Sandbox`] closes it, which kills the tree. When
//! the agent dies, its sockets close, and the launcher ends everything; when the launcher dies, the
//! kernel kills each init, and with it the process namespace.
//!
//! # Files
//! What a sandbox shares with others (system directories, images, packages, inputs) lies under
//! read-only overlays, and devices are its own, so that no lock, lease or watch is felt elsewhere.
//!
//! # Network
//! A sandbox has a network namespace of its own without a way out. With [`Network::Brokered`], the
//! init makes every address local to it, redirects all TCP and DNS to sockets that it opens there,
//! rejects and logs the rest, and only then gives up the capabilities with which that could be
//! undone. The agent gets the sockets ([`Sandbox::take_intercepted`]) and decides about each
//! connection; what it does not relay goes nowhere.
//!
//! # Tunnels
//! [`Launcher::tunnel`] makes a network namespace without a sandbox, out of which leads one TUN
//! device in the agent's hands; a process of its own opens sockets there for the agent.
//!
//! # Secrets
//! [`LockedBytes`] is memory that is neither dumped nor swapped. It has nothing to do with sandboxes,
//! and is here because it takes unsafe code.
//!
//! # In tests
//! The test harness has threads before a test runs. A test binary that launches sandboxes sets
//! `harness = false`, starts the launcher first thing in `main`, then runs its tests, for example
//! with `libtest-mimic`; see `tests/sandbox/main.rs`.
//!
//! # Needs
//! Linux 5.14 or newer. What else a host lacks is told by [`HostReport`] and [`Enforcement`].

mod cgroup;
mod error;
mod init;
mod launcher;
mod memory;
mod meter;
mod netlink;
mod network;
mod refusal;
mod refused;
mod report;
mod rtnetlink;
mod sandbox;
mod seccomp;
mod spec;
mod sys;
mod tunnel;
mod usage;
mod wire;

pub use error::{LaunchError, SandboxError, StartError, Step, TunnelError};
pub use launcher::{ForkedLauncher, Launcher, LauncherConfig, Swept};
pub use memory::{LockedBytes, PinnedFile, unlocked_bytes};
pub use meter::Meter;
pub use network::{Brokered, Capture, Intercepted, Network};
pub use refusal::{RefusedPacket, parse_refusals};
pub use refused::more_processes;
pub use report::{
    Availability, CgroupLayout, Control, Controller, Enforcement, Exit, ExitStatus, HostReport,
    Level, Placement, Source, Usage,
};
pub use rustix::process::Signal;
pub use sandbox::Sandbox;
pub use spec::{
    HostIdentity, Identity, Isolation, Limits, Mount, Root, SandboxName, Spec, SpecError, Stdio,
};
pub use sys::fail_beyond_file_size;
pub use tunnel::{InternetFamily, Prefix, TunnelNamespace, TunnelNetwork};
