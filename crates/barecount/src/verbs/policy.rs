//! `barecount policy`.

use std::path::PathBuf;

use barecount_client::{
    embedded::{lock, policy},
    environment,
    failure::{Failure, Status},
    manifest, preparation, requester,
};
use barecount_control::governance::{Action, Verdict, explain};
use barecount_model::{lock::Lock, version};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
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
        let loaded = manifest::load(&file, printer)?;
        let folder = manifest::folder(&file)?;
        let found = environment::held(&folder, global.environment.as_deref(), &global.state)?;
        // What is not built yet has no version; the answer does not depend on it.
        let lock = lock::read(&folder)?
            .unwrap_or_else(|| Lock::new(loaded.pipeline.name.clone(), Vec::new()));
        let question = policy::question(
            match action {
                Asked::Run => Action::Run,
                Asked::ChangeDataset => Action::ChangeDataset,
                Asked::RefreshLock => Action::RefreshLock,
            },
            &loaded.pipeline,
            &version::of(&loaded.manifest, &lock).to_string(),
            &found.environment,
            &requester::name(),
            Timestamp::now(),
        );
        let verdict = preparation::governance()?.decide(&question);
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
