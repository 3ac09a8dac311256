//! Where a shard's batches become durable, and what can be asked of those that are.
//!
//! A batch is plain data, appended under its [`Position`]. The storage itself fences: an append
//! under a position that is not the next of its owner's changes nothing.

pub(crate) mod ending;
pub(crate) mod memory;
pub(crate) mod record;

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use barecount_model::{
    approval::Approval,
    evidence::EvidenceKind,
    id::{ApprovalId, RunId},
    run::{Run, outcome::CommittedDataset},
};
use jiff::Timestamp;

use crate::{
    authority::{Authority, PlanRecord},
    entries::Entries,
    store::{DeadLetter, StoreError},
};

/// A batch's place: which owner's, and the how manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    /// Raised by every owner when it begins.
    pub epoch: u64,
    /// Batches that were appended, over all owners.
    pub seq: u64,
}

impl Position {
    pub(crate) fn next(self) -> Self {
        Self {
            seq: self.seq + 1,
            ..self
        }
    }
}

/// What one step changed.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// Its place.
    pub position: Position,
    /// When it was made.
    pub at: Timestamp,
    /// Runs that are new or changed.
    pub runs: BTreeMap<RunId, RunChange>,
    /// The index of the first of `entries`.
    pub first_entry: u64,
    /// Facts for the ledger, in order.
    pub entries: Vec<Entry>,
    /// Datasets that become visible.
    pub outputs: Vec<Published>,
    /// Records that were set aside.
    pub dead_letters: Vec<SetAside>,
    /// Approvals that are new or changed.
    pub approvals: BTreeMap<ApprovalId, Approval>,
    /// The ledger's length under a durable checkpoint, where it has grown.
    pub integrated: Option<u64>,
}

/// A run after a step, and what of it is new.
#[derive(Debug, Clone)]
pub(crate) struct RunChange {
    /// The run.
    pub run: Arc<Run>,
    /// What it carries out.
    pub plan: Arc<PlanRecord>,
    /// What of it governance permits.
    pub authority: Option<Arc<Authority>>,
    /// Whether it was not there before.
    pub is_new: bool,
    /// Whether anything but its tasks changed.
    pub header: bool,
    /// Tasks that changed.
    pub tasks: BTreeSet<usize>,
}

impl RunChange {
    /// The tasks that have to be written.
    fn tasks(&self) -> Vec<usize> {
        if self.is_new {
            (0..self.run.tasks.len()).collect()
        } else {
            self.tasks.iter().copied().collect()
        }
    }
}

/// A fact for the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// What it is about.
    pub kind: EvidenceKind,
    /// The run, if it is about one.
    pub run: Option<RunId>,
    /// The statement.
    pub bytes: Vec<u8>,
}

/// Datasets of a task that become visible.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// The run.
    pub run: RunId,
    /// The task's index.
    pub task: usize,
    /// The datasets.
    pub outputs: Vec<CommittedDataset>,
}

/// Records that an attempt set aside.
#[derive(Debug, Clone)]
pub(crate) struct SetAside {
    /// The run.
    pub run: RunId,
    /// The task's index.
    pub task: usize,
    /// The attempt's number.
    pub number: u32,
    /// The records.
    pub letters: Vec<DeadLetter>,
}

/// What came of an append.
#[derive(Debug)]
pub(crate) enum Appended {
    /// It is durable.
    Done,
    /// It is not, and never will be.
    Failed(StoreError),
    /// Nobody knows: the storage failed while it made it durable.
    Unknown(StoreError),
    /// Somebody else owns the shard.
    Fenced,
}

/// A run as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The run.
    pub run: Arc<Run>,
    /// What it carries out.
    pub plan: Arc<PlanRecord>,
    /// What of it governance permits.
    pub authority: Option<Arc<Authority>>,
}

/// A shard's durable state: one owner appends, and asks for what it appended.
pub(crate) trait Storage: Send {
    /// Makes a batch durable, all of it or nothing.
    fn append(&mut self, batch: &Batch) -> Appended;

    /// Who owns the shard, and how many batches there are.
    fn position(&self) -> Result<Position, StoreError>;

    /// The index that the next ledger entry gets.
    fn next_entry(&self) -> Result<u64, StoreError>;

    /// Questions about one run are answered as of this batch at least: what has changed since is
    /// remembered by who asks.
    fn seen(&self) -> u64;

    /// Runs that have not ended, as of the last batch.
    fn open_runs(&self) -> Result<Vec<Stored>, StoreError>;

    /// A run, by identifier.
    fn run(&self, id: &RunId) -> Result<Option<Stored>, StoreError>;

    /// The run that has a token.
    fn run_by_token(&self, tenant: &str, token: &str) -> Result<Option<Stored>, StoreError>;

    /// Approvals that something can be done to still.
    fn open_approvals(&self) -> Result<Vec<Approval>, StoreError>;

    /// Ledger entries that no durable checkpoint is known to cover, in order, in pieces.
    fn queued_entries(&self) -> Result<Vec<Entries>, StoreError>;

    /// Ends an owner's time: `integrated` is the ledger's length under a durable checkpoint, if no
    /// batch has told it.
    fn end(&mut self, integrated: Option<u64>) -> Result<(), StoreError>;
}
