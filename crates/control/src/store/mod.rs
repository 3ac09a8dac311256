//! The embedded store: one SQLite file in write-ahead mode with full synchronisation.
//!
//! One process writes ([`Store`], guarded by a file lock); any process may read ([`reader`]). The
//! file's format is versioned: a newer one is refused, an older one is migrated in a transaction.

mod format;
pub mod reader;
mod rows;

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

use barecount_model::{plan::Plan, run::Run};
use rusqlite::{Connection, OptionalExtension, params};
use rustix::fs::{FlockOperation, flock};

use crate::entries::Entries;
pub use rows::{DeadLetter, LedgerEntry, OutputVersion, StoredDeadLetter};

/// The store's file inside a state folder.
pub const FILE: &str = "control.sqlite";

/// Why a state folder could not be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or used.
    #[error("the state folder {} cannot be used", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Another process holds it.
    #[error("the state folder {} is in use by another process", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error("the state is of format {found}, and this program knows up to {known}")]
    Newer {
        /// The file's format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// An older program wrote it, and it is only being read. [`Store::open`] makes it newer.
    #[error("the state is of format {found}, older than {known}")]
    Older {
        /// The file's format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// What the store holds cannot be read.
    #[error("the state in {} cannot be read", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: Box<StoreError>,
    },
    /// The database failed.
    #[error("the store {} cannot be opened", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed: a full disk, a read-only file, a damaged page.
    #[error("the store failed to {operation}")]
    Database {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A row does not hold what this program wrote.
    #[error("a {row} row of the store is damaged")]
    Damaged {
        /// The row's kind.
        row: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
}

fn failed(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Database { operation, source }
}

fn damaged(row: &'static str) -> impl FnOnce(serde_json::Error) -> StoreError {
    move |source| StoreError::Damaged { row, source }
}

/// The writing side of the store. Holds the state folder's lock until dropped.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    _lock: File,
}

impl Store {
    /// Opens the state folder's store for writing, and makes both if absent.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let lock = lock(folder)?;
        let path = folder.join(FILE);
        let database = |source| OpenError::Database {
            path: path.clone(),
            source,
        };
        let mut connection = Connection::open(&path).map_err(database)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 4000;",
            )
            .map_err(database)?;
        format::migrate(&mut connection, &path)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self {
            connection,
            _lock: lock,
        })
    }

    /// Runs and their plans that have not ended.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn active_runs(&self) -> Result<Vec<(Run, Plan)>, StoreError> {
        reader::runs_where(
            &self.connection,
            "state NOT IN ('succeeded','failed','cancelled','refused')",
            params![],
        )
    }

    /// A run and its plan, by identifier.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn run(&self, id: &str) -> Result<Option<(Run, Plan)>, StoreError> {
        Ok(reader::runs_where(&self.connection, "id = ?1", params![id])?.pop())
    }

    /// The identifier of the run with that token.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn run_id_by_token(&self, tenant: &str, token: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .prepare_cached("SELECT id FROM runs WHERE tenant = ?1 AND token = ?2")
            .and_then(|mut query| {
                query
                    .query_row(params![tenant, token], |row| row.get(0))
                    .optional()
            })
            .map_err(failed("look a run token up"))
    }

    /// The index that the next ledger entry gets.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn next_ledger_index(&self) -> Result<u64, StoreError> {
        self.connection
            .query_row(
                "SELECT coalesce(max(idx) + 1, 0) FROM ledger_entries",
                [],
                |row| row.get(0),
            )
            .map_err(failed("read the ledger's length"))
    }

    /// Entries that no durable checkpoint is known to cover, oldest first, in pieces.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub(crate) fn queued_entries(&self) -> Result<Vec<Entries>, StoreError> {
        let mut query = self
            .connection
            .prepare("SELECT idx, bytes FROM ledger_queue ORDER BY idx")
            .map_err(failed("read the ledger's queue"))?;
        let rows: Vec<(u64, Vec<u8>)> = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(failed("read the ledger's queue"))?;
        Ok(rows
            .chunks(1024)
            .filter_map(|piece| {
                let first = piece.first()?.0;
                Some(Entries {
                    first,
                    bytes: piece.iter().map(|row| row.1.clone()).collect(),
                })
            })
            .collect())
    }

    /// Applies `write` in one transaction: all of it is durable when this returns, or none.
    ///
    /// # Errors
    /// [`StoreError`]; after one, whatever memory held of the batch is to be discarded.
    pub fn transaction<T>(
        &mut self,
        write: impl FnOnce(&Batch<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(failed("begin a transaction"))?;
        let value = write(&Batch {
            connection: &transaction,
        })?;
        transaction.commit().map_err(failed("commit"))?;
        Ok(value)
    }
}

/// The writes of one transaction.
#[derive(Debug)]
pub struct Batch<'a> {
    connection: &'a Connection,
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let unusable = |source| OpenError::Folder {
        path: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(unusable)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("lock"))
        .map_err(unusable)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked {
            path: folder.to_owned(),
        }),
        Err(error) => Err(unusable(error.into())),
    }
}
