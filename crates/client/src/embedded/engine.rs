//! Asking the engine for the platform's own sake, each time in a sandbox of its own: what it reads was
//! written by strangers, and takes nothing with it but that process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barecount_agent::DataError;
use barecount_api::assignment::Assignment;
use barecount_engine::{
    process::{Request, Response},
    session::Resources,
};
use barecount_model::{class::Size, digest::Digest, id::TaskId, pipeline::Output};
use barecount_runner::{
    Handle, Runner, RunnerError,
    clock::Clock,
    launch::{AttemptToken, End, Isolation, Launch, Limits, Places, Work},
};

use super::blocking::blocking;
use crate::failure::chain;

/// The largest result that is read.
const MAX_RESULT_BYTES: u64 = 1 << 20;
/// Where the engine leaves its result, in its output folder.
pub(super) const RESULT: &str = ".engine.json";

/// How an engine ends that is refused memory, where the host has no control groups that end it.
const ABORTED: End = End::Signalled { signal: 6 };

/// Memory of an engine process that is not for rows: code, plans, read buffers.
const ENGINE_OVERHEAD_BYTES: u64 = 160 << 20;
/// Memory for rows that an engine gets at the least.
const ENGINE_LEAST_BYTES: u64 = 64 << 20;
/// Where an engine spills: on the disk of the attempt's outputs, and gone with them. The scratch
/// folder would not do, for it is memory.
const SPILL_DIR: &str = "/barecount/output/.spill";

/// Starts engines.
#[derive(Clone)]
pub(crate) struct Engine {
    runner: Arc<dyn Runner>,
    folder: PathBuf,
    clock: Arc<dyn Clock>,
}

/// What an engine is asked, and with what it may answer.
pub(super) struct Question<'a> {
    /// What is asked, in words: `the tests`.
    pub(super) what: &'static str,
    /// The code of a failure to ask it.
    pub(super) code: &'static str,
    /// The attempt that it is about.
    pub(super) assignment: &'a Assignment,
    /// The output that it is about.
    pub(super) output: &'a Output,
    /// What the engine reads, as its input folder.
    pub(super) input: &'a Path,
    /// What it is to do.
    pub(super) request: &'a Request,
    /// Memory that it may use.
    pub(super) memory_bytes: u64,
    /// How long it may take.
    pub(super) timeout: Duration,
}

/// An engine that was asked.
pub(super) struct Asked {
    engine: Engine,
    question: (&'static str, &'static str),
    launch: Launch,
    handle: Handle,
}

/// What came of a question.
pub(super) enum Answer {
    /// An answer.
    Told(Response),
    /// More memory was needed than there was.
    OutOfMemory,
}

impl Engine {
    /// Engines run on `runner`, which serves jobs; `folder` is for their files alone.
    pub(crate) fn new(runner: Arc<dyn Runner>, folder: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            runner,
            folder,
            clock,
        }
    }

    /// The time, as whoever waits for an engine has it.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Asks, once `prepare` has put into the engine's output folder what has to be there. Whatever
    /// comes of it, [`Asked::end`] has to be called.
    ///
    /// # Errors
    /// If it cannot be asked; then nothing is left of it.
    pub(super) async fn ask<T>(
        &self,
        question: &Question<'_>,
        prepare: impl FnOnce(&Path) -> std::io::Result<T>,
    ) -> Result<(Asked, T), DataError> {
        let launch = self.launch(question)?;
        let started = match prepare(&launch.places.output) {
            Ok(prepared) => self
                .runner
                .launch(&launch)
                .await
                .map(|handle| (handle, prepared)),
            Err(error) => {
                self.clean_up(&launch.token).await;
                return Err(no_folder(&launch.places.output, &error));
            }
        };
        match started {
            Ok((handle, prepared)) => {
                let asked = Asked {
                    engine: self.clone(),
                    question: (question.what, question.code),
                    launch,
                    handle,
                };
                Ok((asked, prepared))
            }
            Err(error) => {
                self.clean_up(&launch.token).await;
                Err(unasked((question.what, question.code), &error))
            }
        }
    }

    fn launch(&self, question: &Question<'_>) -> Result<Launch, DataError> {
        let token = token(question);
        let folder = self.folder.join(token.to_string());
        let places = Places {
            input: question.input.to_owned(),
            output: folder.join("output"),
            checkpoint: folder.join("checkpoint"),
            cache: None,
            drivers: BTreeMap::new(),
        };
        for place in [&places.output, &places.checkpoint] {
            std::fs::create_dir_all(place).map_err(|error| no_folder(place, &error))?;
        }
        let spec = serde_json::to_value(question.request).map_err(|error| DataError::Host {
            code: question.code,
            message: format!("{} cannot be written down: {error}", question.what),
        })?;
        Ok(Launch {
            token,
            size: Size::Small,
            work: Work::Job { spec },
            limits: Limits {
                memory_bytes: question.memory_bytes,
                cpu_millis: 2_000,
                pids: 256,
                open_files: 1_024,
                scratch_bytes: 64 << 20,
                file_bytes: None,
                log_bytes: 1 << 20,
            },
            places,
            env: BTreeMap::new(),
            isolation: Isolation::Sandbox,
            reuse: None,
            secrets: None,
            network: None,
            timeout: question.timeout,
            log: folder.join("log"),
        })
    }

    async fn clean_up(&self, token: &AttemptToken) {
        if let Err(error) = self.runner.destroy(token).await {
            tracing::warn!(%token, error = chain(&error), "an engine could not be cleaned up");
        }
        let folder = self.folder.join(token.to_string());
        let removed =
            blocking(move || barecount_tree::remove(&folder, &barecount_tree::to_the_end)).await;
        let why = match removed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(error) => chain(&error),
        };
        // The next start removes it, or moves it aside.
        tracing::warn!(%token, why, "the folder of an engine could not be removed");
    }
}

impl Asked {
    /// Waits for what comes of it. Cancel-safe.
    ///
    /// # Errors
    /// If time is up, or nothing comes of it.
    pub(super) async fn answer(&self) -> Result<Answer, DataError> {
        let (what, code) = self.question;
        let timeout = self.launch.timeout;
        let ended = tokio::time::timeout(timeout, self.engine.runner.wait(&self.handle)).await;
        let Ok(ended) = ended else {
            return Err(DataError::Data {
                code,
                message: format!("{what} took longer than {} s", timeout.as_secs()),
            });
        };
        let ended = ended.map_err(|error| unasked(self.question, &error))?;
        match read(&self.launch.places.output.join(RESULT)) {
            Some(response) => Ok(Answer::Told(response)),
            None if ended.end == End::OutOfMemory || ended.end == ABORTED => {
                Ok(Answer::OutOfMemory)
            }
            None => Err(DataError::Host {
                code,
                message: format!("{what} came to no result: {:?}", ended.end),
            }),
        }
    }

    /// Ends it, if it has not ended, and removes what is left.
    pub(super) async fn end(self) {
        self.engine.clean_up(&self.launch.token).await;
    }
}

/// A token of its own: the attempt's may still name the attempt's sandbox.
fn token(question: &Question<'_>) -> AttemptToken {
    let attempt = &question.assignment.attempt;
    let (what, dataset) = (question.what, &question.output.dataset);
    let digest = Digest::of(format!("{what}\n{}\n{dataset}", attempt.token()).as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    AttemptToken {
        task: TaskId::from_bytes(bytes),
        number: attempt.number,
    }
}

fn read(path: &Path) -> Option<Response> {
    use std::{io::Read, os::unix::fs::OpenOptionsExt};
    // Written inside the sandbox: neither a link nor something that blocks is followed.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
        .ok()?;
    let mut text = String::new();
    file.take(MAX_RESULT_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn unasked((what, code): (&'static str, &'static str), error: &RunnerError) -> DataError {
    DataError::Host {
        code,
        message: format!("{what} cannot be run: {}", chain(error)),
    }
}

fn no_folder(place: &Path, error: &std::io::Error) -> DataError {
    DataError::Host {
        code: "BC0612",
        message: format!("{} cannot be made: {error}", place.display()),
    }
}

/// What an engine gets of an attempt's resources.
pub(super) fn engine_resources(memory: u64, spill: u64, partitions: u32) -> Resources {
    Resources {
        memory_limit_bytes: memory
            .saturating_sub(ENGINE_OVERHEAD_BYTES)
            .max(ENGINE_LEAST_BYTES),
        target_partitions: partitions as usize,
        spill_dir: PathBuf::from(SPILL_DIR),
        spill_limit_bytes: spill,
    }
}
