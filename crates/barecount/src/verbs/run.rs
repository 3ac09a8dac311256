//! `barecount run`.

use std::path::PathBuf;

use barecount_api::run::{RunRequest, RunView};
use barecount_client::{
    client::Pipelines as _,
    failure::{Failure, Status},
};
use barecount_model::run::RunState;
use clap::Args;

use crate::{global::Global, printer::Printer, progress::Display, view, window};

mod dry;

/// Run a pipeline to its end here, and show its outputs, cost and evidence.
///
/// The same work is done once: a task whose code, parameters, files and datasets are as they were
/// is answered by the earlier one, for as long as what that wrote still stands. A run that failed,
/// was cancelled or was interrupted is taken up again where it stands.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The manifest.
    file: PathBuf,
    /// The window of logical time: `2024`, `2024-05`, `2024-05-17`, or `START/END` (RFC 3339).
    #[arg(long, value_name = "WINDOW", value_parser = window::parse)]
    window: Option<barecount_model::run::Window>,
    /// The name of the logical work, in place of the one made from version, window and files.
    #[arg(long, value_parser = token)]
    token: Option<String>,
    /// Run this stage alone, on what earlier runs committed.
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Do this stage's work again although nothing has changed; may be given several times, and
    /// `all` stands for every stage.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Only tell what would run, task by task, and why. Nothing is written.
    #[arg(long)]
    dry_run: bool,
}

fn token(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if text.is_empty() || text.len() > 200 || !text.chars().all(plain) {
        return Err("a token has 1 to 200 letters, digits, `.`, `_`, `:`, `/` and `-`".to_owned());
    }
    Ok(text.to_owned())
}

impl Run {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let client = global.client();
        let asked = RunRequest {
            manifest: self.file,
            window: self.window,
            token: self.token,
            stage: self.stage,
            force: self.force,
        };
        if self.dry_run {
            return dry::print(&client.dry_run(&asked, printer)?, printer);
        }
        report(&client.run(&asked, &Display::new(printer))?, printer)
    }
}

/// Prints how it ended.
fn report(run: &RunView, printer: &Printer) -> Result<(), Failure> {
    view::print(run, printer)?;
    if run.state == RunState::Succeeded {
        return Ok(());
    }
    let what = format!(
        "run {} was {}",
        run.id,
        match run.state {
            RunState::Cancelled => "cancelled",
            _ => "not successful",
        }
    );
    let failure = Failure::new(Status::Failed, what);
    Err(if run.state == RunState::Cancelled {
        failure.with_help("Running the manifest again resumes it.")
    } else {
        failure.with_help(format!(
            "`barecount runs logs {}` shows what its attempts wrote; running the manifest again \
             resumes it.",
            run.id
        ))
    })
}
