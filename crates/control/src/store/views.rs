//! The tables that are queried: what follows from the journal, applied behind it.
//!
//! They may lag. Whoever asks them first has them brought up to where the journal was then; since
//! they are a function of the journal, and say themselves how far they have come, anybody may do
//! that, and doing it twice changes nothing. Batches that are applied together are coalesced: a run
//! that came and went within them is written once.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, config::DbConfig, params};

use super::{FILE, OpenError, StoreError, failed, format, journal::Tail, looking, rows::Rows};
use crate::journal::record::{self, Record};

#[cfg(test)]
mod tests;

/// What comes within this time is applied together: runs that come and go within it are written once,
/// and whoever asks does not wait for it.
const INTERVAL: Duration = Duration::from_millis(250);
/// Batches that wait to be applied at most; the writer waits for a place.
const WAITING: usize = 256;
/// Bytes of records that are applied at once at most.
const ENOUGH: usize = 32 << 20;
/// Bytes of records whose rows are left in the log of the tables' file at most.
const UNSETTLED: usize = 16 << 20;

/// Others write the tables for a moment each.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tables, to be brought up to date and asked.
#[derive(Debug)]
pub(super) struct Views {
    connection: Connection,
}

impl Views {
    /// Opens the tables of a state folder, which are there.
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = |source| OpenError::Database {
            path: path.clone(),
            source,
        };
        let connection = Connection::open_with_flags(&path, flags).map_err(database)?;
        // What is lost with the machine is applied again: the journal is trimmed only after it.
        connection
            .execute_batch(
                "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;
                 PRAGMA wal_autocheckpoint = 0;",
            )
            .map_err(database)?;
        // Otherwise a query is planned anew for every value that it is asked with.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(database)?;
        connection.busy_timeout(PATIENCE).map_err(database)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection })
    }

    /// Opens the tables of a state folder that cannot be written. Where they lag behind the journal,
    /// as those of a process that was killed do, a copy of them in memory is brought up to date.
    pub(super) fn look(folder: &Path, journal: Option<&Tail>) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let database = |source| OpenError::Database {
            path: path.clone(),
            source,
        };
        let unreadable = |source| OpenError::Unreadable {
            path: folder.to_owned(),
            source: Box::new(source),
        };
        let connection = looking::open(&path).map_err(database)?;
        format::check(&connection, &path)?;
        let lag = match journal {
            Some(journal) => {
                applied(&connection).map_err(unreadable)? < journal.last().map_err(unreadable)?
            }
            None => false,
        };
        let connection = match lag {
            true => looking::in_memory(&connection).map_err(database)?,
            false => connection,
        };
        Ok(Self { connection })
    }

    /// Brings the tables up to the journal's end, and says where that is.
    pub(super) fn catch_up(&self, journal: &Tail) -> Result<u64, StoreError> {
        let (seen, end) = (applied(&self.connection)?, journal.last()?);
        match seen.cmp(&end) {
            // What came after they were opened where they cannot be written is not seen.
            std::cmp::Ordering::Less if self.cannot_be_written()? => Ok(seen),
            std::cmp::Ordering::Less => self.apply(&[], journal),
            std::cmp::Ordering::Equal => Ok(seen),
            // Tables may be brought up to date between the two looks, so the journal is asked again.
            std::cmp::Ordering::Greater => match journal.last()? {
                now if now >= seen => Ok(seen),
                now => Err(StoreError::Behind {
                    journal: now,
                    tables: seen,
                }),
            },
        }
    }

    fn cannot_be_written(&self) -> Result<bool, StoreError> {
        self.connection
            .is_readonly(rusqlite::MAIN_DB)
            .map_err(failed("look at the tables"))
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Applies records that follow each other. Where the tables lack some before them, those are
    /// read from the journal.
    fn apply(&self, records: &[Vec<u8>], journal: &Tail) -> Result<u64, StoreError> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
                .map_err(failed("begin a transaction"))?;
        let seen = applied(&transaction)?;
        let mut read = Vec::new();
        let known = decode(records, seen)?;
        let fits = known
            .first()
            .is_some_and(|first| first.position.seq == seen + 1);
        let new = if fits {
            known
        } else {
            read.extend(journal.after(seen)?);
            decode(&read, seen)?
        };
        let Some(last) = new.last() else {
            return Ok(seen);
        };
        let last = last.position.seq;
        Rows::of(&transaction)?.write(&new)?;
        transaction
            .prepare_cached("UPDATE shard SET seq = ?1")
            .and_then(|mut update| update.execute(params![last]))
            .map_err(failed("note what was applied"))?;
        transaction.commit().map_err(failed("commit"))?;
        Ok(last)
    }

    /// Moves what was applied from the file's log into the file, durably. False while somebody reads
    /// what is older.
    fn settle(&self) -> Result<bool, StoreError> {
        let (log, moved): (i64, i64) = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get(1)?, row.get(2)?))
            })
            .map_err(failed("move the log of the tables into their file"))?;
        Ok(log == moved)
    }
}

/// The records after `seen`.
fn decode(records: &[Vec<u8>], seen: u64) -> Result<Vec<Record<'_>>, StoreError> {
    let decoded = records.iter().map(|bytes| record::decode(bytes));
    let mut records: Vec<Record<'_>> = decoded.collect::<Result<_, _>>()?;
    records.retain(|record| record.position.seq > seen);
    Ok(records)
}

/// The batch up to which the tables have come.
pub(super) fn applied(connection: &Connection) -> Result<u64, StoreError> {
    connection
        .prepare_cached("SELECT seq FROM shard")
        .and_then(|mut query| query.query_row([], |row| row.get(0)))
        .map_err(failed("read what was applied"))
}

/// How far the tables have come.
#[derive(Debug, Default)]
struct Progress {
    /// The batch that they show.
    seen: AtomicU64,
    /// The batch that they show also after the machine has failed.
    durable: AtomicU64,
}

/// The thread that applies what became durable.
#[derive(Debug)]
pub(super) struct Follower {
    records: Option<SyncSender<Vec<u8>>>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts it on tables that are up to date with the journal, as far as `seen`.
    pub(super) fn spawn(views: Views, journal: Tail, seen: u64) -> std::io::Result<Self> {
        let (sender, records) = sync_channel(WAITING);
        let progress = Arc::new(Progress::default());
        progress.seen.store(seen, Ordering::Release);
        let following = Following {
            views,
            journal,
            progress: Arc::clone(&progress),
        };
        let thread = thread::Builder::new()
            .name("control-views".to_owned())
            .spawn(move || following.follow(&records))?;
        Ok(Self {
            records: Some(sender),
            progress,
            thread: Some(thread),
        })
    }

    /// Has a record applied, in time.
    pub(super) fn follow(&self, record: Vec<u8>) {
        if let Some(records) = &self.records {
            // It receives as long as this is here; were it gone, readers would do its work.
            let _ = records.send(record);
        }
    }

    pub(super) fn seen(&self) -> u64 {
        self.progress.seen.load(Ordering::Acquire)
    }

    pub(super) fn durable(&self) -> u64 {
        self.progress.durable.load(Ordering::Acquire)
    }

    /// Waits until everything is applied, durably.
    pub(super) fn end(&mut self) {
        self.records = None;
        if let Some(thread) = self.thread.take() {
            // Its own panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.end();
    }
}

struct Following {
    views: Views,
    journal: Tail,
    progress: Arc<Progress>,
}

impl Following {
    fn follow(&self, records: &Receiver<Vec<u8>>) {
        let mut unsettled = 0;
        while let Ok(first) = records.recv() {
            let until = Instant::now() + INTERVAL;
            let mut bytes = first.len();
            let mut batch = vec![first];
            // Whoever ends this does not wait for more.
            while bytes < ENOUGH
                && let Ok(next) =
                    records.recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                bytes += next.len();
                batch.push(next);
            }
            self.apply(&batch);
            unsettled += bytes;
            if unsettled >= UNSETTLED {
                self.settle();
                unsettled = 0;
            }
        }
        self.settle();
    }

    /// What fails here is in the journal, and applied with what comes next or by whoever reads.
    fn apply(&self, batch: &[Vec<u8>]) {
        match self.views.apply(batch, &self.journal) {
            Ok(seen) => self.progress.seen.store(seen, Ordering::Release),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "what is durable cannot be made visible; it is tried again"
            ),
        }
    }

    fn settle(&self) {
        let seen = self.progress.seen.load(Ordering::Acquire);
        match self.views.settle() {
            Ok(true) => self.progress.durable.store(seen, Ordering::Release),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what was made visible is not durable yet; the journal keeps it"
            ),
        }
    }
}
