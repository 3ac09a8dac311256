//! A question that the default policies permit, and small changes to it.

use std::sync::LazyLock;

use barecount_model::boundary::{Boundary, Crossing};
use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use barecount_model::manifest::Classification;
use jiff::Timestamp;

use super::super::*;

/// Fails the test with the reasons, so that a surprise explains itself.
pub(super) type TestResult = Result<(), Box<dyn Error>>;

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).expect("the time is in range")
}

pub(super) fn stage(name: &str) -> StageFacts {
    StageFacts {
        name: name.to_owned(),
        class: RunnerClass::ManagedEtl,
        size: Size::Medium,
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
        matrix: Matrix {
            tenants: [("demo".to_owned(), vec![row])].into(),
            ..Matrix::default()
        },
        approvals: Vec::new(),
        now: now(),
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
    let matrix = Matrix {
        tenants: [("demo".to_owned(), vec![row])].into(),
        ..Matrix::default()
    };
    Question {
        matrix,
        ..question()
    }
}

/// The unrestricted question about a changed stage.
pub(super) fn with_stage(change: impl FnOnce(&mut StageFacts)) -> Question {
    let mut question = unrestricted();
    change(&mut question.stages[0]);
    question
}

/// An approval that counts for the question's stage.
pub(super) fn approval(scope: ApprovalScope) -> Approval {
    Approval {
        scope,
        tenant: "demo".to_owned(),
        environment: "live".to_owned(),
        pipeline: "fx-rates".to_owned(),
        stage: Some("consolidate".to_owned()),
        datasets: Vec::new(),
        requester: "data-engineer".to_owned(),
        approver: "governance-officer".to_owned(),
        justification: "year-end restatement".to_owned(),
        expires_at: now() + jiff::SignedDuration::from_hours(1),
    }
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
    let verdict = governance.decide(question);
    let decisions = &verdict.explanation().decisions;
    assert_eq!(
        verdict.is_permitted(),
        decisions.iter().all(|d| d.allowed && d.failed.is_empty())
    );
    let failed = decisions.iter().flat_map(|decision| &decision.failed);
    failed.map(|failed| failed.policy.id.clone()).collect()
}
