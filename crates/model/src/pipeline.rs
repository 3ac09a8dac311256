//! A pipeline as it runs: a manifest with its defaults applied and its contradictions refused.
//!
//! Whoever holds a [`Pipeline`] need not check again: stages come in an order in which each follows
//! those it depends on, every dataset has one writer, each stage's work fits its class, and tests
//! and partitions name columns that exist.

mod acceptance;
mod advice;
mod crossing;
mod data;
mod graph;
mod import;
mod resolve;
mod runner;
mod scope;

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

pub use self::import::{Imported, Misfit, Published};
use crate::boundary::{Boundary, Crossing};
use crate::class::{NetworkProfile, Phase, RunnerClass, Size};
use crate::diagnostic::{self, Diagnostic};
use crate::document::Document;
use crate::manifest::{
    self, AcceptanceTest, Classification, DeadLetterLimits, Egress, EgressMode, Format, Isolation,
    Manifest, PartitionUnit, Schedule, SchemaEvolution, SecretSpec, Tolerance, WriteMode,
};
use crate::run::Window;
use crate::text::{
    ByteSize, ColumnName, ColumnType, DatasetName, DriverName, Duration, ImageSource, Name,
    RelativePath,
};

/// A manifest that can run, in both its forms.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// As it is written.
    pub manifest: Manifest,
    /// As it runs.
    pub pipeline: Pipeline,
    /// What is probably not as meant, sorted by place.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a manifest.
///
/// `file` is the name that diagnostics give; nothing is read.
///
/// # Errors
/// Every problem, sorted by place, warnings included. A document whose syntax is wrong is not held
/// against the schema, and one that breaks the schema is not searched for contradictions.
pub fn load(file: &str, bytes: &[u8]) -> Result<Loaded, Vec<Diagnostic>> {
    let document = Document::parse(file, bytes)?;
    let manifest = manifest::parse(&document)?;
    let (pipeline, mut diagnostics) = resolve::resolve(&document, &manifest);
    diagnostic::sort(&mut diagnostics);
    match pipeline {
        Some(pipeline) if !diagnostic::has_errors(&diagnostics) => Ok(Loaded {
            manifest,
            pipeline,
            warnings: diagnostics,
        }),
        _ => Err(diagnostics),
    }
}

/// A pipeline as it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pipeline {
    /// Its name, unique within the tenant.
    pub name: Name,
    /// Whose it is.
    pub tenant: Name,
    /// Whom alerts reach.
    pub owner: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub description: Option<String>,
    /// How sensitive its data is; `internal` unless the manifest says.
    pub classification: Classification,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// The promised time from the start of a run to its end.
    pub completes_within: Option<Duration>,
    /// The stages; each comes after those that it depends on.
    pub stages: Vec<Stage>,
    /// What is known of the datasets of other pipelines that it reads, once they were
    /// [looked at](Loaded::import).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub imports: BTreeMap<DatasetName, Imported>,
}

impl Pipeline {
    /// The stage of that name.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name.as_str() == name)
    }

    /// The stage that writes a dataset, and the output.
    pub fn writer_of(&self, dataset: &DatasetName) -> Option<(&Stage, &Output)> {
        self.stages.iter().find_map(|stage| {
            let output = stage
                .outputs
                .iter()
                .find(|output| output.dataset == *dataset)?;
            Some((stage, output))
        })
    }
}

/// One stage as it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Its name, unique within the pipeline.
    pub name: Name,
    /// The phase it belongs to.
    pub phase: Phase,
    /// For people.
    pub description: Option<String>,
    /// How sensitive its data is.
    pub classification: Classification,
    /// Where its data must stay, if it must.
    pub residency: Option<Name>,
    /// How it is executed.
    pub class: RunnerClass,
    /// How much it gets; a catalog says what that is worth.
    pub size: Size,
    /// What size `custom` is worth; present for that size alone.
    pub custom: Option<CustomSize>,
    /// By which path it may reach others.
    pub network_profile: NetworkProfile,
    /// What it may reach there.
    pub egress: Vec<Egress>,
    /// What becomes of connections that were not declared.
    pub egress_mode: EgressMode,
    /// What runs.
    pub work: Work,
    /// Driver bundles that the work finds beside it.
    pub drivers: Vec<DriverName>,
    /// How many of its tasks may run at a time; no limit of its own if absent.
    pub concurrency_limit: Option<u32>,
    /// Over how many parts the engine spreads a join or grouping, for jobs.
    pub shuffle_partition_hint: Option<u32>,
    /// Environment variables, those of the defaults included.
    pub env: BTreeMap<String, String>,
    /// One task for each of these, or a single task.
    pub partitions: Option<Partitions>,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// What it reads from within stricter boundaries than its own, by what its inputs declare.
    pub crossings: Vec<Crossing>,
    /// What it writes.
    pub outputs: Vec<Output>,
    /// How strong the boundary is.
    pub isolation: Isolation,
    /// How often a failed attempt is repeated.
    pub retries: Retries,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// How long an attempt may take to stop; the catalog's for its class if absent.
    pub grace_period: Option<Duration>,
    /// Secrets by the name of the file in which the attempt finds each.
    pub secrets: BTreeMap<Name, SecretSpec>,
    /// The stages that end before it starts: writers of what it reads, and those it `needs`.
    /// Sorted, without duplicates.
    pub depends_on: Vec<Name>,
}

impl Stage {
    /// The boundary that its outputs, checkpoints, dead letters and logs are in.
    pub fn boundary(&self) -> Boundary {
        Boundary {
            network_profile: self.network_profile,
            residency: self.residency.clone(),
            classification: self.classification,
        }
    }

    /// The keys of the stage's tasks in order: `None` alone for a stage without partitions.
    pub fn partition_keys(&self) -> Vec<Option<String>> {
        match &self.partitions {
            None => vec![None],
            Some(partitions) => partitions.keys().into_iter().map(Some).collect(),
        }
    }

    /// As [`Stage::partition_keys`], of a run for this window.
    pub fn partition_keys_within(&self, window: Option<&Window>) -> Vec<Option<String>> {
        match &self.partitions {
            None => vec![None],
            Some(partitions) => {
                let keys = partitions.keys_within(window);
                keys.into_iter().map(Some).collect()
            }
        }
    }
}

/// What size `custom` is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CustomSize {
    /// Processors.
    pub vcpu: u32,
    /// Memory.
    pub memory: ByteSize,
}

/// What a stage runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// A program that takes events one by one over the Lambda Runtime API, and may be kept warm.
    Handler {
        /// Where it comes from.
        program: HandlerProgram,
        /// What starts it; the end of the stages before it, if absent.
        event: Option<Event>,
    },
    /// A program that runs to its end.
    Command {
        /// The file system it runs in.
        root: CommandRoot,
        /// The program and its first arguments. Empty only with an image, whose entry point it
        /// then is.
        command: Vec<String>,
        /// Further arguments.
        args: Vec<String>,
    },
    /// A job of the data engine.
    Job {
        /// The file of the job.
        job: RelativePath,
        /// What the file is written in.
        language: JobLanguage,
    },
}

impl Work {
    /// The program and all its arguments as one list; empty for packages of functions and jobs.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Command { command, args, .. }
            | Self::Handler {
                program: HandlerProgram::Image { command, args, .. },
                ..
            } => command.iter().chain(args).cloned().collect(),
            Self::Handler { .. } | Self::Job { .. } => Vec::new(),
        }
    }
}

/// Where the program of a handler comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HandlerProgram {
    /// The folder that is built into the package of a function, whose `bootstrap` it is.
    Package(RelativePath),
    /// An image.
    Image {
        /// The image.
        image: ImageSource,
        /// The program and its first arguments; the image's entry point if empty.
        command: Vec<String>,
        /// Further arguments.
        args: Vec<String>,
    },
}

/// The file system that a command runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandRoot {
    /// An image.
    Image(ImageSource),
    /// A package and nothing else.
    Package(RelativePath),
}

/// What a job is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobLanguage {
    /// `.sql`
    Sql,
    /// `.py`
    PySpark,
}

/// What starts a handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A file is there.
    FileArrival {
        /// The file, below the pipeline's folder.
        path: RelativePath,
    },
    /// An HTTP request.
    Webhook {
        /// The route, with its leading `/`.
        route: String,
    },
    /// Time has passed.
    Timer {
        /// The time between two events.
        every: Duration,
    },
    /// A message on a topic.
    Message {
        /// The topic.
        topic: String,
    },
}

/// How often, and after which pauses, a failed attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retries {
    /// After failures of the work itself.
    pub application: u32,
    /// After failures of the runner under it.
    pub infrastructure: u32,
    /// The first pause.
    pub initial_backoff: Duration,
    /// The longest pause; at least the first.
    pub max_backoff: Duration,
}

/// Years or months: from the first to the last, both included, or those of the window that a run is
/// for. At most [`Partitions::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Partitions {
    /// Years or months.
    pub by: PartitionUnit,
    range: Option<(i32, i32)>,
}

impl Partitions {
    /// The most partitions of one stage: a century of months.
    pub const MAX: usize = 1_200;

    /// Those of the window that a run is for.
    pub(crate) fn of_window(by: PartitionUnit) -> Self {
        Self { by, range: None }
    }

    /// The keys that the manifest lists in ascending order: `2024`, or `2024-05`. None where the
    /// window says which.
    pub fn keys(&self) -> Vec<String> {
        self.keys_from(self.range)
    }

    /// The keys that a run has, in ascending order: those that overlap its window, if it has one. At
    /// most one more than [`Partitions::MAX`], which is one too many.
    pub fn keys_within(&self, window: Option<&Window>) -> Vec<String> {
        let of_window = window.map(|window| {
            // The end is not part of it.
            let last = window.end.as_nanosecond().saturating_sub(1);
            let last = Timestamp::from_nanosecond(last).unwrap_or(window.end);
            (self.number(window.start), self.number(last))
        });
        self.keys_from(match (self.range, of_window) {
            (Some((first, last)), Some((start, end))) => Some((first.max(start), last.min(end))),
            (range, of_window) => range.or(of_window),
        })
    }

    /// The place of a moment's year or month in the order of all.
    fn number(&self, moment: Timestamp) -> i32 {
        let date = moment.to_zoned(TimeZone::UTC).date();
        let year = i32::from(date.year());
        match self.by {
            PartitionUnit::Year => year,
            PartitionUnit::Month => year * 12 + i32::from(date.month()) - 1,
        }
    }

    fn keys_from(&self, range: Option<(i32, i32)>) -> Vec<String> {
        let key = |n: i32| match self.by {
            PartitionUnit::Year => format!("{n:04}"),
            PartitionUnit::Month => format!("{:04}-{:02}", n / 12, n % 12 + 1),
        };
        let (first, last) = range.unwrap_or((0, -1));
        (first..=last).map(key).take(Self::MAX + 1).collect()
    }

    /// The partition column: `year` or `month`.
    pub fn column(&self) -> &'static str {
        self.by.as_str()
    }
}

/// Something that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// A dataset of another stage, or of another pipeline.
    Dataset {
        /// Its name.
        dataset: DatasetName,
        /// The pipeline whose it is, where that is another one.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Name>,
        /// The form in which the stage finds it.
        format: Format,
        /// Which part of it.
        partitions: PartitionFilter,
    },
    /// A file of the pipeline's folder.
    File {
        /// The file.
        path: RelativePath,
        /// The name of the folder in which the stage finds it.
        name: Name,
    },
}

/// Which part of a dataset a stage reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionFilter {
    /// All of it.
    All,
    /// The partition that the task works on.
    Own,
    /// Partitions in which a column has a value; any of these suffices.
    Values(Vec<(ColumnName, String)>),
}

/// A dataset that a stage writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its name.
    pub dataset: DatasetName,
    /// The form in which the stage hands it over.
    pub format: Format,
    /// What a commit does with what is there.
    pub mode: WriteMode,
    /// What a commit may do to the schema.
    #[serde(default)]
    pub schema_evolution: SchemaEvolution,
    /// How many of its rows may be dead letters.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dead_letters: DeadLetterLimits,
    /// Columns by whose values it is split.
    pub partition_by: Vec<ColumnName>,
    /// Its columns in order; none exactly if the format is `files`.
    pub columns: Vec<Column>,
    /// What must hold before it is committed.
    pub tests: Vec<AcceptanceTest>,
}

/// Limits that nobody set are not written, so that what was planned before there were any is
/// written as it was.
fn is_default(limits: &DeadLetterLimits) -> bool {
    *limits == DeadLetterLimits::default()
}

impl Output {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|column| column.name.as_str() == name)
    }
}

/// One column of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name; case is kept.
    pub name: ColumnName,
    /// Its type.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Whether a value may be absent.
    pub nullable: bool,
    /// What the whole text of a value matches: a regular expression that compiles, without the
    /// anchors. For strings alone.
    pub pattern: Option<String>,
    /// What the column means.
    pub description: Option<String>,
    /// Whether values are redacted.
    pub sensitive: bool,
    /// How far floats may differ and still be equal.
    pub tolerance: Option<Tolerance>,
}

#[cfg(test)]
mod tests;
