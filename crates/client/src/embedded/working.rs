//! Who works on a state folder now, and on which of its runs: what tells an interrupted run from one
//! that goes on.
//!
//! Whoever works holds a lock on a file that names its process and the runs. The lock goes with the
//! process, however it ends, so that nothing that is written there outlives its truth. It is not the
//! store's own lock, which nobody may take for a moment just to look.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use barecount_model::id::RunId;
use rustix::fs::{FlockOperation, flock};

use crate::manifest::read_bounded;

/// The file in a state folder.
const FILE: &str = "working";
/// It names a process and its runs, a line each.
const MAX_BYTES: u64 = 16 << 20;

/// Says to others what this process works on, until it is dropped. Only for the process that has
/// the state folder to itself.
#[derive(Debug)]
pub(super) struct Working {
    file: File,
}

impl Working {
    /// Takes the place of whoever worked here before. Waits for those who look, which takes them
    /// moments.
    pub(super) fn begin(state: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(state.join(FILE))?;
        flock(&file, FlockOperation::LockExclusive)?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { file })
    }

    /// Names a run that is worked on from now on.
    pub(super) fn on(&mut self, run: &RunId) -> io::Result<()> {
        writeln!(self.file, "{run}")
    }
}

/// A process that works on a state folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Worker {
    /// Its number.
    pub(crate) process: String,
    /// The runs that it works on.
    pub(crate) runs: Vec<String>,
}

/// The process that works on a state folder now, if there is one.
///
/// # Errors
/// If that cannot be told.
pub(crate) fn worker(state: &Path) -> io::Result<Option<Worker>> {
    let path = state.join(FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // Shared, so that two who look do not take each other for one who works.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => return Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error.into()),
    }
    let text = read_bounded(&path, MAX_BYTES)?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::to_owned);
    Ok(Some(Worker {
        process: lines.next().unwrap_or_default(),
        runs: lines.collect(),
    }))
}

impl Worker {
    /// Whether it works on a run.
    pub(crate) fn has(&self, run: &RunId) -> bool {
        let run = run.printed();
        self.runs.iter().any(|found| **found == *run)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_run_is_worked_on_while_its_worker_lives() -> Result<(), Box<dyn std::error::Error>> {
        let state = tempfile::tempdir()?;
        assert_eq!(worker(state.path())?, None);
        let (one, other) = (RunId::from_bytes([1; 16]), RunId::from_bytes([2; 16]));
        let mut working = Working::begin(state.path())?;
        working.on(&one)?;
        let found = worker(state.path())?.ok_or("somebody works")?;
        assert!(found.has(&one) && !found.has(&other));
        assert_eq!(found.process, std::process::id().to_string());
        drop(working);
        // A child that another test has just forked holds the lock, too, until it executes.
        let deadline = Instant::now() + Duration::from_secs(30);
        while worker(state.path())?.is_some() {
            assert!(Instant::now() < deadline, "the lock is still held");
            std::thread::yield_now();
        }
        let again = Working::begin(state.path())?;
        let found = worker(state.path())?.ok_or("somebody works")?;
        assert!(!found.has(&one), "{found:?}");
        drop(again);
        Ok(())
    }
}
