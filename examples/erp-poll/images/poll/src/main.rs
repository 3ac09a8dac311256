//! The *poll* handler: what is new among the orders of a year in an ERP system, page by page, since
//! the last poll of that year that was accepted.
//!
//! One process takes one task after the other, and keeps its token and the schema of an order
//! meanwhile. Each page is in the checkpoint before the next is asked for. When the API is not well for
//! longer than it can wait, the answer is `EX_TEMPFAIL`, and the next attempt goes on behind the last
//! page; so it does when the platform asks the process to stop (`SIGTERM`), which then exits with
//! status 75.

mod api;
mod bounded;
mod cache;
mod checkpoint;
mod log;
mod patience;
mod schema;
mod settings;
mod status;
mod token;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::{Value, json};
use signal_hook::{consts::SIGTERM, iterator::Signals};

use crate::{
    api::{Api, ApiError, Page},
    checkpoint::{Checkpoint, CheckpointError, DeadLetter, Taken},
    schema::{Schema, SchemaError},
    settings::{Attempt, Invocation, Settings, SettingsError},
    status::{Failure, Status},
};

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("signals cannot be waited for")]
    Signals(#[source] io::Error),
}

impl Failure for PollError {
    fn status(&self) -> Status {
        match self {
            Self::Settings(error) => error.status(),
            Self::Checkpoint(error) => error.status(),
            Self::Api(error) => error.status(),
            Self::Schema(error) => error.status(),
            Self::Signals(_) => Status::IoErr,
        }
    }
}

// One event at a time is all that a handler gets, so one thread does, and may wait for the API.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let started = stop_when_asked()
        .map_err(PollError::Signals)
        .and_then(|()| Ok(Settings::read()?));
    let api = match started {
        Ok(settings) => Mutex::new(Api::new(settings)),
        Err(error) => return failed(&status::chain(&error), error.status()),
    };
    let serving = lambda_runtime::run(service_fn(async |event: LambdaEvent<Invocation>| {
        // Whatever a task left half-done in it, an API can be asked again.
        let mut api = api.lock().unwrap_or_else(PoisonError::into_inner);
        poll(&mut api, &event.payload.barecount).map_err(|error| Diagnostic {
            error_type: error.status().error_type().to_owned(),
            error_message: status::chain(&error),
        })
    }));
    match serving.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string(), Status::IoErr),
    }
}

/// Ends the program where there is no event whose answer could say why.
fn failed(why: &str, status: Status) -> ExitCode {
    // A log line that cannot be written changes nothing about the outcome.
    let _ = writeln!(io::stderr(), "poll: {why}");
    ExitCode::from(status.code())
}

/// Ends the process when the platform asks for it. There is nothing to wait for: at any moment the
/// checkpoint is whole, and has every page but the one under way, those that were handed over too. So
/// nothing is lost if outputs are swept whose attempt was stopped before its answer arrived.
fn stop_when_asked() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            log::line(&json!({ "message": "asked to stop; another attempt goes on from here" }));
            std::process::exit(Status::TempFail.code().into());
        }
    });
    Ok(())
}

/// Carries one task out; answers with what it brought.
fn poll(api: &mut Api, attempt: &Attempt) -> Result<Value, PollError> {
    let year = attempt.partition.as_deref();
    let mut api = api.session(attempt.secret()?, attempt.deadline());
    let mut checkpoint = Checkpoint::open(&attempt.checkpoint_dir, &attempt.task_id)?;
    let found = checkpoint.state();
    log::line(&json!({
        "message": "the poll begins",
        "year": year,
        "cursor": found.cursor,
        "pages_of_earlier_attempts": found.spooled.pages,
    }));
    let schema = api.schema()?;
    schema.has_all_columns()?;
    let digest = schema.digest();
    let mut more = true;
    while more && !checkpoint.is_full() {
        let page = api.orders(year, checkpoint.state().cursor.as_deref())?;
        more = page.more;
        let taken = take(&page, &schema, &digest);
        checkpoint.save(&taken, page.cursor)?;
        log::line(&json!({
            "message": "a page is taken",
            "page": checkpoint.state().spooled.pages,
            "orders": taken.rows.len(),
            "set_aside": taken.letters.len(),
        }));
    }
    let handed = checkpoint.hand_over(&attempt.output_dir)?;
    let brought = json!({
        "pages": handed.pages,
        "orders": handed.rows,
        "set_aside": handed.letters,
        "more": more,
    });
    log::line(&json!({ "message": "the poll is done", "year": year, "brought": brought }));
    Ok(brought)
}

fn take(page: &Page, schema: &Schema, digest: &str) -> Taken {
    let mut taken = Taken::default();
    for record in &page.orders {
        match schema.row(record) {
            Ok(row) => taken.rows.push(row),
            Err(error) => taken.letters.push(DeadLetter::new(record, error, digest)),
        }
    }
    taken
}
