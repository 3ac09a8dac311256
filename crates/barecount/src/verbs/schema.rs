//! `barecount schema`.

use barecount_model::schema;
use clap::{Args, ValueEnum};

use crate::{failure::Failure, printer::Printer};

/// Print a published JSON Schema.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Which one.
    #[arg(value_enum)]
    name: Name,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// The pipeline manifest.
    Manifest,
}

impl Schema {
    pub(crate) fn execute(self, printer: &Printer) -> Result<(), Failure> {
        let document = match self.name {
            Name::Manifest => schema::manifest(),
        };
        printer.data(&document, || format!("{document:#}\n"))
    }
}
