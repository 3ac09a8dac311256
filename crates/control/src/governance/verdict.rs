//! What governance answers. A [`Permit`] is proof of permission as a type: only governance makes one.

use std::collections::BTreeSet;
use std::sync::Arc;

use barecount_model::boundary::Crossing;
use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use barecount_model::digest::Digest;
use barecount_model::id::ApprovalId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::question::{Action, ApprovalScope, ApprovalState, EnvironmentFacts};

/// The answer to a question.
#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every stage is permitted.
    Permitted(Permit),
    /// At least one stage is refused, so nothing may start.
    Refused(Refusal),
}

impl Verdict {
    /// Why, whatever the answer.
    pub fn explanation(&self) -> &Explanation {
        match self {
            Self::Permitted(permit) => permit.explanation(),
            Self::Refused(refusal) => &refusal.explanation,
        }
    }

    /// True for [`Verdict::Permitted`].
    pub fn is_permitted(&self) -> bool {
        matches!(self, Self::Permitted(_))
    }

    /// Why, whatever the answer, for those who do not act on it.
    pub fn into_explanation(self) -> Explanation {
        match self {
            Self::Permitted(permit) => Arc::unwrap_or_clone(permit.explanation),
            Self::Refused(refusal) => *refusal.explanation,
        }
    }

    /// The permit, or the refusal as an error.
    ///
    /// # Errors
    /// The refusal, when the answer is no.
    pub fn into_permit(self) -> Result<Permit, Box<Refusal>> {
        match self {
            Self::Permitted(permit) => Ok(permit),
            Self::Refused(refusal) => Err(Box::new(refusal)),
        }
    }
}

/// Proof that governance permitted one action on one pipeline version in one environment.
///
/// Commands that change anything take `&Permit` and check with [`Permit::covers`] that it is about
/// them. It cannot be made, copied or read back from evidence elsewhere:
///
/// ```compile_fail,E0451
/// use barecount_control::governance::{Explanation, Permit};
/// fn forge(explanation: Explanation) -> Permit {
///     Permit { explanation }
/// }
/// ```
///
/// ```compile_fail,E0277
/// use barecount_control::governance::Permit;
/// fn forge(evidence: &str) -> Permit {
///     serde_json::from_str(evidence).expect("a permit is not readable")
/// }
/// ```
///
/// ```compile_fail,E0277
/// use barecount_control::governance::Permit;
/// fn keep(permit: &Permit) -> Permit {
///     Permit::clone(permit)
/// }
/// ```
#[derive(Debug, Serialize)]
pub struct Permit {
    #[serde(serialize_with = "shared")]
    explanation: Arc<Explanation>,
}

impl Permit {
    /// Only for [`super::Governance::decide`].
    pub(super) fn mint(explanation: Arc<Explanation>) -> Self {
        Self { explanation }
    }

    /// The same, to be kept with what was permitted.
    pub(crate) fn shared(&self) -> Arc<Explanation> {
        Arc::clone(&self.explanation)
    }

    /// Why it was permitted.
    pub fn explanation(&self) -> &Explanation {
        &self.explanation
    }

    /// True when the permit is for this action on this pipeline version, tenant and environment.
    pub fn covers(
        &self,
        action: Action,
        tenant: &str,
        environment: &str,
        pipeline: &str,
        version: &str,
    ) -> bool {
        let asked = &self.explanation;
        asked.action == action
            && asked.tenant == tenant
            && asked.environment.name == environment
            && asked.pipeline == pipeline
            && asked.version == version
    }
}

fn shared<S: Serializer>(explanation: &Arc<Explanation>, to: S) -> Result<S::Ok, S::Error> {
    explanation.as_ref().serialize(to)
}

/// A refusal, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", .explanation.headline())]
pub struct Refusal {
    /// Why it was refused, and what would change that.
    pub explanation: Box<Explanation>,
}

/// Everything that evidence keeps of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked for.
    pub action: Action,
    /// For whom.
    pub tenant: String,
    /// Where.
    pub environment: EnvironmentFacts,
    /// Which pipeline, by name.
    pub pipeline: String,
    /// Which version of it.
    pub version: String,
    /// Who asked.
    pub requester: String,
    /// The approval, where one was decided about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
    /// When.
    pub decided_at: Timestamp,
    /// One decision a stage, in the order asked; a single one without a stage for an action on the
    /// pipeline as a whole, or for a question that could not be put to the policies.
    pub decisions: Vec<StageDecision>,
    /// Digest of the schema and of every policy in force, `sha256:…`.
    pub policies_digest: String,
}

impl Explanation {
    /// Whether every stage was permitted. This is told, and proves nothing: what acts takes a
    /// [`Permit`].
    pub fn is_permitted(&self) -> bool {
        !self.decisions.is_empty() && self.decisions.iter().all(|decision| decision.allowed)
    }

    /// One line: the first thing that stands in the way, or that nothing does.
    pub fn headline(&self) -> String {
        let failed: Vec<_> = self
            .decisions
            .iter()
            .flat_map(|decision| &decision.failed)
            .collect();
        match failed.as_slice() {
            [] => "every policy is met".to_owned(),
            [only] => only.condition.clone(),
            [first, rest @ ..] => format!("{} (and {} more)", first.condition, rest.len()),
        }
    }
}

/// The decision about one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageDecision {
    /// The stage as it was asked about; absent when the pipeline as a whole was decided.
    pub stage: Option<StageSummary>,
    /// True when the stage may go ahead.
    pub allowed: bool,
    /// The digest of what was asked of the stage, where an approval was looked at or would be
    /// needed: approvals are of questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Digest>,
    /// The policies that made the decision: those that permit, or those that refuse.
    pub determining: Vec<PolicyRef>,
    /// Rows of the tenant's matrix that list the stage's combination.
    pub matrix_rows: Vec<String>,
    /// What the stage reads from within stricter boundaries than its own, and what allows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crossings: Vec<CrossingDecision>,
    /// Approvals that were looked at for this stage.
    pub approvals: Vec<ApprovalDecision>,
    /// What stands in the way; empty exactly when `allowed`.
    pub failed: Vec<FailedCondition>,
    /// Single changes after which the whole stage would be permitted, if there are any.
    pub alternatives: Vec<Change>,
}

impl Explanation {
    /// The approvals that the decision relies on, each once.
    pub fn relied_on(&self) -> BTreeSet<&ApprovalId> {
        let approvals = self
            .decisions
            .iter()
            .flat_map(|decision| &decision.approvals);
        let relied_on = approvals.filter(|approval| approval.relied_on);
        relied_on
            .filter_map(|approval| approval.id.as_ref())
            .collect()
    }
}

/// The reason given where a question could not be put to the policies; no policy can have this id.
pub(super) const UNANSWERABLE: &str = "barecount:unanswerable";

impl StageDecision {
    /// True when nothing was decided, because the question could not be put to the policies.
    pub fn is_unanswerable(&self) -> bool {
        self.failed
            .iter()
            .any(|failed| failed.policy.id == UNANSWERABLE)
    }
}

/// The part of a stage that its decision is mostly about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSummary {
    /// Its name.
    pub name: String,
    /// How it would be executed.
    pub class: RunnerClass,
    /// Its size tier.
    pub size: Size,
    /// What it may reach, and by which path.
    pub network_profile: NetworkProfile,
}

/// A policy by its own name and words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// Its `@id`.
    pub id: String,
    /// Its `@title`.
    pub title: String,
}

/// One condition that was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCondition {
    /// The policy that asks for it.
    pub policy: PolicyRef,
    /// What was not met, in words, with the names of this case.
    pub condition: String,
    /// What was found, as far as a single change would matter; empty when none would.
    pub found: String,
    /// Values with which this policy would be met; empty when no single change would do.
    pub needed: String,
    /// What to do, in the policy's own words.
    pub remedy: String,
    /// The changes behind `needed`, found by asking the policies again.
    pub changes: Vec<Change>,
}

/// A change of one attribute, found by asking the policies again with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The attribute that would change.
    pub attribute: Attribute,
    /// Its value as asked.
    pub from: String,
    /// Values that would do, in the vocabulary's order.
    pub to: Vec<String>,
}

/// What a [`Change`] can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// The stage's runner class.
    Class,
    /// The stage's size.
    Size,
    /// The stage's network profile.
    NetworkProfile,
    /// How the stage is isolated.
    Isolation,
    /// Whether the stage logs at level debug.
    DebugLogging,
    /// Whether the stage states where its data must stay.
    Residency,
    /// A usable approval, by scope.
    Approval,
    /// The kind of environment.
    EnvironmentKind,
}

impl Attribute {
    /// The attribute as people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Size => "size",
            Self::NetworkProfile => "network profile",
            Self::Isolation => "isolation",
            Self::DebugLogging => "debug logging",
            Self::Residency => "residency requirement",
            Self::Approval => "approval",
            Self::EnvironmentKind => "kind of environment",
        }
    }
}

/// What was decided of one crossing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossingDecision {
    /// The crossing, as the manifest declares it.
    #[serde(flatten)]
    pub crossing: Crossing,
    /// Everything that allows it; nothing where it is refused.
    pub allowed_by: Vec<CrossingBasis>,
}

/// What allows a crossing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CrossingBasis {
    /// The environment is for development.
    Development,
    /// The environment grants it to the tenant.
    Grant {
        /// The tenant.
        tenant: String,
    },
    /// An approval names it.
    Approval {
        /// Which; absent of those that are older than identifiers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<ApprovalId>,
        /// Who approved it.
        approver: Option<String>,
        /// From when on the approval no longer counts.
        expires_at: Option<Timestamp>,
    },
}

/// Whether one approval counted for one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDecision {
    /// Its place among the question's approvals.
    #[serde(default)]
    pub position: usize,
    /// For scope `crossing`: the datasets that it lets across.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datasets: Vec<String>,
    /// Its identifier; absent of those that are older than identifiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ApprovalId>,
    /// The exception it makes.
    pub scope: ApprovalScope,
    /// What has become of it.
    #[serde(default = "granted")]
    pub state: ApprovalState,
    /// Who asked for it.
    #[serde(default)]
    pub requester: Option<String>,
    /// Who granted it, once somebody has.
    pub approver: Option<String>,
    /// From when on it no longer counts, once it was granted.
    pub expires_at: Option<Timestamp>,
    /// Why it was granted; why it was asked for, before that.
    pub justification: String,
    /// True when it counts.
    pub usable: bool,
    /// True for the one of those that count which is used for its scope: a run by it is one of
    /// those that it was granted for.
    #[serde(default)]
    pub relied_on: bool,
    /// The policies that decided it.
    pub determining: Vec<PolicyRef>,
    /// Why it does not count; empty exactly when `usable`.
    pub failed: Vec<FailedCondition>,
}

/// Older approvals were lines of granted ones.
fn granted() -> ApprovalState {
    ApprovalState::Granted
}

impl FailedCondition {
    /// Puts the found and the needed values into words.
    pub(super) fn new(
        policy: PolicyRef,
        condition: String,
        remedy: &str,
        changes: Vec<Change>,
    ) -> Self {
        let found: Vec<_> = changes.iter().map(Change::found).collect();
        let needed: Vec<_> = changes.iter().map(Change::needed).collect();
        Self {
            policy,
            condition,
            found: found.join("; "),
            needed: needed.join("; or "),
            remedy: remedy.to_owned(),
            changes,
        }
    }
}

impl Change {
    /// The value as asked, in words: ``size `xlarge` ``.
    pub fn found(&self) -> String {
        match self.attribute {
            Attribute::Approval => "no approval that counts".to_owned(),
            Attribute::Residency => "no residency requirement".to_owned(),
            attribute => format!("{} `{}`", attribute.as_str(), self.from),
        }
    }

    /// The values that would do, in words: ``size `small`, `medium` or `large` ``.
    pub fn needed(&self) -> String {
        let mut words = match self.attribute {
            Attribute::Residency => return "a residency requirement".to_owned(),
            Attribute::Approval => "an approval of scope ".to_owned(),
            attribute => format!("{} ", attribute.as_str()),
        };
        for (position, value) in self.to.iter().enumerate() {
            words.push_str(match position {
                0 => "",
                _ if position + 1 == self.to.len() => " or ",
                _ => ", ",
            });
            words.push('`');
            words.push_str(value);
            words.push('`');
        }
        words
    }
}
