//! Who makes a batch durable: the writer's thread, or, while nobody else wants anything, whoever
//! asks. Waking a thread and being woken by it takes longer than a batch of one command does.

use std::sync::{
    Arc, Mutex, TryLockError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{mpsc, oneshot},
    task::block_in_place,
};

use crate::{
    error::CommandError,
    shard::Command,
    writer::{Answer, Message, Writer},
};

/// The writer, for one at a time.
pub(crate) struct Seat {
    pub(crate) held: Mutex<Held>,
    /// How many wait for the writer's thread.
    waiting: AtomicUsize,
}

pub(crate) struct Held {
    /// None once it has ended.
    pub(crate) writer: Option<Writer>,
    /// Whether the thread's last batch was one caller's. Where callers are many, their commands are
    /// to become durable together.
    is_quiet: bool,
}

/// A way to the writer. Its thread ends with the last one.
#[derive(Clone)]
pub(crate) struct Commands {
    queue: mpsc::Sender<Message>,
    seat: Arc<Seat>,
}

impl Seat {
    pub(crate) fn new(writer: Writer) -> Self {
        let held = Held {
            writer: Some(writer),
            is_quiet: false,
        };
        Self {
            held: Mutex::new(held),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Returns once whoever asks is alone. Only a test waits for that.
    #[cfg(test)]
    pub(crate) async fn until_free(&self) {
        let is_free = || {
            let held = self.held.try_lock();
            held.is_ok_and(|held| held.is_quiet) && self.waiting.load(Ordering::Acquire) == 0
        };
        while !is_free() {
            tokio::task::yield_now().await;
        }
    }

    /// Notes that so many of those who waited for the thread were answered together.
    pub(crate) fn answered(&self, held: &mut Held, count: usize) {
        held.is_quiet = count <= 1;
        self.waiting.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Commands {
    pub(crate) fn new(queue: mpsc::Sender<Message>, seat: Arc<Seat>) -> Self {
        Self { queue, seat }
    }

    /// Has commands carried out in one batch.
    ///
    /// Cancel-safe in the sense that commands, once sent, take effect whether or not the answers are
    /// awaited.
    pub(crate) async fn all(&self, together: Vec<Command>) -> Result<Vec<Answer>, CommandError> {
        let together = match self.at_once(together) {
            Ok(answers) => return Ok(answers),
            Err(together) => together,
        };
        let place = self.queue.reserve().await;
        let place = place.map_err(|_| CommandError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.seat.waiting.fetch_add(1, Ordering::AcqRel);
        place.send(Message::Do(together, reply));
        answer.await.map_err(|_| CommandError::Closed)
    }

    /// Carries commands out on the caller's own thread; gives them back where they are the writer's
    /// thread's to carry out. Nobody who waits is overtaken.
    fn at_once(&self, together: Vec<Command>) -> Result<Vec<Answer>, Vec<Command>> {
        let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        // Other runtimes would stand still meanwhile.
        if !matches!(runtime, Ok(RuntimeFlavor::MultiThread)) {
            return Err(together);
        }
        let mut held = match self.seat.held.try_lock() {
            Ok(held) => held,
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return Err(together),
        };
        let is_free = held.is_quiet && self.seat.waiting.load(Ordering::Acquire) == 0;
        let sound = |writer: &&mut Writer| !writer.is_in_doubt() && !writer.is_fenced();
        let Some(writer) = held.writer.as_mut().filter(|_| is_free).filter(sound) else {
            return Err(together);
        };
        let answers = block_in_place(|| writer.answers(together));
        if writer.is_in_doubt() || writer.is_fenced() {
            drop(held);
            // It waits until it is told to look. If it has no place for that, it is looking.
            let _ = self.queue.try_send(Message::Look);
        }
        Ok(answers)
    }

    /// Has the writer's thread end once it has carried out what was sent before, and waits until it
    /// takes nothing more.
    pub(crate) async fn close(&self) {
        // It fails only where the writer has ended already.
        let _ = self.queue.send(Message::Close).await;
        self.queue.closed().await;
    }

    /// A way that keeps nothing alive.
    pub(crate) fn downgrade(&self) -> WeakCommands {
        WeakCommands {
            queue: self.queue.downgrade(),
            seat: Arc::downgrade(&self.seat),
        }
    }
}

/// A way to the writer as long as there is another one.
#[derive(Clone)]
pub(crate) struct WeakCommands {
    queue: mpsc::WeakSender<Message>,
    seat: std::sync::Weak<Seat>,
}

impl WeakCommands {
    pub(crate) fn upgrade(&self) -> Option<Commands> {
        Some(Commands {
            queue: self.queue.upgrade()?,
            seat: self.seat.upgrade()?,
        })
    }
}
