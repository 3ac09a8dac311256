//! Writing the rows that stay anew, with wider types.
//!
//! Delta has a table feature by which a reader widens the values of older files itself. Few readers
//! know it, and a table that asks for it is closed to the others; so the commit that widens a column
//! replaces the files that hold it, and every reader sees one type.

use std::path::{Path, PathBuf};

use super::{CommitError, Incoming, files::in_table};
use crate::{
    decision::DatasetCommit, partition::PartitionValues, read::rows_as, schema::TableSchema,
    sink::Sink, stage::Limits, table::DataFile,
};

/// Where files are written anew, below the staging folder of the decision. Nothing else is put
/// there, and it is swept with the rest.
const FOLDER: &str = ".widened";

/// Writes the rows of `kept` into new files of `schema`, in their order. Dying here leaves files
/// that nothing names; the repeat removes them and writes equal ones.
///
/// Blocks.
pub(super) fn rewrite(
    state: &Path,
    commit: &DatasetCommit,
    schema: &TableSchema,
    kept: &[DataFile],
) -> Result<Vec<Incoming>, CommitError> {
    let below = commit.staging.join(FOLDER);
    let written = state.join(&below);
    let io = |source| CommitError::Write {
        path: written.clone(),
        source,
    };
    match std::fs::remove_dir_all(&written) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut incoming = Vec::new();
    for (index, file) in kept.iter().enumerate() {
        let folder = below.join(format!("{index:05}"));
        std::fs::create_dir_all(state.join(&folder)).map_err(io)?;
        incoming.extend(rewrite_one(state, commit, schema, file, &folder, index)?);
    }
    Ok(incoming)
}

fn rewrite_one(
    state: &Path,
    commit: &DatasetCommit,
    schema: &TableSchema,
    file: &DataFile,
    folder: &Path,
    index: usize,
) -> Result<Vec<Incoming>, CommitError> {
    let unreadable = |source| CommitError::Digest {
        table: commit.table.clone(),
        source: Box::new(source),
    };
    let unwritable = |source| CommitError::Widen {
        table: commit.table.clone(),
        source: Box::new(source),
    };
    let into: PathBuf = state.join(folder);
    let (limits, any) = (Limits::default(), PartitionValues::new());
    let mut sink = Sink::new(schema, &into, &limits, &any).map_err(unwritable)?;
    for batch in rows_as(schema, file).map_err(unreadable)? {
        sink.write(&batch.map_err(unreadable)?)
            .map_err(unwritable)?;
    }
    let parts = sink.finish(&()).map_err(unwritable)?;
    Ok(parts
        .into_iter()
        .enumerate()
        .map(|(part, staged)| Incoming {
            // In the order of the files that they replace.
            name: in_table(commit, &staged, &format!("kept-{index:05}-{part:05}")),
            written_as: Some(file.written_as.clone()),
            from: folder.join(&staged.path),
            modified_ms: file.modified_ms,
            file: staged,
        })
        .collect())
}
