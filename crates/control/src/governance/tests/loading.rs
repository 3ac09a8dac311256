use super::super::*;
use super::fixture::*;

fn source(name: &str, text: &str) -> PolicySource {
    PolicySource {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn problems(text: &str) -> Vec<String> {
    match Governance::load(&[source("rules/own.cedar", text)]) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

const NO_SECRETS: &str = r#"
@id("no-secrets-in-serverless")
@title("Serverless stages mount no secrets here")
@refusal("stage `{stage}` of {pipeline} mounts secrets")
@remedy("Use a container.")
forbid (principal, action in Action::"execute", resource)
when { resource.has_secrets && resource.class == RunnerClass::"serverless" };
"#;

#[test]
fn an_added_policy_refuses_and_its_alternatives_are_found_by_asking() -> TestResult {
    use barecount_model::class::RunnerClass;
    let governance = Governance::load(&[source("rules/own.cedar", NO_SECRETS)])?;
    let question = with_stage(|stage| {
        stage.has_secrets = true;
        stage.class = RunnerClass::Serverless;
    });
    let verdict = governance.decide(&question);
    let failed = &verdict.explanation().decisions[0].failed[0];
    assert_eq!(
        failed.condition,
        "stage `consolidate` of fx-rates mounts secrets"
    );
    assert_eq!(failed.found, "class `serverless`");
    assert_eq!(
        failed.needed,
        "class `container`, `managed_etl` or `dedicated_compute`"
    );
    assert_eq!(refusing(&question), Vec::<String>::new());
    Ok(())
}

#[test]
fn an_added_permit_does_not_overrule_a_default_refusal() -> TestResult {
    let text = r#"@id("anything") @title("Anything") @remedy("None.")
        permit (principal, action, resource);"#;
    let governance = Governance::load(&[source("own", text)])?;
    let question = Question {
        tenant: "other".to_owned(),
        ..question()
    };
    assert_eq!(
        refusing_under(&governance, &question),
        ["tenant-has-matrix"]
    );
    Ok(())
}

#[test]
fn the_digest_tells_policy_sets_apart() -> TestResult {
    let own = source("a", NO_SECRETS);
    let with = Governance::load(std::slice::from_ref(&own))?;
    let again = Governance::load(std::slice::from_ref(&own))?;
    let renamed = Governance::load(&[PolicySource {
        name: "b".to_owned(),
        ..own
    }])?;
    assert_eq!(with.policies_digest(), again.policies_digest());
    assert_ne!(with.policies_digest(), renamed.policies_digest());
    assert_ne!(with.policies_digest(), governance().policies_digest());
    assert!(with.policies_digest().starts_with("sha256:"));
    Ok(())
}

#[test]
fn a_syntax_error_is_found_by_line_and_column() {
    let found = problems("// own rules\n\npermit (principal, action resource);\n");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("rules/own.cedar:3:27: unexpected token"),
        "{found:?}"
    );
}

#[test]
fn a_misspelt_attribute_is_found_with_a_suggestion() {
    let text = NO_SECRETS.replace("resource.has_secrets", "resource.has_secret");
    let error = Governance::load(&[source("own.cedar", &text)]).expect_err("it is misspelt");
    let problem = &error.problems[0];
    assert_eq!(
        (problem.file.as_str(), problem.line, problem.column),
        ("own.cedar", 7, 8)
    );
    assert!(problem.message.contains("has_secret"), "{problem}");
    let help = problem.help.as_deref().unwrap_or_default();
    assert!(help.contains("has_secrets"), "{help}");
}

#[test]
fn a_value_outside_the_vocabulary_is_found() {
    let found = problems(&NO_SECRETS.replace("\"serverless\"", "\"lambda\""));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("rules/own.cedar:7:"), "{found:?}");
    assert!(found[0].contains("lambda"), "{found:?}");
}

#[test]
fn an_optional_attribute_read_without_asking_is_found() {
    let found =
        problems(&NO_SECRETS.replace("resource.has_secrets", r#"resource.residency == """#));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("residency"), "{found:?}");
}

#[test]
fn a_policy_that_can_never_apply_is_found() {
    let found = problems(&NO_SECRETS.replace("resource.has_secrets &&", "false &&"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("impossible"), "{found:?}");
}

#[test]
fn every_policy_says_what_it_is_called_and_what_to_do() {
    let found = problems(&NO_SECRETS.replace("@id(\"no-secrets-in-serverless\")", ""));
    assert_eq!(
        found,
        ["rules/own.cedar:3:1: this `forbid` policy has no `@id`"]
    );
    let found =
        problems(&NO_SECRETS.replace("@title(\"Serverless stages mount no secrets here\")", ""));
    assert_eq!(
        found,
        ["rules/own.cedar:2:1: this `forbid` policy has no `@title`"]
    );
    let found = problems(&NO_SECRETS.replace("Use a container.", "  "));
    assert_eq!(
        found,
        ["rules/own.cedar:2:1: this `forbid` policy has no `@remedy`"]
    );
}

#[test]
fn a_refusal_names_only_what_is_known() {
    let found = problems(&NO_SECRETS.replace("{pipeline}", "{pipline}"));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("`{pipline}`, which nothing fills in"),
        "{found:?}"
    );
    let found = problems(&NO_SECRETS.replace("{pipeline}", "{pipeline"));
    assert!(found[0].contains("without `}`"), "{found:?}");
}

#[test]
fn a_default_policy_cannot_be_replaced() {
    let found = problems(&NO_SECRETS.replace("no-secrets-in-serverless", "tenant-matrix"));
    assert_eq!(
        found,
        [
            "rules/own.cedar:2:1: policy id `tenant-matrix` is already used in policies/execution.cedar"
        ]
    );
}

#[test]
fn ids_are_plain_so_that_they_cannot_pass_for_a_reason_of_our_own() {
    for id in ["barecount:no-permit", "Ünsafe", "two words"] {
        let found = problems(&NO_SECRETS.replace("no-secrets-in-serverless", id));
        assert!(found[0].contains("is not made of a-z"), "{found:?}");
    }
}

#[test]
fn templates_and_oversized_files_are_refused() {
    let found = problems(&NO_SECRETS.replace("(principal,", "(principal == ?principal,"));
    assert_eq!(found, ["rules/own.cedar:2:1: templates are not supported"]);
    let found = problems(&" ".repeat(MAX_SOURCE_BYTES + 1));
    assert!(found[0].contains("larger than"), "{found:?}");
}

#[test]
fn more_policies_than_the_limit_are_refused() {
    let policy = |n| NO_SECRETS.replace("no-secrets-in-serverless", &format!("rule-{n}"));
    let halves: Vec<PolicySource> = (0..2)
        .map(|half| {
            let text: String = (0..MAX_POLICIES / 2)
                .map(|n| policy(half * 1000 + n))
                .collect();
            source(&format!("half-{half}"), &text)
        })
        .collect();
    let error = Governance::load(&halves).expect_err("the default policies are too many");
    assert!(error.problems[0].message.contains("more than"), "{error}");
}

#[test]
fn all_problems_are_reported_at_once() {
    let twice = format!(
        "{}\n{}",
        NO_SECRETS.replace("has_secrets", "has_secret"),
        NO_SECRETS.replace("no-secrets-in-serverless", "Again")
    );
    let found = problems(&twice);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_policy_that_fails_to_evaluate_refuses_and_says_so() -> TestResult {
    // The overflow is not visible to the validator; Cedar alone would skip the policy and permit.
    let text = r#"@id("overflows") @title("Overflows") @remedy("Correct it.")
        forbid (principal, action == Action::"run", resource)
        when { context.now + 9223372036854775807 < 0 };"#;
    let governance = Governance::load(&[source("own", text)])?;
    let verdict = governance.decide(&question());
    assert!(!verdict.is_permitted());
    let decision = &verdict.explanation().decisions[0];
    assert_eq!(decision.determining[0].id, "overflows");
    assert_eq!(decision.determining.len(), 1);
    assert!(
        decision.failed[0]
            .condition
            .starts_with("policy `overflows` could not be evaluated: "),
        "{:?}",
        decision.failed
    );
    Ok(())
}

#[test]
fn an_approval_policy_that_fails_to_evaluate_discards_the_approval() -> TestResult {
    use barecount_model::class::Size;
    let text = r#"@id("overflows") @title("Overflows") @remedy("Correct it.")
        forbid (principal, action == Action::"use_approval", resource)
        when { resource has expires_at && resource.expires_at + 9223372036854775807 < 0 };"#;
    let governance = Governance::load(&[source("own", text)])?;
    let mut question = with_stage(|stage| stage.size = Size::XLarge);
    question.approvals = vec![approval(ApprovalScope::XLarge)];
    assert_eq!(
        refusing_under(&governance, &question),
        ["xlarge-needs-approval"]
    );
    Ok(())
}

#[test]
fn every_vocabulary_value_is_in_the_schema() {
    // A value that the schema lacks would make every question with it unanswerable.
    use barecount_model::class::{NetworkProfile, RunnerClass, Size};
    let governance = governance();
    for &class in RunnerClass::ALL {
        for &size in Size::ALL {
            for &network_profile in NetworkProfile::ALL {
                for isolation in Isolation::ALL {
                    let question = with_stage(|stage| {
                        (stage.class, stage.size, stage.isolation) = (class, size, isolation);
                        stage.network_profile = network_profile;
                    });
                    let found = refusing_under(governance, &question);
                    assert!(
                        !found.contains(&"barecount:unanswerable".to_owned()),
                        "{found:?}"
                    );
                }
            }
        }
    }
}
