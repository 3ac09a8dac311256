//! The embedded store: one SQLite file in write-ahead mode with full synchronisation.
//!
//! One process writes ([`Store`], guarded by a file lock); any process may read ([`reader`]). The
//! file's format is versioned: a newer one is refused, an older one is migrated in a transaction.

mod format;
pub mod lock;
pub mod reader;
mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use barecount_model::id::RunId;
use rusqlite::{Connection, Transaction, TransactionBehavior, config::DbConfig, params};

use self::lock::FolderLock;
use crate::{
    entries::Entries,
    journal::{Appended, Batch, Position, Storage, Stored},
};
pub use rows::{DeadLetter, LedgerEntry, OutputVersion, StoredDeadLetter};
use rows::{LEAF_HASH_BYTES, Rows};

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
    /// Digests of plans that are durable, so that each is written once; some are forgotten in time.
    plans: HashSet<String>,
    lock: FolderLock,
}

/// Plans known to be durable at most.
const PLANS: usize = 4096;

impl Store {
    /// Opens the state folder's store for writing, and makes both if absent.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_held(FolderLock::take(folder)?)
    }

    /// The same in a folder that is held already.
    ///
    /// # Errors
    /// See [`OpenError`]; the folder is given up then.
    pub fn open_held(lock: FolderLock) -> Result<Self, OpenError> {
        let path = lock.folder().join(FILE);
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
        // Otherwise a query is planned anew for every value that it is asked with.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(database)?;
        connection.set_prepared_statement_cache_capacity(64);
        Self::take_over(&connection).map_err(database)?;
        Ok(Self {
            connection,
            plans: HashSet::new(),
            lock,
        })
    }

    /// Closes the store, and goes on holding the folder.
    pub fn close(self) -> FolderLock {
        self.lock
    }

    /// Takes the shard over: batches of whoever had it before collide from here on.
    fn take_over(connection: &Connection) -> rusqlite::Result<u64> {
        connection.query_row(
            "UPDATE shard SET epoch = epoch + 1 RETURNING epoch",
            [],
            |row| row.get(0),
        )
    }

    /// Writes a batch in a transaction that is not committed yet; `None` if somebody else owns the
    /// shard.
    fn write(&mut self, batch: &Batch) -> Result<Option<Transaction<'_>>, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("begin a transaction"))?;
        if !rows::advance(&transaction, batch.position)? {
            return Ok(None);
        }
        Rows::of(&transaction)?.write(batch, &self.plans)?;
        Ok(Some(transaction))
    }

    fn know_plans(&mut self, batch: &Batch) {
        if self.plans.len() >= PLANS {
            self.plans.clear();
        }
        for change in batch.runs.values().filter(|change| change.is_new) {
            if !self.plans.contains(&change.plan.digest) {
                self.plans.insert(change.plan.digest.clone());
            }
        }
    }
}

impl Storage for Store {
    fn append(&mut self, batch: &Batch) -> Appended {
        let committed = match self.write(batch) {
            Ok(Some(transaction)) => transaction.commit(),
            Ok(None) => return Appended::Fenced,
            Err(error) => return Appended::Failed(error),
        };
        match committed {
            Ok(()) => {
                self.know_plans(batch);
                Appended::Done
            }
            Err(source) => Appended::Unknown(failed("commit")(source)),
        }
    }

    fn position(&self) -> Result<Position, StoreError> {
        self.connection
            .prepare_cached("SELECT epoch, seq FROM shard")
            .and_then(|mut query| {
                query.query_row([], |row| {
                    Ok(Position {
                        epoch: row.get(0)?,
                        seq: row.get(1)?,
                    })
                })
            })
            .map_err(failed("read the shard's position"))
    }

    fn next_entry(&self) -> Result<u64, StoreError> {
        self.connection
            .query_row(
                "SELECT coalesce(max(idx) + length(leaf_hash) / ?1, 0) FROM ledger_entries",
                params![LEAF_HASH_BYTES],
                |row| row.get(0),
            )
            .map_err(failed("read the ledger's length"))
    }

    fn open_runs(&self) -> Result<Vec<Stored>, StoreError> {
        reader::stored_where(
            &self.connection,
            "state NOT IN ('succeeded','failed','cancelled','refused')",
            params![],
        )
    }

    fn run(&self, id: &RunId) -> Result<Option<Stored>, StoreError> {
        Ok(reader::stored_where(&self.connection, "id = ?1", params![id.as_str()])?.pop())
    }

    fn run_by_token(&self, tenant: &str, token: &str) -> Result<Option<Stored>, StoreError> {
        let condition = "tenant = ?1 AND token = ?2";
        Ok(reader::stored_where(&self.connection, condition, params![tenant, token])?.pop())
    }

    fn queued_entries(&self) -> Result<Vec<Entries>, StoreError> {
        let mut query = self
            .connection
            .prepare("SELECT idx, bytes, lengths FROM ledger_queue ORDER BY idx")
            .map_err(failed("read the ledger's queue"))?;
        let rows = query.query_map([], |row| {
            Ok(Entries {
                first: row.get(0)?,
                bytes: rows::entries_of(row.get(1)?, row.get(2)?),
            })
        });
        rows.and_then(Iterator::collect)
            .map_err(failed("read the ledger's queue"))
    }

    fn trim(&mut self, size: u64) -> Result<(), StoreError> {
        rows::drop_integrated(&self.connection, size)
    }
}
