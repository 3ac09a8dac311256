//! The store's tables, and how an older file becomes a newer one.

use std::path::Path;

use rusqlite::Connection;

use super::OpenError;

/// One step per format version: step `n` takes a file of version `n` to `n + 1`.
const MIGRATIONS: &[&str] = &["
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
"];

/// Brings the file to the newest format.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let database = |source| OpenError::Database {
        path: path.to_owned(),
        source,
    };
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(database)?;
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
