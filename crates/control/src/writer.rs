//! The one writer: has the shard step, makes its batches durable, and only then tells anybody.
//!
//! Commands that wait while a batch is being synchronised go into the next one together, so the
//! cost of durability is shared. A batch that failed voids memory, which is read again. Where a
//! batch failed and nobody knows whether it persisted, the storage is asked: what it holds is true,
//! and is announced like any other.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use barecount_model::id::RunId;
use tokio::{
    runtime::{self, Runtime},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    clock::Clock,
    entries::Entries,
    error::CommandError,
    identity::Issuer,
    journal::{Appended, Batch, Position, Storage, Stored},
    seat::Seat,
    shard::{Command, Missing, Shard, Stepped},
    store::StoreError,
    told::Update,
};

/// Commands in one batch at most.
const BATCH: usize = 1024;
/// Between two questions whether a batch persisted, where nobody asks for anything.
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

pub(crate) type Answer = Result<Option<Update>, CommandError>;
/// Who waits for the answers to commands: as many, in their order.
pub(crate) type Reply = oneshot::Sender<Vec<Answer>>;

/// What reaches the writer.
pub(crate) enum Message {
    /// Things to be done, in one batch, and who waits for them.
    Do(Vec<Command>, Reply),
    /// A caller left something in doubt, which is to be found out though nobody asks for anything.
    Look,
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
    writer: Writer,
    queue: mpsc::Receiver<Message>,
) -> std::io::Result<(Arc<Seat>, JoinHandle<()>)> {
    let patience = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let seat = Arc::new(Seat::new(writer));
    let work = {
        let seat = Arc::clone(&seat);
        move || work(&seat, queue, &patience)
    };
    let thread = thread::Builder::new().name("control-writer".to_owned());
    Ok((seat, thread.spawn(work)?))
}

fn work(seat: &Seat, mut queue: mpsc::Receiver<Message>, patience: &Runtime) {
    let mut messages = Vec::with_capacity(BATCH);
    let mut in_doubt = false;
    while receive(&mut queue, &mut messages, in_doubt.then_some(patience)) {
        // Where a caller panicked with it, what it holds is not to be relied on any more.
        let Ok(mut held) = seat.held.lock() else {
            return;
        };
        // What was sent while a caller had the writer goes along.
        while messages.len() < BATCH
            && let Ok(message) = queue.try_recv()
        {
            messages.push(message);
        }
        let mut batch = Vec::with_capacity(messages.len());
        for message in messages.drain(..) {
            match message {
                Message::Do(commands, reply) => batch.push((commands, reply)),
                Message::Look => {}
                // What is in the queue is still received.
                Message::Close => queue.close(),
            }
        }
        let count = batch.len();
        let Some(writer) = &mut held.writer else {
            return;
        };
        writer.commit(batch);
        in_doubt = writer.is_in_doubt();
        if writer.is_fenced() {
            queue.close();
        }
        seat.answered(&mut held, count);
    }
    let writer = seat
        .held
        .lock()
        .ok()
        .and_then(|mut held| held.writer.take());
    if let Some(writer) = writer {
        writer.end();
    }
}

/// Waits for messages, with `patience` for so long only: whoever has to hear of what is in doubt may
/// have nothing to ask for before. False once none can come any more.
fn receive(
    queue: &mut mpsc::Receiver<Message>,
    messages: &mut Vec<Message>,
    patience: Option<&Runtime>,
) -> bool {
    match patience {
        None => queue.blocking_recv_many(messages, BATCH) > 0,
        Some(runtime) => {
            let received = async { timeout(DOUBT_PAUSE, queue.recv_many(messages, BATCH)).await };
            runtime.block_on(received).map_or(true, |count| count > 0)
        }
    }
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
        for active in writer.shard.open() {
            writer.issuer.know(active);
            let update = active.update(&writer.shard);
            let _ = writer.listeners.updates.send(update);
        }
        Ok((writer, watcher))
    }

    pub(crate) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Whether memory may not be what is durable.
    pub(crate) fn is_in_doubt(&self) -> bool {
        !self.fenced && (self.doubt.is_some() || self.stale)
    }

    /// Whether somebody else owns the shard: what is in memory is nobody's business any more.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Applies commands, makes what they change durable, and only then answers. What is in doubt is
    /// found out before, also where nothing is asked for.
    pub(crate) fn commit(&mut self, messages: Vec<(Vec<Command>, Reply)>) {
        let mut commands = Vec::with_capacity(messages.len());
        let mut waiting = Vec::with_capacity(messages.len());
        for (of_one, reply) in messages {
            waiting.push((of_one.len(), reply));
            commands.extend(of_one);
        }
        let mut answers = self.answers(commands).into_iter();
        for (count, reply) in waiting {
            // The caller may have stopped waiting; the change stands all the same.
            let _ = reply.send(answers.by_ref().take(count).collect());
        }
    }

    /// As [`Writer::commit`], for one who waits for the answers.
    pub(crate) fn answers(&mut self, commands: Vec<Command>) -> Vec<Answer> {
        if let Err(error) = self.settle_doubt() {
            return commands.iter().map(|_| Err(error.clone())).collect();
        }
        let (commands, unread) = self.recall(commands);
        let now = self.clock.now();
        let Stepped { batch, answers } = self.shard.step(commands, now);
        let fate = if batch.is_empty() {
            Fate::Durable
        } else {
            self.append(batch)
        };
        let mut answered = answers.into_iter().map(|answer| match &fate {
            Fate::Durable => answer.map(|id| id.and_then(|id| self.update(&id))),
            Fate::Void(error) => answer.and_then(|_| Err(error.clone())),
        });
        let answers = unread
            .into_iter()
            .map(|unread| match unread {
                Some(error) => Err(error),
                // There is an answer to each command that was carried out.
                None => answered.next().unwrap_or(Err(CommandError::Closed)),
            })
            .collect();
        if matches!(fate, Fate::Durable) {
            self.shard.settle(self.storage.seen());
        }
        answers
    }

    /// Has what commands are about in memory, and says of each why it cannot be: then it is not
    /// carried out.
    fn recall(&mut self, commands: Vec<Command>) -> (Vec<Command>, Vec<Option<CommandError>>) {
        let mut ready = Vec::with_capacity(commands.len());
        let mut unread = Vec::with_capacity(commands.len());
        for command in commands {
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
                    ready.push(command);
                    unread.push(None);
                }
                Err(error) => unread.push(Some(CommandError::Store(Arc::new(error)))),
            }
        }
        (ready, unread)
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
                    self.shard.settle(self.storage.seen());
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

    /// Ends in good order.
    fn end(mut self) {
        if let Err(error) = self.settle_doubt() {
            tracing::error!(%error, "the last batch is left to the next owner");
            return;
        }
        if let Err(error) = self.storage.end(self.shard.take_integrated()) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what can be asked is behind; whoever asks next brings it up to date"
            );
        }
    }
}

fn load(storage: &dyn Storage, entropy: u64) -> Result<Shard, StoreError> {
    let position: Position = storage.position()?;
    let open: Vec<Stored> = storage.open_runs()?;
    let approvals = storage.open_approvals()?;
    let next_entry = storage.next_entry()?;
    Ok(Shard::new(position, next_entry, open, approvals, entropy))
}

/// Unpredictable enough for jitter: nothing else uses it.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}
