//! `barecount engine-job` and `engine-check`: the engine as a process of its own. The platform starts
//! the first in a sandbox; the second limits itself.

use std::{io, path::PathBuf};

use barecount_client::failure::{Failure, Status};
use barecount_engine::{
    check,
    process::{self, Response},
};
use clap::Args;

use crate::printer::Printer;

/// Carry out a job of the data engine that is read from standard input.
#[derive(Debug, Args)]
pub(crate) struct EngineJob {
    /// Where the result is written.
    result: PathBuf,
}

impl EngineJob {
    /// Ends the process with the exit statuses of the task contract.
    pub(crate) fn execute(self, printer: &Printer) -> Result<u8, Failure> {
        let status = process::engine_main(io::stdin().lock(), &self.result);
        let response = std::fs::read(&self.result).ok();
        let response = response.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(Response::Failed { message, .. }) = response {
            printer.warn(&message);
        }
        Ok(status)
    }
}

/// Plan scripts that are read from standard input, and say on standard output what is wrong with them.
#[derive(Debug, Args)]
pub(crate) struct EngineCheck;

impl EngineCheck {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        check::serve(io::stdin().lock(), io::stdout().lock()).map_err(|error| {
            Failure::new(Status::Usage, "the scripts cannot be planned").because(&error)
        })?;
        Ok(0)
    }
}
