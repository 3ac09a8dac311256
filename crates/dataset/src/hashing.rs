//! Hashing rows beside writing them: a thread of its own for each output, because a row's hash takes
//! about as long as everything else that is done with it. Who writes them hashes too, while that
//! thread has enough to do: sums do not depend on who adds what.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use arrow::array::RecordBatch;

use crate::digest::{RowHasher, RowsHash};
use crate::groups::size;
use crate::schema::TableSchema;

/// Batches that wait to be hashed at most: what they hold is held that long,
const WAITING: usize = 4;
/// and so many bytes of them.
const WAITING_BYTES: usize = 16 << 20;

/// Rows of one file.
struct Rows {
    file: usize,
    batch: RecordBatch,
    /// Which rows of the batch; `None` is all of them.
    only: Option<Vec<u32>>,
    /// What they hold.
    bytes: usize,
}

/// Hashes the rows of files, each file's apart.
pub(crate) struct Hashing {
    /// Gone once there are no more.
    rows: Option<SyncSender<Rows>>,
    thread: Option<JoinHandle<Sums>>,
    /// What the batches hold that the thread has not done with.
    waiting: Arc<AtomicUsize>,
    own: Sums,
}

impl Hashing {
    /// Begins, for batches of `schema.to_arrow()`.
    pub(crate) fn begin(schema: &TableSchema) -> io::Result<Self> {
        Self::begin_after(schema, || ())
    }

    /// Begins; the thread hashes nothing before `wait` has returned.
    fn begin_after(schema: &TableSchema, wait: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (sender, rows) = sync_channel::<Rows>(WAITING);
        let mut sums = Sums::new(schema);
        let waiting = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&waiting);
        let thread = thread::Builder::new()
            .name("stage-hash".to_owned())
            .spawn(move || {
                wait();
                for rows in rows {
                    let bytes = rows.bytes;
                    sums.add(rows);
                    done.fetch_sub(bytes, Ordering::Relaxed);
                }
                sums
            })?;
        Ok(Self {
            rows: Some(sender),
            thread: Some(thread),
            waiting,
            own: Sums::new(schema),
        })
    }

    /// Has rows of a file hashed; hashes them where many wait already.
    pub(crate) fn add(&mut self, file: usize, batch: &RecordBatch, only: Option<&[u32]>) {
        // Rows of several files share a batch.
        let bytes = match only {
            Some(only) => size(batch) / batch.num_rows().max(1) * only.len(),
            None => size(batch),
        };
        let rows = Rows {
            file,
            batch: batch.clone(),
            only: only.map(<[u32]>::to_vec),
            bytes,
        };
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let sent = match &self.rows {
            Some(sender) if waiting + bytes <= WAITING_BYTES => sender.try_send(rows),
            _ => Err(TrySendError::Full(rows)),
        };
        if let Err(TrySendError::Full(rows)) = sent {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.own.add(rows);
        }
        // The thread receives until there are no more, or has panicked, which is told at the end.
    }

    /// The sums of all files, by their numbers; those without a row may be missing at the end.
    pub(crate) fn end(mut self) -> Vec<RowsHash> {
        self.rows = None;
        let mut sums = std::mem::take(&mut self.own.of_files);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(others)) => {
                for (file, other) in others.of_files.iter().enumerate() {
                    of(&mut sums, file).add(other);
                }
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => {}
        }
        sums
    }
}

impl Drop for Hashing {
    /// Nobody wants the sums of an output that failed, but its thread ends with it.
    fn drop(&mut self) {
        self.rows = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What one thread has hashed.
struct Sums {
    hasher: RowHasher,
    of_files: Vec<RowsHash>,
}

impl Sums {
    fn new(schema: &TableSchema) -> Self {
        Self {
            hasher: RowHasher::new(schema),
            of_files: Vec::new(),
        }
    }

    fn add(&mut self, rows: Rows) {
        let Rows {
            file, batch, only, ..
        } = rows;
        let sum = of(&mut self.of_files, file);
        match only {
            Some(only) => {
                let only = only.into_iter().map(|row| row as usize);
                self.hasher.add_rows(sum, &batch, only);
            }
            None => self.hasher.add_rows(sum, &batch, 0..batch.num_rows()),
        }
    }
}

/// The sum of a file.
fn of(sums: &mut Vec<RowsHash>, file: usize) -> &mut RowsHash {
    if sums.len() <= file {
        sums.resize(file + 1, RowsHash::default());
    }
    &mut sums[file]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;
    use crate::schema::{Column, ColumnType};

    /// The thread begins once it has more than may wait, so that both threads hash some.
    #[test]
    fn sums_do_not_depend_on_who_hashed_what() -> Result<(), Box<dyn std::error::Error>> {
        let columns = vec![Column::nullable("n", ColumnType::Int64)];
        let schema = TableSchema::new(columns, Vec::new())?;
        let (begins, wait) = sync_channel::<()>(0);
        let mut hashing = Hashing::begin_after(&schema, move || {
            // Dropped once all batches are there.
            let _ = wait.recv();
        })?;
        let mut alone = Sums::new(&schema);
        for number in 0..20 {
            let numbers = Int64Array::from_iter_values(number..number + 500);
            let batch = RecordBatch::try_new(schema.to_arrow(), vec![Arc::new(numbers)])?;
            let file = number as usize % 3;
            let only = (number % 2 == 0).then_some(vec![1, 4, 100]);
            hashing.add(file, &batch, only.as_deref());
            alone.add(Rows {
                file,
                batch,
                only,
                bytes: 0,
            });
        }
        assert!(!hashing.own.of_files.is_empty(), "they all waited");
        drop(begins);
        assert!(hashing.end() == alone.of_files);
        Ok(())
    }

    #[test]
    fn little_waits_however_much_there_is() -> Result<(), Box<dyn std::error::Error>> {
        let columns = vec![Column::nullable("text", ColumnType::String)];
        let schema = TableSchema::new(columns, Vec::new())?;
        let (begins, wait) = sync_channel::<()>(0);
        let mut hashing = Hashing::begin_after(&schema, move || {
            let _ = wait.recv();
        })?;
        // Two of them are more than may wait.
        let texts = StringArray::from(vec!["x".repeat(WAITING_BYTES / 4 + 1); 2]);
        let batch = RecordBatch::try_new(schema.to_arrow(), vec![Arc::new(texts)])?;
        for only in [vec![0], vec![1]] {
            hashing.add(0, &batch, None);
            hashing.add(0, &batch, Some(&only));
        }
        let waiting = hashing.waiting.load(Ordering::Relaxed);
        assert!(waiting <= WAITING_BYTES, "{waiting} bytes wait");
        drop(begins);
        let mut alone = Sums::new(&schema);
        for only in [None, Some(vec![0, 1]), None] {
            alone.add(Rows {
                file: 0,
                batch: batch.clone(),
                only,
                bytes: 0,
            });
        }
        assert!(hashing.end() == alone.of_files);
        Ok(())
    }
}
