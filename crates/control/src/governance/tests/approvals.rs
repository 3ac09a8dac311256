//! Which approvals count, and who may ask for them and grant them.

use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use barecount_model::id::ApprovalId;

use super::super::*;
use super::fixture::*;

/// Why the only approval of an xlarge stage does not count; nothing when it does.
fn approval_refused(approval: Approval) -> Vec<String> {
    let mut question = with_stage(|stage| stage.size = Size::XLarge);
    question.approvals = vec![approval];
    let verdict = decide(&question);
    let decided = &verdict.explanation().decisions[0].approvals[0];
    assert_eq!(decided.usable, verdict.is_permitted());
    decided
        .failed
        .iter()
        .map(|failed| failed.policy.id.clone())
        .collect()
}

#[test]
fn an_approval_counts_until_the_moment_it_expires() {
    let granted = approval(ApprovalScope::XLarge);
    let millisecond = jiff::SignedDuration::from_millis(1);
    let lasting = Approval {
        expires_at: Some(now() + millisecond),
        ..granted.clone()
    };
    assert_eq!(approval_refused(lasting), NOBODY);
    let expired = Approval {
        expires_at: Some(now()),
        ..granted
    };
    assert_eq!(approval_refused(expired), ["approval-has-not-expired"]);
}

#[test]
fn nobody_approves_for_themselves() {
    let granted = approval(ApprovalScope::XLarge);
    let own = Approval {
        approver: Some("data-engineer".to_owned()),
        ..granted.clone()
    };
    assert_eq!(approval_refused(own), ["approval-by-somebody-else"]);
    let padded = Approval {
        approver: Some(" data-engineer\n".to_owned()),
        ..granted.clone()
    };
    assert_eq!(approval_refused(padded), ["approval-by-somebody-else"]);
    let nobody = Approval {
        approver: Some(" ".to_owned()),
        ..granted.clone()
    };
    assert_eq!(
        approval_refused(nobody),
        ["approval-by-somebody-else", "approval-by-an-approver"]
    );
    // Asked for by one person, run by the one who granted it.
    let running = Approval {
        requester: "colleague".to_owned(),
        approver: Some("data-engineer".to_owned()),
        ..granted.clone()
    };
    assert_eq!(approval_refused(running), ["approval-by-somebody-else"]);
    let circular = Approval {
        requester: "governance-officer".to_owned(),
        ..granted
    };
    assert_eq!(approval_refused(circular), ["approval-by-somebody-else"]);
}

#[test]
fn an_approval_without_a_reason_does_not_count() {
    let silent = Approval {
        justification: " \t\n".to_owned(),
        ..approval(ApprovalScope::XLarge)
    };
    assert_eq!(approval_refused(silent), ["approval-is-justified"]);
}

#[test]
fn an_approval_of_other_work_does_not_count() {
    let granted = approval(ApprovalScope::XLarge);
    for other in [
        Approval {
            tenant: "other".to_owned(),
            ..granted.clone()
        },
        Approval {
            environment: "test".to_owned(),
            ..granted.clone()
        },
        Approval {
            pipeline: "other".to_owned(),
            ..granted.clone()
        },
    ] {
        assert_eq!(approval_refused(other), ["approval-is-for-this-work"]);
    }
    let mut question = with_stage(|stage| stage.size = Size::XLarge);
    question.approvals = vec![Approval {
        stage: "publish".to_owned(),
        ..approval(ApprovalScope::XLarge)
    }];
    assert_eq!(refusing(&question), ["xlarge-needs-approval"]);
}

type Alter = fn(&mut Question);

#[test]
fn an_approval_counts_only_for_the_question_that_it_was_asked_of() {
    let xlarge = || with_stage(|stage| stage.size = Size::XLarge);
    let mut granted = xlarge();
    granted.approvals = vec![approval(ApprovalScope::XLarge)];
    let granted = asked(governance(), &granted);
    assert_eq!(refusing(&granted), NOBODY);
    let changes: [(&str, Alter); 6] = [
        ("class", |q| q.stages[0].class = RunnerClass::Container),
        ("profile", |q| {
            q.stages[0].network_profile = NetworkProfile::Vpn
        }),
        ("drivers", |q| q.stages[0].drivers.push("sqlite".to_owned())),
        ("secrets", |q| q.stages[0].has_secrets = true),
        ("custom size", |q| {
            q.stages[0].custom_size = Some("64 vCPU, 512GiB".to_owned());
        }),
        ("classification", |q| {
            q.pipeline.classification = "restricted".to_owned();
        }),
    ];
    for (what, change) in changes {
        let mut other = granted.clone();
        change(&mut other);
        assert_eq!(refusing(&other), ["xlarge-needs-approval"], "{what}");
        let verdict = decide(&other);
        let failed = &verdict.explanation().decisions[0].approvals[0].failed;
        assert_eq!(
            failed[0].policy.id, "approval-is-of-this-question",
            "{what}"
        );
    }
    for (what, change) in [
        ("version", (|q| q.pipeline.version.push('2')) as Alter),
        ("owner", |q| q.pipeline.owner.push('2')),
        ("another stage", |q| q.stages.push(stage("another"))),
    ] {
        let mut same = granted.clone();
        change(&mut same);
        assert_eq!(refusing(&same), NOBODY, "{what}");
    }
    let policies = PolicySource {
        name: "own".to_owned(),
        text: "@id(\"none\") @title(\"Nothing\") @remedy(\"Wait.\")
               forbid (principal, action == Action::\"deploy\", resource);"
            .to_owned(),
    };
    let changed = Governance::load(&[policies]).expect("it is one");
    assert_eq!(
        refusing_under(&changed, &granted),
        ["xlarge-needs-approval"]
    );
}

#[test]
fn an_approval_counts_only_while_it_is_granted_by_an_approver_and_not_used_up() {
    let granted = approval(ApprovalScope::XLarge);
    for state in ApprovalState::ALL {
        let expected: &[&str] = match state {
            ApprovalState::Granted => &[],
            _ => &["approval-is-granted"],
        };
        let approval = Approval {
            state,
            ..granted.clone()
        };
        assert_eq!(approval_refused(approval), expected, "{state:?}");
    }
    let nobody = Approval {
        approver: Some("passer-by".to_owned()),
        ..granted.clone()
    };
    assert_eq!(approval_refused(nobody), ["approval-by-an-approver"]);
    let last = Approval {
        runs_left: Some(1),
        ..granted.clone()
    };
    assert_eq!(approval_refused(last), NOBODY);
    let used_up = Approval {
        runs_left: Some(0),
        ..granted
    };
    assert_eq!(approval_refused(used_up), ["approval-is-not-used-up"]);
}

#[test]
fn of_several_approvals_that_count_a_run_relies_on_one() {
    let mut question = with_stage(|stage| stage.size = Size::XLarge);
    let first = approval(ApprovalScope::XLarge);
    let second = Approval {
        id: ApprovalId::from_bytes([8; 16]),
        ..first.clone()
    };
    question.approvals = vec![first.clone(), second];
    let verdict = decide(&question);
    let relied_on = verdict.explanation().relied_on();
    assert_eq!(relied_on, [&first.id].into());
}

/// The policies that refuse that this account does this to an approval that was asked for.
fn act_refused(action: Action, by: &str) -> Vec<String> {
    let asked_for = Approval {
        state: ApprovalState::Requested,
        requester: "Data-Engineer".to_owned(),
        approver: None,
        expires_at: None,
        ..approval(ApprovalScope::XLarge)
    };
    refusing(&Question {
        action,
        requester: by.to_owned(),
        stages: Vec::new(),
        approvals: vec![asked_for],
        ..question()
    })
}

#[test]
fn approvers_answer_and_nobody_grants_what_they_have_asked_for() {
    for by in ["officer", "Governance-Officer "] {
        for action in [
            Action::GrantApproval,
            Action::DenyApproval,
            Action::RevokeApproval,
        ] {
            assert_eq!(act_refused(action, by), NOBODY, "{by} {action:?}");
        }
    }
    // Who asks is one of the approvers here.
    assert_eq!(
        act_refused(Action::GrantApproval, "DATA-engineer"),
        ["requester-does-not-grant"]
    );
    assert_eq!(act_refused(Action::RevokeApproval, "data-engineer"), NOBODY);
    for action in [Action::GrantApproval, Action::DenyApproval] {
        assert_eq!(act_refused(action, "passer-by"), ["only-approvers-answer"]);
    }
    assert_eq!(
        act_refused(Action::RevokeApproval, "passer-by"),
        ["only-approver-or-requester-revokes"]
    );
    assert_eq!(act_refused(Action::RequestApproval, "passer-by"), NOBODY);
}

#[test]
fn one_good_approval_among_bad_ones_is_enough() {
    let mut question = with_stage(|stage| stage.size = Size::XLarge);
    let granted = approval(ApprovalScope::XLarge);
    let expired = Approval {
        expires_at: Some(now()),
        ..granted.clone()
    };
    let own = Approval {
        approver: Some("data-engineer".to_owned()),
        ..granted.clone()
    };
    question.approvals = vec![expired, own, granted];
    assert_eq!(refusing(&question), NOBODY);
}
