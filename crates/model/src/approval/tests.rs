use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn id() -> ApprovalId {
    ApprovalId::from_bytes([7; 16])
}

fn run(number: u8) -> RunId {
    RunId::from_bytes([number; 16])
}

fn signed(by: &str, second: i64) -> Signed {
    Signed {
        by: by.to_owned(),
        at: at(second),
        reason: "the year-end close".into(),
        entry: 0,
    }
}

pub(super) fn asked() -> Asked {
    Asked {
        tenant: "demo".to_owned(),
        environment: "prod".to_owned(),
        pipeline: "ledger".to_owned(),
        version: "sha256:00".to_owned(),
        stage: "close".to_owned(),
        class: RunnerClass::Container,
        size: Size::XLarge,
        network_profile: NetworkProfile::PrivateVpc,
        scopes: [Scope::XLarge].into(),
        datasets: BTreeSet::new(),
        question: Digest::of(b"the question"),
    }
}

fn requested() -> Approval {
    Approval::requested(id(), asked(), signed("ada", 1))
}

fn granted(runs: Option<u32>) -> Approval {
    let mut approval = requested();
    let term = Term {
        until: at(100),
        runs,
    };
    let done = approval.act(Act::Grant(term), signed("olga", 2));
    assert_eq!(done, Ok(()));
    approval
}

#[test]
fn whoever_asks_cannot_grant_however_the_name_is_written() {
    for by in ["ada", "Ada", " ADA "] {
        let mut approval = requested();
        let term = Term {
            until: at(100),
            runs: None,
        };
        let done = approval.act(Act::Grant(term), signed(by, 2));
        assert!(matches!(done, Err(NotDone::OwnRequest { .. })), "{by}");
        assert_eq!(approval, requested());
    }
}

#[test]
fn an_approval_counts_until_its_end_and_no_more_often_than_it_says() {
    let mut approval = granted(Some(2));
    assert_eq!(approval.used_by(&run(1), at(3)), Ok(()));
    assert_eq!(
        approval.used_by(&run(1), at(4)),
        Ok(()),
        "it is the same run"
    );
    assert_eq!(approval.runs_left(None), Some(1));
    assert_eq!(approval.used_by(&run(2), at(5)), Ok(()));
    assert_eq!(approval.uncounted(None, at(6)), Some("used_up"));
    assert_eq!(
        approval.uncounted(Some(&run(2)), at(6)),
        None,
        "its own run goes on"
    );
    assert!(approval.used_by(&run(3), at(7)).is_err());
    let mut approval = granted(None);
    assert_eq!(approval.used_by(&run(1), at(99)), Ok(()));
    assert!(approval.used_by(&run(2), at(100)).is_err());
    assert_eq!(approval.standing(at(100)), "expired");
}

#[test]
fn what_is_answered_is_answered_and_what_is_revoked_does_not_count() {
    let mut denied = requested();
    assert_eq!(denied.act(Act::Deny, signed("olga", 2)), Ok(()));
    let mut revoked = granted(None);
    assert_eq!(revoked.act(Act::Revoke, signed("olga", 3)), Ok(()));
    assert!(revoked.used_by(&run(1), at(4)).is_err());
    let term = Term {
        until: at(100),
        runs: None,
    };
    for mut over in [denied, revoked] {
        for act in [Act::Grant(term), Act::Deny, Act::Revoke] {
            let done = over.act(act, signed("otto", 5));
            assert!(matches!(done, Err(NotDone::Over { .. })), "{act:?}");
        }
    }
    let mut twice = granted(None);
    assert!(twice.act(Act::Grant(term), signed("otto", 5)).is_err());
}

#[test]
fn nothing_is_granted_for_no_time_or_for_no_run() {
    for (until, runs) in [(2, None), (100, Some(0)), (100, Some(MAX_RUNS + 1))] {
        let mut approval = requested();
        let until = at(until);
        let done = approval.act(Act::Grant(Term { until, runs }), signed("olga", 2));
        assert!(
            matches!(done, Err(NotDone::NoTerm { .. })),
            "{until} {runs:?}"
        );
    }
}
