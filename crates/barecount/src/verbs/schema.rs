//! `barecount schema`.

use barecount_client::failure::Failure;
use barecount_model::schema;
use clap::{Args, ValueEnum};

use crate::printer::Printer;

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
    /// The environment file.
    Environment,
    /// The lock file.
    Lock,
    /// The build recipe, `build.yaml`.
    Build,
    /// What the ledger holds: in-toto statements, by predicate type.
    Evidence,
}

impl Schema {
    pub(crate) fn execute(self, printer: &Printer) -> Result<(), Failure> {
        let document = match self.name {
            Name::Manifest => schema::manifest(),
            Name::Environment => schema::environment(),
            Name::Lock => schema::lock(),
            Name::Build => schema::build(),
            Name::Evidence => schema::evidence(),
        };
        printer.data(&document, || format!("{document:#}\n"))
    }
}
