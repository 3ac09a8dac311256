//! A question that the default policies permit, and small changes to it.

use std::sync::LazyLock;

use barecount_model::boundary::{Boundary, Crossing};
use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use barecount_model::digest::Digest;
use barecount_model::id::ApprovalId;
use barecount_model::manifest::Classification;
use jiff::Timestamp;

use super::super::*;

/// Fails the test with the reasons, so that a surprise explains itself.
pub(super) type TestResult = Result<(), Box<dyn Error>>;

/// No policy refuses.
pub(super) const NOBODY: [&str; 0] = [];

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).expect("the time is in range")
}

pub(super) fn stage(name: &str) -> StageFacts {
    StageFacts {
        name: name.to_owned(),
        class: RunnerClass::ManagedEtl,
        size: Size::Medium,
        custom_size: None,
        network_profile: NetworkProfile::PrivateVpc,
        isolation: Isolation::Sandbox,
        classification: "internal".to_owned(),
        drivers: Vec::new(),
        has_secrets: false,
        has_secret_variables: false,
        debug_logging: false,
        residency: None,
        privately_reachable: Vec::new(),
        crossings: Vec::new(),
    }
}

/// In production: managed ETL up to large in private networks, and whatever `everything` adds.
pub(super) fn question() -> Question {
    let row = MatrixRow {
        name: "batch".to_owned(),
        classes: Allowed::Only(vec![RunnerClass::ManagedEtl]),
        sizes: Allowed::Only(vec![Size::Small, Size::Medium, Size::Large]),
        network_profiles: Allowed::Only(vec![NetworkProfile::PrivateVpc]),
    };
    Question {
        action: Action::Run,
        tenant: "demo".to_owned(),
        environment: EnvironmentFacts {
            name: "live".to_owned(),
            kind: EnvironmentKind::Production,
        },
        requester: "data-engineer".to_owned(),
        pipeline: PipelineFacts {
            name: "fx-rates".to_owned(),
            version: "3".to_owned(),
            owner: "data-platform@example.com".to_owned(),
            classification: "internal".to_owned(),
        },
        stages: vec![stage("consolidate")],
        matrix: matrix(row),
        approvals: Vec::new(),
        now: now(),
    }
}

/// One row, and those who may approve; who asks is one of them.
fn matrix(row: MatrixRow) -> Matrix {
    let approvers = ["data-engineer", "governance-officer", "officer"];
    let approvers = approvers.map(ToOwned::to_owned);
    Matrix {
        tenants: [("demo".to_owned(), vec![row])].into(),
        approvers: [("demo".to_owned(), approvers.into())].into(),
        ..Matrix::default()
    }
}

/// The same question where the matrix allows every combination, so that other policies show.
pub(super) fn unrestricted() -> Question {
    let row = MatrixRow {
        name: "everything".to_owned(),
        classes: Allowed::ANY,
        sizes: Allowed::ANY,
        network_profiles: Allowed::ANY,
    };
    Question {
        matrix: matrix(row),
        ..question()
    }
}

/// The unrestricted question about a changed stage.
pub(super) fn with_stage(change: impl FnOnce(&mut StageFacts)) -> Question {
    let mut question = unrestricted();
    change(&mut question.stages[0]);
    question
}

/// An approval that counts for the question's stage once it is [asked of](asked) that question.
pub(super) fn approval(scope: ApprovalScope) -> Approval {
    Approval {
        id: ApprovalId::from_bytes([7; 16]),
        scope,
        state: ApprovalState::Granted,
        tenant: "demo".to_owned(),
        environment: "live".to_owned(),
        pipeline: "fx-rates".to_owned(),
        stage: "consolidate".to_owned(),
        datasets: Vec::new(),
        question: not_asked(),
        requester: "data-engineer".to_owned(),
        approver: Some("governance-officer".to_owned()),
        justification: "year-end restatement".to_owned(),
        expires_at: Some(now() + jiff::SignedDuration::from_hours(1)),
        runs_left: None,
    }
}

fn not_asked() -> Digest {
    Digest::from_bytes([0; 32])
}

/// The question with its approvals asked of it, each of the stage that it names.
pub(super) fn asked(governance: &Governance, question: &Question) -> Question {
    let mut asked = question.clone();
    for approval in &mut asked.approvals {
        let mut stages = question.stages.iter();
        let stage = stages.find(|stage| stage.name == approval.stage);
        if let Some(stage) = stage.filter(|_| approval.question == not_asked()) {
            approval.question = governance.question_of(question, stage);
        }
    }
    asked
}

/// What is answered to the question with its approvals asked of it.
pub(super) fn decide(question: &Question) -> Verdict {
    governance().decide(&asked(governance(), question))
}

/// A stage that reads a dataset of a private network with public egress.
pub(super) fn crossing(dataset: &str) -> Question {
    let boundary = |network_profile| Boundary {
        network_profile,
        residency: None,
        classification: Classification::Internal,
    };
    with_stage(|stage| {
        stage.network_profile = NetworkProfile::PublicVpcEgress;
        stage.crossings = vec![Crossing {
            dataset: dataset.parse().expect("the test names a dataset"),
            from: boundary(NetworkProfile::PrivateVpc),
            to: boundary(NetworkProfile::PublicVpcEgress),
            reason: "monthly totals are published".to_owned(),
        }];
    })
}

/// The default policies, loaded once for all tests.
pub(super) fn governance() -> &'static Governance {
    static DEFAULTS: LazyLock<Governance> =
        LazyLock::new(|| Governance::load(&[]).expect("the default policies load"));
    &DEFAULTS
}

/// Ids of the policies that refuse the question's only stage; empty when it is permitted.
pub(super) fn refusing(question: &Question) -> Vec<String> {
    refusing_under(governance(), question)
}

pub(super) fn refusing_under(governance: &Governance, question: &Question) -> Vec<String> {
    let verdict = governance.decide(&asked(governance, question));
    let decisions = &verdict.explanation().decisions;
    assert_eq!(
        verdict.is_permitted(),
        decisions.iter().all(|d| d.allowed && d.failed.is_empty())
    );
    let failed = decisions.iter().flat_map(|decision| &decision.failed);
    failed.map(|failed| failed.policy.id.clone()).collect()
}
