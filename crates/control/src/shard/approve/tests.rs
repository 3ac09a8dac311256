use std::sync::Arc;

use barecount_model::{
    approval::{Asked, History, Irregular, MAX_RUNS, Scope, Term},
    class::{NetworkProfile, RunnerClass, Size},
    digest::Digest,
    evidence::EvidenceKind,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    governance::{
        ApprovalDecision, ApprovalState, EnvironmentFacts, EnvironmentKind, StageDecision,
        StageSummary,
    },
    journal::Position,
    shard::{Command, Stepped},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn id() -> ApprovalId {
    ApprovalId::from_bytes([7; 16])
}

fn decided(action: Action, by: &str) -> Explanation {
    Explanation {
        action,
        tenant: "demo".into(),
        environment: EnvironmentFacts {
            name: "local".into(),
            kind: EnvironmentKind::Production,
        },
        pipeline: "example".into(),
        version: "sha256:aa".into(),
        requester: by.into(),
        approval: Some(id()),
        decided_at: at(1),
        decisions: vec![StageDecision {
            stage: None,
            allowed: true,
            question: None,
            determining: vec![],
            matrix_rows: vec![],
            crossings: vec![],
            approvals: vec![],
            failed: vec![],
            alternatives: vec![],
        }],
        policies_digest: "sha256:00".into(),
    }
}

/// A permit to run that relies on the approval.
fn relying() -> Explanation {
    let mut explanation = decided(Action::Run, "ada");
    explanation.approval = None;
    let decision = &mut explanation.decisions[0];
    decision.question = Some(Digest::of(b"the question"));
    decision.stage = Some(StageSummary {
        name: "only".into(),
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
    });
    decision.approvals = vec![ApprovalDecision {
        position: 0,
        datasets: vec![],
        id: Some(id()),
        scope: Scope::Matrix,
        state: ApprovalState::Granted,
        requester: Some("ada".into()),
        approver: Some("olga".into()),
        expires_at: Some(at(100)),
        justification: "agreed".into(),
        usable: true,
        relied_on: true,
        determining: vec![],
        failed: vec![],
    }];
    explanation
}

fn request(by: &str) -> Command {
    let asked = Asked {
        tenant: "demo".into(),
        environment: "local".into(),
        pipeline: "example".into(),
        version: "sha256:aa".into(),
        stage: "only".into(),
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        scopes: [Scope::Matrix].into(),
        datasets: Default::default(),
        question: Digest::of(b"the question"),
    };
    let signed = Signed {
        by: "somebody else".into(),
        at: at(0),
        reason: "month-end".into(),
        entry: 99,
    };
    Command::Request {
        approval: Box::new(Approval::requested(id(), asked, signed)),
        by: Arc::new(decided(Action::RequestApproval, by)),
        rules: json!({}),
    }
}

fn act(act: Act, by: Explanation) -> Command {
    Command::Approve {
        id: id(),
        act,
        reason: "agreed".into(),
        by: Arc::new(by),
        rules: json!({}),
    }
}

fn grant(runs: u32, by: &str) -> Command {
    let term = Term {
        until: at(100),
        runs: Some(runs),
    };
    act(Act::Grant(term), decided(Action::GrantApproval, by))
}

fn shard() -> Shard {
    Shard::new(Position::default(), 3, vec![], vec![], 1)
}

fn refused(stepped: &Stepped) -> bool {
    assert!(stepped.batch.is_empty(), "nothing of it is written");
    stepped.answers[0].is_err()
}

#[test]
fn an_act_is_by_whoever_the_permit_names_and_enters_the_ledger_in_the_same_step() {
    let mut shard = shard();
    let stepped = shard.step(vec![request("ada"), grant(1, "olga")], at(2));
    assert!(stepped.answers.iter().all(Result::is_ok));
    let kept = &stepped.batch.approvals[&id()];
    assert_eq!((&*kept.requested.by, kept.requested.entry), ("ada", 3));
    let granted = kept.granted.as_ref().map(|of| (&*of.by, of.entry));
    assert_eq!(granted, Some(("olga", 4)));
    let mut history = History::default();
    for (index, entry) in (3..).zip(&stepped.batch.entries) {
        let statement = serde_json::from_slice(&entry.bytes).expect("it is JSON");
        assert_eq!(history.take(index, &statement), Ok(()));
    }
    assert_eq!(history.find(&id()), Some(kept));
}

#[test]
fn a_permit_for_something_else_lets_nothing_be_done() {
    let mut shard = shard();
    assert!(shard.step(vec![request("ada")], at(2)).answers[0].is_ok());
    let term = Term {
        until: at(100),
        runs: None,
    };
    let mut other_tenant = decided(Action::GrantApproval, "olga");
    other_tenant.tenant = "other".into();
    let mut other_approval = decided(Action::GrantApproval, "olga");
    other_approval.approval = Some(ApprovalId::from_bytes([8; 16]));
    let mut refusal = decided(Action::GrantApproval, "olga");
    refusal.decisions[0].allowed = false;
    let mut nothing = decided(Action::GrantApproval, "olga");
    nothing.decisions.clear();
    for by in [
        decided(Action::DenyApproval, "olga"),
        other_tenant,
        other_approval,
        refusal,
        nothing,
    ] {
        assert!(refused(&shard.step(vec![act(Act::Grant(term), by)], at(3))));
    }
    assert!(
        refused(&shard.step(vec![grant(1, "Ada")], at(3))),
        "nor by who asked"
    );
    assert!(refused(
        &shard.step(vec![grant(MAX_RUNS + 1, "olga")], at(3))
    ));
    assert!(shard.step(vec![grant(1, "olga")], at(3)).answers[0].is_ok());
}

#[test]
fn a_run_uses_an_approval_up_and_the_next_one_is_not_accepted_by_it() {
    let mut shard = shard();
    shard.step(vec![request("ada"), grant(1, "olga")], at(2));
    let (first, second) = (RunId::from_bytes([1; 16]), RunId::from_bytes([2; 16]));
    let used = shard.used(&relying(), &first, at(3)).expect("it counts");
    let mut batch = shard.step(vec![], at(3)).batch;
    used.into_iter()
        .for_each(|approval| shard.keep_approval(approval, &mut batch));
    assert_eq!(batch.approvals[&id()].used, 1);
    assert!(shard.used(&relying(), &second, at(4)).is_err());
    shard.step(
        vec![act(Act::Revoke, decided(Action::RevokeApproval, "olga"))],
        at(5),
    );
    assert!(
        shard.used(&relying(), &first, at(6)).is_err(),
        "it was revoked"
    );
}

#[test]
fn a_run_is_taken_up_by_the_decision_that_its_entry_has_and_only_if_that_permits_it() {
    let run = RunId::from_bytes([1; 16]);
    let taken_up = |decision: &Value| {
        json!({
            "predicateType": EvidenceKind::Resumption.predicate_type(),
            "predicate": { "at": at(4), "decision": decision, "run": { "id": run } },
        })
    };
    let decision = serde_json::to_value(relying()).expect("it is plain data");
    let nobody_asked = History::default().take(9, &taken_up(&decision));
    assert_eq!(nobody_asked, Err(Irregular::NeverAsked(id())));
    let mut history = History::default();
    let granted = shard().step(vec![request("ada"), grant(1, "olga")], at(2));
    for (index, entry) in (3..).zip(&granted.batch.entries) {
        let statement = serde_json::from_slice(&entry.bytes).expect("it is JSON");
        assert_eq!(history.take(index, &statement), Ok(()));
    }
    assert_eq!(history.take(9, &taken_up(&decision)), Ok(()));
    assert_eq!(history.take(9, &taken_up(&Value::Null)), Ok(()), "older");
    let mut refusal = decision.clone();
    refusal["decisions"][0]["allowed"] = json!(false);
    let refused = history.take(9, &taken_up(&refusal));
    assert_eq!(refused, Err(Irregular::RunNotPermitted(run.clone())));
    let mut other = decision;
    other["decisions"][0]["question"] = json!(Digest::of(b"another question"));
    let other = history.take(9, &taken_up(&other));
    assert!(matches!(other, Err(Irregular::OtherQuestion { .. })));
}
