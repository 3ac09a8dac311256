//! `barecount man`.

use std::path::PathBuf;

use barecount_client::failure::{Failure, Status};
use clap::{Args, Command};

use crate::printer::Printer;

/// Print the manual page, or write those of all verbs into a folder.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The folder; without it the page of `barecount` itself is printed.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

impl Man {
    pub(crate) fn execute(self, command: Command, printer: &Printer) -> Result<(), Failure> {
        let Some(folder) = self.to else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .map_err(|error| {
                    Failure::new(Status::Bug, "the page cannot be made").because(&error)
                })?;
            return printer.document(&String::from_utf8_lossy(&page));
        };
        std::fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(command, &folder))
            .map_err(|error| {
                let what = format!("no pages can be written to {}", folder.display());
                Failure::new(Status::Failed, what)
                    .at(&folder, &error)
                    .with_help("Name a folder that you may write to.")
            })?;
        printer.note(&format!("wrote the pages to {}", folder.display()));
        Ok(())
    }
}
