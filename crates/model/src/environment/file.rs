//! The environment file, as people write it.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::NetworksSpec;
use crate::catalog::ProfileOverride;
use crate::class::{NetworkProfile, RunnerClass, Size};
use crate::manifest::ApiVersion;
use crate::text::{DatasetName, Name};

/// An environment: what serves each class of runner there, what sizes are worth, what is allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EnvironmentFile {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// What the document describes.
    pub kind: EnvironmentFileKind,
    /// Which environment it is.
    pub metadata: EnvironmentMetadata,
    /// What holds there.
    pub spec: EnvironmentSpec,
}

/// The kind of an environment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnvironmentFileKind {
    /// An environment.
    Environment,
}

/// Which environment a file describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentMetadata {
    /// The environment's name.
    pub name: Name,
}

/// What holds in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// What the environment is for.
    pub kind: EnvironmentKind,
    /// What serves each class of runner; a class that is left out is not served.
    #[schemars(schema_with = "by_class::<Backend>", extend("minProperties" = 1))]
    pub backends: BTreeMap<RunnerClass, Backend>,
    /// The folder of the platform's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4_096))]
    pub state: Option<String>,
    /// Changes to what sizes are worth, by class and size.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "by_class_and_size")]
    pub catalog: BTreeMap<RunnerClass, ClassCatalog>,
    /// How many attempts may run at a time.
    #[serde(default, skip_serializing_if = "ConcurrencySpec::is_empty")]
    pub concurrency: ConcurrencySpec,
    /// Who may use what.
    #[serde(default, skip_serializing_if = "GovernanceSpec::is_empty")]
    pub governance: GovernanceSpec,
    /// What each network profile means.
    #[serde(default, skip_serializing_if = "NetworksSpec::is_empty")]
    pub networks: NetworksSpec,
    /// Places that its data is in: requirements of residency that it meets. Its facility is one
    /// besides, for stages on the facility's agents.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 100))]
    pub residency: BTreeSet<Name>,
    /// How the lock file is treated.
    #[serde(default, skip_serializing_if = "LockSpec::is_empty")]
    pub lock: LockSpec,
    /// How weak a boundary around an attempt may be.
    #[serde(default, skip_serializing_if = "IsolationSpec::is_empty")]
    pub isolation: IsolationSpec,
    /// What is logged; `info` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// Where secrets are fetched from. Without it there are no secrets, but in development.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretsSpec>,
    /// The file of the key that signs the ledger's checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4_096))]
    pub signing_key: Option<String>,
}

fn by_class<V: JsonSchema>(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let value = generator.subschema_for::<V>();
    keyed(RunnerClass::ALL.iter().map(|class| class.as_str()), &value)
}

fn by_class_and_size(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let profile = generator.subschema_for::<ProfileOverride>();
    let sizes = keyed(Size::ALL.iter().map(|size| size.as_str()), &profile);
    keyed(RunnerClass::ALL.iter().map(|class| class.as_str()), &sizes)
}

/// A mapping with some of these keys, so that a misspelt one is met with a suggestion.
fn keyed<'k>(keys: impl Iterator<Item = &'k str>, value: &schemars::Schema) -> schemars::Schema {
    let properties: serde_json::Map<String, serde_json::Value> = keys
        .map(|key| (key.to_owned(), value.clone().to_value()))
        .collect();
    schemars::json_schema!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Changes to the profiles of a class, by size.
pub type ClassCatalog = BTreeMap<Size, ProfileOverride>;

/// What an environment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentKind {
    /// For those who write pipelines.
    Development,
    /// As production, without its data.
    Staging,
    /// For real.
    Production,
}

impl EnvironmentKind {
    /// The value as environment files spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// What carries a class out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The embedded platform, on this machine.
    Local,
}

impl Backend {
    /// The value as environment files and runs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
        }
    }
}

/// What is logged.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what may become one.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And why.
    Debug,
}

/// How many attempts may run at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConcurrencySpec {
    /// Over all classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub total: Option<u32>,
    /// By class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "by_class::<u32>")]
    pub classes: BTreeMap<RunnerClass, u32>,
}

/// Who may use what without an approval.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GovernanceSpec {
    /// One row for each tenant, or for all of them. What no row allows is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub matrix: Vec<TenantGrants>,
    /// Who may grant approvals to whom, and deny and revoke them: one row for each tenant, or for
    /// all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub approvers: Vec<TenantApprovers>,
}

/// Who may grant approvals for a tenant's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantApprovers {
    /// The tenant, or `*` for every one.
    pub tenant: TenantSelector,
    /// Accounts of the operating system. Upper and lower case are one.
    #[schemars(length(min = 1, max = 1_000), inner(length(min = 1, max = 256)))]
    pub accounts: BTreeSet<String>,
}

/// What a tenant may use without an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantGrants {
    /// The tenant, or `*` for every one.
    pub tenant: TenantSelector,
    /// Each item allows every combination of what it lists.
    #[schemars(length(min = 1, max = 100))]
    pub allow: Vec<Grant>,
    /// Datasets that its stages may read across a boundary, where their manifests declare it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 1_000))]
    pub crossings: BTreeSet<DatasetName>,
}

/// Every combination of a class, a size and a network profile out of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The classes.
    pub classes: BTreeSet<RunnerClass>,
    /// The sizes.
    pub sizes: BTreeSet<Size>,
    /// The network profiles.
    pub network_profiles: BTreeSet<NetworkProfile>,
}

/// One tenant, or every one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TenantSelector {
    /// Written `*`.
    Any,
    /// This one.
    One(Name),
}

impl TenantSelector {
    /// Whether it means this tenant.
    pub fn covers(&self, tenant: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(name) => name.as_str() == tenant,
        }
    }
}

impl TryFrom<String> for TenantSelector {
    type Error = crate::text::InvalidText;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "*" {
            Ok(Self::Any)
        } else {
            text.parse().map(Self::One)
        }
    }
}

impl From<TenantSelector> for String {
    fn from(selector: TenantSelector) -> Self {
        match selector {
            TenantSelector::Any => "*".to_owned(),
            TenantSelector::One(name) => name.to_string(),
        }
    }
}

impl JsonSchema for TenantSelector {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TenantSelector".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^(\\*|[a-z0-9][a-z0-9_-]{0,62})$",
            "description": "A tenant's name, or `*` for every tenant.",
        })
    }
}

/// The name of the built-in environment.
pub(super) fn local_name() -> Name {
    Name::literal("local")
}

/// How the lock file is treated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockSpec {
    /// Whether `run` builds and pins anew what changed; in development it does unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_on_run: Option<bool>,
}

/// Where secrets are fetched from: the embedded store, and the key that it is encrypted under.
/// Relative paths begin at the environment file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretsSpec {
    /// The folder of the store, which has ciphertext alone; `secrets` in the state folder unless
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4_096))]
    pub store: Option<String>,
    /// The file of the key, which nobody but its owner may read; in the configuration folder of
    /// the user unless set. It belongs outside the reach of whoever reads the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4_096))]
    pub key_file: Option<String>,
    /// The file of a passphrase from which the key is stretched, in place of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4_096))]
    pub passphrase_file: Option<String>,
    /// The folder in memory in which attempts find their secrets; `/dev/shm` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4_096))]
    pub memory: Option<String>,
}

/// How weak a boundary around an attempt may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IsolationSpec {
    /// Whether a stage may ask for `isolation: process`; in development it may unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<bool>,
}

impl ConcurrencySpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl GovernanceSpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl LockSpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl IsolationSpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
