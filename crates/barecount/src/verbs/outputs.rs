//! `barecount outputs`.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use barecount_client::{
    failure::{Failure, Status},
    runtime::runtime,
    state,
    words::{bytes, short},
};
use barecount_control::store::OutputVersion;
use barecount_dataset::{
    read::InputFormat,
    table::{Snapshot, StateTables, TableError},
};
use barecount_model::text::DatasetName;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    global::Global,
    printer::{Printer, Table},
    tenant::{OfTenant, several, tenant},
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
            } => export(global, printer, &dataset, format, to.as_deref()),
        }
    }
}

fn tables(global: &Global) -> Result<StateTables, Failure> {
    state::reader(&global.state)?;
    Ok(StateTables::new(state::folder(&global.state)?))
}

fn snapshot(global: &Global, dataset: &Dataset) -> Result<Snapshot, Failure> {
    let table: DatasetName = dataset.name.parse().map_err(|error| {
        Failure::new(
            Status::Usage,
            format!("`{}` does not name a dataset", dataset.name),
        )
        .because(&error)
    })?;
    let tables = dataset.of.tables_with(&tables(global)?, &table)?;
    let runtime = runtime()?;
    runtime
        .block_on(async {
            let latest = tables.snapshot(&table, None).await?;
            match dataset.version {
                None => Ok(latest),
                // The log itself does not tell a version yet to come from a damaged one.
                Some(version) if version > latest.version => Err(TableError::NotFound {
                    table: table.clone(),
                    version: Some(version),
                }),
                Some(version) => tables.snapshot(&table, Some(version)).await,
            }
        })
        .map_err(|error| {
            let missing = matches!(error, TableError::NotFound { .. });
            let status = if missing {
                Status::NotFound
            } else {
                Status::Failed
            };
            let failure = Failure::from_error(status, &error).with_code("BC0701");
            if missing {
                failure.with_help("`barecount outputs ls` lists what there is.")
            } else {
                failure
            }
        })
}

/// The commit that made a version: the newest one, where a version was made by several tasks.
fn latest(global: &Global, of: &OfTenant) -> Result<Vec<OutputVersion>, Failure> {
    match state::reader(&global.state)? {
        Some(reader) => reader
            .latest_outputs(of.name(), None)
            .map_err(state::store_failure),
        None => Ok(Vec::new()),
    }
}

fn list(global: &Global, printer: &Printer, of: &OfTenant) -> Result<(), Failure> {
    let found = latest(global, of)?;
    let runtime = runtime()?;
    let mut items = Vec::new();
    let mut table = Table::new(
        &[
            "tenant", "dataset", "version", "rows", "size", "digest", "run",
        ],
        "nothing was committed yet",
    );
    for output in &found {
        let Ok(name) = output.dataset.parse::<DatasetName>() else {
            continue;
        };
        let tables = tables(global)?.of(&tenant(&output.tenant)?);
        let snapshot = runtime.block_on(tables.snapshot(&name, None));
        let snapshot = match snapshot {
            // Its runs are still on record.
            Err(TableError::NotFound { .. }) => {
                printer.note(&format!("{}'s {name} is not there any more", output.tenant));
                continue;
            }
            other => other.map_err(|error| Failure::from_error(Status::Failed, &error))?,
        };
        let summary = Summary::of(&snapshot)?;
        table.row([
            output.tenant.clone(),
            output.dataset.clone(),
            snapshot.version.to_string(),
            summary.rows.to_string(),
            bytes(summary.bytes),
            short(&summary.digest),
            output.run.get(..12).unwrap_or(&output.run).to_owned(),
        ]);
        let mut item = summary.json(&snapshot);
        item["tenant"] = json!(output.tenant);
        item["run"] = json!(output.run);
        item["committed_at"] = json!(output.at);
        items.push(item);
    }
    let several = several(found.iter().map(|output| output.tenant.as_str()));
    printer.list("outputs", &items, || match several {
        true => table,
        false => table.without("tenant"),
    })
}

/// What is told of a table as a whole.
struct Summary {
    rows: u64,
    bytes: u64,
    digest: String,
}

impl Summary {
    fn of(snapshot: &Snapshot) -> Result<Self, Failure> {
        let (rows, digest) = snapshot
            .digest()
            .map_err(|error| Failure::from_error(Status::Failed, &error).with_code("BC0701"))?;
        let bytes = snapshot.files.iter().map(|file| file.bytes).sum();
        Ok(Self {
            rows,
            bytes,
            digest,
        })
    }

    fn json(&self, snapshot: &Snapshot) -> Value {
        json!({
            "dataset": snapshot.table.to_string(), "version": snapshot.version,
            "uri": snapshot.uri, "rows": self.rows, "bytes": self.bytes, "digest": self.digest,
        })
    }
}

fn show(global: &Global, printer: &Printer, dataset: &Dataset, rows: u16) -> Result<(), Failure> {
    let snapshot = snapshot(global, dataset)?;
    let summary = Summary::of(&snapshot)?;
    let first = snapshot
        .first_rows(rows.into())
        .map_err(|error| Failure::from_error(Status::Failed, &error).with_code("BC0701"))?;
    let mut value = summary.json(&snapshot);
    value["schema"] = json!("barecount/output/v1");
    value["columns"] = json!(snapshot.schema.columns());
    value["partition_by"] = json!(snapshot.schema.partition_by());
    value["first_rows"] = json!(first);
    printer.data(&value, || {
        let mut text = format!(
            "{}, version {}\n  at      {}\n  rows    {}\n  size    {}\n  digest  {}\n\n",
            snapshot.table,
            snapshot.version,
            snapshot.uri,
            summary.rows,
            bytes(summary.bytes),
            summary.digest
        );
        let mut schema = Table::new(&["column", "type", "null", "partition"], "no columns");
        for column in snapshot.schema.columns() {
            let by = snapshot.schema.partition_by().contains(&column.name);
            schema.row([
                column.name.clone(),
                column.column_type.to_string(),
                if column.nullable { "yes" } else { "no" }.to_owned(),
                if by { "yes" } else { "-" }.to_owned(),
            ]);
        }
        text.push_str(&schema.render());
        text.push('\n');
        text.push_str(&crate::view::first_rows(&first));
        text
    })
}

fn export(
    global: &Global,
    printer: &Printer,
    dataset: &Dataset,
    format: ExportFormat,
    to: Option<&Path>,
) -> Result<(), Failure> {
    let snapshot = snapshot(global, dataset)?;
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            Status::Failed,
            format!("{} could not be exported", snapshot.table),
        )
        .because(error)
    };
    let unwritable = |path: &Path| {
        let what = format!(
            "{} could not be exported to {}",
            snapshot.table,
            path.display()
        );
        Failure::new(Status::Failed, what)
    };
    match (format, to) {
        (ExportFormat::Files, Some(folder)) => {
            std::fs::create_dir(folder).map_err(|error| unwritable(folder).at(folder, &error))?;
            let files = snapshot.export_files(folder).map_err(|error| {
                let failure = unwritable(folder).because(&error);
                gone(folder, std::fs::remove_dir_all(folder), failure)
            })?;
            printer.note(&format!(
                "{} files written to {}",
                files.len(),
                folder.display()
            ));
        }
        (ExportFormat::Files, None) => {
            let what = "a dataset of files is exported to a folder";
            return Err(Failure::new(Status::Usage, what).with_help("Name one with `--to`."));
        }
        (format, Some(path)) => {
            let file = File::create_new(path).map_err(|error| unwritable(path).at(path, &error))?;
            write(&snapshot, format, io::BufWriter::new(file)).map_err(|error| {
                let failure = unwritable(path).because(&error);
                gone(path, std::fs::remove_file(path), failure)
            })?;
            printer.note(&format!("written to {}", path.display()));
        }
        (format, None) => {
            let out = io::BufWriter::new(io::stdout());
            match write(&snapshot, format, out) {
                Err(barecount_dataset::read::ReadError::Write { source, .. })
                    if source.kind() == io::ErrorKind::BrokenPipe => {}
                written => written.map_err(|error| failed(&error))?,
            }
        }
    }
    Ok(())
}

/// The failure of an export of which nothing may be left, after that was removed.
fn gone(path: &Path, removed: io::Result<()>, failure: Failure) -> Failure {
    match removed {
        Ok(()) => failure,
        Err(error) => failure.with_help(format!(
            "{} is not whole, and could not be removed: {error}",
            path.display()
        )),
    }
}

fn write(
    snapshot: &Snapshot,
    format: ExportFormat,
    out: impl Write + Send,
) -> Result<(), barecount_dataset::read::ReadError> {
    match format {
        ExportFormat::Parquet => snapshot.export_parquet(out),
        ExportFormat::Ndjson => snapshot.export_text(InputFormat::Ndjson, out),
        _ => snapshot.export_text(InputFormat::Csv, out),
    }
}
