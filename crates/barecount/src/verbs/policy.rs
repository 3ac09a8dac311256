//! `barecount policy`.

use std::path::PathBuf;

use barecount_client::{
    approvals::Advice,
    client::Pipelines as _,
    failure::{Failure, Status},
};
use barecount_control::governance::{Action, explain};
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
        let explanation = global.client().explain(&file, action, printer)?;
        let permitted = explanation.is_permitted();
        let advice = Advice::of(&explanation, &file);
        let value = json!({
            "schema": "barecount/decision/v1", "permitted": permitted, "explanation": explanation,
            "approvals": advice.iter().map(Advice::json).collect::<Vec<_>>(),
        });
        printer.data(&value, || {
            let mut text = explain(&explanation);
            if !advice.is_empty() {
                text.push_str(&format!("\n{}", Advice::text(&advice)));
            }
            text
        })?;
        if permitted {
            Ok(())
        } else {
            Err(Failure::reported(Status::Refused))
        }
    }
}
