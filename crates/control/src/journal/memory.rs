//! A storage in memory that fails as it is told to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use barecount_model::{
    approval::Approval,
    evidence::EvidenceKind,
    id::{ApprovalId, RunId},
    plan::Plan,
    run::Run,
};

use super::{Appended, Batch, Position, Storage, Stored};
use crate::{
    entries::Entries,
    shard::{Active, Shard},
    store::StoreError,
};

/// What goes wrong with one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    Failed,
    /// The storage fails; nothing was written.
    FailedAtTheEnd,
    /// The storage fails; all was written.
    FailedButPersisted,
}

/// What is durable.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    pub(crate) journal: Vec<Batch>,
    pub(crate) views: Views,
    /// What can be asked about single runs: it follows, some batches behind.
    shown: Views,
    /// So many batches are in `shown`.
    applied: usize,
    position: Position,
    faults: VecDeque<(Fault, u32)>,
    /// So many questions are answered with a failure.
    pub(crate) unreadable: u32,
}

/// What can be asked: a function of the journal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Views {
    pub(crate) runs: BTreeMap<RunId, Stored>,
    pub(crate) entries: Vec<Vec<u8>>,
    /// Entries below are under a checkpoint.
    pub(crate) integrated: u64,
    /// Datasets that are visible: run, task, dataset.
    pub(crate) outputs: Vec<(RunId, usize, String)>,
    pub(crate) approvals: BTreeMap<ApprovalId, Approval>,
}

/// A state in memory, as one owner has access to it. Clones are the same owner's.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    durable: Arc<Mutex<Durable>>,
    epoch: u64,
}

impl Durable {
    /// Applies what is durable, but for the last batches: between none and four of them.
    fn follow(&mut self) {
        let lag = self.journal.len() * 7 % 5;
        self.show(self.journal.len().saturating_sub(lag));
    }

    fn show(&mut self, batches: usize) {
        while self.applied < batches {
            self.shown.apply(&self.journal[self.applied]);
            self.applied += 1;
        }
    }
}

impl Views {
    /// The views of a journal, from nothing.
    pub(crate) fn rebuilt(journal: &[Batch]) -> Self {
        let mut views = Self::default();
        journal.iter().for_each(|batch| views.apply(batch));
        views
    }

    fn apply(&mut self, batch: &Batch) {
        for (id, change) in &batch.runs {
            let stored = Stored {
                run: Arc::clone(&change.run),
                plan: Arc::clone(&change.plan),
                authority: change.authority.clone(),
            };
            self.runs.insert(id.clone(), stored);
        }
        self.entries
            .extend(batch.entries.iter().map(|entry| entry.bytes.clone()));
        for published in &batch.outputs {
            let datasets = published.outputs.iter();
            self.outputs.extend(datasets.map(|output| {
                (
                    published.run.clone(),
                    published.task,
                    output.dataset.clone(),
                )
            }));
        }
        let approvals = batch.approvals.iter();
        self.approvals
            .extend(approvals.map(|(id, approval)| (id.clone(), approval.clone())));
        self.integrated = self.integrated.max(batch.integrated.unwrap_or(0));
    }
}

impl Views {
    fn same(&self, other: &Self) -> bool {
        let same = |(one, other): (&Stored, &Stored)| {
            is_same(&one.run, &other.run)
                && one.plan.digest == other.plan.digest
                && one.authority == other.authority
        };
        self.runs.len() == other.runs.len()
            && self.runs.values().zip(other.runs.values()).all(same)
            && self.entries == other.entries
            && self.outputs == other.outputs
            && self.approvals == other.approvals
    }
}

/// Two runs that are one in memory need not be read.
fn is_same(one: &Arc<Run>, other: &Arc<Run>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

impl Memory {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many batches are durable.
    pub fn batches(&self) -> usize {
        self.durable().journal.len()
    }

    /// Looks at every run with its plan, as it is durable, by identifier, until that fails.
    ///
    /// # Errors
    /// That of `look`.
    pub fn each_run<E>(
        &self,
        mut look: impl FnMut(&Run, &Arc<Plan>) -> Result<(), E>,
    ) -> Result<(), E> {
        let durable = self.durable();
        let mut runs = durable.views.runs.values();
        runs.try_for_each(|stored| look(&stored.run, &stored.plan.plan))
    }

    /// What each entry of the ledger is about, in order.
    pub fn evidence(&self) -> Vec<(EvidenceKind, Option<RunId>)> {
        let durable = self.durable();
        let entries = durable.journal.iter().flat_map(|batch| &batch.entries);
        entries
            .map(|entry| (entry.kind, entry.run.clone()))
            .collect()
    }

    /// The bytes of the ledger's entries, in order.
    pub fn entries(&self) -> Vec<Vec<u8>> {
        self.durable().views.entries.clone()
    }

    /// The datasets that are visible: run, task, dataset; once for each time they became so.
    pub fn outputs(&self) -> Vec<(RunId, usize, String)> {
        self.durable().views.outputs.clone()
    }

    /// Whether what can be asked, once it has followed, is what follows from the journal.
    pub fn is_as_rebuilt(&self) -> bool {
        let mut durable = self.durable();
        let all = durable.journal.len();
        durable.show(all);
        let rebuilt = Views::rebuilt(&durable.journal);
        rebuilt.same(&durable.views) && rebuilt.same(&durable.shown)
    }

    /// Whether a shard has in memory what is durable of every open run, and nothing else.
    pub(crate) fn holds(&self, shard: &Shard) -> bool {
        let durable = self.durable();
        let stored = |active: &Active| {
            let stored = durable.views.runs.get(&active.run.id);
            stored.is_some_and(|stored| is_same(&stored.run, &active.run))
        };
        let open = durable.views.runs.values();
        let open = open.filter(|stored| !stored.run.state.is_final());
        open.count() == shard.open().count() && shard.open().all(stored)
    }

    /// Lets everything succeed that was to fail.
    pub fn heal(&self) {
        let mut durable = self.durable();
        durable.faults.clear();
        durable.unreadable = 0;
    }

    /// The next owner's access: batches of this one collide from here on.
    pub fn take_over(&self) -> Self {
        let mut durable = self.durable();
        durable.position.epoch += 1;
        let epoch = durable.position.epoch;
        drop(durable);
        let durable = Arc::clone(&self.durable);
        Self { durable, epoch }
    }

    pub(crate) fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next append fail, and so many questions after it.
    pub fn fail_next(&self, fault: Fault, unreadable: u32) {
        self.durable().faults.push_back((fault, unreadable));
    }

    fn read(&self) -> Result<MutexGuard<'_, Durable>, StoreError> {
        let mut durable = self.durable();
        if durable.unreadable > 0 {
            durable.unreadable -= 1;
            return Err(failure());
        }
        Ok(durable)
    }
}

impl Storage for Memory {
    fn append(&mut self, batch: &Batch) -> Appended {
        let mut durable = self.durable();
        let (fault, unreadable) = durable.faults.pop_front().unzip();
        durable.unreadable += unreadable.unwrap_or(0);
        if fault == Some(Fault::Failed) {
            return Appended::Failed(failure());
        }
        let is_next =
            durable.position.epoch == self.epoch && batch.position == durable.position.next();
        if !is_next {
            return Appended::Fenced;
        }
        if fault != Some(Fault::FailedAtTheEnd) {
            durable.position = batch.position;
            durable.views.apply(batch);
            durable.journal.push(batch.clone());
            durable.follow();
        }
        match fault {
            None => Appended::Done,
            Some(_) => Appended::Unknown(failure()),
        }
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(self.read()?.position)
    }

    fn next_entry(&self) -> Result<u64, StoreError> {
        Ok(self.read()?.views.entries.len() as u64)
    }

    fn seen(&self) -> u64 {
        self.durable().applied as u64
    }

    fn open_runs(&self) -> Result<Vec<Stored>, StoreError> {
        let mut durable = self.read()?;
        let all = durable.journal.len();
        durable.show(all);
        let runs = durable.shown.runs.values();
        let open = runs.filter(|stored| !stored.run.state.is_final());
        Ok(open.cloned().collect())
    }

    fn run(&self, id: &RunId) -> Result<Option<Stored>, StoreError> {
        Ok(self.read()?.shown.runs.get(id).cloned())
    }

    fn run_by_token(&self, tenant: &str, token: &str) -> Result<Option<Stored>, StoreError> {
        let durable = self.read()?;
        let mut runs = durable.shown.runs.values();
        let found = runs.find(|stored| stored.run.tenant == tenant && stored.run.token == token);
        Ok(found.cloned())
    }

    fn open_approvals(&self) -> Result<Vec<Approval>, StoreError> {
        let durable = self.read()?;
        let approvals = durable.views.approvals.values();
        let open = approvals.filter(|approval| approval.state.is_open());
        Ok(open.cloned().collect())
    }

    fn queued_entries(&self) -> Result<Vec<Entries>, StoreError> {
        let durable = self.read()?;
        let first = durable.views.integrated;
        let bytes = durable
            .views
            .entries
            .iter()
            .skip(usize::try_from(first).unwrap_or(usize::MAX))
            .cloned()
            .collect();
        Ok(vec![Entries { first, bytes }])
    }

    fn end(&mut self, integrated: Option<u64>) -> Result<(), StoreError> {
        let mut durable = self.read()?;
        durable.views.integrated = durable.views.integrated.max(integrated.unwrap_or(0));
        Ok(())
    }
}

/// What a full disk says.
fn failure() -> StoreError {
    StoreError::Database {
        operation: "write what it was told to fail at",
        source: rusqlite::Error::InvalidQuery,
    }
}
