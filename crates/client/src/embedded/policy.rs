//! What governance is asked about a pipeline, from its manifest and environment.

use std::collections::BTreeSet;

use barecount_control::governance::{
    Action, Allowed, Approval, ApprovalScope, EnvironmentFacts, EnvironmentKind, Isolation, Matrix,
    MatrixRow, PipelineFacts, Question, StageFacts,
};
use barecount_model::{
    approval,
    environment::{self, Environment, LogLevel, TenantSelector},
    id::RunId,
    manifest,
    pipeline::{Pipeline, Stage},
    plan::Plan,
};
use jiff::Timestamp;

/// The question whether `action` may be done to a version of a pipeline.
pub(crate) fn question(
    action: Action,
    pipeline: &Pipeline,
    version: &str,
    environment: &Environment,
    requester: &str,
    approvals: Vec<Approval>,
    now: Timestamp,
) -> Question {
    let about = PipelineFacts {
        name: pipeline.name.to_string(),
        version: version.to_owned(),
        owner: pipeline.owner.clone(),
        classification: classification(pipeline),
    };
    let tenant = pipeline.tenant.to_string();
    let stages = pipeline
        .stages
        .iter()
        .map(|stage| facts(stage, environment));
    Question {
        stages: match action.concerns_pipeline() {
            true => Vec::new(),
            false => stages.collect(),
        },
        approvals,
        ..concerning(action, about, tenant, environment, requester, now)
    }
}

/// The question whether `action`, which concerns a pipeline as a whole, may be done to what a run
/// carries out: asked where its manifest is not at hand.
pub(crate) fn question_of_run(
    action: Action,
    plan: &Plan,
    environment: &Environment,
    requester: &str,
    now: Timestamp,
) -> Question {
    let about = PipelineFacts {
        name: plan.pipeline.clone(),
        version: plan.version.clone(),
        owner: plan.owner.clone(),
        classification: plan.classification.clone(),
    };
    concerning(
        action,
        about,
        plan.tenant.clone(),
        environment,
        requester,
        now,
    )
}

/// The question whether `action` may be done to an approval.
pub(crate) fn question_of_approval(
    action: Action,
    approval: &approval::Approval,
    environment: &Environment,
    requester: &str,
    now: Timestamp,
) -> Question {
    let asked = &approval.asked;
    let about = PipelineFacts {
        name: asked.pipeline.clone(),
        version: asked.version.clone(),
        owner: String::new(),
        classification: String::new(),
    };
    Question {
        approvals: of_scopes(approval, None),
        ..concerning(
            action,
            about,
            asked.tenant.clone(),
            environment,
            requester,
            now,
        )
    }
}

/// A question about a pipeline as a whole, without any approval.
fn concerning(
    action: Action,
    pipeline: PipelineFacts,
    tenant: String,
    environment: &Environment,
    requester: &str,
    now: Timestamp,
) -> Question {
    Question {
        action,
        environment: EnvironmentFacts {
            name: environment.name.to_string(),
            kind: kind(environment.kind),
        },
        requester: requester.to_owned(),
        pipeline,
        stages: Vec::new(),
        matrix: matrix(&tenant, environment),
        tenant,
        approvals: Vec::new(),
        now,
    }
}

/// An approval as policies are asked about it, once for each exception that it makes. `run` is the
/// run that is asked about, where it has begun.
pub(crate) fn of_scopes(approval: &approval::Approval, run: Option<&RunId>) -> Vec<Approval> {
    let asked = &approval.asked;
    let granted = approval.granted.as_ref();
    let of_scope = |scope: &ApprovalScope| Approval {
        id: approval.id.clone(),
        scope: *scope,
        state: approval.state,
        tenant: asked.tenant.clone(),
        environment: asked.environment.clone(),
        pipeline: asked.pipeline.clone(),
        stage: asked.stage.clone(),
        datasets: match scope {
            ApprovalScope::Crossing => asked.datasets.iter().cloned().collect(),
            _ => Vec::new(),
        },
        question: asked.question,
        requester: approval.requested.by.clone(),
        approver: granted.map(|granted| granted.by.clone()),
        justification: granted
            .unwrap_or(&approval.requested)
            .reason
            .raw()
            .to_owned(),
        expires_at: approval.term.map(|term| term.until),
        runs_left: approval.runs_left(run),
    };
    asked.scopes.iter().map(of_scope).collect()
}

fn facts(stage: &Stage, environment: &Environment) -> StageFacts {
    StageFacts {
        name: stage.name.to_string(),
        class: stage.class,
        size: stage.size,
        custom_size: stage
            .custom
            .map(|custom| format!("{} vCPU, {}", custom.vcpu, custom.memory)),
        network_profile: stage.network_profile,
        isolation: match stage.isolation {
            manifest::Isolation::Sandbox => Isolation::Sandbox,
            manifest::Isolation::Process => Isolation::Process,
        },
        classification: stage.classification.as_str().to_owned(),
        drivers: stage.drivers.iter().map(ToString::to_string).collect(),
        has_secrets: !stage.secrets.is_empty(),
        has_secret_variables: stage.secrets.values().any(|secret| secret.env.is_some()),
        debug_logging: environment.log_level == LogLevel::Debug,
        residency: stage.residency.as_ref().map(ToString::to_string),
        privately_reachable: environment.networks.privately_reachable(stage),
        crossings: stage.crossings.clone(),
    }
}

/// The tenant's rows: its own, and those of every tenant. None at all leaves it without a matrix.
fn matrix(tenant: &str, environment: &Environment) -> Matrix {
    let mut rows = Vec::new();
    let mut crossings = BTreeSet::new();
    for grants in environment
        .grants
        .iter()
        .filter(|grants| grants.tenant.covers(tenant))
    {
        let whose = match &grants.tenant {
            TenantSelector::Any => "*".to_owned(),
            TenantSelector::One(name) => name.to_string(),
        };
        crossings.extend(grants.crossings.iter().map(ToString::to_string));
        for (position, grant) in grants.allow.iter().enumerate() {
            rows.push(MatrixRow {
                name: format!("{whose}[{position}]"),
                classes: Allowed::Only(grant.classes.iter().copied().collect()),
                sizes: Allowed::Only(grant.sizes.iter().copied().collect()),
                network_profiles: Allowed::Only(grant.network_profiles.iter().copied().collect()),
            });
        }
    }
    let mut matrix = Matrix::default();
    if !rows.is_empty() {
        matrix.tenants.insert(tenant.to_owned(), rows);
    }
    matrix.crossings.insert(tenant.to_owned(), crossings);
    let approvers = environment.approvers(tenant);
    matrix.approvers.insert(tenant.to_owned(), approvers);
    matrix
}

fn kind(kind: environment::EnvironmentKind) -> EnvironmentKind {
    match kind {
        environment::EnvironmentKind::Development => EnvironmentKind::Development,
        environment::EnvironmentKind::Staging => EnvironmentKind::Staging,
        environment::EnvironmentKind::Production => EnvironmentKind::Production,
    }
}

/// How sensitive a pipeline's data is, as manifests spell it.
pub(crate) fn classification(pipeline: &Pipeline) -> String {
    pipeline.classification.as_str().to_owned()
}
