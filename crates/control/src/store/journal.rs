//! The journal of a state folder: a file of its own, so that nothing that is written beside it is
//! waited for.
//!
//! One row is one batch, under its place; it is written once, sealed and never changed. Its record is
//! packed: what runs of one pipeline say of themselves is mostly the same. The rows that the
//! tables of the store and the ledger have taken over durably are removed, but for the newest, which
//! says where the journal stands.

use std::path::Path;

use rusqlite::{Connection, Params, Transaction, TransactionBehavior, params};

use super::{
    OpenError, StoreError, failed, looking,
    seal::{Sealed, Sealing},
};
use crate::journal::{Position, record::Unreadable};

/// The journal's file inside a state folder.
pub(super) const FILE: &str = "journal.sqlite";

/// 2: records are packed; those of 1 are read still. 3: batches are sealed.
const FORMAT: u32 = 3;
/// What a packed record begins with, which no layout of a record does.
const PACKED: u8 = 0;
/// Bytes that a packed one can hold for each of its own at most.
const RATIO: usize = 255;

const TABLES: &str = "
    -- Raised by whoever takes the shard over: batches of whoever had it before collide from then on.
    CREATE TABLE owner (
        id    INTEGER PRIMARY KEY CHECK (id = 0),
        epoch INTEGER NOT NULL
    );
    -- A batch: what it adds to the ledger, and its record.
    CREATE TABLE journal (
        seq         INTEGER PRIMARY KEY,
        epoch       INTEGER NOT NULL,
        first_entry INTEGER NOT NULL,
        entries     INTEGER NOT NULL,
        record      BLOB NOT NULL,
        seal        BLOB
    );
";

/// Where a journal begins.
pub(super) struct Beginning {
    pub(super) position: Position,
    pub(super) first_entry: u64,
    pub(super) entries: u64,
    pub(super) record: Vec<u8>,
}

/// The place of a batch in the journal, and of what it adds in the ledger.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) seq: u64,
    /// The index after its last entry.
    pub(super) entries_end: u64,
}

/// The writing side.
#[derive(Debug)]
pub(super) struct Journal {
    connection: Connection,
    sealing: Sealing,
}

/// The reading side.
#[derive(Debug)]
pub(super) struct Tail {
    connection: Connection,
}

impl Journal {
    /// Opens a state folder's journal, and takes it over; begins one where there is none.
    ///
    /// # Errors
    /// Nothing is changed of one with a batch that somebody else put there.
    pub(super) fn open(
        folder: &Path,
        sealing: Sealing,
        begin: impl FnOnce() -> Result<Beginning, StoreError>,
    ) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let database = |source| OpenError::Database {
            path: path.clone(),
            source,
        };
        let mut connection = Connection::open(&path).map_err(database)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 4000;",
            )
            .map_err(database)?;
        connection.set_prepared_statement_cache_capacity(16);
        let found = format_of(&connection).map_err(database)?;
        if found > FORMAT {
            return Err(OpenError::Newer {
                found,
                known: FORMAT,
            });
        }
        let unreadable = |source| OpenError::Unreadable {
            path: folder.to_owned(),
            source: Box::new(source),
        };
        match found {
            0 => {
                let beginning = begin().map_err(unreadable)?;
                let end = beginning.first_entry + beginning.entries;
                all_signed(beginning.entries, end, &sealing).map_err(unreadable)?;
                make(&mut connection, &beginning, &sealing).map_err(database)?;
            }
            FORMAT => check(&connection, &sealing).map_err(unreadable)?,
            _ => seal_older(&mut connection, &sealing).map_err(unreadable)?,
        }
        connection
            .execute("UPDATE owner SET epoch = epoch + 1", [])
            .map_err(database)?;
        Ok(Self {
            connection,
            sealing,
        })
    }

    /// Writes a batch's record, at its position and with what it adds to the ledger, in a transaction
    /// that is not committed yet; `None` if somebody else owns the shard, or that batch is written.
    pub(super) fn write(
        &mut self,
        (position, first_entry, entries): (Position, u64, u64),
        record: &[u8],
    ) -> Result<Option<Transaction<'_>>, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("begin a transaction"))?;
        let record = pack(record);
        let Position { seq, epoch } = position;
        let seal = self.sealing.seal(Sealed {
            seq,
            epoch,
            first_entry,
            entries,
            record: &record,
        });
        let row = params![seq, epoch, first_entry, entries, record, seal];
        let written = transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO journal (seq, epoch, first_entry, entries, record, seal)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 FROM owner
                 WHERE epoch = ?2 AND (SELECT max(seq) FROM journal) = ?1 - 1",
            )
            .and_then(|mut insert| insert.execute(row))
            .map_err(failed("append to the journal"))?;
        Ok((written == 1).then_some(transaction))
    }

    /// Who owns the shard, and how many batches there are.
    pub(super) fn position(&self) -> Result<Position, StoreError> {
        self.connection
            .prepare_cached("SELECT epoch, (SELECT max(seq) FROM journal) FROM owner")
            .and_then(|mut query| {
                query.query_row([], |row| {
                    Ok(Position {
                        epoch: row.get(0)?,
                        seq: row.get(1)?,
                    })
                })
            })
            .map_err(failed("read the journal's position"))
    }

    /// The index that the next ledger entry gets.
    pub(super) fn next_entry(&self) -> Result<u64, StoreError> {
        self.connection
            .query_row(
                "SELECT first_entry + entries FROM journal ORDER BY seq DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .map_err(failed("read the ledger's length"))
    }

    /// The places of all batches that it holds, in order.
    pub(super) fn places(&self) -> Result<Vec<Place>, StoreError> {
        let mut query = self
            .connection
            .prepare("SELECT seq, first_entry + entries FROM journal ORDER BY seq")
            .map_err(failed("read the journal"))?;
        let places = query.query_map([], |row| {
            Ok(Place {
                seq: row.get(0)?,
                entries_end: row.get(1)?,
            })
        });
        places
            .and_then(Iterator::collect)
            .map_err(failed("read the journal"))
    }

    /// The records that add to the ledger, in order.
    pub(super) fn with_entries(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        records(&self.connection, "entries > 0", params![])
    }

    /// Removes the batches up to `seq`, which is not the newest.
    pub(super) fn trim(connection: &Connection, seq: u64) -> Result<(), StoreError> {
        connection
            .prepare_cached("DELETE FROM journal WHERE seq <= ?1")
            .and_then(|mut delete| delete.execute(params![seq]))
            .map_err(failed("trim the journal"))?;
        Ok(())
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Tail {
    /// Opens an existing journal for reading; `None` where there is none.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, OpenError> {
        let path = folder.join(FILE);
        let exists = path.try_exists().map_err(|source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        if !exists {
            return Ok(None);
        }
        let database = |source| OpenError::Database {
            path: path.clone(),
            source,
        };
        let connection = looking::open(&path).map_err(database)?;
        match format_of(&connection).map_err(database)? {
            // It is being made, and holds nothing yet.
            0 => Ok(None),
            1..=FORMAT => Ok(Some(Self { connection })),
            found => Err(OpenError::Newer {
                found,
                known: FORMAT,
            }),
        }
    }

    /// The newest batch's number.
    pub(super) fn last(&self) -> Result<u64, StoreError> {
        let last: Option<u64> = self
            .connection
            .prepare_cached("SELECT max(seq) FROM journal")
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .map_err(failed("read the journal"))?;
        Ok(last.unwrap_or(0))
    }

    /// The records after batch `seq`, in order.
    pub(super) fn after(&self, seq: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        records(&self.connection, "seq > ?1", params![seq])
    }
}

fn records(
    connection: &Connection,
    condition: &str,
    parameters: impl Params,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let read = failed("read the journal");
    let sql = format!("SELECT record FROM journal WHERE {condition} ORDER BY seq");
    let packed: Vec<Vec<u8>> = connection
        .prepare_cached(&sql)
        .and_then(|mut query| {
            let rows = query.query_map(parameters, |row| row.get(0))?;
            rows.collect()
        })
        .map_err(read)?;
    Ok(packed.into_iter().map(unpack).collect::<Result<_, _>>()?)
}

/// A record as it is kept: a mark, its length, and a block of LZ4.
fn pack(record: &[u8]) -> Vec<u8> {
    let mut packed = vec![PACKED];
    packed.extend_from_slice(&(record.len() as u64).to_le_bytes());
    packed.extend_from_slice(&lz4_flex::block::compress(record));
    packed
}

fn unpack(kept: Vec<u8>) -> Result<Vec<u8>, Unreadable> {
    let Some((&PACKED, rest)) = kept.split_first() else {
        return Ok(kept);
    };
    let (length, block) = rest.split_first_chunk().ok_or(Unreadable::Short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > block.len().saturating_mul(RATIO) {
        return Err(Unreadable::Packed);
    }
    let record = lz4_flex::block::decompress(block, length);
    // A block that was cut may end well, and early.
    let whole = record.ok().filter(|record| record.len() == length);
    whole.ok_or(Unreadable::Packed)
}

/// Holds each batch against its seal.
fn check(connection: &Connection, sealing: &Sealing) -> Result<(), StoreError> {
    let read = || failed("check the journal");
    let mut query = connection
        .prepare("SELECT seq, epoch, first_entry, entries, record, seal FROM journal ORDER BY seq")
        .map_err(read())?;
    let mut rows = query.query([]).map_err(read())?;
    while let Some(row) = rows.next().map_err(read())? {
        let batch = sealed(row).map_err(read())?;
        let seal = row.get_ref(5).map_err(read())?;
        let seal = seal.as_blob_or_null().ok().flatten().unwrap_or_default();
        if !sealing.holds(batch, seal) {
            return Err(StoreError::Foreign { batch: batch.seq });
        }
    }
    Ok(())
}

/// A batch of a row that begins with its columns.
fn sealed<'r>(row: &'r rusqlite::Row<'_>) -> rusqlite::Result<Sealed<'r>> {
    Ok(Sealed {
        seq: row.get(0)?,
        epoch: row.get(1)?,
        first_entry: row.get(2)?,
        entries: row.get(3)?,
        record: row.get_ref(4)?.as_blob()?,
    })
}

/// Seals what an older program wrote, none of which is to be signed still: for that somebody would only
/// have to say that an older program wrote it.
fn seal_older(connection: &mut Connection, sealing: &Sealing) -> Result<(), StoreError> {
    let change = || failed("seal the journal");
    let transaction = connection.transaction().map_err(change())?;
    let (entries, end) = transaction
        .query_row(
            "SELECT coalesce(sum(entries), 0), coalesce(max(first_entry + entries), 0) FROM journal",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(change())?;
    all_signed(entries, end, sealing)?;
    transaction
        .execute_batch("ALTER TABLE journal ADD COLUMN seal BLOB")
        .map_err(change())?;
    seal_all(&transaction, sealing).map_err(change())?;
    transaction
        .pragma_update(None, "user_version", FORMAT)
        .and_then(|()| transaction.commit())
        .map_err(change())
}

/// Whether none of so many entries up to `end`, of which nobody can tell who wrote them, is still to
/// be signed.
fn all_signed(entries: u64, end: u64, sealing: &Sealing) -> Result<(), StoreError> {
    match end.saturating_sub(sealing.signed()).min(entries) {
        0 => Ok(()),
        entries => Err(StoreError::Unsigned { entries }),
    }
}

fn seal_all(connection: &Connection, sealing: &Sealing) -> rusqlite::Result<()> {
    let mut query =
        connection.prepare("SELECT seq, epoch, first_entry, entries, record FROM journal")?;
    let mut rows = query.query([])?;
    let mut seals: Vec<(u64, [u8; 32])> = Vec::new();
    while let Some(row) = rows.next()? {
        let batch = sealed(row)?;
        seals.push((batch.seq, sealing.seal(batch)));
    }
    let mut update = connection.prepare("UPDATE journal SET seal = ?2 WHERE seq = ?1")?;
    for (seq, seal) in seals {
        update.execute(params![seq, seal])?;
    }
    Ok(())
}

fn make(
    connection: &mut Connection,
    beginning: &Beginning,
    sealing: &Sealing,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    let Beginning {
        position,
        first_entry,
        entries,
        record,
    } = beginning;
    transaction.execute(
        "INSERT INTO owner (id, epoch) VALUES (0, ?1)",
        params![position.epoch],
    )?;
    transaction.execute(
        "INSERT INTO journal (seq, epoch, first_entry, entries, record) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![position.seq, position.epoch, first_entry, entries, pack(record)],
    )?;
    seal_all(&transaction, sealing)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

fn format_of(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_small_and_comes_out_as_it_went_in() -> Result<(), Unreadable> {
        let record = b"a run says what the run before it said; ".repeat(1_000);
        let packed = pack(&record);
        assert!(packed.len() * 20 < record.len(), "{} bytes", packed.len());
        assert_eq!(unpack(packed)?, record);
        assert!(unpack(pack(&[]))?.is_empty());
        Ok(())
    }

    #[test]
    fn what_was_cut_or_changed_is_an_error_and_takes_no_memory() {
        let packed = pack(&b"0123456789".repeat(100));
        for length in 1..packed.len() {
            assert!(unpack(packed[..length].to_vec()).is_err(), "{length} bytes");
        }
        let mut claims = packed.clone();
        claims[1..9].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(unpack(claims), Err(Unreadable::Packed)));
        let mut longer = packed;
        longer[1] += 1;
        assert!(unpack(longer).is_err());
    }
}
