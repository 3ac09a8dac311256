//! What exactly a run carries out: manifest, environment, catalog and lock, resolved. Immutable
//! once a run is submitted; evidence and attempts are made from it, never from the manifest again.

pub mod compile;
pub mod work_token;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::compile::compile;
use crate::{
    boundary::{Boundary, Crossing},
    catalog::Profile,
    class::{NetworkProfile, Phase, RunnerClass, Size},
    digest::Digest,
    manifest::{Egress, EgressMode, Format, SecretSpec},
    pipeline::{Column, Output, PartitionFilter},
    text::{ByteSize, DatasetName, Duration, Name},
};

/// A pipeline version, ready to run in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// The tenant it belongs to.
    pub tenant: String,
    /// Who is told when it fails.
    pub owner: String,
    /// `sha256:…` over canonical manifest and lock.
    pub version: String,
    /// `sha256:…` of the manifest file's canonical form.
    pub manifest_digest: String,
    /// `sha256:…` of the lock's canonical form.
    pub lock_digest: String,
    /// The environment's name.
    pub environment: String,
    /// The data classification declared.
    pub classification: String,
    /// Who submitted it.
    pub requester: String,
    /// Governance's answer, as evidence keeps it.
    pub decision: serde_json::Value,
    /// The event that the run answers, if there is one.
    pub event: Option<serde_json::Value>,
    /// The name that somebody gave the logical work, where it has one: work of another name is
    /// other work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// Stages whose work is done again although nothing has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<String>,
    /// Stages; each needs only stages before it.
    pub stages: Vec<StagePlan>,
}

impl Plan {
    /// The stage of that name.
    pub fn stage(&self, name: &str) -> Option<&StagePlan> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// What attempts have to have in common that share a cache or a warm process; none for a boundary
    /// that cannot be written down.
    pub fn reuse_key(&self, stage: &StagePlan) -> Option<String> {
        // The boundary too: what a warm process or a cache holds is of the data that it worked on.
        let boundary = serde_json::to_string(&stage.boundary).ok()?;
        let shared = [
            &self.tenant,
            &self.pipeline,
            &self.lock_digest,
            &stage.name,
            &boundary,
        ]
        .map(String::as_str);
        Some(Digest::of(shared.join("\n").as_bytes()).hex())
    }

    /// The datasets of other pipelines that it reads, by the stage that does.
    pub fn pinned(&self) -> impl Iterator<Item = (&StagePlan, &DatasetName, &Pinned)> {
        self.stages.iter().flat_map(|stage| {
            let pinned = stage.pinned();
            pinned.map(move |(dataset, pinned)| (stage, dataset, pinned))
        })
    }
}

/// One stage, with everything decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Its class.
    pub class: RunnerClass,
    /// Its size.
    pub size: Size,
    /// Its network profile.
    pub network_profile: NetworkProfile,
    /// What it may reach there.
    #[serde(default)]
    pub egress: Vec<Egress>,
    /// What becomes of connections that were not declared.
    #[serde(default)]
    pub egress_mode: EgressMode,
    /// How much of the network it may use, where the environment limits that.
    #[serde(default)]
    pub egress_limits: EgressLimits,
    /// The boundary that its data stays in; unknown of plans that are older than boundaries.
    #[serde(default)]
    pub boundary: Option<Boundary>,
    /// What it reads from within stricter boundaries than its own.
    #[serde(default)]
    pub crossings: Vec<Crossing>,
    /// The backend that serves the class in this environment.
    pub backend: String,
    /// `sandbox` or `process`.
    pub isolation: String,
    /// What the size is worth here.
    pub resources: Resources,
    /// At most so many of its tasks at once.
    pub concurrency_limit: u32,
    /// What is carried out.
    pub work: WorkPlan,
    /// Driver bundles, pinned.
    pub drivers: Vec<Pin>,
    /// What it reads.
    pub inputs: Vec<InputPlan>,
    /// What it writes.
    pub outputs: Vec<Output>,
    /// Names of the stages before it.
    pub needs: Vec<String>,
    /// The column that tells its partitions apart, for a stage that has some.
    pub partition_column: Option<String>,
    /// Partitions, in order; empty for a stage without any.
    pub partitions: Vec<String>,
    /// Retries after failures of the work.
    pub application_retries: u32,
    /// Retries after failures of the runner.
    pub infrastructure_retries: u32,
    /// The first backoff, in milliseconds.
    pub initial_backoff_ms: u64,
    /// The longest backoff, in milliseconds.
    pub max_backoff_ms: u64,
    /// An attempt may take so long, in milliseconds.
    pub timeout_ms: u64,
    /// Between `SIGTERM` and `SIGKILL`, in milliseconds.
    pub grace_ms: u64,
    /// Variables of the manifest's own.
    pub env: BTreeMap<String, String>,
    /// Secrets by the name of the file in which an attempt finds each; never their values.
    #[serde(default)]
    pub secrets: BTreeMap<Name, SecretSpec>,
}

impl StagePlan {
    /// The datasets of other pipelines that it reads.
    pub fn pinned(&self) -> impl Iterator<Item = (&DatasetName, &Pinned)> {
        self.inputs.iter().filter_map(|input| match input {
            InputPlan::Dataset {
                dataset,
                from: Some(pinned),
                ..
            } => Some((dataset, pinned)),
            _ => None,
        })
    }
}

/// An artifact, pinned by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What the manifest calls it.
    pub name: String,
    /// `sha256:…`.
    pub digest: String,
}

/// What a size is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time per time, in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Open files per process.
    pub open_files: u32,
    /// The scratch folder's size, in bytes.
    pub scratch_bytes: u64,
    /// What it may have on disk beside that, in bytes. Plans of earlier versions bound it not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// How much log is kept, in bytes.
    pub log_bytes: u64,
    /// Workers that a job is priced for.
    pub workers: u32,
}

impl Resources {
    /// What a profile of the catalog is worth.
    pub fn of_profile(profile: &Profile) -> Self {
        Self {
            cpu_millis: profile.vcpu_millis,
            memory_bytes: profile.memory.as_bytes(),
            pids: profile.pids,
            open_files: profile.open_files,
            scratch_bytes: profile.scratch.as_bytes(),
            disk_bytes: Some(profile.disk.as_bytes()),
            log_bytes: profile.log.as_bytes(),
            workers: profile.workers,
        }
    }

    /// The profile as prices are worked out of it; what no price depends on is nothing.
    pub fn profile(&self) -> Profile {
        Profile {
            vcpu_millis: self.cpu_millis,
            memory: ByteSize::from_bytes(self.memory_bytes),
            pids: self.pids,
            open_files: self.open_files,
            scratch: ByteSize::from_bytes(self.scratch_bytes),
            disk: ByteSize::from_bytes(self.disk_bytes.unwrap_or_default()),
            log: ByteSize::from_bytes(self.log_bytes),
            workers: self.workers,
            concurrency: 0,
            grace_period: Duration::from_millis(0),
        }
    }
}

/// How much of the network an attempt may use; the broker's own limits hold besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressLimits {
    /// New connections in a second.
    pub connections_per_second: Option<u32>,
    /// Bytes in a second, both ways together.
    pub bytes_per_second: Option<u64>,
}

/// What a stage carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkPlan {
    /// A program from an image.
    Image {
        /// The image.
        image: Pin,
        /// The program and its arguments.
        command: Vec<String>,
        /// Variables that the image sets; those of the stage and of the task contract come before
        /// them.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// The folder that the program starts in.
        #[serde(default = "root_folder")]
        working_dir: String,
    },
    /// A program from a package.
    Package {
        /// The package.
        package: Pin,
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// A function.
    Handler {
        /// The package.
        package: Pin,
        /// What happened, as the function is told; null where the end of the stages before it
        /// is what starts it.
        event: serde_json::Value,
    },
    /// A program from an image that takes events as a function does.
    ImageHandler {
        /// The image.
        image: Pin,
        /// The program and its arguments.
        command: Vec<String>,
        /// Variables that the image sets; those of the stage and of the task contract come before
        /// them.
        env: BTreeMap<String, String>,
        /// The folder that the program starts in.
        working_dir: String,
        /// What happened, as the program is told; null where the end of the stages before it is
        /// what starts it.
        event: serde_json::Value,
    },
    /// A job for the engine.
    Job {
        /// The job.
        job: Pin,
        /// How many partitions a shuffle makes.
        shuffle_partitions: Option<u32>,
        /// Whether it names the window that a run is for, and so may come to something else in
        /// another. That of plans that are older than this is not known, and so may.
        #[serde(default = "may_name_it", skip_serializing_if = "may_be")]
        names_window: bool,
    },
}

fn root_folder() -> String {
    "/".to_owned()
}

impl WorkPlan {
    /// The artifact that runs.
    pub fn artifact(&self) -> &Pin {
        match self {
            Self::Image { image, .. } | Self::ImageHandler { image, .. } => image,
            Self::Package { package, .. } | Self::Handler { package, .. } => package,
            Self::Job { job, .. } => job,
        }
    }

    /// The image that its program comes from, if it comes from one.
    pub fn image(&self) -> Option<&Pin> {
        match self {
            Self::Image { image, .. } | Self::ImageHandler { image, .. } => Some(image),
            Self::Package { .. } | Self::Handler { .. } | Self::Job { .. } => None,
        }
    }

    /// Whether it is told which window a run is for: programs find it in variables, and jobs where
    /// they name it.
    pub fn sees_window(&self) -> bool {
        match self {
            Self::Job { names_window, .. } => *names_window,
            _ => true,
        }
    }

    /// What happened, as a handler is told. `None` for other work, and for a handler that the end
    /// of the stages before it starts.
    pub fn event(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Handler { event, .. } | Self::ImageHandler { event, .. } => {
                Some(event).filter(|event| !event.is_null())
            }
            Self::Image { .. } | Self::Package { .. } | Self::Job { .. } => None,
        }
    }
}

fn may_name_it() -> bool {
    true
}

/// Where it may name the window nothing is written, so that plans are written as they were.
fn may_be(names_window: &bool) -> bool {
    *names_window
}

/// The one version of another pipeline's dataset that all tasks of a run read: the latest when the
/// run was accepted, whatever the other pipeline commits meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The pipeline.
    pub pipeline: Name,
    /// The version.
    pub version: u64,
}

/// What a stage reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum InputPlan {
    /// A dataset: one of the pipeline itself as committed when the task is placed.
    Dataset {
        /// Its name.
        dataset: DatasetName,
        /// Whose it is and which version is read, where it is another pipeline's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Pinned>,
        /// How the task sees it.
        format: Format,
        /// Which part of it.
        partitions: PartitionFilter,
        /// Its columns; none exactly if it is a set of files.
        columns: Vec<Column>,
    },
    /// A file beside the manifest.
    File {
        /// The folder it appears in.
        name: String,
        /// Where it is on the submitting host.
        path: String,
        /// `sha256:…`.
        digest: String,
        /// Its size.
        bytes: u64,
    },
}
