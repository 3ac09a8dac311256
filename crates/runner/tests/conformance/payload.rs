//! What runs inside: this same binary, told by its arguments how to behave.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use barecount_runner::conformance::{Behaviour, IGNORING, Seen, behave};

use crate::function::{BOMB, asked_to_stop, fork_bomb};

/// The first argument that makes this binary a command under test; the second is the behaviour.
pub(crate) const COMMAND: &str = "behave";
/// The only argument that makes this binary a command that exits with status 75 when it is asked to
/// stop.
pub(crate) const SAVE: &str = "save";
/// The only argument that makes this binary a handler.
pub(crate) const HANDLER: &str = "handler";
/// The first argument that makes this binary an engine, whose job is the behaviour.
pub(crate) const ENGINE: &str = "engine";

/// Where a package is, and the loader in it.
pub(crate) const APP: &str = "/app";
pub(crate) const LOADER: &str = "/app/loader";

/// Behaves, if this process is a payload.
pub(crate) fn main() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut words = arguments.iter().map(String::as_str);
    let program = words.next()?;
    let takes_events = match arguments.as_slice() {
        [program] => program == crate::function::BOOTSTRAP,
        [_, only] => only == HANDLER,
        _ => false,
    };
    if takes_events {
        return Some(crate::function::main());
    }
    if arguments.get(1).is_some_and(|first| first == SAVE) {
        if let Err(error) = asked_to_stop() {
            tell(&error);
            return Some(ExitCode::FAILURE);
        }
        return Some(ExitCode::from(75));
    }
    if arguments.get(1).is_some_and(|first| first == BOMB) {
        fork_bomb();
    }
    let behaviour = match (words.next(), words.next()) {
        (Some(COMMAND), Some(behaviour)) => serde_json::from_str(behaviour),
        (Some(ENGINE), None) => serde_json::from_reader(io::stdin()),
        _ => return None,
    };
    let done = behaviour
        .map_err(io::Error::from)
        .and_then(|behaviour| command(program, &behaviour));
    Some(match done {
        Ok(code) => code,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    })
}

fn command(program: &str, behaviour: &Behaviour) -> io::Result<ExitCode> {
    match behaviour {
        Behaviour::Exit(code) => std::process::exit(*code),
        Behaviour::Signal(6) => std::process::abort(),
        Behaviour::Hang => loop {
            std::thread::park();
        },
        Behaviour::IgnoreStop => ignore_stop()?,
        Behaviour::LeaveProcess => leave_process(program)?,
        other => in_places(other)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn in_places(behaviour: &Behaviour) -> io::Result<()> {
    let input = place("BARECOUNT_INPUT_DIR")?;
    let output = place("BARECOUNT_OUTPUT_DIR")?;
    let checkpoint = place("BARECOUNT_CHECKPOINT_DIR")?;
    let scratch = place("TMPDIR")?;
    behave(
        behaviour,
        Seen {
            input: &input,
            output: &output,
            checkpoint: &checkpoint,
            scratch: &scratch,
        },
    )
}

fn place(variable: &str) -> io::Result<PathBuf> {
    let missing = || io::Error::other(format!("{variable} is not set"));
    let place = PathBuf::from(std::env::var_os(variable).ok_or_else(missing)?);
    if !Path::new(&place).is_dir() {
        return Err(io::Error::other(format!("{variable} names no folder")));
    }
    Ok(place)
}

pub(crate) fn leave_process(program: &str) -> io::Result<()> {
    let hang = serde_json::to_string(&Behaviour::Hang)?;
    // In a root without libraries this program was started by the loader in its package.
    let mut command = match Path::new(LOADER).exists() {
        true => Command::new(LOADER),
        false => Command::new(program),
    };
    if command.get_program() == LOADER {
        command.args(["--library-path", APP, program]);
    }
    command.args([COMMAND, &hang]).spawn().map(drop)
}

/// Takes every `SIGTERM` and does nothing about it.
fn ignore_stop() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ignore_stops())
}

/// As [`Behaviour::IgnoreStop`], inside a runtime.
pub(crate) async fn ignore_stops() -> io::Result<()> {
    {
        let kind = tokio::signal::unix::SignalKind::terminate();
        let mut stops = tokio::signal::unix::signal(kind)?;
        // So that a test knows that from here on it ignores.
        tell(&IGNORING);
        while stops.recv().await.is_some() {}
        Ok(())
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the standard error of a payload is its log"
)]
pub(crate) fn tell(what: &dyn std::fmt::Display) {
    eprintln!("{what}");
}
