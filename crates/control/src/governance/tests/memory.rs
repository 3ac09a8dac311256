//! What is remembered of earlier decisions, and what is decided anew.

use barecount_model::class::{RunnerClass, Size};
use jiff::SignedDuration;

use super::super::*;
use super::fixture::*;

fn fresh(additional: &[PolicySource]) -> Governance {
    Governance::load(additional).expect("the policies load")
}

/// The question, asked `seconds` after the fixture's time.
fn after(seconds: i64, mut question: Question) -> Question {
    question.now = now() + SignedDuration::from_secs(seconds);
    question
}

/// Whether the answer was made for this very question.
fn is_decided_anew(governance: &Governance, question: &Question) -> bool {
    governance.decide(question).explanation().decided_at == question.now
}

type Edit = fn(&mut Question);

fn source(text: &str) -> PolicySource {
    PolicySource {
        name: "added.cedar".to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn an_equal_question_gets_the_permit_that_was_decided_before() {
    let governance = fresh(&[]);
    let first = governance.decide(&question());
    assert!(is_decided_anew(&governance, &after(0, question())));
    let second = governance.decide(&after(60, question()));
    assert!(second.is_permitted());
    assert_eq!(first.explanation(), second.explanation());
}

#[test]
fn whatever_a_decision_depends_on_has_it_decided_anew() {
    let governance = fresh(&[]);
    let permitted = unrestricted();
    assert!(governance.decide(&permitted).is_permitted());
    let changes: [(&str, Edit); 14] = [
        ("action", |q| q.action = Action::Replay),
        ("tenant", |q| {
            let rows = q.matrix.tenants["demo"].clone();
            q.matrix.tenants.insert("other".to_owned(), rows);
            q.tenant = "other".to_owned();
        }),
        ("environment", |q| q.environment.name.push('2')),
        ("its kind", |q| {
            q.environment.kind = EnvironmentKind::Staging;
        }),
        ("requester", |q| q.requester.push('2')),
        ("pipeline", |q| q.pipeline.name.push('2')),
        ("version", |q| q.pipeline.version.push('2')),
        ("owner", |q| q.pipeline.owner.push('2')),
        ("class", |q| q.stages[0].class = RunnerClass::Container),
        ("size", |q| q.stages[0].size = Size::Small),
        ("drivers", |q| q.stages[0].drivers.push("a".to_owned())),
        ("stages", |q| q.stages.push(stage("another"))),
        ("approvals", |q| {
            q.approvals.push(approval(ApprovalScope::XLarge));
        }),
        ("matrix", |q| {
            q.matrix.tenants.get_mut("demo").expect("it is there")[0].name = "all".to_owned();
        }),
    ];
    for (what, change) in changes {
        let mut changed = after(60, permitted.clone());
        change(&mut changed);
        assert!(is_decided_anew(&governance, &changed), "{what}");
    }
    assert!(!is_decided_anew(&governance, &after(60, permitted)));
}

#[test]
fn what_a_matrix_no_longer_allows_is_refused_though_it_was_permitted() {
    let governance = fresh(&[]);
    assert!(governance.decide(&question()).is_permitted());
    let mut narrower = after(1, question());
    let rows = narrower.matrix.tenants.get_mut("demo");
    rows.expect("it is there")[0].sizes = Allowed::Only(vec![Size::Small]);
    assert!(!governance.decide(&narrower).is_permitted());
}

#[test]
fn other_policies_know_nothing_of_what_these_permitted() {
    assert!(governance().decide(&question()).is_permitted());
    let refuses = "@id(\"none\") @title(\"Nothing runs\") @remedy(\"Wait.\")
                   forbid (principal, action == Action::\"run\", resource);";
    let stricter = fresh(&[source(refuses)]);
    assert!(!stricter.decide(&after(1, question())).is_permitted());
}

#[test]
fn a_permit_by_an_approval_is_remembered_no_longer_than_that() {
    let governance = fresh(&[]);
    let mut asked = with_stage(|stage| stage.size = Size::XLarge);
    asked.approvals = vec![approval(ApprovalScope::XLarge)];
    let asked = super::fixture::asked(&governance, &asked);
    assert!(governance.decide(&asked).is_permitted());
    assert!(!is_decided_anew(&governance, &after(3_599, asked.clone())));
    let expired = governance.decide(&after(3_600, asked.clone()));
    assert!(!expired.is_permitted());
    // A clock that was set back is no reason to trust an answer that was made later.
    assert!(is_decided_anew(&governance, &after(-60, asked)));
}

#[test]
fn a_refusal_is_decided_anew_each_time() {
    let governance = fresh(&[]);
    let mut asked = question();
    asked.stages[0].size = Size::XLarge;
    assert!(!governance.decide(&asked).is_permitted());
    assert!(is_decided_anew(&governance, &after(60, asked)));
}

#[test]
fn with_a_policy_that_asks_for_the_time_nothing_is_remembered() {
    let rule = |condition: &str| {
        source(&format!(
            "@id(\"rule\") @title(\"A rule\") @remedy(\"Wait.\")
             forbid (principal, action == Action::\"run\", resource) when {{ {condition} }};"
        ))
    };
    for by_the_time in ["context.now < 7", "context[\"n\\u{6f}w\"] < 7"] {
        let governance = fresh(&[rule(by_the_time)]);
        assert!(governance.decide(&question()).is_permitted());
        assert!(is_decided_anew(&governance, &after(60, question())));
    }
    let governance = fresh(&[rule("context.requester == \"nobody\"")]);
    assert!(governance.decide(&question()).is_permitted());
    assert!(!is_decided_anew(&governance, &after(60, question())));
}

#[test]
fn of_more_questions_than_are_remembered_the_oldest_is_forgotten() {
    let governance = fresh(&[]);
    let numbered = |number: usize, seconds| {
        let mut asked = after(seconds, question());
        asked.pipeline.name = format!("pipeline-{number}");
        asked
    };
    let more = 257;
    for number in 0..more {
        assert!(governance.decide(&numbered(number, 0)).is_permitted());
    }
    assert!(!is_decided_anew(&governance, &numbered(more - 1, 60)));
    assert!(is_decided_anew(&governance, &numbered(0, 60)));
}
