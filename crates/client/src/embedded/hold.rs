//! Having a state folder to oneself, and waiting for whoever has it.

use std::{path::Path, sync::mpsc, time::Duration};

use barecount_api::holder::Holder;
use barecount_control::store::{
    OpenError,
    lock::{self, FolderLock},
};
use barecount_model::{codes, untrusted::Label};
use jiff::Timestamp;

use super::open_failure;
use crate::{
    failure::{Failure, Status},
    reporter::Reporter,
    reserve,
};

/// How long to wait for another process that works on the state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As long as it takes.
    Forever,
    /// So long at most; not at all for nothing.
    AtMost(Duration),
}

/// What a process needs a state folder for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    /// As on the command line: `run`, `datasets restore`.
    pub verb: &'a str,
    /// The pipeline that it is about, if it is about one.
    pub pipeline: Option<&'a str>,
}

/// Takes a state folder once nobody else has it, and says in it who has it now. Blocks, and starts a
/// thread where it has to wait. A signal that ends the process ends the waiting.
///
/// # Errors
/// If somebody has it for longer than is waited, and if it cannot be used.
pub(super) fn take(
    folder: &Path,
    purpose: Purpose<'_>,
    wait: Wait,
    reporter: &dyn Reporter,
) -> Result<FolderLock, Failure> {
    reserve::give_up_if_full(folder);
    let mut lock = match FolderLock::take(folder) {
        Err(OpenError::Locked { .. }) => waited(folder, wait, reporter)?,
        taken => taken.map_err(|error| open_failure(&error))?,
    };
    let holder = Holder {
        process: std::process::id(),
        verb: purpose.verb.into(),
        pipeline: purpose.pipeline.map(Label::from),
        since: Timestamp::now(),
    };
    let described = serde_json::to_vec(&holder).map_err(std::io::Error::from);
    let described = described.and_then(|text| lock.describe(&text));
    described.map_err(|error| super::unusable("nobody could be told who works here", &error))?;
    reserve::keep(folder);
    Ok(lock)
}

fn waited(folder: &Path, wait: Wait, reporter: &dyn Reporter) -> Result<FolderLock, Failure> {
    let patience = match wait {
        Wait::Forever => None,
        Wait::AtMost(Duration::ZERO) => return Err(in_use(folder)),
        Wait::AtMost(patience) => Some(patience),
    };
    reporter.warn(&format!(
        "waiting for {}; Ctrl-C ends the wait, `--wait 0` does not wait",
        words(folder)
    ));
    let (told, outcome) = mpsc::channel();
    let awaited = folder.to_owned();
    // It ends with the process at the latest.
    let thread = std::thread::Builder::new().name("wait".to_owned());
    let started = thread.spawn(move || {
        // Where nobody waits any more, the lock is given back at once.
        let _ = told.send(FolderLock::wait(&awaited));
    });
    started.map_err(|error| super::unusable("nobody can wait for the state folder", &error))?;
    let heard = match patience {
        None => outcome.recv().map_err(mpsc::RecvTimeoutError::from),
        Some(patience) => outcome.recv_timeout(patience),
    };
    let taken = heard.map_err(|_| in_use(folder))?;
    taken.map_err(|error| open_failure(&error))
}

/// The failure of who waits no longer.
fn in_use(folder: &Path) -> Failure {
    let what = format!(
        "{} works on the state folder {}",
        words(folder),
        folder.display()
    );
    Failure::new(Status::Unavailable, what)
        .with_code(codes::STATE_IN_USE.id)
        .with_help(
            "Wait for it with `--wait 10m`, or for as long as it takes without `--wait`; or name \
             another state folder with `--state`.",
        )
}

/// Who has the folder, as far as that is said in it.
fn words(folder: &Path) -> String {
    let said = match lock::holder(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return "another process, whose file `lock` there somebody has removed".to_owned();
        }
        said => said.unwrap_or_default(),
    };
    let Ok(holder) = serde_json::from_slice::<Holder>(&said) else {
        return "another process".to_owned();
    };
    let pipeline = holder.pipeline.map(|name| format!(" of pipeline `{name}`"));
    format!(
        "process {} (`barecount {}`{}, since {:.0})",
        holder.process,
        holder.verb,
        pipeline.unwrap_or_default(),
        holder.since
    )
}
