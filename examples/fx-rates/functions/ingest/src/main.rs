//! The *ingest* function: the published file of reference rates arrives, its rows are held against
//! the extractor schema, and land in Raw Stage as they are.

mod landing;
mod schema;

use std::io::{self, Write};

use fx_contract::invocation::Invocation;
use fx_contract::status::{self, Failure};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};

use crate::landing::{Event, Landed};

// One invocation at a time is all that a function gets, so one thread does.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(request: LambdaEvent<Invocation<Event>>) -> Result<Landed, Diagnostic> {
    let Invocation {
        barecount: attempt,
        event,
    } = request.payload;
    let landed = landing::land(&attempt, event.as_ref()).map_err(|error| Diagnostic {
        error_type: error.status().error_type().to_owned(),
        error_message: status::chain(&error),
    })?;
    let line = serde_json::json!({
        "message": "landed the published file",
        "task_id": attempt.task_id,
        "attempt": attempt.attempt,
        "rows": landed.rows,
        "dead_letters": landed.dead_letters,
    });
    // The rows are what counts; a log that nobody reads any more is no reason to fail.
    let _ = writeln!(io::stdout(), "{line}");
    Ok(landed)
}
