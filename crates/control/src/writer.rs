//! The one writer: applies commands in memory, persists them in group commits.
//!
//! Commands that wait while a transaction is being synchronised go into the next one together, so
//! the cost of durability is shared. After a failed commit memory is discarded and read again: what
//! the disk holds is the truth, also where a commit failed but persisted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use barecount_model::{
    evidence::{self, Statement},
    id::RunId,
    plan::Plan,
    run::{
        Effects, Moment, Record, Run, WaitingReason,
        outcome::{AttemptResult, CommittedDataset, FailureKind, Outcome},
    },
};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    entries::Entries,
    handle::{CommandError, Submission, Update},
    store::{Batch, DeadLetter, Store, StoreError},
};

/// Commands in one transaction at most.
const BATCH: usize = 1024;

pub(crate) type Reply = oneshot::Sender<Result<Option<Update>, CommandError>>;

pub(crate) enum Command {
    Submit(Box<Submission>),
    Apply { run: RunId, verb: Verb },
    Enter(Statement),
    Integrated { size: u64 },
}

pub(crate) enum Verb {
    Place {
        task: usize,
    },
    Hold {
        task: usize,
        reason: WaitingReason,
    },
    Started {
        task: usize,
        number: u32,
        runner: String,
    },
    Report {
        task: usize,
        number: u32,
        outcome: Box<Outcome>,
        dead_letters: Vec<DeadLetter>,
    },
    Committed {
        task: usize,
        number: u32,
        outputs: Vec<CommittedDataset>,
    },
    Lost {
        task: usize,
        number: u32,
    },
    Cancel,
    Resume,
}

struct Active {
    run: Run,
    plan: Arc<Plan>,
}

/// What a batch of commands leaves to be written.
#[derive(Default)]
struct Pending {
    inserts: Vec<RunId>,
    updates: BTreeMap<RunId, Effects>,
    statements: Vec<(Option<RunId>, Statement)>,
    published: Vec<(RunId, usize, Vec<CommittedDataset>)>,
    dead_letters: Vec<(RunId, usize, u32, Vec<DeadLetter>)>,
    integrated: Option<u64>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.inserts.is_empty() && self.updates.is_empty() && self.statements.is_empty()
    }
}

pub(crate) struct Writer {
    store: Store,
    clock: Arc<dyn Clock>,
    active: HashMap<RunId, Active>,
    tokens: HashMap<(String, String), RunId>,
    next_index: u64,
    /// The ledger's length under a durable checkpoint, if the store has not heard of it yet.
    integrated: Option<u64>,
    entropy: u64,
    updates: mpsc::UnboundedSender<Update>,
    entries: mpsc::UnboundedSender<Entries>,
    length: watch::Sender<u64>,
}

/// Starts the writer's thread; it ends when every handle is gone.
pub(crate) fn spawn(
    mut writer: Writer,
    mut queue: mpsc::Receiver<(Command, Reply)>,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("control-writer".to_owned())
        .spawn(move || {
            let mut batch = Vec::with_capacity(BATCH);
            while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
                writer.commit(std::mem::take(&mut batch));
            }
            writer.trim();
        })?;
    Ok(())
}

impl Writer {
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        updates: mpsc::UnboundedSender<Update>,
        entries: mpsc::UnboundedSender<Entries>,
    ) -> Result<(Self, watch::Receiver<u64>), StoreError> {
        let (length, watcher) = watch::channel(0);
        let entropy = u64::from_le_bytes(seed());
        let mut writer = Self {
            store,
            clock,
            active: HashMap::new(),
            tokens: HashMap::new(),
            next_index: 0,
            integrated: None,
            entropy,
            updates,
            entries,
            length,
        };
        writer.reload()?;
        for queued in writer.store.queued_entries()? {
            // Nobody receives only while the program ends; the entries stay queued on disk.
            let _ = writer.entries.send(queued);
        }
        for active in writer.active.values() {
            let _ = writer.updates.send(active.update(writer.next_index));
        }
        Ok((writer, watcher))
    }

    /// Makes memory what the disk says.
    fn reload(&mut self) -> Result<(), StoreError> {
        self.active.clear();
        self.tokens.clear();
        for (run, plan) in self.store.active_runs()? {
            self.remember(run, Arc::new(plan));
        }
        self.next_index = self.store.next_ledger_index()?;
        self.length.send_replace(self.next_index);
        Ok(())
    }

    fn remember(&mut self, run: Run, plan: Arc<Plan>) {
        self.tokens
            .insert((run.tenant.clone(), run.token.clone()), run.id.clone());
        self.active.insert(run.id.clone(), Active { run, plan });
    }

    /// Applies a batch of commands, makes it durable, and only then answers.
    fn commit(&mut self, batch: Vec<(Command, Reply)>) {
        let now = self.clock.now();
        let mut pending = Pending::default();
        let mut answers = Vec::with_capacity(batch.len());
        for (command, reply) in batch {
            answers.push((self.apply(command, now, &mut pending), reply));
        }
        if pending.is_empty() {
            return self.announce(pending, answers);
        }
        // What the ledger has taken over is forgotten in passing: that never waits for the disk,
        // and nothing waits for it. If it is lost, those entries are integrated again, to no effect.
        pending.integrated = self.integrated.take();
        match self.persist(&pending, now) {
            Ok(()) => self.announce(pending, answers),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a group commit failed"
                );
                self.abandon(error, answers);
            }
        }
    }

    /// Forgets what the ledger has taken over since the last transaction.
    fn trim(&mut self) {
        let Some(size) = self.integrated.take() else {
            return;
        };
        if let Err(error) = self.store.transaction(|batch| batch.drop_integrated(size)) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the ledger's queue was not trimmed"
            );
        }
    }

    fn persist(&mut self, pending: &Pending, now: Timestamp) -> Result<(), StoreError> {
        let Self {
            store,
            active,
            next_index,
            ..
        } = self;
        // If the process dies before the commit, none of the batch has happened and no caller was
        // told that it had; after it, all of it has, and recovery derives what is left to do.
        store.transaction(|batch| write(batch, pending, active, *next_index, now))
    }

    fn announce(
        &mut self,
        pending: Pending,
        answers: Vec<(Result<Option<RunId>, CommandError>, Reply)>,
    ) {
        let first = self.next_index;
        if !pending.statements.is_empty() {
            let bytes: Vec<_> = pending
                .statements
                .into_iter()
                .map(|(_, statement)| statement.bytes)
                .collect();
            self.next_index += bytes.len() as u64;
            let _ = self.entries.send(Entries { first, bytes });
            self.length.send_replace(self.next_index);
        }
        let changed = pending
            .inserts
            .into_iter()
            .chain(pending.updates.into_keys());
        let mut updates: HashMap<RunId, Update> = HashMap::new();
        for id in changed {
            if let Some(active) = self.active.get(&id) {
                let update = active.update(self.next_index);
                let _ = self.updates.send(update.clone());
                updates.insert(id, update);
            }
        }
        for (answer, reply) in answers {
            let answer = answer.map(|id| {
                id.and_then(|id| {
                    updates.get(&id).cloned().or_else(|| {
                        self.active
                            .get(&id)
                            .map(|active| active.update(self.next_index))
                    })
                })
            });
            // The caller may have stopped waiting; the change stands all the same.
            let _ = reply.send(answer);
        }
        self.active.retain(|_, active| !active.run.state.is_final());
        self.tokens.retain(|_, id| self.active.contains_key(id));
    }

    fn abandon(
        &mut self,
        error: StoreError,
        answers: Vec<(Result<Option<RunId>, CommandError>, Reply)>,
    ) {
        let error = Arc::new(error);
        if let Err(error) = self.reload() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the store cannot be read"
            );
        }
        for (answer, reply) in answers {
            let answer = answer.and_then(|_| Err(CommandError::Store(Arc::clone(&error))));
            let _ = reply.send(answer);
        }
    }

    fn apply(
        &mut self,
        command: Command,
        now: Timestamp,
        pending: &mut Pending,
    ) -> Result<Option<RunId>, CommandError> {
        match command {
            Command::Submit(submission) => self.submit(*submission, now, pending).map(Some),
            Command::Apply { run, verb } => {
                self.load(&run)?;
                self.transition(&run, verb, now, pending)?;
                Ok(Some(run))
            }
            Command::Enter(statement) => {
                pending.statements.push((None, statement));
                Ok(None)
            }
            Command::Integrated { size } => {
                self.integrated = self.integrated.max(Some(size));
                Ok(None)
            }
        }
    }

    fn submit(
        &mut self,
        submission: Submission,
        now: Timestamp,
        pending: &mut Pending,
    ) -> Result<RunId, CommandError> {
        let Submission {
            mut run,
            plan,
            place,
        } = submission;
        let key = (run.tenant.clone(), run.token.clone());
        if let Some(existing) = self.find_token(&key)? {
            self.load(&existing)?;
            let found = &self.active[&existing].run;
            if found.version != run.version {
                let version = found.version.clone();
                return Err(CommandError::TokenConflict {
                    run: existing,
                    version,
                });
            }
            return Ok(existing);
        }
        let mut effects = run.submit(&self.moment(now))?;
        for task in place {
            let placed = run.place(task, &self.moment(now))?;
            effects.records.extend(placed.records);
        }
        for record in &effects.records {
            let statement = evidence::of_record(record, &run, &plan, &[], now);
            pending.statements.push((Some(run.id.clone()), statement));
        }
        let id = run.id.clone();
        pending.inserts.push(id.clone());
        self.remember(run, plan);
        Ok(id)
    }

    fn find_token(&self, key: &(String, String)) -> Result<Option<RunId>, CommandError> {
        if let Some(id) = self.tokens.get(key) {
            return Ok(Some(id.clone()));
        }
        let stored = self
            .store
            .run_id_by_token(&key.0, &key.1)
            .map_err(store_error)?;
        Ok(stored.and_then(|id| id.parse().ok()))
    }

    /// Brings a run into memory that has ended.
    fn load(&mut self, id: &RunId) -> Result<(), CommandError> {
        if self.active.contains_key(id) {
            return Ok(());
        }
        let (run, plan) = self
            .store
            .run(id.as_str())
            .map_err(store_error)?
            .ok_or_else(|| CommandError::UnknownRun(id.clone()))?;
        self.remember(run, Arc::new(plan));
        Ok(())
    }

    fn transition(
        &mut self,
        id: &RunId,
        verb: Verb,
        now: Timestamp,
        pending: &mut Pending,
    ) -> Result<(), CommandError> {
        let moment = self.moment(now);
        let Active { run, plan } = self.active.get_mut(id).ok_or(CommandError::Closed)?;
        let mut committed = Vec::new();
        let effects = match verb {
            Verb::Place { task } => run.place(task, &moment)?,
            Verb::Hold { task, reason } => run.hold(task, reason, &moment)?,
            Verb::Started {
                task,
                number,
                runner,
            } => run.started(task, number, &runner, &moment)?,
            Verb::Report {
                task,
                number,
                outcome,
                mut dead_letters,
            } => {
                within_plan(plan, run, task, &outcome)?;
                dead_letters.extend(letter_of_failure(&outcome));
                let effects = run.report(task, number, *outcome, &moment)?;
                pending
                    .dead_letters
                    .push((id.clone(), task, number, dead_letters));
                effects
            }
            Verb::Committed {
                task,
                number,
                outputs,
            } => {
                let effects = run.committed(task, number, &moment)?;
                pending.published.push((id.clone(), task, outputs.clone()));
                committed = outputs;
                effects
            }
            Verb::Lost { task, number } => run.lost(task, number, &moment)?,
            Verb::Cancel => run.cancel(&moment)?,
            Verb::Resume => run.resume(&moment)?,
        };
        for record in &effects.records {
            let outputs: &[CommittedDataset] = if matches!(record, Record::TaskCommitted { .. }) {
                &committed
            } else {
                &[]
            };
            let statement = evidence::of_record(record, run, plan, outputs, now);
            pending.statements.push((Some(id.clone()), statement));
        }
        let merged = pending.updates.entry(id.clone()).or_default();
        merged.run_changed |= effects.run_changed;
        merged.tasks_changed.extend(effects.tasks_changed);
        Ok(())
    }

    /// The time, and the next random bits (SplitMix64, Steele et al. 2014).
    fn moment(&mut self, now: Timestamp) -> Moment {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.entropy;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Moment {
            now,
            entropy: bits ^ (bits >> 31),
        }
    }
}

impl Active {
    fn update(&self, ledger_length: u64) -> Update {
        Update {
            run: Arc::new(self.run.clone()),
            plan: Arc::clone(&self.plan),
            ledger_length,
        }
    }
}

fn write(
    batch: &Batch<'_>,
    pending: &Pending,
    active: &HashMap<RunId, Active>,
    next_index: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    for id in &pending.inserts {
        let Active { run, plan } = &active[id];
        let digest = plan_digest(plan)?;
        batch.insert_plan(&digest, plan)?;
        batch.insert_run(run, &digest)?;
    }
    for (id, effects) in &pending.updates {
        batch.update_run(&active[id].run, effects)?;
    }
    for (id, task, outputs) in &pending.published {
        batch.publish_outputs(&active[id].run, *task, outputs, now)?;
    }
    for (id, task, number, letters) in &pending.dead_letters {
        batch.insert_dead_letters(&active[id].run, *task, *number, letters, now)?;
    }
    for (offset, (id, statement)) in pending.statements.iter().enumerate() {
        let run = id.as_ref().map(|id| &active[id].run);
        batch.append_evidence(next_index + offset as u64, statement, run, now)?;
    }
    match pending.integrated {
        Some(size) => batch.drop_integrated(size),
        None => Ok(()),
    }
}

fn plan_digest(plan: &Plan) -> Result<String, StoreError> {
    let body = serde_json::to_vec(plan).map_err(|source| StoreError::Damaged {
        row: "plan",
        source,
    })?;
    let digest: [u8; 32] = Sha256::digest(&body).into();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bad data that fails a whole attempt is a dead letter of its own: there is no record to show.
fn letter_of_failure(outcome: &Outcome) -> Option<DeadLetter> {
    match &outcome.result {
        AttemptResult::Failed(failure) if failure.kind == FailureKind::Data => Some(DeadLetter {
            dataset: None,
            record: String::new(),
            error: failure.message.clone(),
            schema_hash: None,
        }),
        _ => None,
    }
}

/// Whether a report hands over nothing but what the task's stage writes by the plan that was
/// permitted: what is accepted here becomes visible.
fn within_plan(plan: &Plan, run: &Run, task: usize, outcome: &Outcome) -> Result<(), CommandError> {
    let AttemptResult::Done(staged) = &outcome.result else {
        return Ok(());
    };
    let placed = run.tasks.get(task);
    let stage = placed.and_then(|task| plan.stage(&task.stage));
    let outputs = || stage.into_iter().flat_map(|stage| &stage.outputs);
    let foreign = staged
        .datasets
        .iter()
        .find(|staged| !outputs().any(|output| output.dataset.as_str() == staged.dataset));
    match foreign {
        None => Ok(()),
        Some(staged) => Err(CommandError::OutOfPlan {
            run: run.id.clone(),
            dataset: staged.dataset.clone(),
        }),
    }
}

fn store_error(error: StoreError) -> CommandError {
    CommandError::Store(Arc::new(error))
}

/// Unpredictable enough for jitter: nothing else uses it.
fn seed() -> [u8; 8] {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8).to_le_bytes()
}
