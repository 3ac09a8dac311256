use barecount_model::class::{NetworkProfile, RunnerClass, Size};

use super::super::*;
use super::fixture::*;

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
