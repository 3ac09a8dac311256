//! Runs a query through a driver bundle's entry point and reads the CSV that it streams.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use fx_contract::status::{Failure, Status};

/// The exit codes of the driver that say: the database or the query is bad, and: the reader is gone.
const BAD_DATA: i32 = 65;
const NO_DATABASE: i32 = 66;
const CANNOT_WRITE: i32 = 74;

/// A query could not be run through a driver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    #[error("cannot start the driver {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot wait for the driver to end")]
    Wait(#[source] io::Error),
    #[error("the driver failed with {status}; its own message is above")]
    Failed { status: ExitStatus },
    #[error("the driver's rows are not those of the query")]
    Rows(#[source] csv::Error),
    #[error("the driver answers with {found} columns where {expected} are expected")]
    Width { found: usize, expected: usize },
}

impl Failure for DriverError {
    fn status(&self) -> Status {
        match self {
            Self::Failed { status } if matches!(status.code(), Some(BAD_DATA | NO_DATABASE)) => {
                Status::DataErr
            }
            Self::Start { .. } | Self::Failed { .. } => Status::Unavailable,
            Self::Wait(_) => Status::IoErr,
            Self::Rows(_) | Self::Width { .. } => Status::DataErr,
        }
    }
}

/// Hands each row of the query's answer to `visit` while the driver streams them.
///
/// The driver has always ended when this returns. One that fails on its own account is the failure,
/// whatever became of the rows until then.
pub(crate) fn extract<const N: usize, E: From<DriverError>>(
    program: &Path,
    database: &Path,
    sql: &str,
    parameters: &[String],
    visit: impl FnMut([&str; N]) -> Result<(), E>,
) -> Result<(), E> {
    let mut child = Command::new(program)
        .arg(database)
        .arg(sql)
        .args(parameters)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| DriverError::Start {
            program: program.to_owned(),
            source,
        })?;
    // Reading takes the pipe and closes it on the way out, so that a driver whose rows nobody
    // wants any more ends instead of waiting for a reader.
    let read = read(&mut child, visit);
    let status = child.wait().map_err(DriverError::Wait)?;
    let reader_left = read.is_err() && status.code() == Some(CANNOT_WRITE);
    if !status.success() && !reader_left {
        return Err(DriverError::Failed { status }.into());
    }
    read
}

fn read<const N: usize, E: From<DriverError>>(
    child: &mut Child,
    mut visit: impl FnMut([&str; N]) -> Result<(), E>,
) -> Result<(), E> {
    let Some(output) = child.stdout.take() else {
        return Ok(());
    };
    let mut reader = csv::Reader::from_reader(output);
    let width = reader.headers().map_err(DriverError::Rows)?.len();
    if width != N {
        return Err(DriverError::Width {
            found: width,
            expected: N,
        }
        .into());
    }
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(DriverError::Rows)? {
        // The reader refuses rows of another width than the header's.
        visit(std::array::from_fn(|position| {
            row.get(position).unwrap_or_default()
        }))?;
    }
    Ok(())
}
