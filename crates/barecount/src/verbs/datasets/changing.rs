//! `barecount datasets restore`, `drop` and `give`.

use std::io::{self, BufRead, IsTerminal};

use barecount_client::{
    client::{DatasetChange, Datasets as _},
    failure::{Failure, Status},
    words::counted,
};
use barecount_model::text::Name;
use clap::Args;

use super::Which;
use crate::{global::Global, printer::Printer};

/// Restores a version.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    which: Which,
    /// The version to go back to.
    #[arg(long, value_name = "VERSION")]
    version: u64,
    #[command(flatten)]
    sure: Sure,
}

/// Drops a dataset.
#[derive(Debug, Args)]
pub(crate) struct Drop {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    sure: Sure,
}

/// Gives a dataset.
#[derive(Debug, Args)]
pub(crate) struct Give {
    #[command(flatten)]
    which: Which,
    /// The pipeline that it belongs to from now on.
    #[arg(long, value_name = "PIPELINE")]
    to: Name,
    #[command(flatten)]
    sure: Sure,
}

/// Whether somebody has thought about it.
#[derive(Debug, Args)]
struct Sure {
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
}

impl Restore {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let asked = DatasetChange::Restore(self.version);
        change(global, printer, &self.which, &self.sure, &asked)
    }
}

impl Drop {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        change(
            global,
            printer,
            &self.which,
            &self.sure,
            &DatasetChange::Drop,
        )
    }
}

impl Give {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let asked = DatasetChange::Give(self.to.to_string());
        change(global, printer, &self.which, &self.sure, &asked)
    }
}

fn change(
    global: &Global,
    printer: &Printer,
    which: &Which,
    sure: &Sure,
    asked: &DatasetChange,
) -> Result<(), Failure> {
    let agreed = |question: &str| sure.ask(question, printer);
    let changed = global
        .client()
        .change(&which.dataset(), asked, &agreed, printer)?;
    printer.data(&changed, || match changed["version"].as_u64() {
        Some(version) => format!(
            "{} is at version {version} now: {}, {}\n",
            changed["dataset"].as_str().unwrap_or_default(),
            changed["act"].as_str().unwrap_or_default(),
            counted(changed["rows"].as_u64(), "row")
        ),
        None => format!(
            "{} is that already; nothing was changed\n",
            changed["dataset"].as_str().unwrap_or_default()
        ),
    })
}

impl Sure {
    /// Asks whoever sits at a terminal; nobody else can be asked.
    fn ask(&self, question: &str, printer: &Printer) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        printer.warn(question);
        let mut answer = String::new();
        if io::stdin().is_terminal() {
            printer.warn("Do it? [y/N]");
            let read = io::stdin().lock().read_line(&mut answer);
            read.map_err(|error| {
                Failure::new(Status::Usage, "the answer cannot be read").because(&error)
            })?;
        }
        match answer.trim() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::new(Status::Usage, "nothing was changed")
                .with_help("`--yes` does it without asking.")),
        }
    }
}
