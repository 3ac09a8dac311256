//! Records that are read are what was written, or none.

use std::sync::Arc;

use barecount_model::evidence::EvidenceKind;
use jiff::Timestamp;

use super::*;
use crate::tests::{plan, run_of};

fn batch() -> Batch {
    let plan = plan();
    let runs = (1..=2_u64).map(|id| {
        let run = run_of(id, &format!("token-{id}"));
        let change = RunChange {
            run: Arc::new(run),
            plan: Arc::clone(&plan.record),
            authority: Some(Arc::clone(&plan.authority)),
            is_new: id == 1,
            header: false,
            tasks: [1].into(),
        };
        (change.run.id.clone(), change)
    });
    let runs: std::collections::BTreeMap<_, _> = runs.collect();
    let second = runs.keys().next_back().cloned();
    let entry = |run, bytes: &[u8]| Entry {
        kind: EvidenceKind::Build,
        run,
        bytes: bytes.to_vec(),
    };
    Batch {
        position: Position { epoch: 3, seq: 300 },
        at: Timestamp::UNIX_EPOCH,
        runs,
        first_entry: u64::MAX,
        entries: vec![entry(None, b"\0\n"), entry(second, &[7; 300])],
        outputs: vec![],
        dead_letters: vec![],
        approvals: Default::default(),
        integrated: None,
    }
}

#[test]
fn a_record_says_what_the_batch_was() -> Result<(), Box<dyn std::error::Error>> {
    let batch = batch();
    let bytes = encode(&batch, |_| false)?;
    let record = decode(&bytes)?;
    assert_eq!(record.position, batch.position);
    assert_eq!(record.first_entry, u64::MAX);
    assert_eq!(record.plans.len(), 1);
    let changes = record.runs.iter().zip(batch.runs.values());
    for (row, change) in changes {
        assert_eq!(row.id, &*change.run.id.printed());
        assert_eq!(row.new.is_some(), change.is_new);
        let header: Option<Run> = row
            .header
            .map(|h| serde_json::from_str(h.body))
            .transpose()?;
        assert_eq!(header.is_some(), change.is_new);
        assert!(header.is_none_or(|h| h.token == change.run.token && h.tasks.is_empty()));
        let tasks: Vec<u64> = row.tasks.iter().map(|(index, _)| *index).collect();
        assert_eq!(tasks, if change.is_new { vec![0, 1] } else { vec![1] });
    }
    let entries: Vec<_> = record.entries.iter().map(|e| (e.run, e.bytes)).collect();
    assert_eq!(entries, [(None, &b"\0\n"[..]), (Some(1), &[7; 300][..])]);
    let known = encode(&batch, |_| true)?;
    assert!(decode(&known)?.plans.is_empty(), "a plan is written once");
    Ok(())
}

#[test]
fn what_is_no_record_is_refused_wherever_it_is_broken() -> Result<(), Box<dyn std::error::Error>> {
    let bytes = encode(&batch(), |_| false)?;
    for end in 0..bytes.len() {
        assert!(decode(&bytes[..end]).is_err(), "{end} bytes are none");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(decode(&longer), Err(Unreadable::Long)));
    let mut other = bytes;
    other[0] = 3;
    assert!(matches!(decode(&other), Err(Unreadable::Layout(3))));
    Ok(())
}
