//! From plain data to Cedar and back: entities, context, request, answer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use barecount_model::approval::account;
use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use barecount_model::digest::Digest;
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId,
    PolicySet, Request, RestrictedExpression,
};

use super::load::Policies;
use super::question::{Approval, ApprovalScope, EnvironmentKind, Isolation, Question, StageFacts};

/// What is decided: the question's stage, or pipeline, with those attributes that may be varied.
#[derive(Debug, Clone)]
pub(super) struct Case<'q> {
    pub(super) question: &'q Question,
    pub(super) environment_kind: EnvironmentKind,
    pub(super) approved: BTreeSet<ApprovalScope>,
    /// Datasets that usable approvals let across.
    pub(super) crossings_approved: BTreeSet<&'q str>,
    pub(super) stage: Option<StageCase<'q>>,
}

/// A stage with those attributes that may be varied.
#[derive(Debug, Clone)]
pub(super) struct StageCase<'q> {
    pub(super) facts: &'q StageFacts,
    pub(super) class: RunnerClass,
    pub(super) size: Size,
    pub(super) network_profile: NetworkProfile,
    pub(super) isolation: Isolation,
    pub(super) debug_logging: bool,
    pub(super) residency: Option<&'q str>,
}

impl<'q> Case<'q> {
    /// The case as it was asked, without approvals.
    pub(super) fn new(question: &'q Question, stage: Option<&'q StageFacts>) -> Self {
        let stage = stage.map(|facts| StageCase {
            facts,
            class: facts.class,
            size: facts.size,
            network_profile: facts.network_profile,
            isolation: facts.isolation,
            debug_logging: facts.debug_logging,
            residency: facts.residency.as_deref(),
        });
        let environment_kind = question.environment.kind;
        Self {
            question,
            environment_kind,
            approved: BTreeSet::new(),
            crossings_approved: BTreeSet::new(),
            stage,
        }
    }

    /// Datasets that the environment lets across for the tenant, whatever is approved.
    pub(super) fn crossings_granted(&self) -> Option<&'q BTreeSet<String>> {
        let question = self.question;
        question.matrix.crossings.get(&question.tenant)
    }

    /// Whether a grant or a usable approval names a dataset that crosses.
    pub(super) fn lets_across(&self, dataset: &str) -> bool {
        let granted = self.crossings_granted();
        granted.is_some_and(|granted| granted.contains(dataset))
            || self.crossings_approved.contains(dataset)
    }

    /// Rows of the tenant's matrix that list this case's combination; `None` without a matrix.
    pub(super) fn matching_rows(&self) -> Option<BTreeSet<&'q str>> {
        let (matrix, tenant) = (&self.question.matrix, &self.question.tenant);
        match &self.stage {
            Some(s) => matrix.matching_rows(tenant, s.class, s.size, s.network_profile),
            None => matrix.tenants.contains_key(tenant).then(BTreeSet::new),
        }
    }
}

/// What the policies say to one request.
#[derive(Debug)]
pub(super) struct Answer {
    /// True when a policy permits, none refuses, and none failed to evaluate.
    pub(super) allowed: bool,
    /// Policies that permit when allowed, or else refuse, in the order of their sources.
    pub(super) determining: Vec<PolicyId>,
    /// Policies that could not be evaluated, and why.
    pub(super) errors: Vec<(PolicyId, String)>,
}

/// Why a request could not be put to the policies: data that the schema does not describe.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("an entity does not fit the policy schema")]
    Entity(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the context does not fit the policy schema")]
    Context(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the request does not fit the policy schema")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AskError {
    fn entity(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Entity(Box::new(error))
    }

    fn context(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Context(Box::new(error))
    }
}

/// Entity types of the schema, parsed once.
#[derive(Debug)]
struct Types {
    action: EntityTypeName,
    approval: EntityTypeName,
    approval_scope: EntityTypeName,
    approval_state: EntityTypeName,
    environment: EntityTypeName,
    environment_kind: EntityTypeName,
    isolation: EntityTypeName,
    network_profile: EntityTypeName,
    pipeline: EntityTypeName,
    runner_class: EntityTypeName,
    size: EntityTypeName,
    stage: EntityTypeName,
    tenant: EntityTypeName,
}

impl Types {
    fn new() -> Result<Self, Box<cedar_policy::ParseErrors>> {
        let parse = |name| EntityTypeName::from_str(name).map_err(Box::new);
        Ok(Self {
            action: parse("Action")?,
            approval: parse("Approval")?,
            approval_scope: parse("ApprovalScope")?,
            approval_state: parse("ApprovalState")?,
            environment: parse("Environment")?,
            environment_kind: parse("EnvironmentKind")?,
            isolation: parse("Isolation")?,
            network_profile: parse("NetworkProfile")?,
            pipeline: parse("Pipeline")?,
            runner_class: parse("RunnerClass")?,
            size: parse("Size")?,
            stage: parse("Stage")?,
            tenant: parse("Tenant")?,
        })
    }
}

/// Policies in force, with what is needed to ask them.
#[derive(Debug)]
pub(super) struct Evaluator {
    pub(super) policies: Policies,
    authorizer: Authorizer,
    types: Types,
}

impl Evaluator {
    /// Ready to be asked.
    ///
    /// # Errors
    /// When the schema's type names are no Cedar names.
    pub(super) fn new(policies: Policies) -> Result<Self, Box<cedar_policy::ParseErrors>> {
        Ok(Self {
            policies,
            authorizer: Authorizer::new(),
            types: Types::new()?,
        })
    }

    /// Entities for cases that share question and environment kind; with the question's approvals.
    ///
    /// # Errors
    /// When an entity does not fit the schema.
    pub(super) fn entities<'c, 'q: 'c>(
        &self,
        question: &'q Question,
        environment_kind: EnvironmentKind,
        stages: impl IntoIterator<Item = &'c StageCase<'q>>,
        approvals: &[Approval],
    ) -> Result<Entities, AskError> {
        let mut entities = vec![
            self.environment_entity(question, environment_kind)?,
            self.pipeline_entity(question)?,
        ];
        for stage in stages {
            entities.push(self.stage_entity(question, stage)?);
        }
        for (position, approval) in approvals.iter().enumerate() {
            entities.push(self.approval_entity(position, approval)?);
        }
        Entities::from_entities(entities, Some(&self.policies.schema)).map_err(AskError::entity)
    }

    /// Asks whether the case is permitted.
    ///
    /// # Errors
    /// When the request does not fit the schema.
    pub(super) fn ask(&self, case: &Case<'_>, entities: &Entities) -> Result<Answer, AskError> {
        let question = case.question;
        let resource = match &case.stage {
            Some(stage) => uid(&self.types.stage, &stage.facts.name),
            None => uid(&self.types.pipeline, &question.pipeline.name),
        };
        let mut context = self.circumstances(question);
        let scopes = case.approved.iter().map(|scope| scope.as_str());
        context.push(("approved", set_of(&self.types.approval_scope, scopes)));
        let granted = case.crossings_granted().into_iter().flatten();
        let allowed = granted
            .map(String::as_str)
            .chain(case.crossings_approved.iter().copied());
        context.push(("crossings_allowed", texts(allowed)));
        if let Some(rows) = case.matching_rows() {
            let rows = [("matching_rows".to_owned(), texts(rows))];
            let matrix = RestrictedExpression::new_record(rows).map_err(AskError::context)?;
            context.push(("matrix", matrix));
        }
        self.put(
            question,
            question.action.as_str(),
            resource,
            context,
            entities,
        )
    }

    /// Asks whether the approval at `position` counts for the stage.
    ///
    /// # Errors
    /// When the request does not fit the schema.
    pub(super) fn ask_approval(
        &self,
        question: &Question,
        stage: (&StageFacts, Digest),
        position: usize,
        entities: &Entities,
    ) -> Result<Answer, AskError> {
        let (stage, asked) = stage;
        let mut context = self.circumstances(question);
        context.push(("stage", reference(&self.types.stage, &stage.name)));
        context.push(("question", text(&asked.to_string())));
        context.push(("approvers", approvers(question)));
        let resource = uid(&self.types.approval, &position.to_string());
        self.put(question, "use_approval", resource, context, entities)
    }

    /// Asks whether the question's action may be done to the approval at `position`.
    ///
    /// # Errors
    /// When the request does not fit the schema.
    pub(super) fn ask_act(
        &self,
        question: &Question,
        position: usize,
        entities: &Entities,
    ) -> Result<Answer, AskError> {
        let mut context = self.circumstances(question);
        context.push(("approvers", approvers(question)));
        let resource = uid(&self.types.approval, &position.to_string());
        let action = question.action.as_str();
        self.put(question, action, resource, context, entities)
    }

    fn put(
        &self,
        question: &Question,
        action: &str,
        resource: EntityUid,
        context: Vec<(&'static str, RestrictedExpression)>,
        entities: &Entities,
    ) -> Result<Answer, AskError> {
        let context = context
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let context = Context::from_pairs(context).map_err(AskError::context)?;
        let principal = uid(&self.types.tenant, &question.tenant);
        let action = uid(&self.types.action, action);
        let schema = Some(&self.policies.schema);
        let none = PolicySet::new();
        let policies = self.policies.sets.get(&action).unwrap_or(&none);
        let request = Request::new(principal, action, resource, context, schema)
            .map_err(|error| AskError::Request(Box::new(error)))?;
        let response = self.authorizer.is_authorized(&request, policies, entities);
        let diagnostics = response.diagnostics();
        let mut errors: Vec<_> = diagnostics
            .errors()
            .map(
                |cedar_policy::AuthorizationError::PolicyEvaluationError(error)| {
                    (error.policy_id().clone(), error.inner().to_string())
                },
            )
            .collect();
        errors.sort_by_key(|(id, _)| self.policies.order.get(id).copied());
        // Cedar skips a policy that fails to evaluate; one that would have refused must not be
        // skipped, so any failure refuses.
        let permitted = response.decision() == Decision::Allow;
        let allowed = permitted && errors.is_empty();
        let mut determining: Vec<PolicyId> = if permitted && !allowed {
            Vec::new()
        } else {
            diagnostics.reason().cloned().collect()
        };
        determining.sort_by_key(|id| self.policies.order.get(id).copied());
        Ok(Answer {
            allowed,
            determining,
            errors,
        })
    }

    fn circumstances(&self, question: &Question) -> Vec<(&'static str, RestrictedExpression)> {
        vec![
            (
                "environment",
                reference(&self.types.environment, &question.environment.name),
            ),
            ("requester", text(&account(&question.requester))),
            (
                "now",
                RestrictedExpression::new_long(question.now.as_millisecond()),
            ),
        ]
    }

    fn environment_entity(
        &self,
        question: &Question,
        kind: EnvironmentKind,
    ) -> Result<Entity, AskError> {
        let name = &question.environment.name;
        let kind = reference(&self.types.environment_kind, kind.as_str());
        entity(
            uid(&self.types.environment, name),
            [("name", text(name)), ("kind", kind)],
        )
    }

    fn pipeline_entity(&self, question: &Question) -> Result<Entity, AskError> {
        let pipeline = &question.pipeline;
        let attributes = [
            ("name", text(&pipeline.name)),
            (
                "version",
                RestrictedExpression::new_string(pipeline.version.clone()),
            ),
            ("owner", text(&pipeline.owner)),
            ("classification", text(&pipeline.classification)),
        ];
        entity(uid(&self.types.pipeline, &pipeline.name), attributes)
    }

    fn stage_entity(&self, question: &Question, stage: &StageCase<'_>) -> Result<Entity, AskError> {
        let (types, facts) = (&self.types, stage.facts);
        let mut attributes = vec![
            ("name", text(&facts.name)),
            (
                "pipeline",
                reference(&types.pipeline, &question.pipeline.name),
            ),
            (
                "class",
                reference(&types.runner_class, stage.class.as_str()),
            ),
            ("size", reference(&types.size, stage.size.as_str())),
            (
                "network_profile",
                reference(&types.network_profile, stage.network_profile.as_str()),
            ),
            (
                "isolation",
                reference(&types.isolation, stage.isolation.as_str()),
            ),
            ("classification", text(&facts.classification)),
            ("drivers", texts(facts.drivers.iter().map(String::as_str))),
            (
                "has_secrets",
                RestrictedExpression::new_bool(facts.has_secrets),
            ),
            (
                "has_secret_variables",
                RestrictedExpression::new_bool(facts.has_secret_variables),
            ),
            (
                "debug_logging",
                RestrictedExpression::new_bool(stage.debug_logging),
            ),
            (
                "privately_reachable",
                texts(facts.privately_reachable.iter().map(String::as_str)),
            ),
            (
                "crossings",
                texts(
                    facts
                        .crossings
                        .iter()
                        .map(|crossing| crossing.dataset.as_str()),
                ),
            ),
        ];
        if let Some(residency) = stage.residency {
            attributes.push(("residency", text(residency.trim())));
        }
        entity(uid(&types.stage, &facts.name), attributes)
    }

    fn approval_entity(&self, position: usize, approval: &Approval) -> Result<Entity, AskError> {
        let types = &self.types;
        let mut attributes = vec![
            (
                "scope",
                reference(&types.approval_scope, approval.scope.as_str()),
            ),
            ("tenant", reference(&types.tenant, &approval.tenant)),
            (
                "environment",
                reference(&types.environment, &approval.environment),
            ),
            ("pipeline", reference(&types.pipeline, &approval.pipeline)),
            ("stage", reference(&types.stage, &approval.stage)),
            (
                "state",
                reference(&types.approval_state, approval.state.as_str()),
            ),
            ("question", text(&approval.question.to_string())),
            ("requester", text(&account(&approval.requester))),
            ("justification", text(approval.justification.trim())),
            (
                "datasets",
                texts(approval.datasets.iter().map(String::as_str)),
            ),
        ];
        if let Some(approver) = &approval.approver {
            attributes.push(("approver", text(&account(approver))));
        }
        if let Some(expires_at) = approval.expires_at {
            let expires_at = expires_at.as_millisecond();
            attributes.push(("expires_at", RestrictedExpression::new_long(expires_at)));
        }
        if let Some(left) = approval.runs_left {
            attributes.push(("runs_left", RestrictedExpression::new_long(left.into())));
        }
        entity(uid(&types.approval, &position.to_string()), attributes)
    }
}

fn entity(
    uid: EntityUid,
    attributes: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
) -> Result<Entity, AskError> {
    let attributes: HashMap<_, _> = attributes
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Entity::new(uid, attributes, HashSet::new()).map_err(AskError::entity)
}

/// Built from parts and never parsed, so that no quote or escape in a name can change its meaning.
fn uid(kind: &EntityTypeName, name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(name))
}

fn reference(kind: &EntityTypeName, name: &str) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid(kind, name))
}

fn approvers(question: &Question) -> RestrictedExpression {
    let of_tenant = question.matrix.approvers.get(&question.tenant);
    texts(of_tenant.into_iter().flatten().map(String::as_str))
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.into_iter().map(text))
}

fn set_of<'a>(kind: &EntityTypeName, names: impl Iterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(names.map(|name| reference(kind, name)))
}
