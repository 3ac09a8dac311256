//! `barecount engine-job`: the engine as a process of its own. The platform starts it in a sandbox.

use std::{io, path::PathBuf};

use barecount_client::failure::Failure;
use barecount_engine::process::{self, Response};
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
