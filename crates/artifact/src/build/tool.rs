//! The tools that build, as the caller's environment finds them.

use std::io;
use std::process::Command;

use super::process::{self, Ended, Stopped};
use super::{BuildError, Job};

/// Bytes that a tool may answer with: `cargo metadata` of a large workspace.
const ANSWER_BYTES: usize = 32 << 20;

/// The first line of what a tool says of its version.
pub(super) fn version(
    job: &Job<'_>,
    name: &'static str,
    arguments: &[&str],
) -> Result<String, BuildError> {
    Ok(answer(job, name, arguments)?
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// What a tool prints when asked something, within the time of the build; its standard error is
/// dropped unless it fails.
pub(super) fn answer(
    job: &Job<'_>,
    name: &'static str,
    arguments: &[&str],
) -> Result<String, BuildError> {
    let mut command = tool(job, name);
    command.args(arguments).env("CARGO_TERM_COLOR", "never");
    let answered = process::ask(command, job.cancel, job.deadline, ANSWER_BYTES);
    let answered = answered.map_err(|stopped| given_up(job, name, stopped))?;
    if !answered.status.success() || answered.output.len() > ANSWER_BYTES {
        let answer = cut(&String::from_utf8_lossy(&answered.errors));
        return Err(BuildError::Answer { tool: name, answer });
    }
    String::from_utf8(answered.output).map_err(|_| BuildError::Answer {
        tool: name,
        answer: "not UTF-8".to_owned(),
    })
}

/// A tool in the source folder, in the cleaned environment.
pub(super) fn tool(job: &Job<'_>, name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env_clear()
        .envs(&job.toolchain.environment)
        .current_dir(&job.request.source);
    command
}

pub(super) fn run(
    job: &Job<'_>,
    name: &'static str,
    command: Command,
    progress: &mut dyn FnMut(&str),
) -> Result<Ended, BuildError> {
    process::run(command, job.cancel, job.deadline, progress)
        .map_err(|stopped| given_up(job, name, stopped))
}

fn given_up(job: &Job<'_>, tool: &'static str, stopped: Stopped) -> BuildError {
    let path = || job.request.source.clone();
    match stopped {
        Stopped::Start(source) => not_started(tool, source),
        Stopped::Wait(source) => BuildError::Tool { tool, source },
        Stopped::Cancelled => BuildError::Cancelled { path: path() },
        Stopped::Deadline => BuildError::Timeout {
            path: path(),
            timeout: job.request.timeout,
        },
    }
}

fn not_started(tool: &'static str, source: io::Error) -> BuildError {
    match source.kind() {
        io::ErrorKind::NotFound => BuildError::NoTool { tool },
        _ => BuildError::Tool { tool, source },
    }
}

/// What fits into a message.
pub(super) fn cut(text: &str) -> String {
    text.trim().chars().take(400).collect()
}
