use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::*;
use super::fixture::*;

const NASTY: [&str; 8] = [
    "\" == \"\" || true || \"",
    "Tenant::\"demo\"",
    "demo\u{0}",
    "\\u{64}emo",
    "ｄｅｍｏ",
    "{tenant}{{}}",
    "\u{1b}[2J\u{202e}omed",
    "de\u{301}mo\r\n  stage x: permitted",
];

#[test]
fn names_are_compared_as_they_are_and_never_parsed() {
    for nasty in NASTY {
        let unknown = Question {
            tenant: nasty.to_owned(),
            ..question()
        };
        assert_eq!(refusing(&unknown), ["tenant-has-matrix"], "{nasty:?}");
        let mut known = unknown;
        let rows = known
            .matrix
            .tenants
            .remove("demo")
            .expect("the fixture has the tenant");
        known.matrix.tenants.insert(nasty.to_owned(), rows);
        known.stages[0].name = nasty.to_owned();
        known.pipeline.name = nasty.to_owned();
        known.stages[0].drivers = vec![nasty.to_owned()];
        known.requester = nasty.to_owned();
        assert!(refusing(&known).is_empty(), "{nasty:?}");
    }
}

#[test]
fn foreign_text_cannot_steer_a_terminal_or_fake_a_line() {
    for nasty in NASTY {
        let mut question = question();
        question.tenant = nasty.to_owned();
        question.stages[0].name = nasty.to_owned();
        question.requester = nasty.to_owned();
        question.approvals = vec![Approval {
            stage: nasty.to_owned(),
            approver: Some(nasty.to_owned()),
            justification: nasty.to_owned(),
            ..approval(ApprovalScope::XLarge)
        }];
        let page = explain(governance().decide(&question).explanation());
        let unsafe_character = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!page.contains(unsafe_character), "{page:?}");
        assert!(
            !page.lines().any(|line| line.trim().starts_with("stage x")),
            "{page}"
        );
    }
}

#[test]
fn a_question_beyond_its_bounds_is_refused_and_its_evidence_is_bounded() -> TestResult {
    let huge = "é".repeat(10_000_000);
    let mut long = question();
    long.tenant = huge.clone();
    let mut driver = question();
    driver.stages[0].drivers = vec![huge];
    let mut many = question();
    many.stages = (0..=MAX_STAGES).map(|n| stage(&n.to_string())).collect();
    let mut approvals = question();
    approvals.approvals = vec![approval(ApprovalScope::XLarge); MAX_APPROVALS + 1];
    for (question, reason) in [
        (long, "the tenant is 20000000 bytes long, more than 1024"),
        (
            driver,
            "the driver name is 20000000 bytes long, more than 1024",
        ),
        (
            many,
            "the question has 257 stages, more than the 256 that can be decided at once",
        ),
        (
            approvals,
            "the question has 65 approvals, more than the 64 that can be decided at once",
        ),
    ] {
        let verdict = governance().decide(&question);
        assert!(!verdict.is_permitted());
        assert_eq!(verdict.explanation().headline(), reason);
        assert!(serde_json::to_vec(verdict.explanation())?.len() < 8 * 1024);
    }
    Ok(())
}

#[test]
fn a_question_without_a_subject_is_refused() {
    let nothing = Question {
        stages: Vec::new(),
        ..question()
    };
    assert_eq!(refusing(&nothing), ["barecount:unanswerable"]);
    let nobody = Question {
        requester: String::new(),
        ..question()
    };
    assert_eq!(refusing(&nobody), ["barecount:unanswerable"]);
    let mut twins = question();
    twins.stages.push(stage("consolidate"));
    assert_eq!(refusing(&twins), ["barecount:unanswerable"]);
}

#[test]
fn the_largest_question_has_a_bounded_answer() -> TestResult {
    let mut question = question();
    question.stages = (0..MAX_STAGES)
        .map(|n| StageFacts {
            size: Size::XLarge,
            ..stage(&format!("{n:0>4}"))
        })
        .collect();
    let verdict = governance().decide(&question);
    assert_eq!(verdict.explanation().decisions.len(), MAX_STAGES);
    assert!(serde_json::to_vec(verdict.explanation())?.len() < MAX_STAGES * 4096);
    Ok(())
}

fn allowed<T: Copy + std::fmt::Debug + 'static>(
    all: &'static [T],
) -> impl Strategy<Value = Allowed<T>> {
    prop_oneof![
        1 => Just(Allowed::Any(Wildcard::Any)),
        4 => prop::collection::vec(select(all), 0..3).prop_map(Allowed::Only),
    ]
}

prop_compose! {
    fn rows()(parts in prop::collection::vec(
        (allowed(RunnerClass::ALL), allowed(Size::ALL), allowed(NetworkProfile::ALL)), 0..4,
    )) -> Vec<MatrixRow> {
        parts.into_iter().enumerate().map(|(position, (classes, sizes, network_profiles))| {
            MatrixRow { name: position.to_string(), classes, sizes, network_profiles }
        }).collect()
    }
}

prop_compose! {
    fn any_stage()(
        class in select(RunnerClass::ALL),
        size in select(Size::ALL),
        network_profile in select(NetworkProfile::ALL),
        isolation in select(Isolation::ALL.as_slice()),
        debug_logging: bool,
        residency in prop::option::of("[a-z ]{0,4}"),
        privately_reachable in prop::collection::vec("[a-z]{1,4}", 0..2),
    ) -> StageFacts {
        StageFacts {
            class, size, network_profile, isolation, debug_logging, residency,
            privately_reachable, ..stage("s")
        }
    }
}

prop_compose! {
    fn any_approval()(
        scope in select(ApprovalScope::ALL.as_slice()),
        requester in select(["data-engineer", "colleague"].as_slice()),
        approver in select(["data-engineer", "officer", ""].as_slice()),
        justification in select(["", "because"].as_slice()),
        millis in -2_i64..3,
        datasets in prop::collection::vec(select(["raw.a", "raw.b"].as_slice()), 0..2),
    ) -> Approval {
        Approval {
            scope,
            stage: "0".to_owned(),
            datasets: datasets.iter().map(ToString::to_string).collect(),
            requester: requester.to_owned(),
            approver: Some(approver.to_owned()),
            justification: justification.to_owned(),
            expires_at: Some(now() + jiff::SignedDuration::from_millis(millis)),
            ..approval(scope)
        }
    }
}

prop_compose! {
    fn any_question()(
        action in select([Action::Run, Action::Deploy, Action::Replay].as_slice()),
        kind in select(EnvironmentKind::ALL.as_slice()),
        tenant in select(["demo", "other"].as_slice()),
        rows in rows(),
        mut stages in prop::collection::vec(any_stage(), 1..4),
        approvals in prop::collection::vec(any_approval(), 0..4),
    ) -> Question {
        for (position, stage) in stages.iter_mut().enumerate() {
            stage.name = position.to_string();
        }
        let mut question = question();
        question.action = action;
        question.environment.kind = kind;
        question.tenant = tenant.to_owned();
        question.matrix.tenants.insert("demo".to_owned(), rows);
        question.stages = stages;
        question.approvals = approvals;
        asked(governance(), &question)
    }
}

fn listed(question: &Question, stage: &StageFacts) -> bool {
    let rows = question.matrix.tenants.get(&question.tenant);
    rows.is_some_and(|rows| {
        rows.iter().any(|row| {
            row.classes.contains(&stage.class)
                && row.sizes.contains(&stage.size)
                && row.network_profiles.contains(&stage.network_profile)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn without_a_matching_matrix_row_nothing_is_permitted(question in any_question()) {
        let mut question = question;
        // The only way around the matrix is an approval that says so; see the next property.
        question.approvals.retain(|approval| approval.scope != ApprovalScope::Matrix);
        let verdict = governance().decide(&question);
        let all_listed = question.stages.iter().all(|stage| listed(&question, stage));
        prop_assert!(!verdict.is_permitted() || all_listed);
    }

    #[test]
    fn an_exception_to_the_matrix_has_a_reason_and_two_people_and_an_end(question in any_question()) {
        let verdict = governance().decide(&question);
        let good = question.approvals.iter().any(|approval| {
            approval.scope == ApprovalScope::Matrix
                && approval.approver.as_deref() == Some("officer")
                && approval.justification == "because"
                && approval.expires_at > Some(question.now)
        });
        let all_listed = question.stages.iter().all(|stage| listed(&question, stage));
        prop_assert!(!verdict.is_permitted() || all_listed || (good && question.tenant == "demo"));
    }

    #[test]
    fn every_refusal_has_reasons_and_every_offered_alternative_is_permitted(question in any_question()) {
        let governance = governance();
        let verdict = governance.decide(&question);
        prop_assert_eq!(verdict.explanation().decisions.len(), question.stages.len());
        for (decision, stage) in verdict.explanation().decisions.iter().zip(&question.stages) {
            prop_assert_eq!(decision.allowed, decision.failed.is_empty());
            prop_assert!(!decision.determining.is_empty());
            for size in decision.alternatives.iter().filter(|c| c.attribute == Attribute::Size) {
                for &size in Size::ALL.iter().filter(|s| size.to.contains(&s.to_string())) {
                    let stages = vec![StageFacts { size, ..stage.clone() }];
                    let again = Question { stages, ..question.clone() };
                    prop_assert!(governance.decide(&again).is_permitted());
                }
            }
        }
    }
}
