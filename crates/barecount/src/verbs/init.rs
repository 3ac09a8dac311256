//! `barecount init`.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use barecount_client::failure::{Failure, Status};
use clap::Args;
use serde_json::json;

use crate::printer::Printer;

const MANIFEST: &str = include_str!("init/pipeline.yaml");
const JOB: &str = include_str!("init/daily.sql");

/// Write a small pipeline that runs at once.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder; it may exist, and nothing in it is replaced.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

impl Init {
    pub(crate) fn execute(self, printer: &Printer) -> Result<(), Failure> {
        let files = [("pipeline.yaml", MANIFEST), ("jobs/daily.sql", JOB)];
        for (name, _) in files {
            let path = self.folder.join(name);
            if path.symlink_metadata().is_ok() {
                let what = format!("{} exists already", path.display());
                return Err(Failure::new(Status::Conflict, what)
                    .with_help("Name an empty folder: nothing is replaced."));
            }
        }
        for (name, text) in files {
            write(&self.folder.join(name), text)?;
        }
        let manifest = self.folder.join("pipeline.yaml");
        let value = json!({
            "schema": "barecount/init/v1", "manifest": manifest,
            "files": files.map(|(name, _)| self.folder.join(name)),
        });
        printer.data(&value, || {
            format!(
                "wrote a pipeline of one stage to {}\nnext:  barecount run {}\n",
                self.folder.display(),
                manifest.display()
            )
        })
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(parent)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).open(path))
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Failure::new(
            Status::Failed,
            format!("{} cannot be written", path.display()),
        )
        .because(&error)
    })
}
