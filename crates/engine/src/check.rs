//! Scripts planned in a process of their own, before anything runs.
//!
//! A planner computes what is constant, and a script of sixty bytes can name a constant of gigabytes.
//! So whoever asks starts a process for it, with memory and processor time of its own, which may die
//! of it.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::job::{CHECK_TIMEOUT_MS, CheckSpec, check_job};

/// Address space of the process: code, stacks, sessions and a gigabyte of what is planned.
const MEMORY_BYTES: u64 = 2 << 30;
/// Text of scripts that one process is asked of at most.
const ENOUGH_BYTES: usize = 4 << 20;
/// The longest request and answer.
const MAX_BYTES: u64 = 64 << 20;

/// What is wrong with a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaw {
    /// What, for people.
    pub message: String,
    /// Where in the script, as line and column from 1, if anything is known of it.
    pub place: Option<(u64, u64)>,
}

/// What is wrong with each of these scripts, in their order; none of those that can be planned, or
/// could not be in time: a busy host is no fault of theirs. `program` is one that answers to
/// `engine-check` as [`serve`] does.
///
/// Blocks while it plans.
///
/// # Errors
/// If the process cannot be started, or does not answer.
pub fn check_jobs(program: &Path, jobs: &[CheckSpec]) -> io::Result<Vec<Option<Flaw>>> {
    let mut found = Vec::with_capacity(jobs.len());
    let mut rest = jobs;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = |job: &&CheckSpec| {
            bytes += job.sql.len();
            bytes <= ENOUGH_BYTES
        };
        let count = rest.iter().take_while(fit).count().max(1);
        let (now, later) = rest.split_at(count);
        rest = later;
        match ask(program, now)? {
            Some(flaws) => found.extend(flaws),
            // One of them was too much: which one is found by asking of each.
            None => {
                for job in now {
                    let alone = ask(program, std::slice::from_ref(job))?;
                    found.push(alone.map_or_else(|| Some(too_much()), |mut flaws| flaws.pop()?));
                }
            }
        }
    }
    Ok(found)
}

fn too_much() -> Flaw {
    Flaw {
        message: format!(
            "planning it takes more than {} MiB of memory, or more than {} s of processor time: what \
             is constant in a statement is computed when it is planned",
            MEMORY_BYTES >> 20,
            CHECK_TIMEOUT_MS / 1000
        ),
        place: None,
    }
}

/// Asks a process; none if it died of the question.
fn ask(program: &Path, jobs: &[CheckSpec]) -> io::Result<Option<Vec<Option<Flaw>>>> {
    let mut child = Command::new(program)
        .arg("engine-check")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let request = serde_json::to_vec(jobs)?;
    // It answers once it has read all; where it dies before, that is told by what it does not answer.
    let written = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(&request));
    if let Some(Err(error)) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_BYTES).read_to_end(&mut answer)?;
    }
    if !child.wait()?.success() {
        return Ok(None);
    }
    let flaws: Vec<Option<Flaw>> = serde_json::from_slice(&answer)?;
    match flaws.len() == jobs.len() {
        true => Ok(Some(flaws)),
        false => Err(io::Error::other(
            "the planner's answer is not about these scripts",
        )),
    }
}

/// Answers [`check_jobs`]: reads scripts from `request`, limits this process, and writes what is wrong
/// with them. For a process that does nothing else.
///
/// # Errors
/// If the process cannot be limited, the request not be read or the answer not be written.
pub fn serve(request: impl Read, mut answer: impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    request.take(MAX_BYTES).read_to_end(&mut text)?;
    let jobs: Vec<CheckSpec> = serde_json::from_slice(&text)?;
    let limit = |resource, most| {
        let most = Some(most);
        setrlimit(
            resource,
            Rlimit {
                current: most,
                maximum: most,
            },
        )
    };
    limit(Resource::As, MEMORY_BYTES)?;
    limit(
        Resource::Cpu,
        (jobs.len() as u64 + 1) * CHECK_TIMEOUT_MS / 1000,
    )?;
    let flaws: Vec<Option<Flaw>> = jobs.into_iter().map(flaw).collect();
    answer.write_all(&serde_json::to_vec(&flaws)?)?;
    answer.flush()
}

fn flaw(job: CheckSpec) -> Option<Flaw> {
    let error = match check_job(job) {
        Ok(()) | Err(EngineError::Timeout { .. }) => return None,
        Err(error) => error,
    };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Some(Flaw {
        message,
        place: error.place(),
    })
}
