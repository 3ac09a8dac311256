//! `barecount policy`.

use std::path::PathBuf;

use barecount_client::{
    client::Pipelines as _,
    failure::{Failure, Status},
};
use barecount_control::governance::{Action, Verdict, explain};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::{global::Global, printer::Printer};

/// Ask governance.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Say whether a pipeline may run here, by which policies, and what would change the answer.
    Explain {
        /// The manifest.
        file: PathBuf,
        /// What is to be done.
        #[arg(long, value_enum, default_value = "run")]
        action: Asked,
    },
}

/// What governance is asked about.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Asked {
    /// Start a run.
    Run,
    /// Restore, drop or give a dataset of it.
    ChangeDataset,
    /// Write new digests into the lock file.
    RefreshLock,
}

impl Policy {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let Self::Explain { file, action } = self;
        let action = match action {
            Asked::Run => Action::Run,
            Asked::ChangeDataset => Action::ChangeDataset,
            Asked::RefreshLock => Action::RefreshLock,
        };
        let verdict = global.client().explain(&file, action, printer)?;
        let (permitted, explanation) = match &verdict {
            Verdict::Permitted(permit) => (true, permit.explanation()),
            Verdict::Refused(refusal) => (false, &refusal.explanation),
        };
        let value = json!({
            "schema": "barecount/decision/v1", "permitted": permitted, "explanation": explanation,
        });
        printer.data(&value, || explain(&verdict))?;
        if permitted {
            Ok(())
        } else {
            Err(Failure::reported(Status::Refused))
        }
    }
}
