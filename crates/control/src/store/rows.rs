//! Writing rows: the only place that knows how a run is laid out in tables.

use std::collections::HashSet;

use barecount_model::{
    id::RunId,
    run::{Run, TaskState},
};
use rusqlite::{CachedStatement, Connection, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{StoreError, damaged, failed};
use crate::{
    authority::PlanRecord,
    journal::{Batch, Entry, Position, Published, RunChange, SetAside},
};

/// Records that were set aside for one reason, or data of which there is no record to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The dataset they were meant for, if that is known.
    pub dataset: Option<String>,
    /// What they were set aside for, in words that all of them share; empty of one that is older
    /// than groups.
    pub reason: String,
    /// How many they are.
    pub count: u64,
    /// The first of them, or a bounded sample of it.
    pub record: String,
    /// Why the first was set aside.
    pub error: String,
    /// A hash of the schema that they did not fit.
    pub schema_hash: Option<String>,
    /// The digest of the file beside the attempt's log that has all its records, if there is one.
    pub digest: Option<String>,
}

/// Records that were set aside for one reason, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDeadLetter {
    /// Its number in the queue.
    pub id: u64,
    /// The tenant.
    pub tenant: String,
    /// The run.
    pub run: String,
    /// The task.
    pub task: String,
    /// The attempt that was decided for.
    pub attempt: u32,
    /// The stage.
    pub stage: String,
    /// The records.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// When it was kept.
    pub at: String,
}

/// An entry's place in the ledger, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Its index, from 0.
    pub index: u64,
    /// What it is about.
    pub kind: String,
    /// The run, if it is about one.
    pub run: Option<String>,
    /// The pipeline.
    pub pipeline: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// When the fact was recorded.
    pub at: String,
    /// RFC 6962 leaf hash, in hexadecimal.
    pub leaf_hash: String,
}

/// A version of a dataset, as the catalog shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputVersion {
    /// Whose it is.
    pub tenant: String,
    /// The dataset.
    pub dataset: String,
    /// The partition that the task covered, if it covered one.
    pub partition: Option<String>,
    /// The run that made it.
    pub run: String,
    /// The version.
    pub version: u64,
    /// Where it is.
    pub uri: String,
    /// Rows that the task committed.
    pub rows: u64,
    /// Bytes that the task committed.
    pub bytes: u64,
    /// The content digest of those rows.
    pub digest: String,
    /// When it became visible.
    pub at: String,
}

/// Bytes of a leaf hash.
pub(super) const LEAF_HASH_BYTES: usize = 32;

/// The leaf hash of RFC 6962, section 2.1.
fn leaf_hash(entry: &[u8]) -> [u8; LEAF_HASH_BYTES] {
    Sha256::new()
        .chain_update([0])
        .chain_update(entry)
        .finalize()
        .into()
}

/// Takes the next place, unless it is not the owner's who asks.
pub(super) fn advance(connection: &Connection, to: Position) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached("UPDATE shard SET seq = ?2 WHERE epoch = ?1 AND seq = ?2 - 1")
        .and_then(|mut update| update.execute(params![to.epoch, to.seq]))
        .map_err(failed("take a batch's place"))?;
    Ok(changed == 1)
}

/// Forgets the bytes of entries below `size`, which a durable checkpoint covers. Those that were
/// queued together are forgotten together.
pub(super) fn drop_integrated(connection: &Connection, size: u64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "DELETE FROM ledger_queue
             WHERE idx < ?1 AND idx + coalesce(length(lengths) / ?2, 1) <= ?1",
        )
        .and_then(|mut delete| delete.execute(params![size, size_of::<u32>()]))
        .map_err(failed("trim the ledger's queue"))?;
    Ok(())
}

/// Entries as they are queued, one after another.
pub(super) fn entries_of(bytes: Vec<u8>, lengths: Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let Some(lengths) = lengths else {
        return vec![bytes];
    };
    let mut rest = bytes.as_slice();
    let (lengths, _) = lengths.as_chunks();
    let entries = lengths.iter().map(|length| {
        let length = u32::from_le_bytes(*length) as usize;
        let (entry, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        entry.to_vec()
    });
    entries.collect()
}

/// Writes the rows of one batch, by statements that are looked up once for all of them.
pub(super) struct Rows<'c> {
    connection: &'c Connection,
    insert_plan: CachedStatement<'c>,
    insert_run: CachedStatement<'c>,
    update_run: CachedStatement<'c>,
    write_task: CachedStatement<'c>,
    write_answer: CachedStatement<'c>,
    index_entries: CachedStatement<'c>,
    queue_entries: CachedStatement<'c>,
}

impl<'c> Rows<'c> {
    pub(super) fn of(connection: &'c Connection) -> Result<Self, StoreError> {
        let prepared = |sql| {
            let statement = connection.prepare_cached(sql);
            statement.map_err(failed("prepare to write a batch"))
        };
        Ok(Self {
            connection,
            insert_plan: prepared("INSERT OR IGNORE INTO plans (digest, body) VALUES (?1, ?2)")?,
            insert_run: prepared(
                "INSERT INTO runs (id, tenant, token, pipeline, state, submitted, plan, body, permit)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?,
            update_run: prepared(
                "UPDATE runs SET state = ?2, body = ?3, permit = ?4 WHERE id = ?1",
            )?,
            write_task: prepared(
                "INSERT OR REPLACE INTO tasks (run, idx, body) VALUES (?1, ?2, ?3)",
            )?,
            write_answer: prepared(
                "INSERT OR REPLACE INTO answers
                 (key, tenant, pipeline, stage, partition, run, idx)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            index_entries: prepared(
                "INSERT INTO ledger_entries (idx, kind, run, pipeline, tenant, at, leaf_hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            queue_entries: prepared(
                "INSERT INTO ledger_queue (idx, bytes, lengths) VALUES (?1, ?2, ?3)",
            )?,
        })
    }

    /// Writes everything that a batch changed, but for plans that are durable.
    pub(super) fn write(
        &mut self,
        batch: &Batch,
        plans: &HashSet<String>,
    ) -> Result<(), StoreError> {
        for change in batch.runs.values() {
            if !change.is_new {
                self.update_run(change)?;
                continue;
            }
            if !plans.contains(&change.plan.digest) {
                self.insert_plan(&change.plan)?;
            }
            self.insert_run(change)?;
        }
        let at = batch.at.to_string();
        let run_of = |id: &RunId| batch.runs.get(id).map(|change| &*change.run);
        for published in &batch.outputs {
            if let Some(run) = run_of(&published.run) {
                self.publish_outputs(run, published, &at)?;
            }
        }
        for set_aside in &batch.dead_letters {
            if let Some(run) = run_of(&set_aside.run) {
                self.insert_dead_letters(run, set_aside, &at)?;
            }
        }
        let mut index = batch.first_entry;
        let together = |a: &Entry, b: &Entry| a.run.is_some() && a.run == b.run;
        for entries in batch.entries.chunk_by(together) {
            let run = entries[0].run.as_ref().and_then(run_of);
            self.index_entries(index, entries, run, &at)?;
            index += entries.len() as u64;
        }
        self.queue_entries(batch)?;
        match batch.integrated {
            Some(size) => drop_integrated(self.connection, size),
            None => Ok(()),
        }
    }

    /// Stores a plan under its digest, once.
    fn insert_plan(&mut self, plan: &PlanRecord) -> Result<(), StoreError> {
        self.insert_plan
            .execute(params![plan.digest, plan.body])
            .map_err(failed("write a plan"))?;
        Ok(())
    }

    /// Stores a new run, with all its tasks.
    fn insert_run(&mut self, change: &RunChange) -> Result<(), StoreError> {
        let run = &change.run;
        let row = params![
            run.id.as_str(),
            run.tenant,
            run.token,
            run.pipeline,
            run.state.as_str(),
            run.submitted_at.to_string(),
            change.plan.digest,
            header(run)?,
            permit(change)?,
        ];
        self.insert_run
            .execute(row)
            .map_err(failed("write a run"))?;
        (0..run.tasks.len()).try_for_each(|index| self.write_task(run, index))
    }

    /// Stores what commands changed of a run.
    fn update_run(&mut self, change: &RunChange) -> Result<(), StoreError> {
        let run = &change.run;
        if change.header {
            let row = params![
                run.id.as_str(),
                run.state.as_str(),
                header(run)?,
                permit(change)?
            ];
            self.update_run
                .execute(row)
                .map_err(failed("write a run"))?;
        }
        let mut tasks = change.tasks.iter();
        tasks.try_for_each(|&index| self.write_task(run, index))
    }

    fn write_task(&mut self, run: &Run, index: usize) -> Result<(), StoreError> {
        let body = serde_json::to_string(&run.tasks[index]).map_err(damaged("task"))?;
        self.write_task
            .execute(params![run.id.as_str(), index as u64, body])
            .map_err(failed("write a task"))?;
        self.write_answer(run, index)
    }

    /// What a task has come to by its own work answers that work from now on.
    fn write_answer(&mut self, run: &Run, index: usize) -> Result<(), StoreError> {
        let task = &run.tasks[index];
        let (TaskState::Succeeded, Some(work), None) = (task.state, &task.work, &task.answered)
        else {
            return Ok(());
        };
        let row = params![
            work.key.to_string(),
            run.tenant,
            run.pipeline,
            task.stage,
            task.partition.as_deref().unwrap_or_default(),
            run.id.as_str(),
            index as u64
        ];
        self.write_answer
            .execute(row)
            .map_err(failed("write what answers work"))?;
        Ok(())
    }

    /// Enters what one command says of a run in the ledger's sequence. Places and leaf hashes are
    /// durable with the facts themselves; tiles and checkpoint follow from this sequence alone.
    fn index_entries(
        &mut self,
        first: u64,
        entries: &[Entry],
        run: Option<&Run>,
        at: &str,
    ) -> Result<(), StoreError> {
        let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        let hashes: Vec<_> = entries
            .iter()
            .map(|entry| leaf_hash(&entry.bytes))
            .collect();
        let row = params![
            first,
            kinds.join(" "),
            run.map(|run| run.id.as_str()),
            run.map(|run| &run.pipeline),
            run.map(|run| &run.tenant),
            at,
            hashes.as_flattened(),
        ];
        self.index_entries
            .execute(row)
            .map_err(failed("append evidence"))?;
        Ok(())
    }

    /// Keeps the bytes of a batch's entries until a checkpoint covers them.
    fn queue_entries(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if batch.entries.is_empty() {
            return Ok(());
        }
        let entries = batch.entries.iter().map(|entry| entry.bytes.as_slice());
        let lengths = entries.clone().map(|bytes| bytes.len() as u32);
        let lengths: Vec<_> = lengths.map(u32::to_le_bytes).collect();
        let bytes = entries.collect::<Vec<_>>().concat();
        self.queue_entries
            .execute(params![batch.first_entry, bytes, lengths.as_flattened()])
            .map_err(failed("append evidence"))?;
        Ok(())
    }

    /// Makes a task's datasets visible, all at once.
    fn publish_outputs(
        &self,
        run: &Run,
        published: &Published,
        at: &str,
    ) -> Result<(), StoreError> {
        let mut insert = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO outputs
                 (run, task, dataset, partition, version, uri, rows, bytes, digest, at, tenant)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )
            .map_err(failed("publish outputs"))?;
        let task = &run.tasks[published.task];
        for output in &published.outputs {
            let row = params![
                run.id.as_str(),
                task.id.as_str(),
                output.dataset,
                task.partition,
                output.version,
                output.uri,
                output.rows,
                output.bytes,
                output.digest,
                at,
                run.tenant
            ];
            insert.execute(row).map_err(failed("publish outputs"))?;
        }
        Ok(())
    }

    /// Keeps records that an attempt set aside.
    fn insert_dead_letters(
        &self,
        run: &Run,
        set_aside: &SetAside,
        at: &str,
    ) -> Result<(), StoreError> {
        let mut insert = self
            .connection
            .prepare_cached(
                "INSERT INTO dead_letters
                 (run, task, attempt, stage, dataset, record, error, schema_hash, at, tenant,
                  reason, count, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )
            .map_err(failed("keep dead letters"))?;
        let task = &run.tasks[set_aside.task];
        for letter in &set_aside.letters {
            let row = params![
                run.id.as_str(),
                task.id.as_str(),
                set_aside.number,
                task.stage,
                letter.dataset,
                letter.record,
                letter.error,
                letter.schema_hash,
                at,
                run.tenant,
                letter.reason,
                letter.count,
                letter.digest
            ];
            insert.execute(row).map_err(failed("keep dead letters"))?;
        }
        Ok(())
    }
}

/// The run's own row: everything but its tasks, which have rows of their own.
fn header(run: &Run) -> Result<String, StoreError> {
    serde_json::to_string(&run.header()).map_err(damaged("run"))
}

fn permit(change: &RunChange) -> Result<Option<String>, StoreError> {
    let authority = change.authority.as_deref();
    authority
        .map(|authority| serde_json::to_string(authority).map_err(damaged("permit")))
        .transpose()
}
