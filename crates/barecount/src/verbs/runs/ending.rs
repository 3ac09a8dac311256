//! `barecount runs cancel` and `barecount runs abandon`.

use barecount_client::{client::Runs, failure::Failure};
use clap::Args;

use crate::{global::Global, printer::Printer, tenant::OfTenant, view};

/// A run that is to end.
#[derive(Debug, Args)]
struct Which {
    /// The run's identifier, or the beginning of it.
    run: String,
    #[command(flatten)]
    of: OfTenant,
}

/// Ends a run in good order.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    which: Which,
}

/// Ends a run that cannot come to its end.
#[derive(Debug, Args)]
pub(crate) struct Abandon {
    #[command(flatten)]
    which: Which,
    /// Why it is given up, for those who read the evidence.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
}

/// No reason is longer.
const MAX_REASON_BYTES: usize = 1000;

fn reason(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.len() > MAX_REASON_BYTES {
        return Err(format!("a reason has 1 to {MAX_REASON_BYTES} bytes"));
    }
    Ok(trimmed.to_owned())
}

impl Cancel {
    pub(super) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let Which { run, of } = &self.which;
        let ended = global.client().cancel(run, of.name(), printer)?;
        view::print(&ended, printer)
    }
}

impl Abandon {
    pub(super) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let Which { run, of } = &self.which;
        let ended = global
            .client()
            .abandon(run, of.name(), &self.reason, printer)?;
        view::print(&ended, printer)
    }
}
