//! What governance is asked: plain data about who wants to do what, where, and with which exceptions.
//!
//! Nothing here decides. The one lookup, [`Matrix::matching_rows`], is set membership; what follows
//! from it is written in policies.

use std::collections::{BTreeMap, BTreeSet};

pub use barecount_model::approval::{ApprovalState, Scope as ApprovalScope};
use barecount_model::boundary::Crossing;
use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use barecount_model::digest::Digest;
use barecount_model::id::ApprovalId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Most stages that one question may name.
pub const MAX_STAGES: usize = 256;
/// Most approvals that one question may bring along.
pub const MAX_APPROVALS: usize = 64;
/// Most rows that one tenant's matrix may have.
pub const MAX_MATRIX_ROWS: usize = 256;
/// Most entries of a list inside a stage or an approval: drivers, destinations, crossings.
pub const MAX_LIST: usize = 64;
/// Longest text in a question, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Start a run; every stage is decided.
    Run,
    /// Take a run up again that failed or was cancelled; every stage is decided.
    Resume,
    /// End a run before its work is done; the pipeline is decided as a whole.
    Cancel,
    /// Put a version in place; every stage is decided.
    Deploy,
    /// Restore, drop or give a dataset; the pipeline that it belongs to is decided as a whole.
    ChangeDataset,
    /// Write new digests into the lock; the pipeline is decided as a whole.
    RefreshLock,
    /// Do committed or failed work again; every stage is decided.
    Replay,
    /// Ask for an approval; the approval is decided about.
    RequestApproval,
    /// Grant an approval that was asked for.
    GrantApproval,
    /// Deny an approval that was asked for.
    DenyApproval,
    /// Take an approval back.
    RevokeApproval,
}

impl Action {
    /// The action as policies, evidence and JSON spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Deploy => "deploy",
            Self::ChangeDataset => "change_dataset",
            Self::RefreshLock => "refresh_lock",
            Self::Replay => "replay",
            Self::RequestApproval => "request_approval",
            Self::GrantApproval => "grant_approval",
            Self::DenyApproval => "deny_approval",
            Self::RevokeApproval => "revoke_approval",
        }
    }

    /// True where the pipeline as a whole is decided, false where each stage is.
    pub fn concerns_pipeline(self) -> bool {
        matches!(self, Self::RefreshLock | Self::Cancel | Self::ChangeDataset)
    }

    /// True where an approval is decided about, which is then the question's only one.
    pub fn concerns_approval(self) -> bool {
        matches!(
            self,
            Self::RequestApproval | Self::GrantApproval | Self::DenyApproval | Self::RevokeApproval
        )
    }
}

/// How much an environment is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentKind {
    /// For trying things; locks may change here.
    Development,
    /// A rehearsal of production.
    Staging,
    /// Where results count.
    Production,
}

impl EnvironmentKind {
    /// Every kind, least protected first.
    pub const ALL: [Self; 3] = [Self::Development, Self::Staging, Self::Production];

    /// The kind as policies, evidence and JSON spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// How a stage is kept apart from its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Namespaces, limits and a system call filter.
    Sandbox,
    /// An ordinary process; only when asked for by name.
    Process,
}

impl Isolation {
    /// Both kinds, stronger first.
    pub const ALL: [Self; 2] = [Self::Sandbox, Self::Process];

    /// The isolation as policies, evidence and JSON spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Process => "process",
        }
    }
}

/// The environment that the work would touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentFacts {
    /// Its name, as `--env` spells it.
    pub name: String,
    /// How much it is protected.
    pub kind: EnvironmentKind,
}

/// The pipeline that the work belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineFacts {
    /// Its name, unique within the tenant.
    pub name: String,
    /// The version asked about.
    pub version: String,
    /// Who answers for it.
    pub owner: String,
    /// How sensitive its data is.
    pub classification: String,
}

/// One stage, as the manifest and the environment file declare it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageFacts {
    /// Its name, unique within the pipeline.
    pub name: String,
    /// How it is executed.
    pub class: RunnerClass,
    /// Its size tier.
    pub size: Size,
    /// What size `custom` is worth, for that size alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_size: Option<String>,
    /// What it may reach, and by which path.
    pub network_profile: NetworkProfile,
    /// How it is kept apart from its host.
    pub isolation: Isolation,
    /// How sensitive its data is.
    pub classification: String,
    /// Driver bundles by name.
    pub drivers: Vec<String>,
    /// True when secrets are mounted into it.
    pub has_secrets: bool,
    /// True when one of them is put into an environment variable, too.
    #[serde(default)]
    pub has_secret_variables: bool,
    /// True when it would log at level debug.
    pub debug_logging: bool,
    /// Where its data must stay, if it must.
    pub residency: Option<String>,
    /// Those of its destinations that the environment reaches by a private path.
    pub privately_reachable: Vec<String>,
    /// What it reads from within stricter boundaries than its own.
    pub crossings: Vec<Crossing>,
}

/// A list of values, or every value (`"*"`). An empty list allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Allowed<T> {
    /// Every value.
    Any(Wildcard),
    /// These values only.
    Only(Vec<T>),
}

/// The text `"*"` in a matrix row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wildcard {
    /// Every value.
    #[serde(rename = "*")]
    Any,
}

impl<T: PartialEq> Allowed<T> {
    /// Every value is allowed.
    pub const ANY: Self = Self::Any(Wildcard::Any);

    /// True when the value is listed, or every value is.
    pub fn contains(&self, value: &T) -> bool {
        match self {
            Self::Any(Wildcard::Any) => true,
            Self::Only(values) => values.contains(value),
        }
    }
}

/// One row of a tenant's matrix: it allows each class with each size and each profile listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixRow {
    /// What the row is called in answers and evidence.
    pub name: String,
    /// Classes allowed.
    pub classes: Allowed<RunnerClass>,
    /// Sizes allowed.
    pub sizes: Allowed<Size>,
    /// Network profiles allowed.
    pub network_profiles: Allowed<NetworkProfile>,
}

/// What each tenant may use in one environment. A tenant that is not listed has no matrix.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Matrix {
    /// Rows by tenant.
    pub tenants: BTreeMap<String, Vec<MatrixRow>>,
    /// Datasets by tenant that its stages may read across a boundary where they declare it.
    #[serde(default)]
    pub crossings: BTreeMap<String, BTreeSet<String>>,
    /// Accounts by tenant that may grant approvals for its work, in lower case.
    #[serde(default)]
    pub approvers: BTreeMap<String, BTreeSet<String>>,
}

impl Matrix {
    /// Names of the tenant's rows that list the combination; `None` when the tenant has no matrix.
    pub fn matching_rows(
        &self,
        tenant: &str,
        class: RunnerClass,
        size: Size,
        network_profile: NetworkProfile,
    ) -> Option<BTreeSet<&str>> {
        let rows = self.tenants.get(tenant)?;
        let matching = rows.iter().filter(|row| {
            row.classes.contains(&class)
                && row.sizes.contains(&size)
                && row.network_profiles.contains(&network_profile)
        });
        Some(matching.map(|row| row.name.as_str()).collect())
    }
}

/// An approval as it is on record, for one of its scopes. Whether it counts is for policies to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Its identifier.
    pub id: ApprovalId,
    /// The exception it makes.
    pub scope: ApprovalScope,
    /// What has become of it.
    pub state: ApprovalState,
    /// For whose work.
    pub tenant: String,
    /// In which environment, by name.
    pub environment: String,
    /// For which pipeline, by name.
    pub pipeline: String,
    /// For which stage, by name.
    pub stage: String,
    /// For scope `crossing`: the datasets that may cross; empty for every other scope.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// The digest of the question that it was asked of.
    pub question: Digest,
    /// Who asked for it.
    pub requester: String,
    /// Who granted it, once somebody has.
    pub approver: Option<String>,
    /// Why it was granted; why it was asked for, before that.
    pub justification: String,
    /// From when on it no longer counts, once it was granted.
    pub expires_at: Option<Timestamp>,
    /// How many runs it counts for still, this one among them; any number, if absent.
    pub runs_left: Option<u32>,
}

/// One question to governance: may this be done, here, now, as asked?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What somebody wants to do.
    pub action: Action,
    /// For whom the work is done.
    pub tenant: String,
    /// Where.
    pub environment: EnvironmentFacts,
    /// Who asks, as authenticated.
    pub requester: String,
    /// Which pipeline.
    pub pipeline: PipelineFacts,
    /// Its stages; at least one, unless the action concerns the pipeline as a whole.
    pub stages: Vec<StageFacts>,
    /// What tenants may use in this environment.
    pub matrix: Matrix,
    /// Approvals on record that may bear on this.
    pub approvals: Vec<Approval>,
    /// The time at which the question is asked.
    pub now: Timestamp,
}

/// Why a question cannot be put to the policies at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswerable {
    #[error("the question names no stage")]
    NoStage,
    #[error("the question names no approval")]
    NoApproval,
    #[error("the question has {found} {what}, more than the {limit} that can be decided at once")]
    TooMany {
        what: &'static str,
        found: usize,
        limit: usize,
    },
    #[error("the {field} is {found} bytes long, more than {limit}")]
    TooLong {
        field: &'static str,
        found: usize,
        limit: usize,
    },
    #[error("the {field} is empty")]
    Empty { field: &'static str },
    #[error("two stages are named `{name}`")]
    DuplicateStage { name: String },
}

impl Question {
    /// Whether it differs from another one in nothing but when it is asked.
    pub(super) fn equals_but_for_time(&self, other: &Self) -> bool {
        let Self {
            action,
            tenant,
            environment,
            requester,
            pipeline,
            stages,
            matrix,
            approvals,
            now: _,
        } = self;
        *action == other.action
            && *tenant == other.tenant
            && *pipeline == other.pipeline
            && *requester == other.requester
            && *environment == other.environment
            && *stages == other.stages
            && *approvals == other.approvals
            && *matrix == other.matrix
    }

    /// Checks the bounds that keep a hostile question from costing time or memory.
    pub(super) fn check(&self) -> Result<(), Unanswerable> {
        if self.action.concerns_approval() {
            if self.approvals.is_empty() {
                return Err(Unanswerable::NoApproval);
            }
        } else if self.stages.is_empty() && !self.action.concerns_pipeline() {
            return Err(Unanswerable::NoStage);
        }
        at_most("stages", self.stages.len(), MAX_STAGES)?;
        at_most("approvals", self.approvals.len(), MAX_APPROVALS)?;
        for (field, text) in [
            ("tenant", &self.tenant),
            ("environment name", &self.environment.name),
            ("requester", &self.requester),
            ("pipeline name", &self.pipeline.name),
        ] {
            if text.is_empty() {
                return Err(Unanswerable::Empty { field });
            }
            short(field, text)?;
        }
        short("pipeline owner", &self.pipeline.owner)?;
        short("classification", &self.pipeline.classification)?;
        let mut names = BTreeSet::new();
        for stage in &self.stages {
            stage.check()?;
            if !names.insert(&stage.name) {
                return Err(Unanswerable::DuplicateStage {
                    name: stage.name.clone(),
                });
            }
        }
        if let Some(rows) = self.matrix.tenants.get(&self.tenant) {
            at_most("matrix rows", rows.len(), MAX_MATRIX_ROWS)?;
            rows.iter()
                .try_for_each(|row| short("matrix row name", &row.name))?;
        }
        self.approvals.iter().try_for_each(Approval::check)
    }
}

impl StageFacts {
    fn check(&self) -> Result<(), Unanswerable> {
        if self.name.is_empty() {
            return Err(Unanswerable::Empty {
                field: "stage name",
            });
        }
        short("stage name", &self.name)?;
        short("classification", &self.classification)?;
        self.residency
            .iter()
            .try_for_each(|text| short("residency requirement", text))?;
        at_most("drivers", self.drivers.len(), MAX_LIST)?;
        at_most("destinations", self.privately_reachable.len(), MAX_LIST)?;
        at_most("crossings", self.crossings.len(), MAX_LIST)?;
        self.crossings
            .iter()
            .try_for_each(|crossing| short("reason of a crossing", &crossing.reason))?;
        self.drivers
            .iter()
            .try_for_each(|text| short("driver name", text))?;
        self.privately_reachable
            .iter()
            .try_for_each(|text| short("destination", text))
    }
}

impl Approval {
    fn check(&self) -> Result<(), Unanswerable> {
        for (field, text) in [
            ("approval's tenant", &self.tenant),
            ("approval's environment", &self.environment),
            ("approval's pipeline", &self.pipeline),
            ("approval's requester", &self.requester),
            ("justification", &self.justification),
        ] {
            short(field, text)?;
        }
        self.approver
            .iter()
            .try_for_each(|text| short("approver", text))?;
        at_most("datasets of an approval", self.datasets.len(), MAX_LIST)?;
        self.datasets
            .iter()
            .chain([&self.stage])
            .try_for_each(|text| short("approval's stage or dataset", text))
    }
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), Unanswerable> {
    if found > limit {
        Err(Unanswerable::TooMany { what, found, limit })
    } else {
        Ok(())
    }
}

fn short(field: &'static str, text: &str) -> Result<(), Unanswerable> {
    let (found, limit) = (text.len(), MAX_TEXT_BYTES);
    if found > limit {
        Err(Unanswerable::TooLong {
            field,
            found,
            limit,
        })
    } else {
        Ok(())
    }
}
