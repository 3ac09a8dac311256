//! The *publish* function: the monthly figures as one CSV file, and a report page to look at.

mod chart;
mod currency;
mod figures;
mod page;
mod text;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use fx_contract::invocation::{Attempt, Invocation};
use fx_contract::status::{self, Failure, Status};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};

use crate::figures::{Figures, FiguresError};

const DATASET: &str = "publish.fx_report";

// One invocation at a time is all that a function gets, so one thread does.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(
    request: LambdaEvent<Invocation<serde_json::Value>>,
) -> Result<serde_json::Value, Diagnostic> {
    let attempt = request.payload.barecount;
    let (rows, bytes) = publish(&attempt).map_err(|error| Diagnostic {
        error_type: error.status().error_type().to_owned(),
        error_message: status::chain(&error),
    })?;
    let line = serde_json::json!({
        "message": "published the report",
        "task_id": attempt.task_id,
        "attempt": attempt.attempt,
        "rows": rows,
        "report_bytes": bytes,
    });
    // The report is what counts; a log that nobody reads any more is no reason to fail.
    let _ = writeln!(io::stdout(), "{line}");
    Ok(serde_json::json!({ "dataset": DATASET, "rows": rows, "report_bytes": bytes }))
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Figures(#[from] FiguresError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Failure for PublishError {
    fn status(&self) -> Status {
        match self {
            Self::Figures(error) => error.status(),
            Self::Write { .. } => Status::IoErr,
        }
    }
}

/// Writes both files; answers with the rows of the one and the bytes of the other.
fn publish(attempt: &Attempt) -> Result<(u64, usize), PublishError> {
    let figures = Figures::read(&attempt.input_dir)?;
    let folder = attempt.output_dir.join(DATASET);
    let rows = figures
        .write_monthly(folder.join("fx_monthly.csv"))
        .map_err(FiguresError::from)?;
    let report = page::render(&figures);
    let path = folder.join("report.html");
    fs::write(&path, &report).map_err(|source| PublishError::Write { path, source })?;
    Ok((rows, report.len()))
}

#[cfg(test)]
mod tests;
