//! Writing rows: the only place that knows how a run is laid out in tables.

use std::collections::{BTreeMap, HashMap};

pub use barecount_api::{
    ledger::LedgerEntry,
    letter::{DeadLetter, StoredDeadLetter},
};
use rusqlite::{CachedStatement, Connection, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{StoreError, failed};
use crate::journal::record::{
    AnswerRow, ApprovalRow, EntryRow, Header, LetterRow, NewRun, OutputRow, Record,
};

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

/// Writes rows, by statements that are looked up once for all of them.
pub(super) struct Rows<'c> {
    insert_plan: CachedStatement<'c>,
    insert_run: CachedStatement<'c>,
    update_run: CachedStatement<'c>,
    write_task: CachedStatement<'c>,
    write_answer: CachedStatement<'c>,
    publish_output: CachedStatement<'c>,
    keep_letters: CachedStatement<'c>,
    write_approval: CachedStatement<'c>,
    index_entries: CachedStatement<'c>,
}

/// A run as several records leave it.
struct Coalesced<'r> {
    id: &'r str,
    tenant: &'r str,
    pipeline: &'r str,
    new: Option<NewRun<'r>>,
    header: Option<Header<'r>>,
    tasks: BTreeMap<u64, &'r str>,
}

/// The runs of records that follow each other, each as the last of them leaves it, in the order in
/// which they first are in them.
fn coalesce<'r>(records: &[Record<'r>]) -> Vec<Coalesced<'r>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut runs: Vec<Coalesced<'r>> = Vec::new();
    for row in records.iter().flat_map(|record| &record.runs) {
        let place = *places.entry(row.id).or_insert(runs.len());
        if place == runs.len() {
            runs.push(Coalesced {
                id: row.id,
                tenant: row.tenant,
                pipeline: row.pipeline,
                new: row.new,
                header: None,
                tasks: BTreeMap::new(),
            });
        }
        let run = &mut runs[place];
        run.header = row.header.or(run.header);
        run.tasks.extend(row.tasks.iter().copied());
    }
    runs
}

impl<'c> Rows<'c> {
    pub(super) fn of(connection: &'c Connection) -> Result<Self, StoreError> {
        let prepared = |sql| {
            let statement = connection.prepare_cached(sql);
            statement.map_err(failed("prepare to write rows"))
        };
        Ok(Self {
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
            publish_output: prepared(
                "INSERT OR REPLACE INTO outputs
                 (run, task, dataset, partition, version, uri, rows, bytes, digest, at, tenant)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?,
            keep_letters: prepared(
                "INSERT INTO dead_letters
                 (run, task, attempt, stage, dataset, record, error, schema_hash, at, tenant,
                  reason, count, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?,
            write_approval: prepared(
                "INSERT INTO approvals (id, tenant, pipeline, state, body)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body",
            )?,
            index_entries: prepared(
                "INSERT INTO ledger_entries (idx, kind, run, pipeline, tenant, at, leaf_hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
        })
    }

    /// Writes what records say that follow each other.
    pub(super) fn write(&mut self, records: &[Record<'_>]) -> Result<(), StoreError> {
        for plan in records.iter().flat_map(|record| &record.plans) {
            self.insert_plan
                .execute(params![plan.digest, plan.body])
                .map_err(failed("write a plan"))?;
        }
        for run in coalesce(records) {
            self.write_run(&run)?;
        }
        for record in records {
            for answer in &record.answers {
                self.write_answer(answer)?;
            }
            for output in &record.outputs {
                self.publish_output(output, record.at)?;
            }
            for letter in &record.dead_letters {
                self.keep_letters(letter, record.at)?;
            }
            for approval in &record.approvals {
                self.write_approval(approval)?;
            }
            self.index_entries(record)?;
        }
        Ok(())
    }

    fn write_run(&mut self, run: &Coalesced<'_>) -> Result<(), StoreError> {
        match (run.new, run.header) {
            (Some(new), Some(header)) => self.insert_run.execute(params![
                run.id,
                run.tenant,
                new.token,
                run.pipeline,
                header.state,
                new.submitted,
                new.plan,
                header.body,
                header.permit,
            ]),
            (_, Some(header)) => {
                let row = params![run.id, header.state, header.body, header.permit];
                self.update_run.execute(row)
            }
            (_, None) => Ok(0),
        }
        .map_err(failed("write a run"))?;
        for (index, body) in &run.tasks {
            self.write_task
                .execute(params![run.id, index, body])
                .map_err(failed("write a task"))?;
        }
        Ok(())
    }

    fn write_answer(&mut self, answer: &AnswerRow<'_>) -> Result<(), StoreError> {
        let row = params![
            answer.key,
            answer.tenant,
            answer.pipeline,
            answer.stage,
            answer.partition,
            answer.run,
            answer.task,
        ];
        self.write_answer
            .execute(row)
            .map_err(failed("write what answers work"))?;
        Ok(())
    }

    fn publish_output(&mut self, output: &OutputRow<'_>, at: &str) -> Result<(), StoreError> {
        let row = params![
            output.run,
            output.task,
            output.dataset,
            output.partition,
            output.version,
            output.uri,
            output.rows,
            output.bytes,
            output.digest,
            at,
            output.tenant,
        ];
        self.publish_output
            .execute(row)
            .map_err(failed("publish outputs"))?;
        Ok(())
    }

    /// Keeps what has become of an approval.
    fn write_approval(&mut self, approval: &ApprovalRow<'_>) -> Result<(), StoreError> {
        let row = params![
            approval.id,
            approval.tenant,
            approval.pipeline,
            approval.state,
            approval.body
        ];
        self.write_approval
            .execute(row)
            .map_err(failed("write an approval"))?;
        Ok(())
    }

    fn keep_letters(&mut self, letter: &LetterRow<'_>, at: &str) -> Result<(), StoreError> {
        let row = params![
            letter.run,
            letter.task,
            letter.attempt,
            letter.stage,
            letter.dataset,
            letter.record,
            letter.error,
            letter.schema_hash,
            at,
            letter.tenant,
            letter.reason,
            letter.count,
            letter.digest,
        ];
        self.keep_letters
            .execute(row)
            .map_err(failed("keep dead letters"))?;
        Ok(())
    }

    /// Enters what each command says of a run in the ledger's index: one row.
    fn index_entries(&mut self, record: &Record<'_>) -> Result<(), StoreError> {
        let mut index = record.first_entry;
        let together = |a: &EntryRow<'_>, b: &EntryRow<'_>| a.run.is_some() && a.run == b.run;
        for entries in record.entries.chunk_by(together) {
            let place = entries[0].run.and_then(|place| usize::try_from(place).ok());
            let run = place.and_then(|place| record.runs.get(place));
            let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind).collect();
            let hashes: Vec<_> = entries.iter().map(|entry| leaf_hash(entry.bytes)).collect();
            let row = params![
                index,
                kinds.join(" "),
                run.map(|run| run.id),
                run.map(|run| run.pipeline),
                run.map(|run| run.tenant),
                record.at,
                hashes.as_flattened(),
            ];
            self.index_entries
                .execute(row)
                .map_err(failed("index evidence"))?;
            index += entries.len() as u64;
        }
        Ok(())
    }
}
