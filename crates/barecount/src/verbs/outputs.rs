//! `barecount outputs`.

use std::path::PathBuf;

use barecount_client::{
    client::{self, Datasets as _, Export},
    failure::Failure,
    words::{bytes, short},
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    global::Global,
    printer::{self, Printer, Table},
    tenant::{OfTenant, several},
    view,
};

/// Look at what was committed.
#[derive(Debug, Subcommand)]
pub(crate) enum Outputs {
    /// List the datasets, each at its latest version.
    Ls {
        #[command(flatten)]
        of: OfTenant,
    },
    /// Show a dataset: its schema, where it is, its first rows.
    Show {
        #[command(flatten)]
        dataset: Dataset,
        /// So many rows.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1_000))]
        rows: u16,
    },
    /// Write a dataset to standard output or a file; a dataset of files, to a folder.
    Export {
        #[command(flatten)]
        dataset: Dataset,
        /// The format.
        #[arg(long, value_enum, default_value = "csv")]
        format: ExportFormat,
        /// The file or folder, which must not exist yet.
        #[arg(long, value_name = "PATH")]
        to: Option<PathBuf>,
    },
}

/// A dataset at a version.
#[derive(Debug, Args)]
pub(crate) struct Dataset {
    /// Its name, as `layer.name`.
    #[arg(value_name = "DATASET")]
    name: String,
    /// The version; the latest one if absent.
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    of: OfTenant,
}

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// The files of a dataset of files.
    Files,
}

impl Outputs {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { of } => list(global, printer, &of),
            Self::Show { dataset, rows } => show(global, printer, &dataset, rows),
            Self::Export {
                dataset,
                format,
                to,
            } => {
                let mut stream = printer::stream();
                let export = Export {
                    format: format.into(),
                    to: to.as_deref(),
                    stream: &mut *stream,
                };
                let which = dataset.of.dataset(&dataset.name);
                let written = global.client().export(&which, dataset.version, export)?;
                if !written.is_empty() {
                    printer.note(&written);
                }
                Ok(())
            }
        }
    }
}

impl From<ExportFormat> for client::ExportFormat {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Csv => Self::Csv,
            ExportFormat::Ndjson => Self::Ndjson,
            ExportFormat::Parquet => Self::Parquet,
            ExportFormat::Files => Self::Files,
        }
    }
}

fn list(global: &Global, printer: &Printer, of: &OfTenant) -> Result<(), Failure> {
    let outputs = global.client().outputs(of.name(), printer)?;
    let items: Vec<Value> = outputs.iter().map(|output| json!(output)).collect();
    printer.list("outputs", &items, || {
        let mut table = Table::new(
            &[
                "tenant", "dataset", "version", "rows", "size", "digest", "run",
            ],
            "nothing was committed yet",
        );
        for output in &outputs {
            table.row([
                output.tenant.clone(),
                output.dataset.clone(),
                output.version.to_string(),
                output.rows.to_string(),
                bytes(output.bytes),
                short(&output.digest),
                output.run.get(..12).unwrap_or(&output.run).to_owned(),
            ]);
        }
        match several(outputs.iter().map(|output| output.tenant.as_str())) {
            true => table,
            false => table.without("tenant"),
        }
    })
}

fn show(global: &Global, printer: &Printer, dataset: &Dataset, rows: u16) -> Result<(), Failure> {
    let which = dataset.of.dataset(&dataset.name);
    let shown = global.client().preview(&which, dataset.version, rows)?;
    printer.data(&json!(shown), || {
        let mut text = format!(
            "{}, version {}\n  at      {}\n  rows    {}\n  size    {}\n  digest  {}\n\n",
            shown.dataset,
            shown.version,
            shown.uri,
            shown.rows,
            bytes(shown.bytes),
            shown.digest
        );
        text.push_str(&view::columns(&shown.columns, &shown.partition_by).render());
        text.push('\n');
        text.push_str(&view::first_rows(&shown.first_rows));
        text
    })
}
