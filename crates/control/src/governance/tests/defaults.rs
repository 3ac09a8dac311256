use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use barecount_model::id::ApprovalId;

use super::super::*;
use super::fixture::*;

const NOBODY: [&str; 0] = [];

fn change(attribute: Attribute, from: &str, to: &[&str]) -> Change {
    let to = to.iter().map(|value| (*value).to_owned()).collect();
    Change {
        attribute,
        from: from.to_owned(),
        to,
    }
}

#[test]
fn a_stage_inside_the_matrix_is_permitted_and_names_policy_and_row() -> TestResult {
    let permit = decide(&question()).into_permit()?;
    let decision = &permit.explanation().decisions[0];
    assert_eq!(decision.determining[0].id, "stages-may-run");
    assert_eq!(decision.matrix_rows, ["batch"]);
    assert!(permit.covers(Action::Run, "demo", "live", "fx-rates", "3"));
    Ok(())
}

#[test]
fn a_permit_covers_nothing_but_what_was_asked() -> TestResult {
    let permit = decide(&question()).into_permit()?;
    assert!(!permit.covers(Action::Deploy, "demo", "live", "fx-rates", "3"));
    assert!(!permit.covers(Action::Run, "other", "live", "fx-rates", "3"));
    assert!(!permit.covers(Action::Run, "demo", "test", "fx-rates", "3"));
    assert!(!permit.covers(Action::Run, "demo", "live", "fx", "3"));
    assert!(!permit.covers(Action::Run, "demo", "live", "fx-rates", "4"));
    Ok(())
}

#[test]
fn a_deploy_is_decided_as_a_run_is() {
    let mut question = question();
    question.action = Action::Deploy;
    assert_eq!(refusing(&question), NOBODY);
    question.stages[0].size = Size::Custom;
    assert!(refusing(&question).contains(&"tenant-matrix".to_owned()));
}

#[test]
fn a_replay_is_refused_while_no_policy_permits_it() {
    let question = Question {
        action: Action::Replay,
        ..question()
    };
    assert_eq!(refusing(&question), ["barecount:no-permit"]);
}

#[test]
fn a_combination_outside_the_matrix_is_refused_with_what_the_matrix_allows() {
    let mut question = question();
    question.stages[0].size = Size::XLarge;
    question.approvals = vec![approval(ApprovalScope::XLarge)];
    let verdict = decide(&question);
    let failed = &verdict.explanation().decisions[0].failed;
    assert_eq!(failed.len(), 1);
    assert_eq!(
        failed[0].condition,
        "tenant `demo` may not use size `xlarge` of class `managed_etl` with network profile \
         `private_vpc` in environment `live`"
    );
    let expected = [
        change(Attribute::Size, "xlarge", &["small", "medium", "large"]),
        change(Attribute::Approval, "none", &["matrix"]),
    ];
    assert_eq!(failed[0].changes, expected);
    assert_eq!(verdict.explanation().decisions[0].alternatives, expected);
    assert_eq!(
        failed[0].needed,
        "size `small`, `medium` or `large`; or an approval of scope `matrix`"
    );
}

#[test]
fn a_matrix_allows_rows_not_the_mixture_of_its_rows() {
    let mut question = question();
    let rows = question
        .matrix
        .tenants
        .get_mut("demo")
        .expect("the fixture has the tenant");
    rows.push(MatrixRow {
        name: "hooks".to_owned(),
        classes: Allowed::Only(vec![RunnerClass::Serverless]),
        sizes: Allowed::ANY,
        network_profiles: Allowed::Only(vec![NetworkProfile::Vpn]),
    });
    question.stages[0].network_profile = NetworkProfile::Vpn;
    assert_eq!(refusing(&question), ["tenant-matrix"]);
    question.stages[0].class = RunnerClass::Serverless;
    assert_eq!(refusing(&question), NOBODY);
}

#[test]
fn an_approved_exception_lets_one_stage_leave_the_matrix() {
    let mut question = question();
    question.stages[0].network_profile = NetworkProfile::Vpn;
    assert_eq!(refusing(&question), ["tenant-matrix"]);
    question.approvals = vec![approval(ApprovalScope::Matrix)];
    assert_eq!(refusing(&question), NOBODY);
    let mut other = question.stages[0].clone();
    other.name = "publish".to_owned();
    question.stages.push(other);
    assert_eq!(refusing(&question), ["tenant-matrix"]);
}

#[test]
fn a_tenant_without_a_matrix_is_refused_by_name_whatever_is_approved() {
    let mut question = question();
    question.tenant = "unheard-of".to_owned();
    question.approvals = ApprovalScope::ALL.map(approval).into();
    for approval in &mut question.approvals {
        approval.tenant = "unheard-of".to_owned();
    }
    assert_eq!(refusing(&question), ["tenant-has-matrix"]);
    let verdict = decide(&question);
    assert_eq!(
        verdict.explanation().headline(),
        "tenant `unheard-of` has no matrix in environment `live`"
    );
    question.action = Action::RefreshLock;
    question.environment.kind = EnvironmentKind::Development;
    assert_eq!(refusing(&question), ["tenant-has-matrix"]);
}

#[test]
fn an_empty_matrix_allows_nothing() {
    let mut question = question();
    question
        .matrix
        .tenants
        .insert("demo".to_owned(), Vec::new());
    assert_eq!(refusing(&question), ["tenant-matrix"]);
}

#[test]
fn xlarge_needs_an_approval() {
    let mut question = with_stage(|stage| stage.size = Size::XLarge);
    assert_eq!(refusing(&question), ["xlarge-needs-approval"]);
    question.approvals = vec![approval(ApprovalScope::CustomSize)];
    assert_eq!(refusing(&question), ["xlarge-needs-approval"]);
    question.approvals = vec![approval(ApprovalScope::XLarge)];
    assert_eq!(refusing(&question), NOBODY);
}

#[test]
fn a_custom_size_needs_an_approval_and_dedicated_compute() {
    let mut question = with_stage(|stage| stage.size = Size::Custom);
    assert_eq!(
        refusing(&question),
        ["custom-size-needs-approval", "custom-size-only-dedicated"]
    );
    question.stages[0].class = RunnerClass::DedicatedCompute;
    assert_eq!(refusing(&question), ["custom-size-needs-approval"]);
    question.approvals = vec![approval(ApprovalScope::CustomSize)];
    assert_eq!(refusing(&question), NOBODY);
}

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

#[test]
fn process_isolation_is_refused_outside_development() {
    let mut question = with_stage(|stage| stage.isolation = Isolation::Process);
    for kind in [EnvironmentKind::Staging, EnvironmentKind::Production] {
        question.environment.kind = kind;
        assert_eq!(refusing(&question), ["process-isolation-only-development"]);
    }
    question.environment.kind = EnvironmentKind::Development;
    assert_eq!(refusing(&question), NOBODY);
}

#[test]
fn secrets_in_variables_are_refused_outside_development() {
    let mut question = with_stage(|stage| {
        stage.has_secrets = true;
        stage.has_secret_variables = true;
    });
    for kind in [EnvironmentKind::Staging, EnvironmentKind::Production] {
        question.environment.kind = kind;
        assert_eq!(refusing(&question), ["secret-variables-only-development"]);
        let files = with_stage(|stage| stage.has_secrets = true);
        assert_eq!(refusing(&files), NOBODY, "files are for everywhere");
    }
    question.environment.kind = EnvironmentKind::Development;
    assert_eq!(refusing(&question), NOBODY);
}

#[test]
fn public_egress_is_refused_where_a_private_path_exists() {
    let mut question = with_stage(|stage| {
        stage.network_profile = NetworkProfile::PublicVpcEgress;
        stage.privately_reachable = vec!["erp.example.com:443".to_owned()];
    });
    assert_eq!(refusing(&question), ["private-path-first"]);
    let verdict = decide(&question);
    assert!(
        verdict
            .explanation()
            .headline()
            .contains("`erp.example.com:443`")
    );
    question.stages[0].network_profile = NetworkProfile::PrivateLink;
    assert_eq!(refusing(&question), NOBODY);
    question.stages[0].network_profile = NetworkProfile::PublicVpcEgress;
    question.stages[0].privately_reachable.clear();
    assert_eq!(refusing(&question), NOBODY);
}

#[test]
fn an_on_premise_agent_needs_a_residency_requirement() {
    let mut question = with_stage(|stage| stage.network_profile = NetworkProfile::OnPremAgent);
    assert_eq!(refusing(&question), ["on-prem-agent-needs-residency"]);
    question.stages[0].residency = Some(" ".to_owned());
    assert_eq!(refusing(&question), ["on-prem-agent-needs-residency"]);
    question.stages[0].residency = Some("plant-7".to_owned());
    assert_eq!(refusing(&question), NOBODY);
}

#[test]
fn a_crossing_is_refused_outside_development_until_something_names_the_dataset() {
    let mut question = crossing("raw.readings");
    for kind in [EnvironmentKind::Staging, EnvironmentKind::Production] {
        question.environment.kind = kind;
        assert_eq!(refusing(&question), ["crossing-needs-approval"]);
    }
    let verdict = decide(&question);
    let decision = &verdict.explanation().decisions[0];
    assert!(
        decision.failed[0]
            .condition
            .contains("reads `raw.readings` across a boundary")
    );
    assert_eq!(decision.crossings[0].allowed_by, []);
    let expected = [
        change(Attribute::Approval, "none", &["crossing"]),
        change(Attribute::EnvironmentKind, "production", &["development"]),
    ];
    assert_eq!(decision.alternatives, expected);
    question.environment.kind = EnvironmentKind::Development;
    assert_eq!(refusing(&question), NOBODY);
    assert_eq!(allowing(&question), [CrossingBasis::Development]);
}

/// What lets the question's only crossing across.
fn allowing(question: &Question) -> Vec<CrossingBasis> {
    let verdict = decide(question);
    verdict.explanation().decisions[0].crossings[0]
        .allowed_by
        .clone()
}

#[test]
fn an_approval_lets_across_what_it_names_and_nothing_else() {
    let mut question = crossing("raw.readings");
    let approved = |datasets: &[&str]| Approval {
        datasets: datasets.iter().map(ToString::to_string).collect(),
        ..approval(ApprovalScope::Crossing)
    };
    question.approvals = vec![approved(&["raw.parts"]), approved(&[])];
    assert_eq!(refusing(&question), ["crossing-needs-approval"]);
    // One of scope `crossing` counts, and still it is what would help.
    let verdict = decide(&question);
    let alternatives = &verdict.explanation().decisions[0].alternatives;
    assert_eq!(
        alternatives[0],
        change(Attribute::Approval, "none", &["crossing"])
    );
    question.approvals.push(approved(&["raw.readings"]));
    assert_eq!(refusing(&question), NOBODY);
    let expected = CrossingBasis::Approval {
        approval: Some(question.approvals[2].id.clone()),
        approver: Some("governance-officer".to_owned()),
        expires_at: question.approvals[2].expires_at,
    };
    assert_eq!(allowing(&question), [expected]);
    question.approvals[2].expires_at = Some(now());
    assert_eq!(refusing(&question), ["crossing-needs-approval"]);
}

#[test]
fn an_approval_of_another_scope_lets_nothing_across_whatever_it_names() {
    let mut question = crossing("raw.readings");
    question.approvals = vec![Approval {
        datasets: vec!["raw.readings".to_owned()],
        ..approval(ApprovalScope::Matrix)
    }];
    assert_eq!(refusing(&question), ["crossing-needs-approval"]);
}

#[test]
fn a_grant_lets_across_what_it_names_for_its_tenant_alone() {
    let mut question = crossing("raw.readings");
    let granted =
        |tenant: &str, dataset: &str| (tenant.to_owned(), BTreeSet::from([dataset.to_owned()]));
    question.matrix.crossings = [
        granted("other", "raw.readings"),
        granted("demo", "raw.parts"),
    ]
    .into();
    assert_eq!(refusing(&question), ["crossing-needs-approval"]);
    question.matrix.crossings = [granted("demo", "raw.readings")].into();
    assert_eq!(refusing(&question), NOBODY);
    let tenant = "demo".to_owned();
    assert_eq!(allowing(&question), [CrossingBasis::Grant { tenant }]);
}

#[test]
fn only_development_environments_refresh_the_lock() {
    let mut question = Question {
        action: Action::RefreshLock,
        ..question()
    };
    question.stages.clear();
    for kind in [EnvironmentKind::Staging, EnvironmentKind::Production] {
        question.environment.kind = kind;
        assert_eq!(refusing(&question), ["lock-refresh-only-development"]);
    }
    question.environment.kind = EnvironmentKind::Development;
    assert_eq!(refusing(&question), NOBODY);
}

#[test]
fn debug_logging_in_production_needs_consent() {
    let mut question = with_stage(|stage| stage.debug_logging = true);
    assert_eq!(refusing(&question), ["debug-logging-needs-consent"]);
    let verdict = decide(&question);
    let expected = [
        change(Attribute::DebugLogging, "on", &["off"]),
        change(Attribute::Approval, "none", &["debug_logging"]),
        change(
            Attribute::EnvironmentKind,
            "production",
            &["development", "staging"],
        ),
    ];
    assert_eq!(verdict.explanation().decisions[0].alternatives, expected);
    question.approvals = vec![approval(ApprovalScope::DebugLogging)];
    assert_eq!(refusing(&question), NOBODY);
    question.approvals.clear();
    question.environment.kind = EnvironmentKind::Staging;
    assert_eq!(refusing(&question), NOBODY);
}

#[test]
fn one_refused_stage_refuses_the_whole_and_the_others_say_that_they_were_fine() {
    let mut question = question();
    question.stages.push(StageFacts {
        size: Size::XLarge,
        ..stage("publish")
    });
    let verdict = decide(&question);
    assert!(!verdict.is_permitted());
    let allowed: Vec<_> = verdict
        .explanation()
        .decisions
        .iter()
        .map(|decision| decision.allowed)
        .collect();
    assert_eq!(allowed, [true, false]);
}

#[test]
fn an_explanation_survives_json_and_is_the_same_every_time() -> TestResult {
    let mut question = question();
    question.stages[0].size = Size::XLarge;
    let first = serde_json::to_string(&decide(&question))?;
    let second = serde_json::to_string(&decide(&question))?;
    assert_eq!(first, second);
    let verdict = decide(&question);
    let evidence = serde_json::to_string(verdict.explanation())?;
    let read: Explanation = serde_json::from_str(&evidence)?;
    assert_eq!(&read, verdict.explanation());
    let asked: Question = serde_json::from_str(&serde_json::to_string(&question)?)?;
    assert_eq!(asked, question);
    Ok(())
}
