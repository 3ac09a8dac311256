//! Ends of attempts, kept on the agent's disk until somebody acknowledges them, so that an agent
//! which dies after the work is done does not have it done again.
//!
//! An end lies in the attempt's own folder: with what it staged, or not at all. By then everything
//! that a successful end names is durable.

use std::{
    io,
    path::{Path, PathBuf},
};

use barecount_api::{
    assignment::{Event, SetAside},
    attempt::AttemptRef,
};
use barecount_model::run::outcome::Outcome;
use barecount_runner::launch::AttemptToken;
use serde::{Deserialize, Serialize};

use crate::places::{self, StagingFolders};

/// The format of what is kept. In the first one no failure could be read again; of an end in it, the
/// runner is asked.
const VERSION: u32 = 2;
/// An end that takes more is not kept: it comes of work that sets enormous records aside.
const MAX_BYTES: u64 = 64 << 20;

/// Where ends are kept.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    folders: StagingFolders,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    attempt: AttemptRef,
    outcome: Outcome,
    set_aside: Vec<SetAside>,
}

impl Outbox {
    pub(crate) fn new(folders: StagingFolders) -> Self {
        Self { folders }
    }

    /// Makes an end durable. Blocks on the disk. Dying before it is leaves an attempt of which
    /// nothing was told; after, [`find`](Self::find) has it.
    ///
    /// # Errors
    /// Any error of the file system, and an end that is too large.
    pub(crate) fn keep(
        &self,
        attempt: AttemptRef,
        outcome: Outcome,
        set_aside: Vec<SetAside>,
    ) -> io::Result<()> {
        let path = self.path(&attempt.token());
        let kept = Kept {
            version: VERSION,
            attempt,
            outcome,
            set_aside,
        };
        let text = serde_json::to_string(&kept)?;
        if text.len() as u64 > MAX_BYTES {
            let message = format!("it has {} bytes, of {MAX_BYTES} at most", text.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        places::keep_record(&**self.folders.files(), &path, &text)?;
        self.folders.sync()
    }

    /// The end of an attempt that was kept and not acknowledged, durable by now also where who kept
    /// it died before it was. Blocks on the disk.
    ///
    /// # Errors
    /// Any error of the file system; a record that is not one of this attempt.
    pub(crate) fn find(&self, attempt: &AttemptRef) -> io::Result<Option<Event>> {
        let path = self.path(&attempt.token());
        let text = match self.folders.files().read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let kept: Kept = serde_json::from_slice(&text)?;
        if kept.version != VERSION || kept.attempt != *attempt {
            let message = "it is another attempt's, or of another version";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if let Some(folder) = path.parent() {
            self.folders.files().sync_folder(folder)?;
        }
        self.folders.sync()?;
        Ok(Some(Event::Ended {
            attempt: kept.attempt,
            outcome: Box::new(kept.outcome),
            set_aside: kept.set_aside,
        }))
    }

    /// Forgets an end. Blocks on the disk. Should it come back because the host lost power, it is of
    /// an attempt that nobody asks for any more.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn remove(&self, token: &AttemptToken) -> io::Result<()> {
        match self.folders.files().remove_file(&self.path(token)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes what may be left of an end that was not kept, so that no loss of power brings it back.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn withdraw(&self, token: &AttemptToken) -> io::Result<()> {
        self.remove(token)?;
        let path = self.path(token);
        let folder = path.parent().unwrap_or(Path::new("."));
        match self.folders.files().sync_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path(&self, token: &AttemptToken) -> PathBuf {
        self.folders.kept_end(token)
    }
}

#[cfg(test)]
mod tests {
    use barecount_model::{
        id::{RunId, TaskId},
        run::outcome::{AttemptResult, Failure, FailureKind, Metrics, Staged, Timeline},
    };

    use super::*;

    #[test]
    fn whatever_an_attempt_came_to_is_found_as_it_was_kept() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let outbox = Outbox::new(StagingFolders::new(state.path()));
        let failed = AttemptResult::Failed(Failure {
            kind: FailureKind::Infrastructure,
            code: "BC0611".to_owned(),
            message: "the backend did not answer".into(),
        });
        let done = AttemptResult::Done(Staged::default());
        for (number, result) in (1..).zip([done, failed, AttemptResult::Stopped]) {
            let attempt = AttemptRef {
                run: RunId::from_bytes([1; 16]),
                index: 0,
                task: TaskId::from_bytes([2; 16]),
                number,
            };
            let outcome = Outcome {
                result,
                exit_code: None,
                metrics: Metrics::default(),
                timeline: Timeline::default(),
                detail: serde_json::Value::Null,
            };
            outbox.keep(attempt.clone(), outcome.clone(), Vec::new())?;
            let found = outbox.find(&attempt)?;
            let Some(Event::Ended { outcome: found, .. }) = found else {
                return Err(io::ErrorKind::NotFound.into());
            };
            assert_eq!(*found, outcome);
        }
        Ok(())
    }
}
