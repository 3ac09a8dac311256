//! Parquet that work wrote is decoded by an engine in a sandbox of its own, with the memory of the
//! work's stage: a file of some hundred bytes can unpack to gigabytes. Rows come out through a named
//! pipe as plain Arrow batches, which are checked like those of a job, and staged as they come.

use std::{
    fs::{File, Permissions},
    io::{self, PipeReader, PipeWriter, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use barecount_agent::{DataError, StagingWatch};
use barecount_api::assignment::Assignment;
use barecount_dataset::stage::{self, OutputSpec, StageError, Staged};
use barecount_engine::{
    error::FailureKind,
    process::{DecodeSpec, Request, Response},
};
use barecount_model::{codes, pipeline::Output};
use barecount_runner::launch::inside;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    io::Errno,
};
use tokio::sync::Notify;

use super::{
    blocking::blocking,
    engine::{Answer, Engine, Question},
    letters::{self, Watched},
};

/// The pipe, in the engine's output folder.
const PIPE: &str = ".rows";
/// Longer than rows are staged; a stop ends it at once.
const TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// How long an engine may go on when its rows are not read any more.
const GRACE: Duration = Duration::from_secs(30);

/// Decodes what work wrote.
pub(super) struct Decoding {
    engine: Engine,
}

/// The Parquet files of an output.
pub(super) struct Written<'a> {
    pub(super) output: &'a Output,
    pub(super) assignment: &'a Assignment,
    pub(super) watch: &'a StagingWatch,
    /// Where they are.
    pub(super) folder: PathBuf,
}

impl Decoding {
    /// Files are decoded by such an engine.
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Stages the files into a folder.
    ///
    /// # Errors
    /// As of [`stage::stage_output`]; if they take more memory than the stage has.
    pub(super) async fn stage(
        &self,
        from: &Written<'_>,
        into: &Path,
        spec: OutputSpec,
        watched: Watched,
    ) -> Result<Staged, DataError> {
        let output = from.output;
        let (folder, of) = (from.folder.clone(), spec.clone());
        let files = blocking(move || stage::written_files(&folder, &of)).await?;
        let files = files.map_err(|error| letters::stage_error(output, &error))?;
        let request = Request::Decode(DecodeSpec {
            folder: inside::INPUT.into(),
            files: files.iter().map(|file| file.path.clone()).collect(),
            limits: spec.limits.clone(),
            rows: Path::new(inside::OUTPUT).join(PIPE),
        });
        let memory_bytes = from.assignment.stage.resources.memory_bytes;
        let question = Question {
            what: "the decoding",
            code: codes::STAGING_FAILED.id,
            assignment: from.assignment,
            output,
            input: &from.folder,
            request: &request,
            memory_bytes,
            timeout: TIMEOUT,
        };
        let (asked, (rows, alive)) = self.engine.ask(&question, Rows::begin).await?;
        let into = into.to_owned();
        let failed = Notify::new();
        let staging = async {
            let staged =
                blocking(move || stage::stage_decoded(&files, rows, &into, &spec, &watched)).await;
            if !matches!(staged, Ok(Ok(_))) {
                failed.notify_one();
            }
            staged
        };
        // An engine whose rows nobody takes any more ends by itself, and says why if it was the
        // first to fail.
        let unread = async {
            failed.notified().await;
            self.engine.clock().sleep(GRACE).await;
        };
        let unanswered = |message: &str| DataError::Host {
            code: codes::STAGING_FAILED.id,
            message: message.to_owned(),
        };
        let answered = async {
            let answered = tokio::select! {
                answered = asked.answer() => answered,
                () = from.watch.stopped() => Err(unanswered("the decoding was stopped")),
                () = unread => Err(unanswered("the decoding went on when its rows were not read")),
            };
            asked.end().await;
            drop(alive);
            answered
        };
        let (answered, staged) = tokio::join!(answered, staging);
        let staged = staged?;
        match (answered, staged) {
            // What ended it says more than that it was ended.
            (Err(_), Err(error)) => Err(letters::stage_error(output, &error)),
            (answered, staged) => conclude(output, memory_bytes, answered?, staged),
        }
    }
}

/// What came of it: whoever failed first knows why, the other only that there was an end.
fn conclude(
    output: &Output,
    memory_bytes: u64,
    answered: Answer,
    staged: Result<Staged, StageError>,
) -> Result<Staged, DataError> {
    let staged = staged.map_err(|error| letters::stage_error(output, &error));
    let code = codes::OUTPUT_NOT_AS_DECLARED.id;
    match (answered, staged) {
        (Answer::OutOfMemory, _) => Err(DataError::Data {
            code,
            message: format!(
                "output {}: its Parquet files take more memory to decode than the {} MiB that the \
                 stage has: write smaller pages and row groups, or choose a larger size",
                output.dataset,
                memory_bytes >> 20
            ),
        }),
        (Answer::Told(Response::Failed { kind, message, .. }), staged) => match (kind, staged) {
            // The rows were not wanted any more.
            (FailureKind::Write, Err(error)) => Err(error),
            (FailureKind::Data, _) => Err(DataError::Data {
                code,
                message: format!("output {}: {message}", output.dataset),
            }),
            _ => Err(DataError::Host {
                code: codes::STAGING_FAILED.id,
                message: format!("output {} cannot be decoded: {message}", output.dataset),
            }),
        },
        (Answer::Told(_), staged) => staged,
    }
}

/// The reading end of the pipe. It ends when its writer does, or when there will never be one.
struct Rows {
    pipe: File,
    /// At its end once nobody is left who could write.
    ended: PipeReader,
}

impl Rows {
    /// Makes the pipe in a folder. What is returned beside is to be dropped when the engine has ended.
    fn begin(folder: &Path) -> io::Result<(Self, PipeWriter)> {
        let path = folder.join(PIPE);
        let (ended, alive) = io::pipe()?;
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // The engine may be another user here; nobody else comes to this folder.
        std::fs::set_permissions(&path, Permissions::from_mode(0o622))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let pipe = File::from(open(&path, flags, Mode::empty())?);
        Ok((Self { pipe, ended }, alive))
    }
}

impl Read for Rows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut on = [
                PollFd::new(&self.pipe, PollFlags::IN),
                PollFd::new(&self.ended, PollFlags::IN),
            ];
            match poll(&mut on, None) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            let [rows, ended] = on.map(|on| !on.revents().is_empty());
            if !rows && ended {
                return Ok(0);
            }
            match (&self.pipe).read(buffer) {
                // Somebody else's turn between two looks.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests;
