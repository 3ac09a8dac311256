//! Programs that speak the AWS Lambda Runtime API, in sandboxes that stay warm: the functions of
//! class `serverless`, and containers with `contract: handler`.
//!
//! # One attempt after the other
//! A sandbox serves one attempt at a time, and another one only if everything that it was started
//! with is equal (the [reuse key](crate::launch::ReuseKey), program, limits, variables). Between two
//! attempts the program has to be waiting for an event, with the processes that it had when it
//! first waited; its scratch folder is emptied of what came since; places are exchanged;
//! what is printed belongs to nobody. A sandbox that is not so at rest is ended.
//!
//! What attempts of one key share is the memory of their process, as on Lambda: a thread that goes
//! on after the answer, or a file kept open, can write to what its own attempt had until the agent
//! has taken the digests, and those are what gets committed. It reaches nothing of the next attempt
//! but by that attempt's own handler.
//!
//! # Secrets
//! Their files are in the sandbox while an attempt is served, and not between two. What a process
//! has read of them it may keep; so whoever launches gives attempts with secrets a key that other
//! runs, other secrets and other versions do not have, and releases what is
//! warm when the run has ended.

mod http;
mod pace;
mod payload;
mod pool;
mod processes;
mod protocol;
mod secrets;
mod slots;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use barecount_model::id::RunId;

pub use pool::PoolLimits;
use pool::{Key, Place, Pool};
use worker::{Served, Worker};

use crate::{
    RunnerError,
    launch::{Ended, HandlerProgram, Isolation, Launch, LogSummary, Work},
    local::{self, Host, Orders, Started},
};

/// The warm sandboxes of one class, and what they serve.
#[derive(Clone)]
pub(crate) struct Handlers {
    host: Host,
    pool: Pool,
    folder: PathBuf,
    workers: Arc<AtomicU64>,
}

impl Handlers {
    /// Serves handlers on this host. `folder` is for them alone, on the file system of the attempts'
    /// places; what an earlier process left in it is removed. Blocking. To be called inside the
    /// runtime, which then ends idle sandboxes.
    ///
    /// # Errors
    /// The folder can be neither made nor emptied.
    pub(crate) fn new(host: Host, limits: PoolLimits, folder: &Path) -> std::io::Result<Self> {
        barecount_tree::remove(folder, &barecount_tree::to_the_end)?;
        fs_err::create_dir_all(folder)?;
        let pool = Pool::new(limits, host.clock.clone());
        tokio::spawn(pool.clone().scale_to_zero());
        Ok(Self {
            host,
            pool,
            folder: folder.to_owned(),
            workers: Arc::default(),
        })
    }

    /// How many sandboxes are warm and without work.
    pub(crate) fn warm(&self) -> usize {
        self.pool.idle()
    }

    /// Starts an attempt; see [`Class::start`](crate::local::Class::start).
    pub(crate) async fn start(
        &self,
        launch: &Launch,
        mut orders: Orders,
    ) -> Result<Started, RunnerError> {
        let (program, event) = handler(launch)?;
        payload::check_size(event)?;
        if launch.isolation == Isolation::Process {
            return Err(RunnerError::Unlaunchable {
                reason: "a handler's interface and folders need namespaces of their own".to_owned(),
                remedy: "Use `isolation: sandbox` for functions and for containers with \
                         `contract: handler`."
                    .to_owned(),
            });
        }
        let Some(worker) = self.worker(launch, program, &mut orders).await? else {
            return Ok(Started::not_begun(&launch.token));
        };
        let native = worker.name.clone();
        let ended = self.clone().carry_out(launch.clone(), worker, orders);
        Ok(Started {
            native,
            ended: Box::pin(ended),
        })
    }

    /// Ends the sandboxes that are warm for this run alone.
    pub(crate) async fn release(&self, run: &RunId) {
        for worker in self.pool.release(run) {
            worker.retire().await;
        }
    }

    /// Ends every warm sandbox, and keeps none from now on.
    pub(crate) async fn shut_down(&self) {
        for worker in self.pool.close() {
            worker.retire().await;
        }
        self.pool.all_settled().await;
    }

    /// A sandbox for the attempt, or `None` if it was told to end while it waited for one.
    async fn worker(
        &self,
        launch: &Launch,
        program: &HandlerProgram,
        orders: &mut Orders,
    ) -> Result<Option<Box<Worker>>, RunnerError> {
        let key = Arc::new(Key::of(launch, program));
        let waits = orders.clone();
        let full = || waits.waits_for("a sandbox: as many as there may be are at work");
        let permit = match orders.unless_ended(self.pool.acquire(&key, full)).await {
            None => return Ok(None),
            Some(Place::Warm(worker)) => return Ok(Some(worker)),
            Some(Place::Cold(permit)) => permit,
        };
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(number.to_string());
        let worker = Worker::start(&self.host, launch, key, folder, permit).await?;
        Ok(Some(Box::new(worker)))
    }

    async fn carry_out(
        self,
        launch: Launch,
        mut worker: Box<Worker>,
        mut orders: Orders,
    ) -> Result<Ended, RunnerError> {
        let (program, event) = handler(&launch)?;
        loop {
            let served = worker.serve(&self.host, &launch, event, &mut orders).await;
            match served {
                Ok(Served::Ended(ended)) => {
                    self.let_go(worker, &launch, &ended.log).await;
                    return Ok(*ended);
                }
                // It died warm and idle: the attempt has not begun, another sandbox serves it.
                Ok(Served::NotBegun) => {
                    worker.retire().await;
                    worker = match self.worker(&launch, program, &mut orders).await? {
                        Some(worker) => worker,
                        None => return Ok(local::never_begun()),
                    };
                }
                Err(error) => {
                    worker.retire().await;
                    return Err(error);
                }
            }
        }
    }

    /// Keeps a worker warm if it may serve again. One that printed more than its log takes may have
    /// more of it on the way, which must not come into the next attempt's log.
    async fn let_go(&self, mut worker: Box<Worker>, launch: &Launch, log: &LogSummary) {
        if launch.reuse.is_none() || worker.has_ended() || log.dropped_bytes > 0 {
            worker.retire().await;
            return;
        }
        let key = worker.key.clone();
        self.pool.settling(&key);
        let (host, pool) = (self.host.clone(), self.pool.clone());
        // The attempt has ended; whoever waits for it need not wait for this.
        tokio::spawn(async move {
            if worker.settle(&host).await {
                pool.settled(&key, Some(worker));
            } else {
                worker.retire().await;
                pool.settled(&key, None);
            }
        });
    }
}

fn handler(launch: &Launch) -> Result<(&HandlerProgram, &serde_json::Value), RunnerError> {
    match &launch.work {
        Work::Handler { program, event } => Ok((program, event)),
        _ => Err(RunnerError::Unlaunchable {
            reason: "a handler was expected".to_owned(),
            remedy: "Give the stage a `package` with a handler.".to_owned(),
        }),
    }
}
