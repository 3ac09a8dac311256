//! What a backend is given to start, and what it tells about the end. Plain data.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

pub use barecount_api::attempt::AttemptToken;
use barecount_model::{
    class::Size,
    id::RunId,
    meter::Metered,
    untrusted::{Label, Message},
};
use barecount_network::{policy::Policy, record::FlowLog};
use barecount_secrets::{Redactor, Secret};
use serde::{Deserialize, Serialize};

/// One attempt to start, as an agent's host has prepared it from its assignment: with paths here.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Which attempt.
    pub token: AttemptToken,
    /// The declared size, for evidence; what it is worth is in `limits`.
    pub size: Size,
    /// What to carry out.
    pub work: Work,
    /// What it may use.
    pub limits: Limits,
    /// Where its data is, on this host.
    pub places: Places,
    /// The task contract's variables and the manifest's own, without the `BARECOUNT_*_DIR` ones,
    /// which a backend adds for the paths it chose inside.
    pub env: BTreeMap<String, String>,
    /// How strong the boundary is.
    pub isolation: Isolation,
    /// A warm process may serve the attempt only if it was started for an equal key. `None`: always
    /// a fresh one.
    pub reuse: Option<ReuseKey>,
    /// Its secrets. What a process has read of them it may keep, so that the reuse key is of this
    /// run alone then, and tells these secrets, by name and version, from others.
    pub secrets: Option<Secrets>,
    /// What it may reach over the network. `None`: nothing, and what it tries leaves no record.
    /// Means nothing without a sandbox.
    pub network: Option<Policy>,
    /// How long after the launch the caller will stop it; told to the work as its deadline.
    pub timeout: Duration,
    /// Where standard output and standard error go. Bounded by `limits.log_bytes`.
    pub log: PathBuf,
}

/// What an attempt carries out.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A program, run to completion.
    Command {
        /// What is its root file system.
        root: Root,
        /// The program and its arguments; the program's path is absolute inside the root.
        argv: Vec<String>,
        /// Its working directory inside the root.
        working_dir: PathBuf,
    },
    /// One invocation of a program that speaks the AWS Lambda Runtime API (2018-06-01).
    Handler {
        /// The program.
        program: HandlerProgram,
        /// The `event` member of the payload; the backend adds the `barecount` member.
        event: serde_json::Value,
    },
    /// A job for the embedded engine.
    Job {
        /// The engine's own description of the job, with paths inside the sandbox (see
        /// [`inside`]). Handed to the engine program as its standard input.
        spec: serde_json::Value,
    },
}

/// A program that is invoked again and again.
#[derive(Debug, Clone, PartialEq)]
pub enum HandlerProgram {
    /// `bootstrap` of an unpacked package, which is mounted read-only as `/var/task`.
    Package(PathBuf),
    /// A program in the root file system of an unpacked image.
    Image {
        /// The unpacked image.
        root: PathBuf,
        /// The program and its arguments; the program's path is absolute inside the root.
        argv: Vec<String>,
        /// Its working directory inside the root.
        working_dir: PathBuf,
    },
}

/// The root file system of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Root {
    /// An unpacked image.
    Image(PathBuf),
    /// Nothing but an unpacked package, mounted read-only as `/app`.
    Package(PathBuf),
}

/// Upper bounds for one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processor time per time, in thousandths of a core.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Open files per process.
    pub open_files: u32,
    /// The size of the scratch folder, in bytes.
    pub scratch_bytes: u64,
    /// The size of any one file that it writes, in bytes, if that is bounded.
    pub file_bytes: Option<u64>,
    /// How much of what is printed is kept, in bytes; the rest is counted and dropped.
    pub log_bytes: u64,
}

/// The secrets of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Secrets {
    /// The folder in memory that has each as a file; read-only for the work.
    pub folder: PathBuf,
    /// Those that the work asked to have as environment variables, too.
    pub variables: BTreeMap<String, Secret>,
    /// Finds them in what the work prints and says, before it is kept anywhere.
    pub redactor: Redactor,
}

impl Secrets {
    /// The variables, in the clear. Keep them nowhere.
    pub(crate) fn exposed(&self) -> impl Iterator<Item = (String, String)> {
        self.variables.iter().map(|(name, secret)| {
            let value = String::from_utf8_lossy(secret.expose()).into_owned();
            (name.clone(), value)
        })
    }
}

/// The places of the task contract, as they are on this host. Each exists when `launch` is called.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    /// Inputs, read-only: one folder per dataset.
    pub input: PathBuf,
    /// Outputs: one folder per dataset.
    pub output: PathBuf,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The cache, if the class keeps one.
    pub cache: Option<PathBuf>,
    /// Unpacked driver bundles, by name; read-only.
    pub drivers: BTreeMap<String, PathBuf>,
}

/// Where a backend that uses a sandbox shows the places inside it.
pub mod inside {
    /// The inputs.
    pub const INPUT: &str = "/barecount/input";
    /// The outputs.
    pub const OUTPUT: &str = "/barecount/output";
    /// The checkpoint.
    pub const CHECKPOINT: &str = "/barecount/checkpoint";
    /// The secrets.
    pub const SECRETS: &str = "/barecount/secrets";
    /// The cache.
    pub const CACHE: &str = "/barecount/cache";
    /// The driver bundles.
    pub const DRIVERS: &str = "/barecount/drivers";
    /// The scratch folder.
    pub const SCRATCH: &str = "/tmp";
}

/// How strong the boundary around an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces, limits, system call filter.
    Sandbox,
    /// A plain process. Only when asked for by name.
    Process,
}

/// Within what a warm process may be used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReuseKey {
    /// Tenant, lock digest, stage and identity, hashed by the caller; and which secrets, by name and
    /// version, never by value.
    pub shared: String,
    /// The only run whose attempts may have the process, which ends with it; any run if absent.
    pub run: Option<RunId>,
}

impl ReuseKey {
    /// A key that attempts of different runs may have.
    pub fn of_any_run(shared: impl Into<String>) -> Self {
        Self {
            shared: shared.into(),
            run: None,
        }
    }

    /// A key of one run's attempts alone.
    pub fn of_run(run: RunId, shared: impl Into<String>) -> Self {
        Self {
            shared: shared.into(),
            run: Some(run),
        }
    }
}

/// How an attempt ended, and what it used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// Whether it was told to stop and then exited with status 75 (`EX_TEMPFAIL` of sysexits), by
    /// which work says that its checkpoint is whole.
    #[serde(default)]
    pub saved: bool,
    /// What it used, as far as the backend can tell.
    pub usage: Usage,
    /// What the backend is billed for it, once each; nothing if nobody bills.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metered: Vec<Metered>,
    /// Which parts of the boundary held, for evidence.
    pub enforcement: serde_json::Value,
    /// What was kept of its log.
    pub log: LogSummary,
    /// Whether a warm process served it.
    pub warm: bool,
    /// What it reached over the network and was refused; `None` where no broker served it.
    pub flows: Option<FlowLog>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum End {
    /// The program exited.
    Exited {
        /// Its exit status.
        code: i32,
    },
    /// A signal ended the program.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It used more memory than its size has.
    OutOfMemory,
    /// The function answered.
    Answered {
        /// Its answer, which has 6 MiB at most, as on Lambda; of one that is longer than 256 KiB its
        /// length alone, as `{"omitted": {"bytes": N}}`.
        response: serde_json::Value,
    },
    /// The function reported an error, or broke the protocol.
    HandlerError {
        /// The error's type, in the function's words.
        error_type: Label,
        /// The message, in the function's words.
        message: Message,
    },
    /// It was told to stop and did.
    Stopped,
}

/// Resources used by an attempt; `None` where the host cannot tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, in microseconds.
    pub cpu_micros: Option<u64>,
    /// Most memory in use at once, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Bytes read from block devices.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub io_write_bytes: Option<u64>,
}

/// What was kept of an attempt's log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogSummary {
    /// Bytes printed and kept.
    pub bytes: u64,
    /// Bytes dropped because the log was full.
    pub dropped_bytes: u64,
    /// SHA-256 of the log, [`cut_notice`] included, in hexadecimal.
    pub sha256: String,
}

/// The line that stands where so many bytes of a log were dropped, so that whoever reads it knows.
/// It comes on top of the bytes kept.
pub fn cut_notice(dropped_bytes: u64) -> String {
    format!("\n[the log is full: {dropped_bytes} bytes were dropped here]\n")
}

/// How many of the bytes that a log of this limit keeps are the last that were printed: how work
/// began and how it ended is told, and what came between is dropped.
pub fn tail_bytes(limit: u64) -> u64 {
    (limit / 2).min(64 << 10)
}
