//! Governance: may this be done, here, now, as asked? Every answer names the policies that made it.
//!
//! The rules are Cedar policies (`policies/` at the root of the repository, and whatever files an
//! operator adds); this module loads them, puts questions to them, and explains the answers. It
//! contains no rule of its own. It fails closed: a question that cannot be answered is refused.
//!
//! Default policies are always in force; added ones can refuse more, and an exception is an
//! approval, never the absence of a policy.
//!
//! What it does not know: manifests, stores, clocks, the command line. Who approved what is data
//! that the caller read from its store.

mod alternatives;
mod evaluation;
mod load;
mod memory;
mod question;
mod render;
mod template;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use barecount_model::boundary::Crossing;
use barecount_model::digest::Digest;
use barecount_model::evidence::canonical_json;
use cedar_policy::{Entities, PolicyId};

pub use self::load::{LoadError, MAX_POLICIES, MAX_SOURCE_BYTES, PolicyProblem, PolicySource};
pub use self::question::{
    Action, Allowed, Approval, ApprovalScope, ApprovalState, EnvironmentFacts, EnvironmentKind,
    Isolation, MAX_APPROVALS, MAX_LIST, MAX_MATRIX_ROWS, MAX_STAGES, MAX_TEXT_BYTES, Matrix,
    MatrixRow, PipelineFacts, Question, StageFacts, Wildcard,
};
pub use self::render::explain;
pub use self::verdict::{
    ApprovalDecision, Attribute, Change, CrossingBasis, CrossingDecision, Explanation,
    FailedCondition, Permit, PolicyRef, Refusal, StageDecision, StageSummary, Verdict,
};

use self::alternatives::{meeting, permitting};
use self::evaluation::{Answer, AskError, Case, Evaluator, StageCase};
use self::load::Policies;
use self::memory::Memory;
use self::template::{Names, excerpt};
use self::verdict::UNANSWERABLE;

/// Policies in force. Immutable, shared between threads, and cheap to ask.
#[derive(Debug)]
pub struct Governance {
    evaluator: Evaluator,
    /// Absent where an added policy may ask for the time.
    memory: Option<Memory>,
}

impl Governance {
    /// Puts the default policies in force, and `additional` ones beside them.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files, by file, line and column; nothing is in
    /// force then.
    pub fn load(additional: &[PolicySource]) -> Result<Self, LoadError> {
        let policies = Policies::load(additional)?;
        let evaluator = Evaluator::new(policies).map_err(|error| LoadError {
            problems: vec![PolicyProblem {
                file: "policies/schema.cedarschema".to_owned(),
                line: 1,
                column: 1,
                message: error.to_string(),
                help: None,
            }],
        })?;
        let memory = Memory::beside(additional);
        Ok(Self { evaluator, memory })
    }

    /// The default policies as text, which [`Governance::load`] always puts in force.
    pub fn default_policies() -> Vec<PolicySource> {
        load::default_sources()
    }

    /// Digest of the schema and of every policy in force, `sha256:…`.
    pub fn policies_digest(&self) -> &str {
        &self.evaluator.policies.digest
    }

    /// The schema and every policy in force, as they are written, for people and for evidence.
    pub fn policies_text(&self) -> &str {
        &self.evaluator.policies.text
    }

    /// Answers the question. The same question gives the same answer, byte for byte; a permit whose
    /// question is put again later, with nothing else changed and no approval expired, is the one
    /// that was decided then, and says when that was.
    pub fn decide(&self, question: &Question) -> Verdict {
        let remembered = self
            .memory
            .as_ref()
            .and_then(|memory| memory.recall(question));
        if let Some(explanation) = remembered {
            return Verdict::Permitted(Permit::mint(explanation));
        }
        let decisions = match question.check() {
            Ok(()) => self
                .decisions(question)
                .unwrap_or_else(|error| vec![unanswered(&error)]),
            Err(error) => vec![unanswered(&error)],
        };
        let explanation = Explanation {
            action: question.action,
            tenant: bounded(&question.tenant),
            environment: EnvironmentFacts {
                name: bounded(&question.environment.name),
                kind: question.environment.kind,
            },
            pipeline: bounded(&question.pipeline.name),
            version: question.pipeline.version.clone(),
            requester: bounded(&question.requester),
            approval: approval_of(question).map(|approval| approval.id.clone()),
            decided_at: question.now,
            decisions,
            policies_digest: self.policies_digest().to_owned(),
        };
        if explanation.is_permitted() {
            let explanation = Arc::new(explanation);
            if let Some(memory) = &self.memory {
                memory.keep(question, &explanation);
            }
            Verdict::Permitted(Permit::mint(explanation))
        } else {
            let explanation = Box::new(explanation);
            Verdict::Refused(Refusal { explanation })
        }
    }

    /// The digest of all that is asked about a stage, and of the policies that answer: what an
    /// approval is given for. Who asks and when, the pipeline's version and owner, and what the
    /// matrix allows besides are no part of it.
    pub fn question_of(&self, question: &Question, stage: &StageFacts) -> Digest {
        let asked = serde_json::json!({
            "tenant": question.tenant,
            "environment": question.environment,
            "pipeline": question.pipeline.name,
            "classification": question.pipeline.classification,
            "stage": stage,
            "policies": self.policies_digest(),
        });
        Digest::of(canonical_json(&asked).as_bytes())
    }

    fn decisions<'q>(&self, question: &'q Question) -> Result<Vec<StageDecision>, AskError> {
        let kind = question.environment.kind;
        if question.action.concerns_approval() {
            return self.act(question);
        }
        if question.action.concerns_pipeline() {
            let entities = self.evaluator.entities(question, kind, [], &[])?;
            return Ok(vec![self.decision(
                Case::new(question, None),
                Vec::new(),
                &entities,
            )?]);
        }
        let cases: Vec<_> = question
            .stages
            .iter()
            .map(|s| Case::new(question, Some(s)))
            .collect();
        let stages = cases.iter().filter_map(|case| case.stage.as_ref());
        let entities = self
            .evaluator
            .entities(question, kind, stages, &question.approvals)?;
        let decide = |mut case: Case<'q>| {
            let approvals = self.approvals(&case, &entities)?;
            let usable = approvals.iter().filter(|approval| approval.usable);
            case.approved = usable.map(|approval| approval.scope).collect();
            let usable = approvals.iter().filter(|approval| approval.usable);
            let crossing = usable.filter(|approval| approval.scope == ApprovalScope::Crossing);
            let named = crossing.flat_map(|approval| {
                let recorded = &question.approvals[approval.position];
                recorded.datasets.iter().map(String::as_str)
            });
            case.crossings_approved = named.collect();
            self.decision(case, approvals, &entities)
        };
        cases.into_iter().map(decide).collect()
    }

    /// Whether the question's action may be done to its approval, which has an entry for each of its
    /// scopes.
    fn act(&self, question: &Question) -> Result<Vec<StageDecision>, AskError> {
        let kind = question.environment.kind;
        let entities = self
            .evaluator
            .entities(question, kind, [], &question.approvals)?;
        let decide = |(position, approval): (usize, &Approval)| {
            let answer = self.evaluator.ask_act(question, position, &entities)?;
            let mut names = names(&Case::new(question, None));
            names.extend(names_of_approval(approval));
            Ok(StageDecision {
                stage: None,
                allowed: answer.allowed,
                question: Some(approval.question),
                determining: self.determining(&answer),
                matrix_rows: Vec::new(),
                crossings: Vec::new(),
                approvals: Vec::new(),
                failed: self.failed(&answer, &names, &|_| Vec::new()),
                alternatives: Vec::new(),
            })
        };
        let approvals = question.approvals.iter().enumerate();
        approvals.map(decide).collect()
    }

    /// Which approvals count for the stage. One that names another stage is not about it.
    fn approvals(
        &self,
        case: &Case<'_>,
        entities: &Entities,
    ) -> Result<Vec<ApprovalDecision>, AskError> {
        let Some(StageCase { facts, .. }) = &case.stage else {
            return Ok(Vec::new());
        };
        let about = |approval: &&Approval| approval.stage == facts.name;
        if !case.question.approvals.iter().any(|one| about(&one)) {
            return Ok(Vec::new());
        }
        let asked = self.question_of(case.question, facts);
        let mut decisions: Vec<ApprovalDecision> = Vec::new();
        let approvals = case.question.approvals.iter().enumerate();
        for (position, approval) in approvals.filter(|(_, approval)| about(approval)) {
            let answer =
                self.evaluator
                    .ask_approval(case.question, (facts, asked), position, entities)?;
            let mut names = names(case);
            names.extend(names_of_approval(approval));
            // Of several that count, a run uses up one.
            let before = decisions.iter().any(|decided| {
                decided.relied_on
                    && decided.scope == approval.scope
                    && approval
                        .datasets
                        .iter()
                        .all(|name| decided.datasets.contains(name))
            });
            decisions.push(ApprovalDecision {
                position,
                id: Some(approval.id.clone()),
                scope: approval.scope,
                state: approval.state,
                datasets: approval.datasets.clone(),
                requester: Some(approval.requester.clone()),
                approver: approval.approver.clone(),
                expires_at: approval.expires_at,
                justification: approval.justification.clone(),
                usable: answer.allowed,
                relied_on: answer.allowed && !before,
                determining: self.determining(&answer),
                failed: self.failed(&answer, &names, &|_| Vec::new()),
            });
        }
        Ok(decisions)
    }

    fn decision(
        &self,
        case: Case<'_>,
        approvals: Vec<ApprovalDecision>,
        entities: &Entities,
    ) -> Result<StageDecision, AskError> {
        let answer = self.evaluator.ask(&case, entities)?;
        let (failed, alternatives) = if answer.allowed {
            (Vec::new(), Vec::new())
        } else {
            let trials = self.evaluator.trials(&case)?;
            let changes = |policy: Option<&PolicyId>| match policy {
                Some(policy) => meeting(&trials, policy),
                None => permitting(&trials),
            };
            (
                self.failed(&answer, &names(&case), &changes),
                permitting(&trials),
            )
        };
        let rows = case.matching_rows().unwrap_or_default();
        let crossings = crossings(&case, &approvals);
        let stage = case.stage.as_ref();
        let concerned = stage.filter(|_| !answer.allowed || !approvals.is_empty());
        let asked = concerned.map(|stage| self.question_of(case.question, stage.facts));
        Ok(StageDecision {
            crossings,
            question: asked,
            stage: case.stage.as_ref().map(|stage| StageSummary {
                name: stage.facts.name.clone(),
                class: stage.class,
                size: stage.size,
                network_profile: stage.network_profile,
            }),
            allowed: answer.allowed,
            determining: self.determining(&answer),
            matrix_rows: rows.into_iter().map(str::to_owned).collect(),
            approvals,
            failed,
            alternatives,
        })
    }

    /// What stands in the way: policies that refuse, policies that could not be evaluated, or the
    /// absence of any policy that permits.
    fn failed(
        &self,
        answer: &Answer,
        names: &Names,
        changes: &dyn Fn(Option<&PolicyId>) -> Vec<Change>,
    ) -> Vec<FailedCondition> {
        if answer.allowed {
            return Vec::new();
        }
        let mut failed = Vec::new();
        for (policy, error) in &answer.errors {
            failed.push(FailedCondition::new(
                self.reference(policy),
                format!(
                    "policy `{policy}` could not be evaluated: {}",
                    excerpt(error)
                ),
                "Correct the policy; until then it refuses everything that it applies to.",
                changes(Some(policy)),
            ));
        }
        for policy in &answer.determining {
            let reference = self.reference(policy);
            let text = self.evaluator.policies.texts.get(policy);
            let refusal = text.and_then(|text| text.refusal.as_ref());
            let condition =
                refusal.map_or_else(|| reference.title.clone(), |refusal| refusal.fill(names));
            let remedy = text.map_or("", |text| text.remedy.as_str());
            failed.push(FailedCondition::new(
                reference,
                condition,
                remedy,
                changes(Some(policy)),
            ));
        }
        if failed.is_empty() {
            failed.push(FailedCondition::new(
                no_permit(),
                "no policy permits this action".to_owned(),
                "Add a policy that permits the action, or ask for another one.",
                changes(None),
            ));
        }
        failed
    }

    fn reference(&self, policy: &PolicyId) -> PolicyRef {
        let text = self.evaluator.policies.texts.get(policy);
        let title = text.map_or_else(String::new, |text| text.title.clone());
        PolicyRef {
            id: policy.to_string(),
            title,
        }
    }

    /// The policies that made the answer; one that could not be evaluated makes a refusal.
    fn determining(&self, answer: &Answer) -> Vec<PolicyRef> {
        let failed = answer.errors.iter().map(|(policy, _)| policy);
        let policies: Vec<_> = failed
            .chain(&answer.determining)
            .map(|policy| self.reference(policy))
            .collect();
        if policies.is_empty() {
            vec![no_permit()]
        } else {
            policies
        }
    }
}

/// The reason that remains where no policy says anything.
fn no_permit() -> PolicyRef {
    PolicyRef {
        // The colon keeps it apart from every policy's id.
        id: "barecount:no-permit".to_owned(),
        title: "Nothing is permitted unless a policy permits it".to_owned(),
    }
}

/// The refusal of a question that could not be put to the policies.
fn unanswered(error: &dyn Error) -> StageDecision {
    let mut condition = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        condition.push_str(": ");
        condition.push_str(&excerpt(&cause.to_string()));
        source = cause.source();
    }
    let policy = PolicyRef {
        id: UNANSWERABLE.to_owned(),
        title: "A question that cannot be answered is refused".to_owned(),
    };
    let remedy = "Correct what is asked; nothing was decided about it.";
    StageDecision {
        stage: None,
        allowed: false,
        question: None,
        determining: vec![policy.clone()],
        matrix_rows: Vec::new(),
        crossings: Vec::new(),
        approvals: Vec::new(),
        failed: vec![FailedCondition::new(policy, condition, remedy, Vec::new())],
        alternatives: Vec::new(),
    }
}

/// What crosses into the stage, and what lets it.
fn crossings(case: &Case<'_>, approvals: &[ApprovalDecision]) -> Vec<CrossingDecision> {
    let stages = case.stage.iter();
    let declared = stages.flat_map(|stage| &stage.facts.crossings);
    let decide = |crossing: &Crossing| {
        let dataset = crossing.dataset.as_str();
        let mut allowed_by = Vec::new();
        if case.environment_kind == EnvironmentKind::Development {
            allowed_by.push(CrossingBasis::Development);
        }
        if case
            .crossings_granted()
            .is_some_and(|granted| granted.contains(dataset))
        {
            allowed_by.push(CrossingBasis::Grant {
                tenant: case.question.tenant.clone(),
            });
        }
        for approval in approvals {
            let is_crossing = approval.usable && approval.scope == ApprovalScope::Crossing;
            if is_crossing && approval.datasets.iter().any(|named| named == dataset) {
                allowed_by.push(CrossingBasis::Approval {
                    approval: approval.id.clone(),
                    approver: approval.approver.clone(),
                    expires_at: approval.expires_at,
                });
            }
        }
        CrossingDecision {
            crossing: crossing.clone(),
            allowed_by,
        }
    };
    declared.map(decide).collect()
}

/// What a policy's sentence may name, for this case.
fn names(case: &Case<'_>) -> Names {
    let question = case.question;
    let mut names = Names::from([
        ("tenant", question.tenant.clone()),
        ("environment", question.environment.name.clone()),
        (
            "environment_kind",
            case.environment_kind.as_str().to_owned(),
        ),
        ("requester", question.requester.clone()),
        ("pipeline", question.pipeline.name.clone()),
    ]);
    if let Some(stage) = &case.stage {
        let crossings = stage.facts.crossings.iter();
        names.extend([
            ("stage", stage.facts.name.clone()),
            ("class", stage.class.as_str().to_owned()),
            ("size", stage.size.as_str().to_owned()),
            ("network_profile", stage.network_profile.as_str().to_owned()),
            ("isolation", stage.isolation.as_str().to_owned()),
            (
                "drivers",
                listed(stage.facts.drivers.iter().map(String::as_str)),
            ),
            (
                "privately_reachable",
                listed(stage.facts.privately_reachable.iter().map(String::as_str)),
            ),
            (
                "crossings_refused",
                listed(
                    crossings
                        .map(|crossing| crossing.dataset.as_str())
                        .filter(|dataset| !case.lets_across(dataset)),
                ),
            ),
        ]);
    }
    names
}

/// The approval that a question is about, if it is about one.
fn approval_of(question: &Question) -> Option<&Approval> {
    let first = question.approvals.first();
    first.filter(|_| question.action.concerns_approval())
}

/// What a policy's sentence may name of an approval.
fn names_of_approval(approval: &Approval) -> Names {
    let mut names = Names::from([
        ("approval", approval.id.to_string()),
        ("approval_state", approval.state.as_str().to_owned()),
        ("stage", approval.stage.clone()),
    ]);
    names.extend(approval.approver.clone().map(|name| ("approver", name)));
    let expires_at = approval.expires_at.map(|time| time.to_string());
    names.extend(expires_at.map(|time| ("expires_at", time)));
    names
}

fn listed<'v>(values: impl Iterator<Item = &'v str>) -> String {
    let values: BTreeSet<_> = values.collect();
    let quoted: Vec<_> = values
        .into_iter()
        .map(|value| format!("`{value}`"))
        .collect();
    quoted.join(", ")
}

/// A copy that fits evidence however long the question's text is.
fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
}
