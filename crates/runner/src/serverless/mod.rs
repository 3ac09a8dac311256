//! `serverless`: functions that speak the AWS Lambda Runtime API, in sandboxes that stay warm.
//!
//! # One attempt after the other
//! A sandbox serves one attempt at a time, and another one only if everything that it was started
//! with is equal (the [reuse key](crate::launch::ReuseKey), package, limits, variables). Between two
//! attempts the function has to be waiting for an event, with the processes that it had when it
//! first waited; its scratch folder is emptied of what came since; places are exchanged;
//! what is printed belongs to nobody. A sandbox that is not so at rest is ended.
//!
//! What attempts of one key share is the memory of their process, as on Lambda: a thread that goes
//! on after the answer, or a file kept open, can write to what its own attempt had until the agent
//! has taken the digests, and those are what gets committed. It reaches nothing of the next attempt
//! but by that attempt's own handler. A process that was given secrets serves one attempt.

mod http;
mod payload;
mod pool;
mod processes;
mod protocol;
mod slots;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use barecount_model::class::RunnerClass;

pub use pool::PoolLimits;
use pool::{Key, Place, Pool};
use worker::{Served, Worker};

use crate::{
    Capabilities, Health, RunnerError,
    launch::{AttemptToken, Ended, Isolation, Launch, LogSummary, Work},
    local::{self, Class, Host, Orders, Started, sandboxed},
};

/// The class of work; see [`Local`](crate::local::Local).
#[derive(Clone)]
pub struct Serverless {
    host: Host,
    pool: Pool,
    folder: PathBuf,
    workers: Arc<AtomicU64>,
}

impl Serverless {
    /// Runs functions on this host. `folder` is for the runner alone, on the file system of the
    /// attempts' places; what an earlier process left in it is removed. Blocking. To be called
    /// inside the runtime, which then ends idle sandboxes.
    ///
    /// # Errors
    /// The folder can be neither made nor emptied.
    pub fn new(host: Host, limits: PoolLimits, folder: &Path) -> std::io::Result<Self> {
        if folder.exists() {
            fs_err::remove_dir_all(folder)?;
        }
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
    pub fn warm(&self) -> usize {
        self.pool.idle()
    }

    /// A sandbox for the attempt, or `None` if it was told to end while it waited for one.
    async fn worker(
        &self,
        launch: &Launch,
        package: &Path,
        orders: &mut Orders,
    ) -> Result<Option<Box<Worker>>, RunnerError> {
        let key = Arc::new(Key::of(launch, package));
        let permit = match orders.unless_ended(self.pool.acquire(&key)).await {
            None => return Ok(None),
            Some(Place::Warm(worker)) => return Ok(Some(worker)),
            Some(Place::Cold(permit)) => permit,
        };
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(number.to_string());
        let package = package.to_owned();
        let worker = Worker::start(&self.host, launch, package, key, folder, permit).await?;
        Ok(Some(Box::new(worker)))
    }

    async fn carry_out(
        self,
        launch: Launch,
        mut worker: Box<Worker>,
        mut orders: Orders,
    ) -> Result<Ended, RunnerError> {
        let (package, event) = function(&launch)?;
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
                    worker = match self.worker(&launch, package, &mut orders).await? {
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

fn function(launch: &Launch) -> Result<(&Path, &serde_json::Value), RunnerError> {
    match &launch.work {
        Work::Handler { package, event } => Ok((package, event)),
        _ => Err(RunnerError::Unlaunchable {
            reason: "a function was expected".to_owned(),
            remedy: "Give the stage a `package` with a handler.".to_owned(),
        }),
    }
}

#[async_trait]
impl Class for Serverless {
    fn capabilities(&self) -> Capabilities {
        self.host.capabilities(RunnerClass::Serverless)
    }

    async fn probe(&self) -> Health {
        self.host.health()
    }

    async fn start(&self, launch: &Launch, mut orders: Orders) -> Result<Started, RunnerError> {
        let (package, event) = function(launch)?;
        payload::check_size(event)?;
        if launch.isolation == Isolation::Process {
            return Err(RunnerError::Unlaunchable {
                reason: "a function's interface and folders need namespaces of their own"
                    .to_owned(),
                remedy: "Use `isolation: sandbox` for stages of class serverless.".to_owned(),
            });
        }
        let Some(worker) = self.worker(launch, package, &mut orders).await? else {
            return Ok(Started::not_begun(&launch.token));
        };
        let native = worker.name.clone();
        let ended = self.clone().carry_out(launch.clone(), worker, orders);
        Ok(Started {
            native,
            ended: Box::pin(ended),
        })
    }

    async fn sweep(&self, _: &AttemptToken) -> Result<(), RunnerError> {
        sandboxed::sweep(&self.host).await
    }

    async fn shut_down(&self) {
        for worker in self.pool.close() {
            worker.retire().await;
        }
        self.pool.all_settled().await;
    }
}
