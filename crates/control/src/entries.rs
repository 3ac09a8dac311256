//! Ledger entries on their way from the store to the log.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

/// Batches follow each other no faster. Making a batch's tiles and checkpoint durable takes several
/// synchronisations of the disk that runs wait for as well, and a run waits for a checkpoint only
/// at its end: so they are made of many entries, and often enough for the 100 ms within which an
/// entry is to be under one.
const INTERVAL: Duration = Duration::from_millis(25);
/// A batch that has this many entries is not added to.
const ENOUGH: usize = 8192;

/// Entries that became durable together: the first one's index, and their bytes.
#[derive(Debug, Clone)]
pub struct Entries {
    /// The first entry's index.
    pub first: u64,
    /// The entries.
    pub bytes: Vec<Vec<u8>>,
}

/// The entries that the log has not taken over yet, in order.
#[derive(Debug)]
pub struct EntryQueue {
    entries: mpsc::UnboundedReceiver<Entries>,
    taken: Option<Instant>,
}

impl EntryQueue {
    /// Reads what [`Control::open`](crate::Control::open) sends.
    pub fn new(entries: mpsc::UnboundedReceiver<Entries>) -> Self {
        Self {
            entries,
            taken: None,
        }
    }

    /// Waits for entries and takes all that are there; at once after a time without any, and
    /// otherwise some milliseconds after those before. `None` once nobody sends any more.
    ///
    /// Blocks: for a thread of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the passing of time that is waited for: what comes meanwhile is taken along"
    )]
    pub fn take(&mut self) -> Option<Entries> {
        let mut batch = self.entries.blocking_recv()?;
        if let Some(taken) = self.taken {
            thread::sleep(INTERVAL.saturating_sub(taken.elapsed()));
        }
        while batch.bytes.len() < ENOUGH {
            let Ok(next) = self.entries.try_recv() else {
                break;
            };
            batch.bytes.extend(next.bytes);
        }
        self.taken = Some(Instant::now());
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(first: u64, count: usize) -> Entries {
        Entries {
            first,
            bytes: vec![vec![7]; count],
        }
    }

    #[test]
    fn what_came_meanwhile_is_taken_together_and_nothing_is_left_out() -> Result<(), &'static str> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut queue = EntryQueue::new(receiver);
        for (first, count) in [(0, 3), (3, 2), (5, ENOUGH), (5 + ENOUGH as u64, 1)] {
            sender
                .send(entries(first, count))
                .map_err(|_| "the queue is gone")?;
        }
        drop(sender);
        let batch = queue.take().ok_or("there is a batch")?;
        assert_eq!((batch.first, batch.bytes.len()), (0, 5 + ENOUGH));
        let batch = queue.take().ok_or("there is another batch")?;
        assert_eq!((batch.first, batch.bytes.len()), (5 + ENOUGH as u64, 1));
        assert!(queue.take().is_none());
        Ok(())
    }
}
