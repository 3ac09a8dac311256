//! A batch while it is made.

use std::collections::{BTreeMap, BTreeSet};

use barecount_model::{
    evidence,
    id::RunId,
    run::{Effects, Record, Run, outcome::CommittedDataset},
};
use jiff::Timestamp;

use crate::{
    authority::PlanRecord,
    journal::{Batch, Entry, Position},
};

/// A batch in the making. Which runs it changes is noted, and they are taken as they are at its end:
/// a run that is held twice is copied for each change.
pub(super) struct Draft {
    pub(super) batch: Batch,
    pub(super) touched: BTreeMap<RunId, Touched>,
}

/// What of a run a batch changes.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) is_new: bool,
    pub(super) header: bool,
    pub(super) tasks: BTreeSet<usize>,
}

impl Touched {
    pub(super) fn merge(&mut self, effects: Effects) {
        self.header |= effects.run_changed;
        self.tasks.extend(effects.tasks_changed);
    }
}

impl Draft {
    pub(super) fn new(position: Position, first_entry: u64, at: Timestamp) -> Self {
        Self {
            batch: Batch {
                position,
                at,
                runs: BTreeMap::new(),
                first_entry,
                entries: Vec::new(),
                outputs: Vec::new(),
                dead_letters: Vec::new(),
                approvals: BTreeMap::new(),
                integrated: None,
            },
            touched: BTreeMap::new(),
        }
    }

    pub(super) fn touch(&mut self, run: &RunId) -> &mut Touched {
        self.touched.entry(run.clone()).or_default()
    }

    /// Enters what a transition records: the statements are of the run as it is after it.
    pub(super) fn enter(
        &mut self,
        records: &[Record],
        run: &Run,
        plan: &PlanRecord,
        committed: &[CommittedDataset],
    ) {
        for record in records {
            let outputs: &[CommittedDataset] = if matches!(record, Record::TaskCommitted { .. }) {
                committed
            } else {
                &[]
            };
            let statement =
                evidence::of_record(record, run, plan.with_text(), outputs, self.batch.at);
            self.batch.entries.push(Entry {
                kind: statement.kind,
                run: Some(run.id.clone()),
                bytes: statement.bytes,
            });
        }
    }
}
