//! The store's tables, and how an older file becomes a newer one.

use std::{cmp::Ordering, path::Path};

use rusqlite::Connection;

use super::OpenError;

/// One step per format version: step `n` takes a file of version `n` to `n + 1`.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE plans (
        digest TEXT PRIMARY KEY,
        body   TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE runs (
        seq       INTEGER PRIMARY KEY,
        id        TEXT NOT NULL UNIQUE,
        tenant    TEXT NOT NULL,
        token     TEXT NOT NULL,
        pipeline  TEXT NOT NULL,
        state     TEXT NOT NULL,
        submitted TEXT NOT NULL,
        plan      TEXT NOT NULL REFERENCES plans(digest),
        body      TEXT NOT NULL,
        UNIQUE (tenant, token)
    );
    CREATE INDEX runs_open ON runs(state)
        WHERE state NOT IN ('succeeded','failed','cancelled','refused');
    CREATE TABLE tasks (
        run  TEXT NOT NULL,
        idx  INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (run, idx)
    ) WITHOUT ROWID;
    -- The order of evidence. Written in the transaction that makes the fact true.
    CREATE TABLE ledger_entries (
        idx       INTEGER PRIMARY KEY,
        kind      TEXT NOT NULL,
        run       TEXT,
        pipeline  TEXT,
        tenant    TEXT,
        at        TEXT NOT NULL,
        leaf_hash BLOB NOT NULL
    );
    CREATE INDEX ledger_entries_run ON ledger_entries(run);
    -- Entries that no durable checkpoint covers yet.
    CREATE TABLE ledger_queue (
        idx   INTEGER PRIMARY KEY,
        bytes BLOB NOT NULL
    );
    -- What readers may see: a task's datasets become visible together.
    CREATE TABLE outputs (
        run       TEXT NOT NULL,
        task      TEXT NOT NULL,
        dataset   TEXT NOT NULL,
        partition TEXT,
        version   INTEGER NOT NULL,
        uri       TEXT NOT NULL,
        rows      INTEGER NOT NULL,
        bytes     INTEGER NOT NULL,
        digest    TEXT NOT NULL,
        at        TEXT NOT NULL,
        PRIMARY KEY (task, dataset)
    ) WITHOUT ROWID;
    CREATE INDEX outputs_dataset ON outputs(dataset, version);
    CREATE INDEX outputs_run ON outputs(run);
    CREATE TABLE dead_letters (
        id          INTEGER PRIMARY KEY,
        run         TEXT NOT NULL,
        task        TEXT NOT NULL,
        attempt     INTEGER NOT NULL,
        stage       TEXT NOT NULL,
        dataset     TEXT,
        record      TEXT NOT NULL,
        error       TEXT NOT NULL,
        schema_hash TEXT,
        at          TEXT NOT NULL
    );
    CREATE INDEX dead_letters_run ON dead_letters(run);
",
    "
    -- Whose an output and a dead letter is. A table lies in its tenant's folder from here on.
    ALTER TABLE outputs ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
    UPDATE outputs SET tenant =
        coalesce((SELECT tenant FROM runs WHERE runs.id = outputs.run), '');
    UPDATE outputs SET uri =
        substr(uri, 1, length(uri) - length(dataset) - length('datasets//'))
        || 'datasets/' || tenant || '/' || replace(dataset, '.', '/') || '/'
        WHERE substr(uri, -length(dataset) - length('datasets//'))
            = 'datasets/' || replace(dataset, '.', '/') || '/';
    DROP INDEX outputs_dataset;
    CREATE INDEX outputs_dataset ON outputs(tenant, dataset, version);
    ALTER TABLE dead_letters ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
    UPDATE dead_letters SET tenant =
        coalesce((SELECT tenant FROM runs WHERE runs.id = dead_letters.run), '');
",
    "
    -- Who owns the shard, and how many batches it has written: what every batch is fenced by.
    CREATE TABLE shard (
        id    INTEGER PRIMARY KEY CHECK (id = 0),
        epoch INTEGER NOT NULL,
        seq   INTEGER NOT NULL
    );
    INSERT INTO shard (id, epoch, seq) VALUES (0, 0, 0);
    -- What governance permitted of the run, and by which decision; absent of runs that are older.
    ALTER TABLE runs ADD COLUMN permit TEXT;
",
    "
    -- Which task did a piece of work last; what it came to is in its row.
    CREATE TABLE answers (
        seq       INTEGER PRIMARY KEY,
        key       TEXT NOT NULL UNIQUE,
        tenant    TEXT NOT NULL,
        pipeline  TEXT NOT NULL,
        stage     TEXT NOT NULL,
        partition TEXT NOT NULL,
        run       TEXT NOT NULL,
        idx       INTEGER NOT NULL
    );
    CREATE INDEX answers_place ON answers(tenant, pipeline, stage, partition, seq);
",
    "
    -- A row stands for all records of an attempt that were set aside for one reason. They are in a
    -- file beside the attempt's log, of this digest; records that are older are rows alone.
    ALTER TABLE dead_letters ADD COLUMN reason TEXT NOT NULL DEFAULT '';
    ALTER TABLE dead_letters ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE dead_letters ADD COLUMN digest TEXT;
 ",
    "
    -- A batch's entries are queued in one row: how long each is, four bytes each, little-endian.
    -- Absent of rows that are older, each of which is one entry. What one command enters of a run
    -- has one row in `ledger_entries`: its kinds with blanks between them, its hashes in a row.
    ALTER TABLE ledger_queue ADD COLUMN lengths BLOB;
",
    "
    -- What is durable is the journal, in a file of its own, and the tables here follow from it: up to
    -- the batch `shard.seq`. What waits for the ledger is in the journal, too: `ledger_queue` is empty
    -- once there is one. Nothing of this needs another column.
",
    "
    -- What has become of each approval. Its acts are in the ledger.
    CREATE TABLE approvals (
        seq      INTEGER PRIMARY KEY,
        id       TEXT NOT NULL UNIQUE,
        tenant   TEXT NOT NULL,
        pipeline TEXT NOT NULL,
        state    TEXT NOT NULL,
        body     TEXT NOT NULL
    );
    CREATE INDEX approvals_of ON approvals(tenant, pipeline, seq);
    CREATE INDEX approvals_open ON approvals(state) WHERE state IN ('requested','granted');
    CREATE INDEX ledger_entries_approval ON ledger_entries(idx) WHERE kind = 'approval';
",
    "
    -- Every task that did a piece of work: what the last one wrote may be gone, and what an earlier
    -- one wrote be there again.
    ALTER TABLE answers RENAME TO last_answers;
    DROP INDEX answers_place;
    CREATE TABLE answers (
        seq       INTEGER PRIMARY KEY,
        key       TEXT NOT NULL,
        tenant    TEXT NOT NULL,
        pipeline  TEXT NOT NULL,
        stage     TEXT NOT NULL,
        partition TEXT NOT NULL,
        run       TEXT NOT NULL,
        idx       INTEGER NOT NULL,
        UNIQUE (key, run, idx)
    );
    INSERT INTO answers SELECT seq, key, tenant, pipeline, stage, partition, run, idx FROM last_answers;
    DROP TABLE last_answers;
    CREATE INDEX answers_place ON answers(tenant, pipeline, stage, partition, seq);
",
    "
    -- The latest runs of each pipeline: who reads what another one writes.
    CREATE INDEX runs_pipeline ON runs(tenant, pipeline, seq);
",
];

/// Brings the file to the newest format.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let database = |source| OpenError::Database {
        path: path.to_owned(),
        source,
    };
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let found = version(connection).map_err(database)?;
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for version in found..known {
        let transaction = connection.transaction().map_err(database)?;
        transaction
            .execute_batch(MIGRATIONS[version as usize])
            .map_err(database)?;
        transaction
            .pragma_update(None, "user_version", version + 1)
            .map_err(database)?;
        transaction.commit().map_err(database)?;
    }
    Ok(())
}

/// Refuses a file of another format than the newest: a reader changes nothing.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let found = version(connection).map_err(|source| OpenError::Database {
        path: path.to_owned(),
        source,
    })?;
    match found.cmp(&known) {
        Ordering::Less => Err(OpenError::Older { found, known }),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(OpenError::Newer { found, known }),
    }
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file as a program left it that knew so many versions.
    pub(crate) fn older(path: &Path, version: u32, rows: &str) -> rusqlite::Result<()> {
        let connection = Connection::open(path)?;
        for migration in &MIGRATIONS[..version as usize] {
            connection.execute_batch(migration)?;
        }
        connection.pragma_update(None, "user_version", version)?;
        connection.execute_batch(rows)
    }

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn rows_from_before_they_had_a_tenant_get_that_of_their_run() -> TestResult {
        let mut connection = Connection::open_in_memory()?;
        connection.execute_batch(MIGRATIONS[0])?;
        connection.pragma_update(None, "user_version", 1)?;
        connection.execute_batch(
            "INSERT INTO plans VALUES ('p', '{}');
             INSERT INTO runs VALUES (1, 'r', 'acme', 't', 'x', 'succeeded', '', 'p', '{}');
             INSERT INTO outputs VALUES ('r', 'k', 'kpi.salary', NULL, 3,
                 'file:///of/datasets/kpi/salary/datasets/kpi/salary/', 1, 2, 'd', 'at');
             INSERT INTO dead_letters (run, task, attempt, stage, record, error, at)
                 VALUES ('r', 'k', 1, 's', 'x', 'y', 'at');",
        )?;
        migrate(&mut connection, Path::new("memory"))?;
        let found: (String, String, u64) =
            connection.query_row("SELECT tenant, uri, version FROM outputs", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let uri = "file:///of/datasets/kpi/salary/datasets/acme/kpi/salary/".to_owned();
        assert_eq!(found, ("acme".to_owned(), uri, 3));
        let of: String =
            connection.query_row("SELECT tenant FROM dead_letters", [], |row| row.get(0))?;
        assert_eq!(of, "acme");
        check(&connection, Path::new("memory"))?;
        Ok(())
    }
}
