//! The bytes of statements, which stand in logs for good: what they were, they stay.

use super::*;
use crate::{
    digest::Digest,
    run::{Abandonment, outcome::StagedCheckpoint},
};

fn run() -> Run {
    serde_json::from_str(include_str!("tests/run.json")).expect("it is a run")
}

fn plan() -> Plan {
    serde_json::from_str(include_str!("tests/plan.json")).expect("it is a plan")
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(1_795_478_409_125).expect("the time is in range")
}

fn committed() -> Vec<CommittedDataset> {
    vec![CommittedDataset {
        dataset: "kpi.days".to_owned(),
        uri: "file:///of/kpi/days/".to_owned(),
        version: 3,
        rows: 5,
        bytes: 99,
        digest: "sha256:aa".to_owned(),
    }]
}

/// Each record that the state machine makes, and the rest of a run's life.
fn records() -> Vec<Record> {
    let abandonment = Abandonment {
        by: "ada".to_owned(),
        reason: "the table is \"gone\"".to_owned(),
        standing: Vec::new(),
    };
    vec![
        Record::RunSubmitted,
        Record::RunResumed {
            decision: json!({ "requester": "ada", "action": "resume" }),
        },
        Record::AttemptEnded { task: 0, number: 1 },
        Record::AttemptEnded { task: 0, number: 2 },
        Record::AttemptEnded { task: 0, number: 3 },
        Record::TaskCommitted { task: 0 },
        Record::TaskCommitted { task: 1 },
        Record::TaskAnswered { task: 1 },
        Record::TaskAnswered { task: 0 },
        Record::RunAbandoned {
            struck: vec![(0, 2), (1, 1)],
            abandonment,
        },
        Record::RunEnded,
    ]
}

fn text(statement: Statement) -> String {
    String::from_utf8(statement.bytes).expect("JSON is text")
}

#[test]
fn a_statement_of_any_kind_has_the_bytes_that_it_always_had() {
    let (run, plan) = (run(), plan());
    let text_of_plan = PlanText::of(&plan);
    let made = records()
        .into_iter()
        .map(|record| of_record(&record, &run, (&plan, &text_of_plan), &committed(), now()));
    let subjects = [
        Subject::new("package/count", "sha256:5f"),
        Subject::new("b", "6a"),
    ];
    let refusal = json!({ "decision": plan.decision, "at": now() });
    let build = json!({ "size": 9_007_199_254_740_993_u64, "kind": "package", "": null });
    let others = [
        statement(EvidenceKind::Refusal, &[], refusal),
        statement(EvidenceKind::Build, &subjects, build),
    ];
    let lines: Vec<String> = made.chain(others).map(text).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// What is too long for an entry is chosen, and its digest made, from the same bytes.
#[test]
fn a_statement_that_is_too_long_is_shortened_to_the_bytes_that_it_always_had() {
    let (mut run, mut plan) = (run(), plan());
    let attempt = &mut run.tasks[0].attempts[0];
    let found = |number: u32| json!({ "b": number, "a": f64::from(number) / 3.0 });
    attempt.detail = json!({ "path": (0..9_000).map(found).collect::<Vec<_>>(), "log": "kept" });
    let crossing = plan.stages[0].crossings[0].clone();
    plan.stages[0].crossings = vec![crossing; 2_000];
    run.tasks[0].attempts[1]
        .staged
        .as_mut()
        .expect("it has")
        .checkpoint = Some(StagedCheckpoint {
        digest: "sha256:cc".to_owned(),
        files: 1,
        bytes: 1,
        commit: Value::Null,
    });
    let of_plan = (&plan, &PlanText::of(&plan));
    let lines: Vec<String> = records()
        .into_iter()
        .map(|record| text(of_record(&record, &run, of_plan, &committed(), now())))
        .collect();
    assert!(lines.iter().all(|line| line.len() <= MAX_STATEMENT_BYTES));
    let digests: Vec<String> = lines
        .iter()
        .map(|line| format!("{} {}", line.len(), Digest::of(line.as_bytes())))
        .collect();
    insta::assert_snapshot!(digests.join("\n"));
}
