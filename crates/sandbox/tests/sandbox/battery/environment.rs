//! What the probes are told of the place that they are in, and of what is outside.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Passed as JSON, the only argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// Whether this is the control on the host: what a probe changes is then kept from the host as
    /// far as namespaces do.
    pub(super) on_host: bool,
    /// A folder with the battery and its set-user-id copies.
    pub(super) programs: PathBuf,
    /// A folder that may be written.
    pub(super) output: PathBuf,
    /// A folder that may be read, with a file `given` in it.
    pub(super) input: PathBuf,
    /// A file of the host that lies outside, by its path on the host.
    pub(super) canary: PathBuf,
    /// A socket of the host, by its path there.
    pub(super) socket: PathBuf,
    /// The same by abstract name.
    pub(super) abstract_name: String,
    /// A port of the host's loopback on which there is a greeting.
    pub(super) port: u16,
    /// A process outside.
    pub(super) pid: i32,
    /// A segment of System V shared memory of the host.
    pub(super) segment: i32,
    /// A file in the host's `/dev/shm`.
    pub(super) shared_file: String,
    /// A POSIX message queue of the host.
    pub(super) queue: String,
    /// The device of the host's root file system.
    pub(super) disk: u64,
}
