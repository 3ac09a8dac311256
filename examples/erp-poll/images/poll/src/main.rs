//! The *poll* command: what is new among the orders of an ERP system, page by page, since the last
//! poll that was accepted.
//!
//! Each page is in the checkpoint before the next is asked for. When the API is not well for longer
//! than it can wait, or the platform asks it to stop (`SIGTERM`), it exits with status 75, and the
//! next attempt goes on behind the last page.

mod api;
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
    thread,
};

use serde_json::json;
use signal_hook::{consts::SIGTERM, iterator::Signals};

use crate::{
    api::{Api, ApiError, Page},
    checkpoint::{Checkpoint, CheckpointError, DeadLetter, Taken},
    schema::{Schema, SchemaError},
    settings::{Settings, SettingsError},
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

fn main() -> ExitCode {
    let ended = stop_when_asked()
        .map_err(PollError::Signals)
        .and_then(|()| Ok(Settings::read()?))
        .and_then(poll);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A log line that cannot be written changes nothing about the outcome.
            let _ = writeln!(io::stderr(), "poll: {}", status::chain(&error));
            ExitCode::from(error.status().code())
        }
    }
}

/// Ends the process when the platform asks for it. There is nothing to wait for: at any moment the
/// checkpoint is whole, and has every page but the one under way.
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

fn poll(settings: Settings) -> Result<(), PollError> {
    let output = settings.output.clone();
    let mut checkpoint = Checkpoint::open(&settings.checkpoint)?;
    let found = checkpoint.state();
    log::line(&json!({
        "message": "the poll begins",
        "cursor": found.cursor,
        "pages_of_earlier_attempts": found.spooled.pages,
    }));
    let mut api = Api::new(settings);
    let schema = api.schema()?;
    schema.has_all_columns()?;
    let digest = schema.digest();
    let mut more = true;
    while more && !checkpoint.is_full() {
        let page = api.orders(checkpoint.state().cursor.as_deref())?;
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
    let handed = checkpoint.hand_over(&output)?;
    log::line(&json!({
        "message": "the poll is done",
        "pages": handed.pages,
        "orders": handed.rows,
        "set_aside": handed.letters,
        "more": more,
    }));
    Ok(())
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
