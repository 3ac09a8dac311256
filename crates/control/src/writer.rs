//! The one writer: has the shard step, makes its batches durable, and only then tells anybody.
//!
//! Commands that wait while a batch is being synchronised go into the next one together, so the
//! cost of durability is shared. A batch that failed voids memory, which is read again. Where a
//! batch failed and nobody knows whether it persisted, the storage is asked: what it holds is true,
//! and is announced like any other.

use std::{sync::Arc, thread::JoinHandle};

use barecount_model::id::RunId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    entries::Entries,
    handle::{CommandError, Update},
    identity::Issuer,
    journal::{Appended, Batch, Position, Storage, Stored},
    shard::{Command, Missing, Shard, Stepped},
    store::StoreError,
};

/// Commands in one batch at most.
const BATCH: usize = 1024;

pub(crate) type Answer = Result<Option<Update>, CommandError>;
pub(crate) type Reply = oneshot::Sender<Answer>;

/// What reaches the writer.
pub(crate) enum Message {
    /// Something to be done, and who waits for it.
    Do(Command, Reply),
    /// Nothing more is taken from here on; what was sent before is carried out.
    Close,
}

/// Where the writer tells what became durable.
pub(crate) struct Listeners {
    pub(crate) updates: mpsc::UnboundedSender<Update>,
    pub(crate) entries: mpsc::UnboundedSender<Entries>,
}

pub(crate) struct Writer {
    storage: Box<dyn Storage>,
    clock: Arc<dyn Clock>,
    issuer: Arc<Issuer>,
    shard: Shard,
    /// A batch of which nobody knows whether it persisted.
    doubt: Option<Batch>,
    /// Memory is not what the storage says, which could not be read.
    stale: bool,
    /// Somebody else owns the shard.
    fenced: bool,
    listeners: Listeners,
    length: watch::Sender<u64>,
}

/// What a batch has come to.
enum Fate {
    Durable,
    Void(CommandError),
}

/// Starts the writer's thread; it ends when it is told to, when every handle is gone, or when it no
/// longer owns the shard.
pub(crate) fn spawn(
    mut writer: Writer,
    mut queue: mpsc::Receiver<Message>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("control-writer".to_owned())
        .spawn(move || {
            let mut messages = Vec::with_capacity(BATCH);
            while queue.blocking_recv_many(&mut messages, BATCH) > 0 {
                let mut batch = Vec::with_capacity(messages.len());
                for message in messages.drain(..) {
                    match message {
                        Message::Do(command, reply) => batch.push((command, reply)),
                        // What is in the queue is still received.
                        Message::Close => queue.close(),
                    }
                }
                writer.commit(batch);
                if writer.fenced {
                    queue.close();
                }
            }
            writer.end();
        })
}

impl Writer {
    pub(crate) fn new(
        storage: Box<dyn Storage>,
        clock: Arc<dyn Clock>,
        issuer: Arc<Issuer>,
        listeners: Listeners,
        entropy: u64,
    ) -> Result<(Self, watch::Receiver<u64>), StoreError> {
        let shard = load(&*storage, entropy)?;
        let (length, watcher) = watch::channel(shard.next_entry());
        let writer = Self {
            storage,
            clock,
            issuer,
            shard,
            doubt: None,
            stale: false,
            fenced: false,
            listeners,
            length,
        };
        for queued in writer.storage.queued_entries()? {
            // Nobody receives only while the program ends; the entries stay queued on disk.
            let _ = writer.listeners.entries.send(queued);
        }
        for active in writer.shard.active() {
            writer.issuer.know(active);
            let update = active.update(&writer.shard);
            let _ = writer.listeners.updates.send(update);
        }
        Ok((writer, watcher))
    }

    pub(crate) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Whether memory may not be what is durable, or is nobody's business any more.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubt.is_some() || self.stale || self.fenced
    }

    /// Applies commands, makes what they change durable, and only then answers.
    pub(crate) fn commit(&mut self, commands: Vec<(Command, Reply)>) {
        if let Err(error) = self.settle_doubt() {
            for (_, reply) in commands {
                let _ = reply.send(Err(error.clone()));
            }
            return;
        }
        let (commands, replies) = self.recall(commands);
        let now = self.clock.now();
        let Stepped { batch, answers } = self.shard.step(commands, now);
        let fate = if batch.is_empty() {
            Fate::Durable
        } else {
            self.append(batch)
        };
        match fate {
            Fate::Durable => {
                for (answer, reply) in answers.into_iter().zip(replies) {
                    let answer = answer.map(|id| id.and_then(|id| self.update(&id)));
                    // The caller may have stopped waiting; the change stands all the same.
                    let _ = reply.send(answer);
                }
                self.shard.settle();
            }
            Fate::Void(error) => {
                for (answer, reply) in answers.into_iter().zip(replies) {
                    let _ = reply.send(answer.and_then(|_| Err(error.clone())));
                }
            }
        }
    }

    /// Has what commands are about in memory. A command that is about something that cannot be read
    /// is answered here.
    fn recall(&mut self, commands: Vec<(Command, Reply)>) -> (Vec<Command>, Vec<Reply>) {
        let mut ready = (
            Vec::with_capacity(commands.len()),
            Vec::with_capacity(commands.len()),
        );
        for (command, reply) in commands {
            let found = match self.shard.missing(&command) {
                None => Ok(None),
                Some(Missing::Run(id)) => self.storage.run(id),
                Some(Missing::Token { tenant, token }) => self.storage.run_by_token(tenant, token),
            };
            match found {
                Ok(stored) => {
                    if let Some(stored) = stored {
                        self.shard.recall(stored);
                    }
                    ready.0.push(command);
                    ready.1.push(reply);
                }
                Err(error) => {
                    let _ = reply.send(Err(CommandError::Store(Arc::new(error))));
                }
            }
        }
        ready
    }

    /// Makes a batch durable, and tells of it.
    fn append(&mut self, batch: Batch) -> Fate {
        // If the process dies before this, none of the batch has happened and no caller was told
        // that it had; after it, all of it has, and recovery derives what is left to do.
        match self.storage.append(&batch) {
            Appended::Done => {
                self.announce(batch);
                Fate::Durable
            }
            Appended::Fenced => self.stop_owning(),
            Appended::Failed(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a batch was not written"
                );
                self.reload();
                Fate::Void(CommandError::Store(Arc::new(error)))
            }
            Appended::Unknown(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a batch may or may not have been written"
                );
                self.resolve(batch, Arc::new(error))
            }
        }
    }

    /// Finds out whether a batch persisted.
    fn resolve(&mut self, batch: Batch, cause: Arc<StoreError>) -> Fate {
        match self.storage.position() {
            Ok(found) if found.epoch != batch.position.epoch => self.stop_owning(),
            Ok(found) if found == batch.position => {
                self.announce(batch);
                Fate::Durable
            }
            Ok(_) => {
                self.reload();
                Fate::Void(CommandError::Store(cause))
            }
            Err(_) => {
                self.doubt = Some(batch);
                Fate::Void(CommandError::Unknown(cause))
            }
        }
    }

    /// What was in doubt is found out before anything else is done.
    fn settle_doubt(&mut self) -> Result<(), CommandError> {
        if let Some(batch) = self.doubt.take() {
            match self.storage.position() {
                Ok(found) if found.epoch != batch.position.epoch => {
                    self.stop_owning();
                }
                Ok(found) if found == batch.position => {
                    self.announce(batch);
                    self.shard.settle();
                }
                Ok(_) => self.reload(),
                Err(error) => {
                    self.doubt = Some(batch);
                    return Err(CommandError::Store(Arc::new(error)));
                }
            }
        }
        if self.fenced {
            return Err(CommandError::NotOwner);
        }
        if self.stale {
            self.load()
                .map_err(|error| CommandError::Store(Arc::new(error)))?;
        }
        Ok(())
    }

    fn stop_owning(&mut self) -> Fate {
        tracing::error!("another process owns this state; this one stops");
        self.fenced = true;
        Fate::Void(CommandError::NotOwner)
    }

    /// Tells of what is durable: entries, updates, the ledger's length.
    fn announce(&mut self, batch: Batch) {
        let length = self.shard.next_entry();
        if !batch.entries.is_empty() {
            let bytes = batch.entries.into_iter().map(|entry| entry.bytes).collect();
            let first = batch.first_entry;
            let _ = self.listeners.entries.send(Entries { first, bytes });
            self.length.send_replace(length);
        }
        for id in batch.runs.keys() {
            if let Some(active) = self.shard.get(id) {
                // Before anybody hears of the run: an attempt may be launched by the first who does.
                self.issuer.know(active);
                let _ = self.listeners.updates.send(active.update(&self.shard));
            }
        }
    }

    fn update(&self, id: &RunId) -> Option<Update> {
        let active = self.shard.get(id)?;
        Some(active.update(&self.shard))
    }

    /// Makes memory what the storage says; where that cannot be read, before the next command.
    fn reload(&mut self) {
        self.stale = true;
        if let Err(error) = self.load() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the store cannot be read"
            );
        }
    }

    fn load(&mut self) -> Result<(), StoreError> {
        self.shard = load(&*self.storage, self.shard.entropy())?;
        self.stale = false;
        Ok(())
    }

    /// Forgets what the ledger has taken over since the last batch.
    fn end(mut self) {
        if let Err(error) = self.settle_doubt() {
            tracing::error!(%error, "the last batch is left to the next owner");
            return;
        }
        let Some(size) = self.shard.take_integrated() else {
            return;
        };
        if let Err(error) = self.storage.trim(size) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the ledger's queue was not trimmed"
            );
        }
    }
}

fn load(storage: &dyn Storage, entropy: u64) -> Result<Shard, StoreError> {
    let position: Position = storage.position()?;
    let open: Vec<Stored> = storage.open_runs()?;
    Ok(Shard::new(position, storage.next_entry()?, open, entropy))
}

/// Unpredictable enough for jitter: nothing else uses it.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}
