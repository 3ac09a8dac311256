//! Running the probes, each in a process of its own.
#![expect(clippy::print_stdout, reason = "it speaks to the test by its output")]

use std::process::ExitCode;

use super::{
    Attempt, Environment, Line, Outcome, Probe,
    call::{call, done},
    probes,
};

/// Longer than any probe takes.
const PATIENCE_SECONDS: u32 = 20;

/// Runs every probe and prints a line for each.
pub(crate) fn main(words: &[String]) -> ExitCode {
    let Some(environment) = words
        .first()
        .and_then(|text| serde_json::from_str::<Environment>(text).ok())
    else {
        return ExitCode::from(2);
    };
    for probe in probes() {
        let (outcome, detail) = if environment.on_host && probe.spares_host {
            (Outcome::Spared, String::new())
        } else {
            match alone(&probe, &environment) {
                Ok(()) => (Outcome::Possible, String::new()),
                Err(detail) => (Outcome::Refused, detail),
            }
        };
        let line = Line {
            probe: probe.name,
            outcome,
            detail,
        };
        println!(
            "{}",
            serde_json::to_string(&line).expect("it has a JSON form")
        );
    }
    ExitCode::SUCCESS
}

/// Tries one thing in a child. What kills the child is a refusal, too.
fn alone(probe: &Probe, environment: &Environment) -> Result<(), String> {
    let answer = std::io::pipe().map_err(|error| error.to_string())?;
    // SAFETY: this process has one thread, so the child may do anything.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: integers.
        unsafe { libc::alarm(PATIENCE_SECONDS) };
        let attempt = separated(probe, environment).and_then(|()| (probe.attempt)(environment));
        let code = attempt.err().map_or(0, |errno| 1 + errno);
        _ = std::io::Write::write_all(&mut &answer.1, &code.to_le_bytes());
        // SAFETY: ends this child, and runs nothing of the parent's.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: our own child; the status is ours.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if libc::WIFSIGNALED(status) {
        return Err(format!("ended by signal {}", libc::WTERMSIG(status)));
    }
    drop(answer.1);
    let mut code = [0; 4];
    let told = std::io::Read::read_exact(&mut &answer.0, &mut code);
    match (told, i32::from_le_bytes(code)) {
        (Err(_), _) => Err("ended without an answer".to_owned()),
        (Ok(()), 0) => Ok(()),
        (Ok(()), 1) => Err("nothing there".to_owned()),
        (Ok(()), code) => Err(std::io::Error::from_raw_os_error(code - 1).to_string()),
    }
}

/// On the host, changes to mounts and names stay in namespaces that end with the child; where they
/// cannot be made, nothing is tried.
fn separated(probe: &Probe, environment: &Environment) -> Attempt {
    if !environment.on_host {
        return Ok(());
    }
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWUTS;
    if probe.own_network {
        flags |= libc::CLONE_NEWNET;
    }
    call!(SYS_unshare, flags)?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    done(call!(SYS_mount, c"none", c"/", 0, private as i64, 0))
}
