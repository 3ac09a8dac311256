//! The engine as a process of its own: a request in, a result out, one exit status.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::acceptance::{AcceptanceSpec, TestResult, check_acceptance};
use crate::error::EngineError;
use crate::job::{JobReport, JobSpec, run_job};

/// The largest request, in bytes.
const MAX_REQUEST_BYTES: u64 = 16 << 20;

/// What the process is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run a job.
    Job(JobSpec),
    /// Put tests to a staged output.
    Acceptance(AcceptanceSpec),
}

/// What the process leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The job is done.
    Job(JobReport),
    /// The tests were put; they may have failed.
    Acceptance(Vec<TestResult>),
    /// It could not be done.
    Failed {
        /// As in [`EngineError::exit_status`].
        exit_status: u8,
        /// What happened, for people.
        message: String,
    },
}

/// Reads a [`Request`] as JSON, carries it out and writes the [`Response`] as JSON to the file
/// `result`, whole or not at all. Returns the exit status: 0 done, 1 the script failed, 65 the
/// data does not fit its schema, 78 the request is not valid, 74 the result cannot be written.
///
/// The process needs no rights but to read the inputs and to write outputs, spill and result. It
/// starts a Tokio runtime of its own, so it must not be called inside one.
pub fn engine_main(request: impl Read, result: &Path) -> u8 {
    let response = read(request)
        .and_then(|request| carry_out(&request))
        .unwrap_or_else(failure);
    let status = match &response {
        Response::Failed { exit_status, .. } => *exit_status,
        _ => 0,
    };
    match write(&response, result) {
        Ok(()) => status,
        Err(_) => 74,
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

fn carry_out(request: &Request) -> Result<Response, EngineError> {
    let resources = match request {
        Request::Job(job) => &job.resources,
        Request::Acceptance(tests) => &tests.resources,
    };
    let threads = resources.target_partitions.clamp(1, 64);
    let runtime = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
    } else {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_time()
            .build()
    };
    let setup = |error: io::Error| EngineError::Setup {
        reason: error.to_string(),
    };
    runtime.map_err(setup)?.block_on(async {
        match request {
            Request::Job(job) => run_job(job).await.map(Response::Job),
            Request::Acceptance(tests) => check_acceptance(tests).await.map(Response::Acceptance),
        }
    })
}

fn failure(error: EngineError) -> Response {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Response::Failed {
        exit_status: error.exit_status(),
        message,
    }
}

fn write(response: &Response, result: &Path) -> io::Result<()> {
    let partial = result.with_extension("partial");
    fs::write(&partial, serde_json::to_vec(response)?)?;
    fs::rename(partial, result)
}
