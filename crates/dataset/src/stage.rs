//! Staging: from what an attempt wrote to validated, synced Parquet files that nobody sees yet.
//!
//! Rows that break the schema are set aside as dead letters with a reason and a sample, and the
//! rest goes on; a file that is not of the declared format at all fails the output. Everything
//! here is synchronous and belongs on a blocking thread. It can be repeated: the staging folder
//! is emptied first, and equal input gives equal files.

mod check;
mod csv;
mod decode;
mod files;
mod flat;
mod ipc;
mod ndjson;
mod observer;
mod parquet;
mod records;

use std::fs;
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};

use barecount_model::untrusted::Sample;
use serde::{Deserialize, Serialize};

use crate::dead_letter::{BadRecord, Refusal};
use crate::decision::{PartitionValues, StagedFile};
use crate::digest::RowsHash;
use crate::input::{InputError, InputFile, InputFolder};
use crate::schema::TableSchema;
use crate::sink::Sink;

pub use decode::decode_parquet;
pub use files::files_schema;
pub use observer::StageObserver;

/// The observer hears of so many rows at once, or of those of a file.
const TOLD_ROWS: u64 = 1_024;
/// What is written to a pipe at once: as much as it holds.
const PIPE_BYTES: usize = 64 << 10;

/// What an attempt writes for an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// RFC 4180 with a header row, in UTF-8. An empty field is null; in quotes it is the empty text
    /// where the column holds texts or bytes. In a string column that is not nullable both are the
    /// empty text. What breaks the rules of quotes is a dead letter, and a file that ends inside
    /// quotes is malformed.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// An Arrow IPC stream of the declared columns, without compression: what the engine's jobs
    /// write, and what no manifest asks for.
    Arrow,
    /// Any files: the table then holds one row a file (see [`files_schema`]).
    Files,
}

impl OutputFormat {
    /// The file name endings of the format; empty if any will do.
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Csv => &["csv"],
            Self::Ndjson => &["ndjson", "jsonl", "json"],
            Self::Parquet => &["parquet"],
            Self::Arrow => &["arrows"],
            Self::Files => &[],
        }
    }
}

/// What is accepted from an attempt at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Files and folders of an output.
    pub max_files: u64,
    /// Bytes of all files of an output.
    pub max_bytes: u64,
    /// Bytes of one file of an output in [`OutputFormat::Files`].
    pub max_file_bytes: u64,
    /// Bytes of one CSV record or NDJSON line.
    pub max_record_bytes: usize,
    /// Rows of an output, refused ones included.
    pub max_rows: u64,
    /// Bytes that an output's Parquet files claim to hold, or hold, when unpacked.
    pub max_unpacked_bytes: u64,
    /// Partitions that one output is divided into.
    pub max_partitions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_files: 10_000,
            max_bytes: 64 << 30,
            max_file_bytes: 64 << 20,
            max_record_bytes: 1 << 20,
            max_rows: 1 << 31,
            max_unpacked_bytes: 256 << 30,
            max_partitions: 1_000,
        }
    }
}

/// What an output is declared to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// The format that the attempt writes.
    pub format: OutputFormat,
    /// The schema; [`files_schema`] for [`OutputFormat::Files`].
    pub schema: TableSchema,
    /// The partition that the task covers; empty if it covers them all. Rows of another
    /// partition fail the output.
    pub only_partition: PartitionValues,
    /// What is accepted at most.
    pub limits: Limits,
}

/// A staged output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The Parquet files, synced and read-only, by path.
    pub files: Vec<StagedFile>,
    /// Rows accepted.
    pub rows: u64,
    /// Bytes of the staged files.
    pub bytes: u64,
    /// The content digest of the accepted rows (see [`crate::digest`]).
    pub content_digest: String,
    /// How many rows were refused; the observer has them.
    pub dead_letters: u64,
}

/// Why an output could not be staged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The output folder cannot be read.
    #[error("cannot read the output")]
    Input(#[from] InputError),
    /// A file does not have the declared format's ending.
    #[error("`{file}` is unexpected: the output is declared as {expected} files")]
    UnexpectedFile {
        /// The file.
        file: String,
        /// The endings that are expected.
        expected: String,
    },
    /// A file's columns are not the declared ones.
    #[error("`{file}` does not have the declared columns: {difference}")]
    Columns {
        /// The file.
        file: String,
        /// What differs.
        difference: String,
    },
    /// A file is not what its ending says.
    #[error("`{file}` is not valid {format}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// The declared format.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Rows lie outside the partition of the task.
    #[error("there are rows of partition {found}, but the task covers {expected}")]
    OutsidePartition {
        /// The first such partition.
        found: String,
        /// The task's.
        expected: String,
    },
    /// A partition value that no folder can be named after.
    #[error("partition folder `{part}…` would have a name of more than 255 bytes")]
    PartitionName {
        /// The beginning of the folder's name.
        part: String,
    },
    /// Too many partitions.
    #[error("the rows fall into more than {limit} partitions")]
    TooManyPartitions {
        /// The limit.
        limit: usize,
    },
    /// Too much of something.
    #[error("`{file}` exceeds the limit of {limit} {what}")]
    Limit {
        /// The file that went over it.
        file: String,
        /// What is counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A file could not be read to its end.
    #[error("cannot read `{file}`")]
    Read {
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// The staging folder cannot be written.
    #[error("cannot write `{path}`", path = path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Rows could not be brought into the table's columns.
    #[error("cannot arrange rows in the table's columns")]
    Arrange {
        /// Why.
        source: arrow::error::ArrowError,
    },
    /// A refused row could not be kept.
    #[error("rows that do not fit cannot be kept")]
    Unkept {
        /// Why.
        source: io::Error,
    },
    /// Its observer ended the staging.
    #[error("the staging was stopped")]
    Stopped,
    /// Parquet could not be written.
    #[error("cannot write staged file `{file}`")]
    Encode {
        /// The file.
        file: String,
        /// Why.
        source: ::parquet::errors::ParquetError,
    },
}

impl StageError {
    /// Whether the attempt's data is at fault (exit status 65), and not this host.
    pub fn is_data_fault(&self) -> bool {
        match self {
            Self::Input(error) => !matches!(error, InputError::Io { .. }),
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Encode { .. }
            | Self::Arrange { .. }
            | Self::Unkept { .. }
            | Self::Stopped => false,
            _ => true,
        }
    }

    /// Whether what was written was not wanted any more by whoever reads it.
    pub fn is_unread(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Stages what an attempt wrote in `written` (its folder `OUTPUT/<dataset>`) into the folder
/// `staging`, which is emptied first and must be on the file system of the tables.
///
/// Parquet is decoded on a thread beside; who does not want that in this process decodes it in another
/// with [`decode_parquet`], and stages what comes of it with [`stage_decoded`].
///
/// Files whose names begin with `_` or `.` are ignored, as Hive and Spark do, except in
/// [`OutputFormat::Files`]. Files are read in byte order of their paths, and rows keep their
/// order within a partition. The `observer` hears how far that is, may end it, and keeps the rows
/// that are refused; `&()` does none of these.
///
/// # Errors
/// See [`StageError`]; what was staged until then is left behind for the next try or a sweep.
pub fn stage_output(
    written: &Path,
    staging: &Path,
    spec: &OutputSpec,
    observer: &dyn StageObserver,
) -> Result<Staged, StageError> {
    let folder = InputFolder::open(written)?;
    let files = data_files(&folder, spec)?;
    if spec.format == OutputFormat::Parquet {
        return decoded_beside(written, &files, staging, spec, observer);
    }
    staged(staging, spec, observer, |stage| {
        for file in &files {
            let content = folder.open_file(file)?;
            match spec.format {
                OutputFormat::Csv => stage.csv(file, content)?,
                OutputFormat::Ndjson => stage.ndjson(file, content)?,
                OutputFormat::Arrow => stage.arrow(file, content)?,
                OutputFormat::Files => stage.file(file, content)?,
                OutputFormat::Parquet => {}
            }
            stage.tell_rows()?;
        }
        Ok(())
    })
}

/// The files that an attempt wrote for an output, in the order in which they are read.
///
/// # Errors
/// If the folder holds what no output may, or no file.
pub fn written_files(written: &Path, spec: &OutputSpec) -> Result<Vec<InputFile>, StageError> {
    data_files(&InputFolder::open(written)?, spec)
}

/// As [`stage_output`], with the rows of these Parquet files as [`decode_parquet`] writes them.
///
/// # Errors
/// See [`StageError`]. Rows that end before their end are malformed: why they do, whoever decodes them
/// knows better.
pub fn stage_decoded(
    files: &[InputFile],
    mut decoded: impl Read,
    staging: &Path,
    spec: &OutputSpec,
    observer: &dyn StageObserver,
) -> Result<Staged, StageError> {
    staged(staging, spec, observer, |stage| {
        for file in files {
            stage.decoded(file, &mut decoded)?;
            stage.tell_rows()?;
        }
        Ok(())
    })
}

fn decoded_beside(
    written: &Path,
    files: &[InputFile],
    staging: &Path,
    spec: &OutputSpec,
    observer: &dyn StageObserver,
) -> Result<Staged, StageError> {
    let (decoded, out) = io::pipe().map_err(|source| StageError::Write {
        path: staging.to_owned(),
        source,
    })?;
    let names: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    std::thread::scope(|scope| {
        let out = BufWriter::with_capacity(PIPE_BYTES, out);
        let decoding = scope.spawn(|| decode_parquet(written, &names, &spec.limits, out));
        // Its end of the pipe is closed with this, so that nobody goes on writing.
        let staged = stage_decoded(files, decoded, staging, spec, observer);
        match decoding.join() {
            Ok(Err(error)) if !error.is_unread() => Err(error),
            Ok(_) => staged,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn staged<'a>(
    staging: &'a Path,
    spec: &'a OutputSpec,
    observer: &'a dyn StageObserver,
    take: impl FnOnce(&mut Stage<'a, '_>) -> Result<(), StageError>,
) -> Result<Staged, StageError> {
    prepare(staging)?;
    let mut sink = Sink::new(&spec.schema, staging, &spec.limits, &spec.only_partition)?;
    let mut stage = Stage {
        spec,
        schema_hash: spec.schema.hash(),
        sink: &mut sink,
        observer,
        dead_letters: 0,
        seen_rows: 0,
        told_rows: 0,
        unpacked_bytes: 0,
    };
    take(&mut stage)?;
    let dead_letters = stage.dead_letters;
    let files = sink.finish(observer)?;
    let rows = files.iter().map(|file| file.rows).sum();
    let mut sum = RowsHash::default();
    files.iter().for_each(|file| sum.add(&file.rows_hash));
    Ok(Staged {
        rows,
        bytes: files.iter().map(|file| file.bytes).sum(),
        content_digest: sum.digest(&spec.schema, rows),
        files,
        dead_letters,
    })
}

fn data_files(folder: &InputFolder, spec: &OutputSpec) -> Result<Vec<InputFile>, StageError> {
    let mut files = folder.files(&spec.limits)?;
    let extensions = spec.format.extensions();
    if !extensions.is_empty() {
        let ignored = |path: &str| path.split('/').any(|part| part.starts_with(['_', '.']));
        files.retain(|file| !ignored(&file.path));
        for file in &files {
            let extension = file
                .path
                .rsplit_once('.')
                .map_or("", |(_, extension)| extension);
            if !extensions
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
            {
                let expected = extensions.join(" or .");
                let (file, expected) = (file.path.clone(), format!(".{expected}"));
                return Err(StageError::UnexpectedFile { file, expected });
            }
        }
    }
    if files.is_empty() {
        Err(InputError::Nothing.into())
    } else {
        Ok(files)
    }
}

/// Why a file could not be read to its end.
fn read_error(file: &InputFile, source: io::Error) -> StageError {
    if observer::ended(&source) {
        return StageError::Stopped;
    }
    let file = file.path.clone();
    StageError::Read { file, source }
}

/// An empty folder, durable in its parent.
fn prepare(staging: &Path) -> Result<(), StageError> {
    let emptied = match fs::remove_dir_all(staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(staging),
    };
    let synced = emptied.and_then(|()| match staging.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    synced.map_err(|source| StageError::Write {
        path: staging.to_owned(),
        source,
    })
}

/// One output on its way.
struct Stage<'a, 'b> {
    spec: &'a OutputSpec,
    schema_hash: String,
    sink: &'b mut Sink<'a>,
    observer: &'a dyn StageObserver,
    dead_letters: u64,
    seen_rows: u64,
    told_rows: u64,
    unpacked_bytes: u64,
}

impl<'a> Stage<'a, '_> {
    /// The file, so that its reading is watched and can be ended.
    fn observed(&self, content: fs::File) -> observer::Observed<'a, fs::File> {
        observer::Observed::new(content, self.observer)
    }

    /// The observer hears of the rows that it has not heard of yet.
    fn tell_rows(&mut self) -> Result<(), StageError> {
        let rows = self.seen_rows - std::mem::replace(&mut self.told_rows, self.seen_rows);
        if self.observer.advanced(rows, 0).is_break() {
            return Err(StageError::Stopped);
        }
        Ok(())
    }

    /// Counts rows as they are read.
    fn count_rows(&mut self, file: &InputFile, rows: u64) -> Result<(), StageError> {
        self.seen_rows += rows;
        if self.seen_rows - self.told_rows >= TOLD_ROWS {
            self.tell_rows()?;
        }
        let limit = self.spec.limits.max_rows;
        if self.seen_rows > limit {
            return Err(StageError::Limit {
                file: file.path.clone(),
                what: "rows",
                limit,
            });
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        file: &InputFile,
        line: u64,
        refusal: &Refusal,
        record: &[u8],
    ) -> Result<(), StageError> {
        self.dead_letters += 1;
        self.observer
            .set_aside(BadRecord {
                record: Sample::of_bytes(record),
                reason: refusal.reason.clone(),
                error: refusal.to_string(),
                schema_hash: self.schema_hash.clone(),
                file: file.path.clone(),
                line,
            })
            .map_err(|source| StageError::Unkept { source })
    }
}

#[cfg(test)]
mod tests;
