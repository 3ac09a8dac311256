//! The embedded store: a journal and the tables that follow from it, each a SQLite file in
//! write-ahead mode.
//!
//! A batch is durable once its record is in the `journal`, with full synchronisation; the tables
//! are applied behind it (`views`). One process writes ([`Store`], guarded by a file lock); any
//! process may read ([`reader`]), and sees whatever was durable when it asked. The files' formats
//! are versioned: a newer one is refused, an older one is migrated in a transaction.

mod approvals;
mod format;
mod journal;
pub mod lock;
mod looking;
pub mod reader;
mod rows;
mod seal;
#[cfg(test)]
mod tests;
mod views;

use std::{
    collections::{HashSet, VecDeque},
    path::{Path, PathBuf},
};

use barecount_model::{approval::Approval, evidence::EvidenceKind, id::RunId};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use self::{
    journal::{Beginning, Journal, Place, Tail},
    lock::FolderLock,
    rows::LEAF_HASH_BYTES,
    views::{Follower, Views},
};
use crate::{
    entries::Entries,
    journal::{Appended, Batch, Entry, Position, Storage, Stored, record},
};
pub use rows::{DeadLetter, LedgerEntry, OutputVersion, StoredDeadLetter};
pub use seal::Sealing;

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
    /// A record of the journal does not hold what this program wrote.
    #[error("a record of the journal is damaged")]
    Record(#[from] record::Unreadable),
    /// A batch of the journal that this program did not write.
    #[error(
        "batch {batch} of the journal was not written by who holds the key of this folder's ledger"
    )]
    Foreign {
        /// Its number.
        batch: u64,
    },
    /// A journal from before batches were sealed, with entries that nobody can tell the writer of.
    #[error(
        "the journal was written by an older program, and {entries} of its entries are not signed yet"
    )]
    Unsigned {
        /// How many.
        entries: u64,
    },
    /// The journal is older than the tables that follow from it: one of the two was put back.
    #[error("the journal ends with batch {journal}, and the tables show batch {tables}")]
    Behind {
        /// The journal's last batch.
        journal: u64,
        /// The batch that the tables show.
        tables: u64,
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
    journal: Journal,
    tail: Tail,
    /// The tables, to be asked.
    views: Views,
    follower: Follower,
    /// Digests of plans that are durable, so that each is written once; some are forgotten in time.
    plans: HashSet<String>,
    /// The batches that are in the journal.
    places: VecDeque<Place>,
    /// The ledger's length under a durable checkpoint, as far as it is known.
    integrated: u64,
    _lock: FolderLock,
}

/// Plans known to be durable at most.
const PLANS: usize = 4096;

/// So many batches are removed from the journal together.
const TRIMMED: usize = 64;

impl Store {
    /// Opens the store of a state folder that is held for writing, and makes it if absent.
    ///
    /// # Errors
    /// See [`OpenError`]; the folder is given up then.
    pub fn open(lock: FolderLock, sealing: Sealing) -> Result<Self, OpenError> {
        let folder = lock.folder();
        let tables = tables(folder)?;
        let journal = Journal::open(folder, sealing, || beginning(&tables))?;
        let unreadable = |source| OpenError::Unreadable {
            path: folder.to_owned(),
            source: Box::new(source),
        };
        // The journal begins with it.
        tables
            .execute("DELETE FROM ledger_queue", [])
            .map_err(failed("empty the ledger's former queue"))
            .map_err(unreadable)?;
        drop(tables);
        let tail = || {
            let tail = Tail::open(folder)?;
            tail.ok_or_else(|| OpenError::Folder {
                path: folder.to_owned(),
                source: std::io::ErrorKind::NotFound.into(),
            })
        };
        let (tail, followed) = (tail()?, tail()?);
        let views = Views::open(folder)?;
        let seen = views.catch_up(&tail).map_err(unreadable)?;
        let follower = Follower::spawn(Views::open(folder)?, followed, seen).map_err(|source| {
            OpenError::Folder {
                path: folder.to_owned(),
                source,
            }
        })?;
        let places = journal.places().map_err(unreadable)?.into();
        Ok(Self {
            journal,
            tail,
            views,
            follower,
            plans: HashSet::new(),
            places,
            integrated: 0,
            _lock: lock,
        })
    }

    /// Writes a batch's record.
    fn write(&mut self, batch: &Batch) -> Result<Written, StoreError> {
        let record = record::encode(batch, |plan| self.plans.contains(plan))?;
        let removed = self.removable(TRIMMED);
        let entries = batch.entries.len() as u64;
        let place = (batch.position, batch.first_entry, entries);
        let Some(transaction) = self.journal.write(place, &record)? else {
            return Ok(Written::Fenced);
        };
        if let Some(seq) = removed {
            Journal::trim(&transaction, seq)?;
        }
        Ok(match transaction.commit() {
            Ok(()) => Written::Done(record, removed),
            Err(source) => Written::Unknown(failed("commit")(source)),
        })
    }

    /// The batch up to which the journal is not needed any more: both the tables and the ledger have
    /// it, whatever happens. The newest is, always. `None` if they are fewer than `least`.
    fn removable(&self, least: usize) -> Option<u64> {
        let durable = self.follower.durable();
        let all_but_newest = self.places.len().saturating_sub(1);
        let older = self.places.iter().take(all_but_newest);
        let over =
            older.take_while(|place| place.seq <= durable && place.entries_end <= self.integrated);
        let (count, last) = over.fold((0, None), |(count, _), place| (count + 1, Some(place.seq)));
        last.filter(|_| count >= least)
    }

    fn forget(&mut self, removed: Option<u64>) {
        if let Some(seq) = removed {
            self.places.retain(|place| place.seq > seq);
        }
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

/// What came of writing a record.
enum Written {
    /// It is durable; batches up to this one were removed before it.
    Done(Vec<u8>, Option<u64>),
    Unknown(StoreError),
    Fenced,
}

impl Storage for Store {
    fn append(&mut self, batch: &Batch) -> Appended {
        // If the process dies before the record's commit, nothing of the batch has happened; after
        // it, all of it has, and whoever opens or reads the store has the tables follow.
        match self.write(batch) {
            Ok(Written::Done(record, removed)) => {
                self.know_plans(batch);
                self.forget(removed);
                self.places.push_back(Place {
                    seq: batch.position.seq,
                    entries_end: batch.first_entry + batch.entries.len() as u64,
                });
                self.integrated = self.integrated.max(batch.integrated.unwrap_or(0));
                self.follower.follow(record);
                Appended::Done
            }
            Ok(Written::Unknown(error)) => Appended::Unknown(error),
            Ok(Written::Fenced) => Appended::Fenced,
            Err(error) => Appended::Failed(error),
        }
    }

    fn position(&self) -> Result<Position, StoreError> {
        self.journal.position()
    }

    fn next_entry(&self) -> Result<u64, StoreError> {
        self.journal.next_entry()
    }

    fn seen(&self) -> u64 {
        self.follower.seen()
    }

    fn open_runs(&self) -> Result<Vec<Stored>, StoreError> {
        self.views.catch_up(&self.tail)?;
        reader::stored_where(
            self.views.connection(),
            "state NOT IN ('succeeded','failed','cancelled','refused')",
            params![],
        )
    }

    fn run(&self, id: &RunId) -> Result<Option<Stored>, StoreError> {
        let connection = self.views.connection();
        Ok(reader::stored_where(connection, "id = ?1", params![&*id.printed()])?.pop())
    }

    fn run_by_token(&self, tenant: &str, token: &str) -> Result<Option<Stored>, StoreError> {
        let connection = self.views.connection();
        let condition = "tenant = ?1 AND token = ?2";
        Ok(reader::stored_where(connection, condition, params![tenant, token])?.pop())
    }

    fn open_approvals(&self) -> Result<Vec<Approval>, StoreError> {
        self.views.catch_up(&self.tail)?;
        let condition = "state IN ('requested','granted')";
        approvals::approvals_where(self.views.connection(), condition, params![])
    }

    fn queued_entries(&self) -> Result<Vec<Entries>, StoreError> {
        let records = self.journal.with_entries()?;
        let queued = records.iter().map(|bytes| {
            let record = record::decode(bytes)?;
            let bytes = record.entries.iter().map(|entry| entry.bytes.to_vec());
            Ok(Entries {
                first: record.first_entry,
                bytes: bytes.collect(),
            })
        });
        queued.collect()
    }

    fn end(&mut self, integrated: Option<u64>) -> Result<(), StoreError> {
        self.integrated = self.integrated.max(integrated.unwrap_or(0));
        self.follower.end();
        let removed = self.removable(1);
        if let Some(seq) = removed {
            Journal::trim(self.journal.connection(), seq)?;
        }
        self.forget(removed);
        Ok(())
    }
}

/// Brings the tables of a state folder that is held to the format that this program reads.
///
/// # Errors
/// See [`OpenError`].
pub fn bring_up_to_date(lock: &FolderLock) -> Result<(), OpenError> {
    tables(lock.folder()).map(drop)
}

/// Makes the tables of a state folder, or brings them up to date.
fn tables(folder: &Path) -> Result<Connection, OpenError> {
    let path = folder.join(FILE);
    let database = |source| OpenError::Database {
        path: path.clone(),
        source,
    };
    let mut connection = Connection::open(&path).map_err(database)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;",
        )
        .map_err(database)?;
    format::migrate(&mut connection, &path)?;
    Ok(connection)
}

/// Where the journal of tables begins that have none: at what they show, with the entries that an
/// older program left for the ledger.
fn beginning(tables: &Connection) -> Result<Beginning, StoreError> {
    let (epoch, seq, length) = tables
        .query_row(
            "SELECT epoch, seq, (SELECT coalesce(max(idx) + length(leaf_hash) / ?1, 0)
                                 FROM ledger_entries)
             FROM shard",
            params![LEAF_HASH_BYTES],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(failed("read where the journal begins"))?;
    let position = Position { epoch, seq };
    let mut query = tables
        .prepare("SELECT bytes, lengths FROM ledger_queue ORDER BY idx")
        .map_err(failed("read the ledger's former queue"))?;
    let queued: Vec<Vec<Vec<u8>>> = query
        .query_map([], |row| Ok(rows::entries_of(row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(failed("read the ledger's former queue"))?;
    let entry = |bytes| Entry {
        // The tables have what it is about; the ledger takes the bytes alone.
        kind: EvidenceKind::Run,
        run: None,
        bytes,
    };
    let entries: Vec<Entry> = queued.into_iter().flatten().map(entry).collect();
    let length: u64 = length;
    let batch = Batch {
        position,
        at: Timestamp::UNIX_EPOCH,
        runs: Default::default(),
        first_entry: length.saturating_sub(entries.len() as u64),
        entries,
        outputs: vec![],
        dead_letters: vec![],
        approvals: Default::default(),
        integrated: None,
    };
    Ok(Beginning {
        position,
        first_entry: batch.first_entry,
        entries: batch.entries.len() as u64,
        record: record::encode(&batch, |_| true)?,
    })
}
