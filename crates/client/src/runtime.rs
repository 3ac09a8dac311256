//! The runtime that a client works in.

use std::{
    io,
    panic::PanicHookInfo,
    sync::{Mutex, PoisonError},
    thread,
};

use barecount_model::codes;

use crate::failure::{Failure, Status};

/// How many threads a run has at once, beside what it starts: workers, those that wait for the disk, and
/// those of the journal, its views and the ledger.
const THREADS: usize = 16;
/// Stack of a thread that does nothing.
const IDLE_STACK_BYTES: usize = 16 << 10;

/// A runtime with threads of its own.
///
/// # Errors
/// If it cannot be started, or the host does not let this process have the threads that a run takes:
/// the runtime would wait for ever for one that it cannot get.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let had = have_threads(THREADS);
    had.map_err(|error| no_threads().because(&error))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Status::Unavailable, "the process cannot start its threads")
                .because(&error)
        })
}

/// Has so many threads at once, and gives them back.
fn have_threads(wanted: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // None ends before all are there.
        let _closed = gate.lock();
        (0..wanted).try_for_each(|_| {
            let thread = thread::Builder::new().stack_size(IDLE_STACK_BYTES);
            let wait = || drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
            thread.spawn_scoped(scope, wait).map(drop)
        })
    })
}

fn no_threads() -> Failure {
    Failure::new(
        Status::Unavailable,
        format!("this host does not let the platform have the {THREADS} threads that it takes"),
    )
    .with_code(codes::RUNNER_UNFIT.id)
    .with_help(barecount_sandbox::more_processes())
}

/// The failure that a panic stands for: libraries panic where the host makes no further thread. That
/// can happen in spite of what `runtime` looks at, where others of the same user start some meanwhile.
pub fn lack_of_threads(panic: &PanicHookInfo<'_>) -> Option<Failure> {
    let text = panic.payload_as_str()?;
    let lacks = ["OS can't spawn worker thread", "failed to spawn thread"];
    lacks
        .iter()
        .any(|lack| text.starts_with(lack))
        .then(|| no_threads().because(&io::Error::other(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_had_are_given_back() {
        for _ in 0..50 {
            have_threads(THREADS).expect("this host makes as many");
        }
    }
}
