//! Stages as a manifest spells them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Classification, InputSpec, OutputSpec};
use crate::class::{NetworkProfile, Phase, RunnerClass, Size};
use crate::text::{
    ByteSize, DriverName, Duration, EgressHost, ImageSource, Name, RelativePath, SecretName,
};

/// One stage: what it reads, what it writes, and what runs in between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// The stage's name, unique within the pipeline.
    pub name: Name,
    /// The phase it belongs to.
    pub phase: Phase,
    /// One or two sentences for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How sensitive its data is; as the pipeline's unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// Where its data must stay; as the pipeline's unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<Name>,
    /// What runs it.
    #[serde(default, skip_serializing_if = "RunnerSpec::is_empty")]
    pub runner: RunnerSpec,
    /// Stages that come before, beyond those whose datasets it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub needs: Vec<Name>,
    /// How its program takes work; the usual way of the class unless set. A container may be a
    /// `handler`: its process is kept warm from one task to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    /// What starts a handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventSpec>,
    /// The program and its first arguments, in place of the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub command: Vec<String>,
    /// Arguments of the program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub args: Vec<String>,
    /// Environment variables. Secrets do not belong here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub env: BTreeMap<String, String>,
    /// One task for each part of the calendar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionsSpec>,
    /// What it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub inputs: Vec<InputSpec>,
    /// What it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub outputs: Vec<OutputSpec>,
    /// How strong the boundary around an attempt is; `sandbox` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// How often, and after which pauses, a failed attempt is repeated.
    #[serde(default, skip_serializing_if = "RetriesSpec::is_empty")]
    pub retries: RetriesSpec,
    /// How long an attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How long an attempt may take to stop once it is asked to; the catalog's unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Duration>,
    /// Secrets by the name under which the attempt finds each as a file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub secrets: BTreeMap<Name, SecretSpec>,
    /// Destinations that an attempt may reach; there is no other way out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub egress: Vec<Egress>,
    /// What becomes of connections that were not declared; refused unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_mode: Option<EgressMode>,
}

/// How a program takes work: one of the ways of the task contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Contract {
    /// It is run to its end for each task. Usual in container and dedicated_compute.
    Command,
    /// It asks for one event after the other, and answers each, over the AWS Lambda Runtime API.
    /// Usual in serverless.
    Handler,
    /// It is SQL or a script for a data engine. Usual in managed_etl.
    Job,
}

impl Contract {
    /// The value as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Handler => "handler",
            Self::Job => "job",
        }
    }

    /// The usual one of a class.
    pub fn usual(class: RunnerClass) -> Self {
        match class {
            RunnerClass::Serverless => Self::Handler,
            RunnerClass::Container | RunnerClass::DedicatedCompute => Self::Command,
            RunnerClass::ManagedEtl => Self::Job,
        }
    }
}

/// What runs a stage. Which fields apply depends on the class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunnerSpec {
    /// How the stage is executed, and what shape its cost has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<RunnerClass>,
    /// How much it gets; what a size is worth is in the environment's catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// By which path it may reach others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_profile: Option<NetworkProfile>,
    /// container, dedicated_compute: the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// serverless, dedicated_compute: the folder of the function or program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<RelativePath>,
    /// managed_etl: the SQL file, or PySpark script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<RelativePath>,
    /// container, dedicated_compute: driver bundles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub drivers: Vec<DriverName>,
    /// How many tasks of the stage may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency_limit: Option<u32>,
    /// managed_etl: how many parts a join or grouping is spread over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub shuffle_partition_hint: Option<u32>,
    /// Size `custom` only: processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_024))]
    pub vcpu: Option<u32>,
    /// Size `custom` only: memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

impl RunnerSpec {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How often, and after which pauses, a failed attempt is repeated. The pause doubles from the
/// initial one to the longest, with jitter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesSpec {
    /// After failures of the work itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub application: Option<u32>,
    /// After failures of the runner under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub infrastructure: Option<u32>,
    /// The first pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_backoff: Option<Duration>,
    /// The longest pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Duration>,
}

impl RetriesSpec {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How strong the boundary around an attempt is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Namespaces, limits, a system call filter, and no network but what is declared.
    #[default]
    Sandbox,
    /// An ordinary process with resource limits only; environments may refuse it.
    Process,
}

/// One task for each year or month: from the first to the last, both included, or those of the
/// window that a run is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionsSpec {
    /// The part of the calendar, and the name of the column that tells them apart.
    pub by: PartitionUnit,
    /// The first: "2022" or "2022-01". Without first and last, the window says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{4}(-[0-9]{2})?$"))]
    pub from: Option<String>,
    /// The last: "2025" or "2025-12".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{4}(-[0-9]{2})?$"))]
    pub to: Option<String>,
}

/// A part of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionUnit {
    /// Written `2024`.
    Year,
    /// Written `2024-05`.
    Month,
}

impl PartitionUnit {
    /// `year` or `month`, which is also the name of the partition column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Month => "month",
        }
    }
}

/// What starts a handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSpec {
    /// The kind of event.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// file_arrival: the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RelativePath>,
    /// webhook: the route, as in `/orders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^/[A-Za-z0-9._~/-]{0,254}$"))]
    pub route: Option<String>,
    /// timer: the time between two events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// message: the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub topic: Option<String>,
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A file is there; needs `path`.
    FileArrival,
    /// An HTTP request; needs `route`.
    Webhook,
    /// Time has passed; needs `every`.
    Timer,
    /// A message on a topic; needs `topic`.
    Message,
}

impl EventType {
    /// The value as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileArrival => "file_arrival",
            Self::Webhook => "webhook",
            Self::Timer => "timer",
            Self::Message => "message",
        }
    }
}

/// How a secret is found. The value itself never stands in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// The secret's path in the environment's secrets service.
    pub from: SecretName,
    /// This version and no other; the newest at the start of each attempt unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<u64>,
    /// An environment variable that has the value, too, for programs that read it nowhere else.
    /// Whoever sees the program's environment sees it; policies may refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    pub env: Option<String>,
}

impl SecretSpec {
    /// The secret as evidence names it: its path, and its version after an `@` if one is set.
    pub fn reference(&self) -> String {
        match self.version {
            Some(version) => format!("{}@{version}", self.from),
            None => self.from.to_string(),
        }
    }
}

/// A destination that an attempt may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// The name, as the work uses it; or addresses, where the profile leads to addresses that
    /// have no name.
    pub host: EgressHost,
    /// The port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// What is spoken there; the server name or `Host` is checked for `tls` and `http`.
    pub protocol: EgressProtocol,
}

/// What becomes of connections that were not declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressMode {
    /// They are refused, and recorded.
    #[default]
    Enforce,
    /// They are let through as far as the profile leads, and recorded: to learn what to declare.
    /// Only where the environment allows it.
    Audit,
}

/// What is spoken with a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressProtocol {
    /// TLS from the first byte.
    Tls,
    /// HTTP in the clear.
    Http,
    /// Anything else over TCP.
    Tcp,
}
