//! What runs committed, as it is listed, previewed and written out.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use barecount_api::dataset::{DatasetRef, OutputSummary, Preview, Rows};
use barecount_dataset::{
    read::{InputFormat, ReadError},
    table::{Snapshot, StateTables, TableError},
};
use barecount_model::{codes, text::DatasetName, untrusted::Label};

use super::{
    Embedded,
    datasets::{columns, digest_of, named, size, tables_with, tenant_of},
};
use crate::{
    client::{Export, ExportFormat},
    failure::{Failure, Status},
    reporter::Reporter,
    runtime::runtime,
    state,
};

fn tables(state: &Path) -> Result<StateTables, Failure> {
    state::reader(state)?;
    Ok(StateTables::new(state::folder(state)?))
}

impl Embedded {
    /// A dataset at a version; at the latest one if none is named.
    pub(super) fn snapshot_of(
        &self,
        which: &DatasetRef,
        version: Option<u64>,
    ) -> Result<Snapshot, Failure> {
        let table = named(&which.dataset)?;
        state::reader(&self.state)?;
        let all = self.tables_of(state::folder(&self.state)?);
        let tables = tables_with(which.tenant.as_deref(), &all, &table)?;
        let runtime = runtime()?;
        runtime
            .block_on(async {
                let latest = tables.snapshot(&table, None).await?;
                match version {
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
}

/// The datasets that runs committed, each at its latest version.
pub(super) fn list(
    state: &Path,
    tenant: Option<&str>,
    reporter: &dyn Reporter,
) -> Result<Vec<OutputSummary>, Failure> {
    // The commit that made a version: the newest one, where a version was made by several tasks.
    let found = match state::reader(state)? {
        Some(reader) => reader.latest_outputs(tenant, None),
        None => Ok(Vec::new()),
    };
    let runtime = runtime()?;
    let mut outputs = Vec::new();
    for output in found.map_err(state::store_failure)? {
        let Ok(name) = output.dataset.parse::<DatasetName>() else {
            continue;
        };
        let tables = tables(state)?.of(&tenant_of(&output.tenant)?);
        let snapshot = match runtime.block_on(tables.snapshot(&name, None)) {
            // Its runs are still on record.
            Err(TableError::NotFound { .. }) => {
                reporter.note(&format!("{}'s {name} is not there any more", output.tenant));
                continue;
            }
            other => other.map_err(|error| Failure::from_error(Status::Failed, &error))?,
        };
        let (rows, digest) = digest_of(&snapshot)?;
        outputs.push(OutputSummary {
            dataset: snapshot.table.to_string(),
            version: snapshot.version,
            rows,
            bytes: size(&snapshot),
            digest,
            tenant: output.tenant,
            run: output.run,
            committed_at: output.at,
            uri: snapshot.uri,
        });
    }
    Ok(outputs)
}

/// A dataset with its first rows.
pub(super) fn preview(snapshot: &Snapshot, rows: u16) -> Result<Preview, Failure> {
    let first = snapshot.first_rows(rows.into());
    let first =
        first.map_err(|error| unread(format!("{} cannot be shown", snapshot.table), &error))?;
    let (rows, digest) = digest_of(snapshot)?;
    Ok(Preview {
        dataset: snapshot.table.to_string(),
        version: snapshot.version,
        uri: snapshot.uri.clone(),
        rows,
        bytes: size(snapshot),
        digest,
        schema: "barecount/output/v1".to_owned(),
        columns: columns(&snapshot.schema),
        partition_by: snapshot.schema.partition_by().to_vec(),
        first_rows: Rows {
            columns: first.columns.into_iter().map(Label::from).collect(),
            rows: first.rows,
        },
    })
}

/// Writes a dataset out, and says what was written; nothing, where that is the stream.
pub(super) fn export(snapshot: &Snapshot, export: Export<'_>) -> Result<String, Failure> {
    let Export { format, to, stream } = export;
    let what = format!("{} could not be exported", snapshot.table);
    let to_path = |path: &Path| format!("{what} to {}", path.display());
    let unwritable = |path: &Path| Failure::new(Status::Failed, to_path(path));
    match (format, to) {
        (ExportFormat::Files, Some(folder)) => {
            std::fs::create_dir(folder).map_err(|error| unwritable(folder).at(folder, &error))?;
            let files = snapshot.export_files(folder).map_err(|error| {
                let failure = unread(to_path(folder), &error);
                let removed = barecount_tree::remove(folder, &barecount_tree::to_the_end);
                gone(folder, removed.map_err(io::Error::from), failure)
            })?;
            Ok(format!(
                "{} files written to {}",
                files.len(),
                folder.display()
            ))
        }
        (ExportFormat::Files, None) => {
            let what = "a dataset of files is exported to a folder";
            Err(Failure::new(Status::Usage, what).with_help("Name one with `--to`."))
        }
        (format, Some(path)) => {
            let file = File::create_new(path).map_err(|error| unwritable(path).at(path, &error))?;
            write(snapshot, format, io::BufWriter::new(file)).map_err(|error| {
                let failure = unread(to_path(path), &error);
                gone(path, std::fs::remove_file(path), failure)
            })?;
            Ok(format!("written to {}", path.display()))
        }
        (format, None) => {
            match write(snapshot, format, io::BufWriter::new(stream)) {
                // Whoever reads it has seen enough.
                Err(ReadError::Write { source, .. })
                    if source.kind() == io::ErrorKind::BrokenPipe => {}
                written => written.map_err(|error| unread(what, &error))?,
            }
            Ok(String::new())
        }
    }
}

/// A failure to read rows, or to write them elsewhere.
pub(super) fn unread(what: String, error: &ReadError) -> Failure {
    match error {
        _ if error.is_altered() => Failure::new(Status::Unverified, what)
            .with_code(codes::DATA_ALTERED.id)
            .with_help(
                "`barecount evidence verify --data` says which commits' rows are not those that \
                 were signed.",
            ),
        ReadError::Write { .. } => Failure::new(Status::Failed, what),
        _ => Failure::new(Status::Failed, what).with_code(codes::DATASET_UNAVAILABLE.id),
    }
    .because(error)
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
) -> Result<(), ReadError> {
    match format {
        ExportFormat::Parquet => snapshot.export_parquet(out),
        ExportFormat::Ndjson => snapshot.export_text(InputFormat::Ndjson, out),
        _ => snapshot.export_text(InputFormat::Csv, out),
    }
}
