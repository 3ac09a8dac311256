//! A plan and governance's permit for it, made together: what may be carried out, and on whose word.
//!
//! The permit was asked for by facts of a manifest; what is carried out is a plan. [`Authorised`]
//! is made only where the plan says nothing but what was decided, and names the plan by its digest,
//! so that nothing else can be carried out in its place.

use std::sync::{Arc, OnceLock};

use barecount_model::{
    evidence::PlanText,
    plan::{Plan, StagePlan},
    run::{Run, Task},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::governance::{Action, Explanation, Permit, StageDecision};

/// Why a permit does not cover a plan or a run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotCovered {
    /// It is for other work: another action, tenant, environment, pipeline or version.
    #[error("the permit is for other work")]
    OtherWork,
    /// A stage was not decided about, or not with this class, size, network profile or crossings.
    #[error("stage `{0}` is not as it was permitted")]
    Stage(String),
    /// The run is not one of the plan.
    #[error("the run is not one of the plan that was permitted")]
    OtherRun,
    /// The decision or the plan cannot be written as JSON.
    #[error("what was permitted cannot be written down")]
    Unwritable(#[source] Arc<serde_json::Error>),
}

/// What governance permitted of a run: durable with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authority {
    /// What may be done.
    pub action: Action,
    /// Digest of the plan that may be carried out.
    pub plan: String,
    /// Digest of the decision, `sha256:…` of its JSON.
    pub decision: String,
    /// Digest of the policies that made it.
    pub policies: String,
    /// Who asked.
    pub requester: String,
    /// When it was decided.
    pub decided_at: Timestamp,
}

/// A plan as the store keeps it: its body and its digest, made once.
#[derive(Debug)]
pub(crate) struct PlanRecord {
    /// The plan.
    pub plan: Arc<Plan>,
    /// SHA-256 of `body`, in hexadecimal.
    pub digest: String,
    /// The plan as JSON.
    pub body: String,
    /// What evidence of its runs says of it.
    text: OnceLock<PlanText>,
}

impl PlanRecord {
    /// # Errors
    /// Where the plan cannot be written as JSON.
    pub(crate) fn new(plan: Plan) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_string(&plan)?;
        Ok(Self::stored(plan, hex::encode(Sha256::digest(&body)), body))
    }

    /// One that was read.
    pub(crate) fn stored(plan: Plan, digest: String, body: String) -> Self {
        Self {
            plan: Arc::new(plan),
            digest,
            body,
            text: OnceLock::new(),
        }
    }

    /// The plan, and what evidence of its runs says of it.
    pub(crate) fn with_text(&self) -> (&Plan, &PlanText) {
        let text = self.text.get_or_init(|| PlanText::of(&self.plan));
        (&self.plan, text)
    }
}

/// A plan that governance permits to be carried out.
#[derive(Debug, Clone)]
pub struct Authorised {
    pub(crate) record: Arc<PlanRecord>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) explanation: Arc<Explanation>,
}

impl Authorised {
    /// Binds a permit to run something to the plan of it, which carries the decision from here on.
    ///
    /// # Errors
    /// [`NotCovered`] if the plan is of other work, or has a stage that was not decided about.
    pub fn mint(mut plan: Plan, permit: &Permit) -> Result<Self, NotCovered> {
        let explanation = permit.shared();
        covers(&explanation, Action::Run, &plan)?;
        let rules = plan.decision["rules"].take();
        plan.decision = for_evidence(&explanation, rules).map_err(unwritable)?;
        let record = PlanRecord::new(plan).map_err(unwritable)?;
        let authority = Authority::new(&explanation, &record.digest)?;
        Ok(Self {
            record: Arc::new(record),
            authority: Arc::new(authority),
            explanation,
        })
    }

    /// The same plan by a permit that decides the same, so that nothing is made anew.
    ///
    /// # Errors
    /// [`NotCovered::OtherWork`] if the decision differs in anything.
    pub fn again(&self, permit: &Permit) -> Result<Self, NotCovered> {
        let same = std::ptr::eq(permit.explanation(), &*self.explanation)
            || *permit.explanation() == *self.explanation;
        if same {
            Ok(self.clone())
        } else {
            Err(NotCovered::OtherWork)
        }
    }

    /// What is carried out.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.record.plan
    }

    /// Whether a run is one of this plan.
    pub(crate) fn admits(&self, run: &Run) -> Result<(), NotCovered> {
        let plan = &self.record.plan;
        let same = run.tenant == plan.tenant
            && run.environment == plan.environment
            && run.pipeline == plan.pipeline
            && run.version == plan.version;
        let planned = |task: &Task| {
            plan.stage(&task.stage).is_some_and(|stage| {
                (stage.class, stage.size, stage.network_profile)
                    == (task.class, task.size, task.network_profile)
            })
        };
        if same && run.tasks.iter().all(planned) {
            Ok(())
        } else {
            Err(NotCovered::OtherRun)
        }
    }
}

impl Authority {
    pub(crate) fn new(explanation: &Explanation, plan: &str) -> Result<Self, NotCovered> {
        let decision = serde_json::to_vec(explanation).map_err(unwritable)?;
        Ok(Self {
            action: explanation.action,
            plan: plan.to_owned(),
            decision: format!("sha256:{}", hex::encode(Sha256::digest(decision))),
            policies: explanation.policies_digest.clone(),
            requester: explanation.requester.clone(),
            decided_at: explanation.decided_at,
        })
    }

    /// The same, and the decision as evidence keeps it.
    pub(crate) fn with_evidence(
        explanation: &Explanation,
        rules: Value,
        plan: &str,
    ) -> Result<(Self, Value), NotCovered> {
        let decision = for_evidence(explanation, rules).map_err(unwritable)?;
        Ok((Self::new(explanation, plan)?, decision))
    }

    /// Whether it lets attempts of this plan be carried out.
    pub(crate) fn lets(&self, record: &PlanRecord) -> bool {
        matches!(self.action, Action::Run | Action::Resume) && self.plan == record.digest
    }
}

/// A decision as evidence keeps it: beside it what it was decided by, if that is known.
///
/// # Errors
/// Where it cannot be written as JSON.
pub(crate) fn for_evidence(
    explanation: &Explanation,
    rules: Value,
) -> Result<Value, serde_json::Error> {
    let mut decision = serde_json::to_value(explanation)?;
    if !rules.is_null() {
        decision["rules"] = rules;
    }
    Ok(decision)
}

/// Whether a decision permits `action` on a plan: on this very work, and each of its stages as the
/// plan has it.
///
/// # Errors
/// [`NotCovered`], naming the first stage that was not decided about as it is.
pub(crate) fn covers(
    explanation: &Explanation,
    action: Action,
    plan: &Plan,
) -> Result<(), NotCovered> {
    if explanation.action != action || !permits(explanation, plan) {
        return Err(NotCovered::OtherWork);
    }
    if action.concerns_pipeline() {
        return Ok(());
    }
    let decided = |stage: &&StagePlan| {
        !explanation
            .decisions
            .iter()
            .any(|decision| as_decided(decision, stage))
    };
    match plan.stages.iter().find(decided) {
        Some(stage) => Err(NotCovered::Stage(stage.name.clone())),
        None => Ok(()),
    }
}

/// Whether a decision is one by which a plan is carried out: then whoever has it may stop that, too.
///
/// # Errors
/// [`NotCovered::OtherWork`] if it is of another action, or of other work.
pub(crate) fn carries_out(explanation: &Explanation, plan: &Plan) -> Result<(), NotCovered> {
    let carries_out = matches!(explanation.action, Action::Run | Action::Resume);
    match carries_out && permits(explanation, plan) {
        true => Ok(()),
        false => Err(NotCovered::OtherWork),
    }
}

/// Whether a decision permits something of this very work.
fn permits(explanation: &Explanation, plan: &Plan) -> bool {
    explanation.tenant == plan.tenant
        && explanation.environment.name == plan.environment
        && explanation.pipeline == plan.pipeline
        && explanation.version == plan.version
        && explanation
            .decisions
            .iter()
            .all(|decision| decision.allowed)
}

fn as_decided(decision: &StageDecision, stage: &StagePlan) -> bool {
    let crossings = decision.crossings.iter().map(|decided| &decided.crossing);
    decision.stage.as_ref().is_some_and(|decided| {
        decided.name == stage.name
            && (decided.class, decided.size, decided.network_profile)
                == (stage.class, stage.size, stage.network_profile)
    }) && crossings.eq(&stage.crossings)
}

fn unwritable(error: serde_json::Error) -> NotCovered {
    NotCovered::Unwritable(Arc::new(error))
}
