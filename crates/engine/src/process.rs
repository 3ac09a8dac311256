//! The engine as a process of its own: a request in, a result out, one exit status.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use barecount_dataset::stage::{Limits, StageError, decode_parquet};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::acceptance::{AcceptanceSpec, TestResult, check_acceptance};
use crate::error::{EngineError, FailureKind};
use crate::job::{JobReport, JobSpec, run_job};

/// The largest request, in bytes.
const MAX_REQUEST_BYTES: u64 = 16 << 20;
/// The stack of the thread that plans: statements are bounded in depth for it. Only what is used of
/// it takes memory; but where a host has no control groups, and memory is limited by `RLIMIT_DATA`,
/// all of it counts.
const PLANNER_STACK_BYTES: usize = 128 << 20;
/// The stack of threads that compute what was planned, and of those that read and write.
const WORKER_STACK_BYTES: usize = 16 << 20;
/// Threads that read and write; a disk has no use for more at a time.
const IO_THREADS: usize = 8;
/// What is written at once to a pipe: as much as it holds.
const PIPE_BYTES: usize = 64 << 10;
/// How much later than the engine's own timer the process gives up on it.
const GRACE: Duration = Duration::from_secs(1);

/// What the process is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run a job.
    Job(JobSpec),
    /// Put tests to a staged output.
    Acceptance(AcceptanceSpec),
    /// Decode Parquet files.
    Decode(DecodeSpec),
}

/// Parquet files that are to be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeSpec {
    /// Where they are.
    pub folder: PathBuf,
    /// Their paths in it.
    pub files: Vec<String>,
    /// What they may hold at most.
    pub limits: Limits,
    /// Where their rows are written, as [`decode_parquet`] says: a file or pipe that is there.
    pub rows: PathBuf,
}

/// What the process leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The job is done.
    Job(JobReport),
    /// The tests were put; they may have failed.
    Acceptance(Vec<TestResult>),
    /// The files were decoded.
    Decoded,
    /// It could not be done.
    Failed {
        /// Whose fault it is.
        kind: FailureKind,
        /// The status that the process exits with: that of `kind`.
        exit_status: u8,
        /// What happened, for people.
        message: String,
    },
}

/// Reads a [`Request`] as JSON, carries it out and writes the [`Response`] as JSON to the file
/// `result`, whole or not at all. Returns the exit status: 0 done (acceptance tests may have
/// failed), or that of a [`FailureKind`]; 74 without a result if the result cannot be written.
///
/// The process needs no rights but to read the inputs and to write outputs, spill and result. It
/// starts threads and a Tokio runtime of its own, so it must not be called inside one. When time
/// is up it returns at once, and leaves to the process's exit to end what is still running.
pub fn engine_main(request: impl Read, result: &Path) -> u8 {
    let response = read(request)
        .and_then(carry_out_in_time)
        .unwrap_or_else(|error| failure(&error));
    let status = match &response {
        Response::Failed { exit_status, .. } => *exit_status,
        _ => 0,
    };
    match write(&response, result) {
        Ok(()) => status,
        Err(_) => FailureKind::Write.exit_status(),
    }
}

fn read(request: impl Read) -> Result<Request, EngineError> {
    let invalid = |reason: String| EngineError::Setup { reason };
    let mut text = String::new();
    let read = request
        .take(MAX_REQUEST_BYTES + 1)
        .read_to_string(&mut text);
    read.map_err(|error| invalid(format!("the request cannot be read: {error}")))?;
    if text.len() as u64 > MAX_REQUEST_BYTES {
        return Err(invalid(format!(
            "the request has more than {MAX_REQUEST_BYTES} bytes"
        )));
    }
    serde_json::from_str(&text)
        .map_err(|error| invalid(format!("the request is not valid: {error}")))
}

/// Carries a request out on a thread of its own, and waits no longer than it may take: a function
/// that computes without end never looks at a timer.
fn carry_out_in_time(request: Request) -> Result<Response, EngineError> {
    let limit = match &request {
        Request::Job(job) => job.timeout_ms,
        Request::Acceptance(tests) => Some(tests.timeout_ms),
        // Its pace is that of whoever takes the rows.
        Request::Decode(_) => None,
    };
    on_own_thread(limit, move || carry_out(&request))
}

/// Does work on a thread with a stack deep enough to plan on. Past its time limit the thread is
/// left to itself.
pub(crate) fn on_own_thread<T: Send + 'static>(
    limit: Option<u64>,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let (done, waiting) = mpsc::sync_channel(1);
    let work = move || {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // If nobody waits any more, time was up.
        let _ = done.send(outcome.unwrap_or(Err(EngineError::Panicked)));
    };
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .stack_size(PLANNER_STACK_BYTES)
        .spawn(work);
    thread.map_err(setup)?;
    let Some(timeout_ms) = limit else {
        return waiting.recv().unwrap_or(Err(EngineError::Panicked));
    };
    let grace = Duration::from_millis(timeout_ms) + GRACE;
    match waiting.recv_timeout(grace) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(EngineError::Timeout { timeout_ms }),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(EngineError::Panicked),
    }
}

fn carry_out(request: &Request) -> Result<Response, EngineError> {
    let resources = match request {
        Request::Job(job) => &job.resources,
        Request::Acceptance(tests) => &tests.resources,
        Request::Decode(files) => return decode(files),
    };
    let threads = resources.target_partitions.clamp(1, 64);
    let mut runtime = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(threads);
        runtime
    };
    runtime
        .enable_time()
        .thread_stack_size(WORKER_STACK_BYTES)
        .max_blocking_threads(IO_THREADS);
    runtime.build().map_err(setup)?.block_on(async {
        match request {
            Request::Job(job) => run_job(job).await.map(Response::Job),
            Request::Acceptance(tests) => check_acceptance(tests).await.map(Response::Acceptance),
            Request::Decode(files) => decode(files),
        }
    })
}

fn decode(files: &DecodeSpec) -> Result<Response, EngineError> {
    let failed = |source| EngineError::Decoding { source };
    let rows = open_rows(&files.rows).map_err(|source| {
        let path = files.rows.clone();
        failed(StageError::Write { path, source })
    })?;
    let rows = BufWriter::with_capacity(PIPE_BYTES, rows);
    decode_parquet(&files.folder, &files.files, &files.limits, rows).map_err(failed)?;
    Ok(Response::Decoded)
}

/// Opens what rows are written to. A pipe that nobody reads any more is not waited for: its reader was
/// there before this process.
fn open_rows(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let rows = match open(path, flags, Mode::empty()) {
        Err(Errno::NXIO) => return Err(io::ErrorKind::BrokenPipe.into()),
        rows => File::from(rows?),
    };
    // Whoever reads sets the pace.
    fcntl_setfl(&rows, OFlags::WRONLY)?;
    Ok(rows)
}

fn setup(error: io::Error) -> EngineError {
    EngineError::Setup {
        reason: error.to_string(),
    }
}

fn failure(error: &EngineError) -> Response {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Response::Failed {
        kind: error.kind(),
        exit_status: error.exit_status(),
        message,
    }
}

fn write(response: &Response, result: &Path) -> io::Result<()> {
    // Renamed when it is whole: a process that dies before leaves no result, which says that it
    // did not end by itself. Whoever reads it lives on the same host, so nothing is synced.
    let partial = result.with_extension("partial");
    fs::write(&partial, serde_json::to_vec(response)?)?;
    fs::rename(partial, result)
}
