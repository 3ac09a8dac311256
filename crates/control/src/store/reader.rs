//! Reading the store. Any process may, also while another one writes.

mod plans;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use barecount_model::{
    digest::Digest,
    id::RunId,
    plan::Plan,
    run::{Run, StageName, Task},
    untrusted::Label,
};
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::{
    FILE, LedgerEntry, OpenError, OutputVersion, StoreError, damaged, failed, format,
    journal::Tail,
    looking,
    rows::{DeadLetter, LEAF_HASH_BYTES, StoredDeadLetter},
    views::Views,
};
use crate::{authority::PlanRecord, journal::Stored};

/// Times that the same work was done which are looked back at. More than the last are asked only
/// where what it wrote is gone.
const MAX_ANSWERS: u32 = 64;

/// Who committed a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The task.
    pub task: String,
    /// Its run.
    pub run: String,
    /// The run's pipeline.
    pub pipeline: String,
}

/// The reading side of a state folder's store.
#[derive(Debug)]
pub struct Reader {
    views: Views,
    journal: Option<Tail>,
}

impl Reader {
    /// Opens an existing store; `None` where nothing has ever run.
    ///
    /// # Errors
    /// [`OpenError::Folder`] if the folder may not be looked into, [`OpenError::Database`] if there
    /// is a file that cannot be opened; [`OpenError::Older`] and [`OpenError::Newer`] if it is of
    /// another format.
    pub fn open(folder: &Path) -> Result<Option<Self>, OpenError> {
        let path = folder.join(FILE);
        let unusable = |source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        };
        if !path.try_exists().map_err(unusable)? {
            return Ok(None);
        }
        let journal = Tail::open(folder)?;
        let views = match looking::is_closed(folder) {
            true => Views::look(folder, journal.as_ref())?,
            false => {
                let views = Views::open(folder)?;
                format::check(views.connection(), &path)?;
                views
            }
        };
        Ok(Some(Self { views, journal }))
    }

    /// The tables, brought up to what is durable now.
    pub(super) fn now(&self) -> Result<&Connection, StoreError> {
        if let Some(journal) = &self.journal {
            self.views.catch_up(journal)?;
        }
        Ok(self.views.connection())
    }

    /// The latest runs, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn runs(&self, limit: u32) -> Result<Vec<(Run, Plan)>, StoreError> {
        self.runs_of(None, None, limit)
    }

    /// As [`Reader::runs`], of one tenant; those that come after the run of this identifier, if one is
    /// named.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn runs_of(
        &self,
        tenant: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(Run, Plan)>, StoreError> {
        runs_where(
            self.now()?,
            "(?1 IS NULL OR tenant = ?1)
             AND (?2 IS NULL OR runs.seq < (SELECT last.seq FROM runs AS last WHERE last.id = ?2))
             ORDER BY runs.seq DESC LIMIT ?3",
            params![tenant, after, limit],
        )
    }

    /// Runs whose identifier starts with `prefix`: at most two, so that an ambiguity shows.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn runs_by_prefix(&self, prefix: &str) -> Result<Vec<(Run, Plan)>, StoreError> {
        runs_where(
            self.now()?,
            "substr(id, 1, length(?1)) = ?1 ORDER BY runs.seq DESC LIMIT 2",
            params![prefix],
        )
    }

    /// What a run has made visible, in the order of dataset and partition.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn outputs_of(&self, run: &str) -> Result<Vec<OutputVersion>, StoreError> {
        self.outputs_where("run = ?1 ORDER BY dataset, partition", params![run])
    }

    /// The latest visible version of every dataset, or of the one named: of one tenant, or of all.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn latest_outputs(
        &self,
        tenant: Option<&str>,
        dataset: Option<&str>,
    ) -> Result<Vec<OutputVersion>, StoreError> {
        self.outputs_where(
            "(?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR dataset = ?2) AND version =
               (SELECT max(version) FROM outputs AS other
                WHERE other.tenant = outputs.tenant AND other.dataset = outputs.dataset)
             ORDER BY tenant, dataset",
            params![tenant, dataset],
        )
    }

    /// The tenants whose runs have committed a dataset, in order.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn writers_of(&self, dataset: &str) -> Result<Vec<String>, StoreError> {
        self.texts(
            "SELECT DISTINCT tenant FROM outputs WHERE dataset = ?1 ORDER BY tenant",
            params![dataset],
        )
    }

    /// The tasks that have committed a dataset of a tenant, each with its run and pipeline, in the
    /// order of the versions that they committed last.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn writers(&self, tenant: &str, dataset: &str) -> Result<Vec<Writer>, StoreError> {
        let mut query = self
            .now()?
            .prepare_cached(
                "SELECT outputs.task, outputs.run, runs.pipeline FROM outputs
                 JOIN runs ON runs.id = outputs.run
                 WHERE outputs.tenant = ?1 AND outputs.dataset = ?2 ORDER BY outputs.version",
            )
            .map_err(failed("read writers"))?;
        let rows = query.query_map(params![tenant, dataset], |row| {
            Ok(Writer {
                task: row.get(0)?,
                run: row.get(1)?,
                pipeline: row.get(2)?,
            })
        });
        rows.and_then(Iterator::collect)
            .map_err(failed("read writers"))
    }

    /// The tenants that have runs, in order.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn tenants(&self) -> Result<Vec<String>, StoreError> {
        self.texts("SELECT DISTINCT tenant FROM runs ORDER BY tenant", [])
    }

    fn texts(&self, sql: &str, parameters: impl Params) -> Result<Vec<String>, StoreError> {
        let mut query = self
            .now()?
            .prepare_cached(sql)
            .map_err(failed("read texts"))?;
        query
            .query_map(parameters, |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(failed("read texts"))
    }

    /// The latest of the runs that did the same work: of this token, or of one that continues it
    /// with a dot and a number.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn latest_of_token(
        &self,
        tenant: &str,
        token: &str,
    ) -> Result<Option<(Run, Plan)>, StoreError> {
        // The slash is the character after the dot.
        let found = runs_where(
            self.now()?,
            "tenant = ?1 AND (token = ?2 OR (token > ?2 || '.' AND token < ?2 || '/'))
             ORDER BY runs.seq DESC LIMIT 1",
            params![tenant, token],
        )?;
        Ok(found.into_iter().next())
    }

    /// The run of this very token.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn run_of_token(
        &self,
        tenant: &str,
        token: &str,
    ) -> Result<Option<(Run, Plan)>, StoreError> {
        let condition = "tenant = ?1 AND token = ?2";
        let found = runs_where(self.now()?, condition, params![tenant, token])?;
        Ok(found.into_iter().next())
    }

    /// The tasks that did the work of that key, the latest first, and the runs that they are of; at
    /// most 64.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn answers(&self, key: &Digest) -> Result<Vec<(RunId, Task)>, StoreError> {
        self.answering(
            "key = ?1 ORDER BY answers.seq DESC LIMIT ?2",
            params![key.to_string(), MAX_ANSWERS],
        )
    }

    /// The task that did the work of a stage and partition last, whatever its key.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn last_work(
        &self,
        tenant: &str,
        pipeline: &str,
        stage: &str,
        partition: Option<&str>,
    ) -> Result<Option<(RunId, Task)>, StoreError> {
        let last = self.answering(
            "tenant = ?1 AND pipeline = ?2 AND stage = ?3 AND partition = ?4
             ORDER BY answers.seq DESC LIMIT 1",
            params![tenant, pipeline, stage, partition.unwrap_or_default()],
        )?;
        Ok(last.into_iter().next())
    }

    fn answering(
        &self,
        condition: &str,
        parameters: impl Params,
    ) -> Result<Vec<(RunId, Task)>, StoreError> {
        let sql = format!(
            "SELECT answers.run, tasks.body FROM answers
             JOIN tasks ON tasks.run = answers.run AND tasks.idx = answers.idx
             WHERE {condition}"
        );
        let rows: Vec<(String, String)> = self
            .now()?
            .prepare_cached(&sql)
            .and_then(|mut query| {
                let rows = query.query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect()
            })
            .map_err(failed("look up what answers work"))?;
        let mut found = Vec::new();
        for (run, task) in rows {
            // What is no identifier was not written by this program, and answers nothing.
            if let Ok(run) = run.parse() {
                found.push((run, serde_json::from_str(&task).map_err(damaged("task"))?));
            }
        }
        Ok(found)
    }

    /// Ledger entries, oldest first: of one run, or all of them.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn ledger_entries(&self, run: Option<&str>) -> Result<Vec<LedgerEntry>, StoreError> {
        self.ledger_entries_after(run, None, u32::MAX)
    }

    /// As [`Reader::ledger_entries`], those after the one of this index, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn ledger_entries_after(
        &self,
        run: Option<&str>,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        // One statement for both would look at every entry for those of one run.
        let condition = match run {
            Some(_) => "run = ?1",
            None => "?1 IS NULL",
        };
        let mut query = self
            .now()?
            .prepare(&format!(
                "SELECT idx, kind, run, pipeline, tenant, at, leaf_hash
                 FROM ledger_entries
                 WHERE {condition} AND idx >= ?2 ORDER BY idx LIMIT ?3"
            ))
            .map_err(failed("read the ledger's index"))?;
        let mut rows = query
            .query(params![
                run,
                after.map_or(0, |last| last.saturating_add(1)),
                limit
            ])
            .map_err(failed("read the ledger's index"))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed("read the ledger's index"))? {
            ledger_entries(row, &mut found).map_err(failed("read the ledger's index"))?;
        }
        Ok(found)
    }

    /// How many entries the ledger has, signed or not.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn ledger_length(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(idx) + length(leaf_hash) / ?1, 0) FROM ledger_entries";
        self.now()?
            .query_row(sql, params![LEAF_HASH_BYTES], |row| row.get(0))
            .map_err(failed("read the ledger's length"))
    }

    /// Records set aside, newest first: of one run or tenant, or of all; those that come after the
    /// one of this number, if one is named.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn dead_letters(
        &self,
        tenant: Option<&str>,
        run: Option<&str>,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<StoredDeadLetter>, StoreError> {
        let read = failed("read dead letters");
        let mut query = self
            .now()?
            .prepare(&format!(
                "SELECT {DEAD_LETTER_COLUMNS}
                 FROM dead_letters
                 WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR run = ?2)
                 AND (?3 IS NULL OR id < ?3)
                 ORDER BY id DESC LIMIT ?4",
            ))
            .map_err(failed("read dead letters"))?;
        let rows = query.query_map(params![tenant, run, after, limit], dead_letter);
        rows.and_then(Iterator::collect).map_err(read)
    }

    /// One record that was set aside, if there is one of this number.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn dead_letter(&self, id: u64) -> Result<Option<StoredDeadLetter>, StoreError> {
        let sql = format!("SELECT {DEAD_LETTER_COLUMNS} FROM dead_letters WHERE id = ?1");
        self.now()?
            .query_row(&sql, params![id], dead_letter)
            .optional()
            .map_err(failed("read a dead letter"))
    }

    /// The task and the number of every attempt that has a file of dead letters on record.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn attempts_with_letters(&self) -> Result<Vec<(String, u32)>, StoreError> {
        let read = failed("read dead letters");
        let mut query = self
            .now()?
            .prepare("SELECT DISTINCT task, attempt FROM dead_letters WHERE digest IS NOT NULL")
            .map_err(failed("read dead letters"))?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.and_then(Iterator::collect).map_err(read)
    }

    fn outputs_where(
        &self,
        condition: &str,
        parameters: impl Params,
    ) -> Result<Vec<OutputVersion>, StoreError> {
        let sql = format!(
            "SELECT dataset, partition, run, version, uri, rows, bytes, digest, at, tenant
             FROM outputs WHERE {condition}"
        );
        let read = failed("read outputs");
        let mut query = self.now()?.prepare(&sql).map_err(failed("read outputs"))?;
        let rows = query.query_map(parameters, |row| {
            Ok(OutputVersion {
                dataset: row.get(0)?,
                partition: row.get(1)?,
                run: row.get(2)?,
                version: row.get(3)?,
                uri: row.get(4)?,
                rows: row.get(5)?,
                bytes: row.get(6)?,
                digest: row.get(7)?,
                at: row.get(8)?,
                tenant: row.get(9)?,
            })
        });
        rows.and_then(Iterator::collect).map_err(read)
    }
}

/// What one command entered of a run, one by one.
fn ledger_entries(row: &rusqlite::Row<'_>, found: &mut Vec<LedgerEntry>) -> rusqlite::Result<()> {
    let first: u64 = row.get(0)?;
    let kinds: String = row.get(1)?;
    let hashes: Vec<u8> = row.get(6)?;
    let entries = kinds.split(' ').zip(hashes.chunks(LEAF_HASH_BYTES));
    for (index, (kind, hash)) in (first..).zip(entries) {
        found.push(LedgerEntry {
            index,
            kind: kind.to_owned(),
            run: row.get(2)?,
            pipeline: row.get(3)?,
            tenant: row.get(4)?,
            at: row.get(5)?,
            leaf_hash: hex::encode(hash),
        });
    }
    Ok(())
}

/// What [`dead_letter`] reads, in its order.
const DEAD_LETTER_COLUMNS: &str = "id, run, task, attempt, stage, dataset, record, error, schema_hash, at, tenant, \
     reason, count, digest";

fn dead_letter(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    Ok(StoredDeadLetter {
        id: row.get(0)?,
        run: row.get(1)?,
        task: row.get(2)?,
        attempt: row.get(3)?,
        stage: row.get(4)?,
        letter: DeadLetter {
            dataset: row.get::<_, Option<String>>(5)?.map(Label::from),
            record: row.get::<_, String>(6)?.into(),
            error: row.get::<_, String>(7)?.into(),
            schema_hash: row.get::<_, Option<String>>(8)?.map(Label::from),
            reason: row.get::<_, String>(11)?.into(),
            count: row.get(12)?,
            digest: row.get(13)?,
        },
        at: row.get(9)?,
        tenant: row.get(10)?,
    })
}

/// Runs that satisfy a condition over the table `runs`, with their tasks and plans.
pub(super) fn runs_where(
    connection: &Connection,
    condition: &str,
    parameters: impl Params,
) -> Result<Vec<(Run, Plan)>, StoreError> {
    let sql = format!(
        "SELECT runs.body, plans.body FROM runs JOIN plans ON plans.digest = runs.plan
         WHERE {condition}"
    );
    let mut query = connection
        .prepare_cached(&sql)
        .map_err(failed("read runs"))?;
    let rows: Vec<(String, String)> = query
        .query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(failed("read runs"))?;
    let mut stages = HashSet::new();
    rows.into_iter()
        .map(|(run, plan)| {
            let mut run: Run = serde_json::from_str(&run).map_err(damaged("run"))?;
            run.tasks = tasks_of(connection, &run.id.printed(), &mut stages)?;
            Ok((run, serde_json::from_str(&plan).map_err(damaged("plan"))?))
        })
        .collect()
}

/// Runs that satisfy a condition, as their owner keeps them.
pub(super) fn stored_where(
    connection: &Connection,
    condition: &str,
    parameters: impl Params,
) -> Result<Vec<Stored>, StoreError> {
    let sql = format!(
        "SELECT runs.body, plans.digest, plans.body, runs.permit
         FROM runs JOIN plans ON plans.digest = runs.plan WHERE {condition}"
    );
    let mut query = connection
        .prepare_cached(&sql)
        .map_err(failed("read runs"))?;
    let mut rows = query.query(parameters).map_err(failed("read runs"))?;
    // Runs of one plan share it.
    let mut plans: HashMap<String, Arc<PlanRecord>> = HashMap::new();
    let mut stages = HashSet::new();
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed("read runs"))? {
        let text = |index| row.get::<_, String>(index).map_err(failed("read runs"));
        let mut run: Run = serde_json::from_str(&text(0)?).map_err(damaged("run"))?;
        run.tasks = tasks_of(connection, &run.id.printed(), &mut stages)?;
        let digest = text(1)?;
        let plan = match plans.get(&digest) {
            Some(plan) => Arc::clone(plan),
            None => {
                let body = text(2)?;
                let plan = serde_json::from_str(&body).map_err(damaged("plan"))?;
                let record = Arc::new(PlanRecord::stored(plan, digest.clone(), body));
                plans.insert(digest, Arc::clone(&record));
                record
            }
        };
        let permit: Option<String> = row.get(3).map_err(failed("read runs"))?;
        let authority = permit
            .map(|text| {
                serde_json::from_str(&text)
                    .map(Arc::new)
                    .map_err(damaged("permit"))
            })
            .transpose()?;
        found.push(Stored {
            run: Arc::new(run),
            plan,
            authority,
        });
    }
    Ok(found)
}

/// The tasks of a run, whose stages' names are the texts that are in `stages`.
fn tasks_of(
    connection: &Connection,
    run: &str,
    stages: &mut HashSet<StageName>,
) -> Result<Vec<Task>, StoreError> {
    let mut query = connection
        .prepare_cached("SELECT body FROM tasks WHERE run = ?1 ORDER BY idx")
        .map_err(failed("read tasks"))?;
    let bodies: Vec<String> = query
        .query_map(params![run], |row| row.get(0))
        .and_then(Iterator::collect)
        .map_err(failed("read tasks"))?;
    // There may be a million of them open: none takes more room than it needs.
    let mut tasks = Vec::with_capacity(bodies.len());
    for body in &bodies {
        let mut task: Task = serde_json::from_str(body).map_err(damaged("task"))?;
        task.stage = task.stage.shared(stages);
        tasks.push(task);
    }
    Ok(tasks)
}
