use barecount_model::class::{NetworkProfile, Size};

use super::super::*;
use super::fixture::*;

/// The page with the policies' digest replaced, which changes with every wording.
fn page(question: &Question) -> String {
    let governance = governance();
    explain(
        governance
            .decide(&asked(governance, question))
            .explanation(),
    )
    .replace(governance.policies_digest(), "sha256:[digest]")
}

#[test]
fn a_permitted_run_says_by_which_policy_and_row() {
    insta::assert_snapshot!(page(&question()));
}

#[test]
fn a_refused_run_shows_what_failed_and_what_would_change_it() {
    let mut question = question();
    question.stages.push(StageFacts {
        size: Size::XLarge,
        ..stage("restate")
    });
    question.stages.push(StageFacts {
        network_profile: NetworkProfile::PublicVpcEgress,
        isolation: Isolation::Process,
        privately_reachable: vec!["erp.example.com:443".to_owned()],
        ..stage("ingest")
    });
    question.approvals = vec![
        Approval {
            expires_at: Some(now()),
            stage: "restate".to_owned(),
            ..approval(ApprovalScope::XLarge)
        },
        Approval {
            stage: "restate".to_owned(),
            ..approval(ApprovalScope::Matrix)
        },
    ];
    insta::assert_snapshot!(page(&question));
}

#[test]
fn a_refused_lock_refresh_is_about_the_pipeline() {
    let question = Question {
        action: Action::RefreshLock,
        ..question()
    };
    insta::assert_snapshot!(page(&question));
}

#[test]
fn a_question_that_cannot_be_answered_says_what_is_wrong_with_it() {
    insta::assert_snapshot!(page(&Question {
        stages: Vec::new(),
        ..question()
    }));
}
