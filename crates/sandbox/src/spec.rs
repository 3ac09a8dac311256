//! What a sandbox is to be: plain data, checked once at the edge, before anything is started.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::network::Network;

/// The most arguments and environment entries together that a specification may carry.
const MAX_STRINGS: usize = 8192;
/// The most bytes of arguments and environment together; Linux itself stops at 2 MiB by default.
const MAX_STRING_BYTES: usize = 1 << 20;
/// The most mounts of a specification.
const MAX_MOUNTS: usize = 256;
/// The most listening sockets of a specification (`SCM_MAX_FD` is 253).
const MAX_LISTENERS: usize = 128;

/// The name of a sandbox, and the token that makes a launch idempotent: while a sandbox of this
/// name lives, a second launch of the name is refused.
///
/// Lower-case letters, digits and hyphens, 1 to 64 of them. It is the host name inside as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxName(String);

impl SandboxName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`SpecError::Name`] when it is empty, too long, or has another character.
    pub fn new(name: impl Into<String>) -> Result<Self, SpecError> {
        let name = name.into();
        if is_name(&name) {
            Ok(Self(name))
        } else {
            Err(SpecError::Name { name })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SandboxName {
    type Error = SpecError;

    fn try_from(name: String) -> Result<Self, SpecError> {
        Self::new(name)
    }
}

impl From<SandboxName> for String {
    fn from(name: SandboxName) -> Self {
        name.0
    }
}

/// Whether text is 1 to 64 of `[a-z0-9-]`.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// All that a launch needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Name and idempotency token.
    pub name: SandboxName,
    /// What `/` is inside.
    pub root: Root,
    /// What is mounted into it, in this order.
    pub mounts: Vec<Mount>,
    /// The program and its arguments. A program without a slash is looked for in the `PATH` of
    /// `env`, inside the sandbox.
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute, inside the sandbox.
    pub cwd: PathBuf,
    /// Who the payload is.
    pub identity: Identity,
    /// What it may use.
    pub limits: Limits,
    /// TCP addresses to listen on in the sandbox's network namespace before the payload starts. The
    /// sockets are handed out in this order by [`crate::Sandbox::take_listeners`]; the payload
    /// does not hold them.
    pub listeners: Vec<SocketAddr>,
    /// What the payload can reach.
    pub network: Network,
    /// How far it is kept apart from the host.
    pub isolation: Isolation,
}

impl Spec {
    /// A specification with nothing but a name and a program: host's system directories, no mounts,
    /// an empty environment, `/tmp` as working directory, default limits, full isolation.
    pub fn new(name: SandboxName, argv: Vec<String>) -> Self {
        Self {
            name,
            root: Root::HostSystem,
            mounts: Vec::new(),
            argv,
            env: Vec::new(),
            cwd: PathBuf::from("/tmp"),
            identity: Identity::default(),
            limits: Limits::default(),
            listeners: Vec::new(),
            network: Network::Loopback,
            isolation: Isolation::Sandbox,
        }
    }

    /// Checks everything that can be known without the host.
    ///
    /// # Errors
    /// The first [`SpecError`] found.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.validate_strings()?;
        check_path("cwd", &self.cwd)?;
        if let Root::Directory(path) = &self.root {
            check_path("root", path)?;
        }
        bounded("mounts", self.mounts.len(), MAX_MOUNTS)?;
        for mount in &self.mounts {
            mount.validate()?;
        }
        bounded("listeners", self.listeners.len(), MAX_LISTENERS)?;
        if self.identity.uid == 0 || self.identity.gid == 0 {
            return Err(SpecError::RootInside);
        }
        if matches!(
            self.identity.host,
            Some(HostIdentity { uid: 0, .. } | HostIdentity { gid: 0, .. })
        ) {
            return Err(SpecError::RootOutside);
        }
        self.limits.validate()?;
        if let Network::Brokered(brokered) = &self.network {
            brokered.validate()?;
        }
        if self.isolation == Isolation::Process {
            if !self.mounts.is_empty() {
                return Err(SpecError::NeedsNamespaces { field: "mounts" });
            }
            if self.root != Root::HostSystem {
                return Err(SpecError::NeedsNamespaces { field: "root" });
            }
            if self.network != Network::Loopback {
                return Err(SpecError::NeedsNamespaces { field: "network" });
            }
        }
        Ok(())
    }

    fn validate_strings(&self) -> Result<(), SpecError> {
        match self.argv.first() {
            None => return Err(SpecError::NoProgram),
            Some(program) if program.is_empty() => return Err(SpecError::NoProgram),
            Some(_) => {}
        }
        bounded(
            "argv and env",
            self.argv.len() + self.env.len(),
            MAX_STRINGS,
        )?;
        let bytes = self.argv.iter().map(String::len).sum::<usize>()
            + self
                .env
                .iter()
                .map(|(key, value)| key.len() + value.len() + 1)
                .sum::<usize>();
        bounded("bytes of argv and env", bytes, MAX_STRING_BYTES)?;
        if self.argv.iter().any(|text| text.contains('\0')) {
            return Err(SpecError::NulByte { field: "argv" });
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains('=') {
                return Err(SpecError::EnvironmentKey { key: key.clone() });
            }
            if key.contains('\0') || value.contains('\0') {
                return Err(SpecError::NulByte { field: "env" });
            }
        }
        Ok(())
    }
}

/// What `/` is inside a sandbox. Read-only in every case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// The host's programs and libraries (`/usr`, `/bin`, `/lib*`), read-only, with a small `/etc`
    /// of our own making: user database, loader cache, certificates. Nothing else of the host.
    HostSystem,
    /// A directory that holds a root file system, for example an unpacked image.
    Directory(PathBuf),
    /// Nothing but `/proc`, `/dev`, `/tmp` and the mounts.
    Empty,
}

/// Something mounted into a sandbox. Set-user-id bits and device nodes never work in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A directory or file of the host.
    ///
    /// When the launcher runs as root, the top entry of a *writable* source is given to the host
    /// identity of the payload (`chown`, not recursive); what lies in a read-only source must
    /// be readable for that identity.
    Bind {
        /// Where it is on the host: absolute, no `..`.
        source: PathBuf,
        /// Where it appears inside: absolute, no `..`; links in it are resolved inside the root.
        target: PathBuf,
        /// Whether writing is refused.
        read_only: bool,
        /// Whether programs in it may be run.
        executable: bool,
        /// Whether what changes in it while the sandbox runs is to be seen. What does not change, and
        /// is read-only, gets inodes of the sandbox's own, by an overlay, under which nothing may
        /// change that was looked at; and file systems that are mounted below are not seen. What
        /// changes is bound itself, and should be this sandbox's alone: by its locks, leases and
        /// watches others would be met. Nothing where it is writable.
        changes: bool,
    },
    /// An empty file system in memory, which counts against the memory limit.
    Tmpfs {
        /// Where it appears inside.
        target: PathBuf,
        /// How much it holds.
        size_bytes: u64,
    },
}

impl Mount {
    /// Where it appears inside.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }

    fn validate(&self) -> Result<(), SpecError> {
        if let Self::Bind { source, .. } = self {
            check_path("mount source", source)?;
        }
        let target = self.target();
        check_path("mount target", target)?;
        let reserved = ["/proc", "/dev"].iter().any(|top| target.starts_with(top));
        if reserved || target == Path::new("/") {
            return Err(SpecError::ReservedTarget {
                target: target.to_owned(),
            });
        }
        Ok(())
    }
}

/// Who the payload is, inside and outside. No other user or group exists inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id inside; never 0.
    pub uid: u32,
    /// Group id inside; never 0.
    pub gid: u32,
    /// Who it is on the host when the launcher runs as root; `None` takes one of the launcher's
    /// [`crate::LauncherConfig::payload_identities`]. As an ordinary user the payload is that user.
    pub host: Option<HostIdentity>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            uid: 1000,
            gid: 1000,
            host: None,
        }
    }
}

/// A user and group of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What a payload may use. `None` is no limit of ours, except where a default is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory of the whole tree, page cache and swap included, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time in thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Cores to be pinned to.
    pub cpus: Option<Vec<u32>>,
    /// Processes and threads of the whole tree.
    pub pids: Option<u32>,
    /// Open files per process; 1024 by default.
    pub open_files: Option<u64>,
    /// Size of a file written, in bytes.
    pub file_size_bytes: Option<u64>,
    /// Size of `/tmp` (and, apart, of `/dev/shm`) in bytes; 64 MiB by default.
    pub tmp_bytes: Option<u64>,
}

/// Processes and threads of our own that count against the pids limit of a tree: the init.
pub(crate) const OWN_PIDS: u32 = 1;

impl Limits {
    /// Size of `/tmp` and `/dev/shm` in bytes.
    pub(crate) fn tmp_size(&self) -> u64 {
        self.tmp_bytes.unwrap_or(64 << 20)
    }

    /// Open files per process.
    pub(crate) fn open_files(&self) -> u64 {
        self.open_files.unwrap_or(1024)
    }

    fn validate(&self) -> Result<(), SpecError> {
        let at_least = |limit: &'static str, value: Option<u64>, least: u64| match value {
            Some(value) if value < least => Err(SpecError::LimitTooSmall {
                limit,
                value,
                least,
            }),
            _ => Ok(()),
        };
        at_least("memory_bytes", self.memory_bytes, 1 << 20)?;
        // Linux takes no quota below a millisecond per period.
        at_least("cpu_millis", self.cpu_millis.map(u64::from), 10)?;
        at_least("pids", self.pids.map(u64::from), 1)?;
        at_least("open_files", self.open_files, 8)?;
        at_least("tmp_bytes", self.tmp_bytes, 4096)?;
        match &self.cpus {
            Some(cpus) if cpus.is_empty() => Err(SpecError::Cpus { cpu: None }),
            Some(cpus) => match cpus.iter().find(|cpu| **cpu >= 1024) {
                Some(cpu) => Err(SpecError::Cpus { cpu: Some(*cpu) }),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// How far a payload is kept apart from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Namespaces, read-only root, no capabilities, system call filter.
    Sandbox,
    /// An ordinary process of the host with resource limits, for hosts without user namespaces.
    /// Only ever on explicit request.
    Process,
}

/// The three standard streams of a payload.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// All three on `/dev/null`.
    ///
    /// # Errors
    /// When the device cannot be opened.
    pub fn null() -> std::io::Result<Self> {
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        let stdin = OwnedFd::from(null);
        Ok(Self {
            stdout: stdin.try_clone()?,
            stderr: stdin.try_clone()?,
            stdin,
        })
    }
}

/// What is wrong with a specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A name that is not 1 to 64 of `[a-z0-9-]`.
    #[error("name {name:?} is not 1 to 64 lower-case letters, digits and hyphens")]
    Name {
        /// What was given.
        name: String,
    },
    /// `argv` is empty or its first entry is.
    #[error("argv names no program")]
    NoProgram,
    /// A NUL byte, which no string of the kernel can hold.
    #[error("{field} holds a NUL byte")]
    NulByte {
        /// Where.
        field: &'static str,
    },
    /// An environment key that is empty or holds `=`.
    #[error("environment key {key:?} is empty or holds '='")]
    EnvironmentKey {
        /// The key.
        key: String,
    },
    /// A path that is not absolute, not UTF-8, or climbs.
    #[error("{field} {} is not an absolute UTF-8 path without '..'", path.display())]
    Path {
        /// Where.
        field: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A mount over `/`, `/proc` or `/dev`.
    #[error("nothing may be mounted on {}", target.display())]
    ReservedTarget {
        /// The target.
        target: PathBuf,
    },
    /// Port 0, which nothing can be sent to.
    #[error("port 0 cannot be declared")]
    PortZero,
    /// More than is reasonable.
    #[error("{count} {field}, at most {most} are allowed")]
    TooMany {
        /// Of what.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A limit under which nothing can start.
    #[error("limit {limit} is {value}, less than {least}")]
    LimitTooSmall {
        /// Which.
        limit: &'static str,
        /// What was given.
        value: u64,
        /// The least that is taken.
        least: u64,
    },
    /// No core, or one that no Linux has.
    #[error("limit cpus is empty or names a core above 1023")]
    Cpus {
        /// The core, if one was named.
        cpu: Option<u32>,
    },
    /// User or group 0 inside.
    #[error("the payload may not be root inside")]
    RootInside,
    /// User or group 0 of the host.
    #[error("the payload may not be root on the host")]
    RootOutside,
    /// Something that process isolation cannot give.
    #[error("{field} cannot be had with isolation 'process'")]
    NeedsNamespaces {
        /// What.
        field: &'static str,
    },
}

fn bounded(field: &'static str, count: usize, most: usize) -> Result<(), SpecError> {
    if count > most {
        Err(SpecError::TooMany { field, count, most })
    } else {
        Ok(())
    }
}

fn check_path(field: &'static str, path: &Path) -> Result<(), SpecError> {
    let error = || SpecError::Path {
        field,
        path: path.to_owned(),
    };
    let text = path.to_str().ok_or_else(error)?;
    if text.contains('\0') {
        return Err(SpecError::NulByte { field });
    }
    let climbs = path
        .components()
        .any(|part| matches!(part, Component::ParentDir));
    // PATH_MAX counts the closing NUL.
    if !path.is_absolute() || climbs || text.len() >= 4096 {
        Err(error())
    } else {
        Ok(())
    }
}
