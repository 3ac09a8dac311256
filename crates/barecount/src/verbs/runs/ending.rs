//! `barecount runs cancel` and `barecount runs abandon`.

use barecount_client::{failure::Failure, state};
use clap::Args;

use super::print;
use crate::{global::Global, printer::Printer, tenant::OfTenant};

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
        end(global, printer, &self.which, None)
    }
}

impl Abandon {
    pub(super) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        end(global, printer, &self.which, Some(self.reason))
    }
}

/// Ends a run; gives it up if there is a reason to.
fn end(
    global: &Global,
    printer: &Printer,
    which: &Which,
    reason: Option<String>,
) -> Result<(), Failure> {
    let (_, run, plan) = state::find_run(&global.state, &which.run)?;
    which.of.hold(&run.tenant, &format!("run {}", run.id))?;
    global.client().end(&run, &plan, reason, printer)?;
    let (reader, run, plan) = state::find_run(&global.state, run.id.as_str())?;
    print(global, printer, &reader, &run, &plan)
}
