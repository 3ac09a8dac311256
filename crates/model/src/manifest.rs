//! The pipeline manifest, as people write it.
//!
//! These types mirror the file: what may be absent is an `Option` or an empty list, and nothing is
//! filled in. They are the single source of the JSON Schema. [`parse`] reads them; the
//! pipeline is made from them, where defaults are applied and contradictions are gone.

mod output;
mod stage;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use output::{
    AcceptanceTest, Columns, CrossingSpec, DeadLetterLimits, Format, InputFormat, InputSpec,
    OutputSpec, RangeTest, RowCountTest, SchemaEvolution, SqlTest, Tolerance, WriteMode,
};
pub use stage::{
    Contract, Egress, EgressMode, EgressProtocol, EventSpec, EventType, Isolation, PartitionUnit,
    PartitionsSpec, RetriesSpec, RunnerSpec, SecretSpec, StageSpec,
};

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::schema;
use crate::text::{Cron, Duration, Name, TimeZoneName};

/// Reads a manifest as it is written: its syntax and its schema, not yet what it means.
///
/// # Errors
/// Every problem that was found, sorted by place.
pub fn parse(document: &Document) -> Result<Manifest, Vec<Diagnostic>> {
    schema::MANIFEST.read(document)
}

/// A pipeline: stages, the datasets between them, and how each is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Manifest {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// What the document describes.
    pub kind: ManifestKind,
    /// Who and whose the pipeline is.
    pub metadata: Metadata,
    /// What the pipeline does.
    pub spec: Spec,
}

/// The version of a document's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first version.
    #[serde(rename = "barecount.dev/v1")]
    V1,
}

/// The kind of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManifestKind {
    /// A pipeline.
    Pipeline,
}

/// The tenant that no manifest may name: it has the secrets that environments themselves need.
pub const RESERVED_TENANT: &str = "environment";

/// Who and whose a pipeline is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The pipeline's name, unique within the tenant.
    pub name: Name,
    /// The tenant whose policies, quotas and data apply. `environment` is taken.
    pub tenant: Name,
    /// Whom alerts reach: an address or the name of a team.
    #[schemars(length(min = 1, max = 200))]
    pub owner: String,
    /// Free labels, for queries and cost reports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub labels: BTreeMap<String, String>,
}

/// What a pipeline does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// One or two sentences for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How sensitive the data is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// Where the data must stay: a country, a region or a facility, as environments name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<Name>,
    /// When the pipeline runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What the owner promises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// What holds for each stage that does not say otherwise.
    #[serde(default, skip_serializing_if = "Defaults::is_empty")]
    pub defaults: Defaults,
    /// The stages, in any order.
    #[schemars(length(min = 1, max = 200))]
    pub stages: Vec<StageSpec>,
}

/// How sensitive the data of a pipeline is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Classification {
    /// Published, or free to be.
    Public,
    /// For the organisation.
    Internal,
    /// For those who need it.
    Confidential,
    /// Personal data, or under a legal duty.
    Restricted,
}

impl Classification {
    /// Every classification, the least sensitive first.
    pub const ALL: [Self; 4] = [
        Self::Public,
        Self::Internal,
        Self::Confidential,
        Self::Restricted,
    ];

    /// The value as manifests, evidence and JSON spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Restricted => "restricted",
        }
    }
}

impl std::fmt::Display for Classification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// When a pipeline runs by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Minute, hour, day of month, month, day of week.
    pub cron: Cron,
    /// The zone in which the expression is read; UTC unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<TimeZoneName>,
}

/// Service level objectives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// From the start of a run to its end.
    pub completes_within: Duration,
}

/// What holds for each stage that does not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The runner. A field that has no meaning for a stage's class does not reach that stage.
    #[serde(default, skip_serializing_if = "RunnerSpec::is_empty")]
    pub runner: RunnerSpec,
    /// How often, and after which pauses, a failed attempt is repeated.
    #[serde(default, skip_serializing_if = "RetriesSpec::is_empty")]
    pub retries: RetriesSpec,
    /// How long an attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How long an attempt may take to stop once it is asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Duration>,
    /// How strong the boundary around an attempt is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Environment variables of every stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub env: BTreeMap<String, String>,
}

impl Defaults {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
