//! Hashing rows beside writing them: a thread of its own for each output, because a row's hash takes
//! about as long as everything else that is done with it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use arrow::array::RecordBatch;

use crate::digest::{RowHasher, RowsHash};
use crate::schema::TableSchema;

/// Batches that wait to be hashed at most: what they hold is held that long.
const WAITING: usize = 4;

/// Rows of one file.
struct Rows {
    file: usize,
    batch: RecordBatch,
    /// Which rows of the batch; `None` is all of them.
    only: Option<Vec<u32>>,
}

/// Hashes the rows of files, each file's apart.
pub(crate) struct Hashing {
    /// Gone once there are no more.
    rows: Option<SyncSender<Rows>>,
    thread: Option<JoinHandle<Vec<RowsHash>>>,
}

impl Hashing {
    /// Begins, for batches of `schema.to_arrow()`.
    pub(crate) fn begin(schema: &TableSchema) -> io::Result<Self> {
        let (sender, rows) = sync_channel(WAITING);
        let hasher = RowHasher::new(schema);
        let thread = thread::Builder::new()
            .name("stage-hash".to_owned())
            .spawn(move || hash(hasher, &rows))?;
        Ok(Self {
            rows: Some(sender),
            thread: Some(thread),
        })
    }

    /// Has rows of a file hashed; waits where many wait already.
    pub(crate) fn add(&self, file: usize, batch: &RecordBatch, only: Option<&[u32]>) {
        let rows = Rows {
            file,
            batch: batch.clone(),
            only: only.map(<[u32]>::to_vec),
        };
        if let Some(sender) = &self.rows {
            // It receives until this is gone, or has panicked, which is told at the end.
            let _ = sender.send(rows);
        }
    }

    /// The sums of all files, by their numbers; those without a row may be missing at the end.
    pub(crate) fn end(mut self) -> Vec<RowsHash> {
        self.rows = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(sums)) => sums,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Vec::new(),
        }
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

fn hash(mut hasher: RowHasher, rows: &Receiver<Rows>) -> Vec<RowsHash> {
    let mut sums: Vec<RowsHash> = Vec::new();
    while let Ok(Rows { file, batch, only }) = rows.recv() {
        if sums.len() <= file {
            sums.resize(file + 1, RowsHash::default());
        }
        let sum = &mut sums[file];
        match only {
            Some(only) => {
                let only = only.into_iter().map(|row| row as usize);
                hasher.add_rows(sum, &batch, only);
            }
            None => hasher.add_rows(sum, &batch, 0..batch.num_rows()),
        }
    }
    sums
}
