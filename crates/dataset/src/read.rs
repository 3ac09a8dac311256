//! Reading snapshots: rows in a fixed order, inputs for tasks, first rows for people.
//!
//! Everything here is synchronous and belongs on a blocking thread. Rows come in the order of
//! [`Snapshot::files`] and of the rows in them: by partition values, then by commit, then as the
//! attempt wrote them. For a table that is overwritten, as a whole or by partition, that order
//! does not depend on when or by which attempt it was written; appended rows come in the order of
//! the decisions.

mod rows;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, RecordBatch};
use barecount_model::untrusted::Sample;
use serde::{Deserialize, Serialize};

use self::rows::FileRows;
use crate::cell::{to_text, value_at};
use crate::digest::{RowHasher, RowsHash};
use crate::export::TextWriter;
use crate::groups::{GroupWriter, properties};
use crate::partition::{PartitionValues, folder, matches};
use crate::schema::{Column, TableSchema};
use crate::table::{DataFile, Snapshot, Standing};

/// Why rows cannot be read or handed out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A data file cannot be opened.
    #[error("cannot open data file `{path}`", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A data file's bytes are others than those that were committed.
    #[error(
        "data file `{path}` is not the one that was committed: its SHA-256 is {found}, and the table's \
         log has {committed}", path = path.display()
    )]
    Altered {
        /// The file.
        path: PathBuf,
        /// The digest in hex, or its first digits.
        committed: String,
        /// The digest of what is there.
        found: String,
    },
    /// What the table's log says of a data file is not what was committed.
    #[error(
        "the table's log does not say of data file `{path}` what was committed: its seal does not hold",
        path = path.display()
    )]
    Unproved {
        /// The file.
        path: PathBuf,
    },
    /// A data file is not what the log says.
    #[error("data file `{path}` cannot be read", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A data file's rows do not fit the table's columns.
    #[error("data file `{path}` does not have the table's columns", path = path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// Why.
        source: arrow::error::ArrowError,
    },
    /// A partition value in the log is not of its column's type.
    #[error("data file `{path}` has the partition value {reason}", path = path.display())]
    PartitionValue {
        /// The file.
        path: PathBuf,
        /// What was expected.
        reason: String,
    },
    /// What was read cannot be written where it should go.
    #[error("cannot write `{path}`", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Rows cannot be encoded as Parquet.
    #[error("cannot write the rows as Parquet")]
    Encode {
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A row of a table of files has a path that leaves its folder.
    #[error("`{path}` is not a path of a file below a folder")]
    UnsafePath {
        /// The path.
        path: String,
    },
    /// The table does not hold files.
    #[error("dataset {table} does not hold files")]
    NotFiles {
        /// The table.
        table: String,
    },
}

impl ReadError {
    /// Whether something is there that was not committed.
    pub fn is_altered(&self) -> bool {
        matches!(self, Self::Altered { .. } | Self::Unproved { .. })
    }
}

/// The format in which a task gets an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFormat {
    /// The table's own files, or copies of them, in folders `column=value`; partition columns are
    /// in the folders' names only, as Hive and Spark have it.
    Parquet,
    /// One file, `<name>.csv`, with a header row (RFC 4180, lines end with LF).
    Csv,
    /// One file, `<name>.ndjson`.
    Ndjson,
    /// The files of a table of files.
    Files,
}

/// How a task gets data files that it reads as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFiles {
    /// By hard link. For who has them under an overlay, or is trusted: what is locked or leased in
    /// one place is in the other.
    Linked,
    /// As files of the task's own, which share their blocks with the table's where the file system
    /// has that.
    Copied,
}

/// What was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Materialized {
    /// The files, relative to the destination, in row order.
    pub files: Vec<PathBuf>,
    /// Rows in all of them.
    pub rows: u64,
    /// The content digest of these rows.
    pub digest: String,
}

/// The first rows of a table, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstRows {
    /// Column names.
    pub columns: Vec<String>,
    /// Cells, `None` for null.
    pub rows: Vec<Vec<Option<Sample>>>,
}

impl Snapshot {
    /// The files of the given partitions; of all, if none is given.
    pub fn files_of(&self, partitions: &[PartitionValues]) -> Vec<&DataFile> {
        let wanted = |file: &&DataFile| {
            partitions.is_empty()
                || partitions
                    .iter()
                    .any(|p| matches(&file.partition_values, p))
        };
        self.files.iter().filter(wanted).collect()
    }

    /// Rows of the whole table and their content digest, as the log has them. Reads only files that
    /// others wrote.
    ///
    /// # Errors
    /// If such a file cannot be read.
    pub fn digest(&self) -> Result<(u64, String), ReadError> {
        self.summed(&self.files_of(&[]), |_| true)
    }

    /// Rows of these files and their content digest, which are those of what [`Snapshot::rows`] gives:
    /// of what the log says only that is believed which has its seal, by who has the key.
    fn digest_of(&self, files: &[&DataFile]) -> Result<(u64, String), ReadError> {
        self.summed(files, |file| match file.standing {
            Standing::Told => true,
            Standing::Sealed => rows::has_columns_of(&self.schema, file),
            // Where it was altered, that is told by whoever reads it.
            Standing::Unsealed | Standing::Altered => false,
        })
    }

    fn summed(
        &self,
        files: &[&DataFile],
        is_believed: impl Fn(&DataFile) -> bool,
    ) -> Result<(u64, String), ReadError> {
        let mut sum = RowsHash::default();
        let mut rows = 0;
        for file in files {
            match (file.rows, &file.rows_hash) {
                (Some(known), Some(hash)) if is_believed(file) => {
                    rows += known;
                    sum.add(hash);
                }
                _ => {
                    let (read, hash) = self.hash_file(file)?;
                    rows += read;
                    sum.add(&hash);
                }
            }
        }
        Ok((rows, sum.digest(&self.schema, rows)))
    }

    /// Hashes the rows of a file by reading them: what its writer said is not believed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn hash_file(&self, file: &DataFile) -> Result<(u64, RowsHash), ReadError> {
        let mut hasher = RowHasher::new(&self.schema);
        let mut sum = RowsHash::default();
        let mut rows = 0;
        for batch in FileRows::open(&self.schema, file)? {
            let batch = batch?;
            hasher.add_rows(&mut sum, &batch, 0..batch.num_rows());
            rows += batch.num_rows() as u64;
        }
        Ok((rows, sum))
    }

    /// Rows of the whole table and their content digest, from the rows alone: what their writers
    /// said of them is not believed.
    ///
    /// # Errors
    /// If a file cannot be read, or is not the one that was committed.
    pub fn recount(&self) -> Result<(u64, String), ReadError> {
        let mut sum = RowsHash::default();
        let mut rows = 0;
        for file in &self.files {
            let (read, hash) = self.hash_file(file)?;
            rows += read;
            sum.add(&hash);
        }
        Ok((rows, sum.digest(&self.schema, rows)))
    }

    /// The rows of the given partitions (of all, if none is given), in order.
    pub fn rows(
        &self,
        partitions: &[PartitionValues],
    ) -> impl Iterator<Item = Result<RecordBatch, ReadError>> {
        self.files_of(partitions).into_iter().flat_map(|file| {
            let (rows, error) = match FileRows::open(&self.schema, file) {
                Ok(rows) => (Some(rows), None),
                Err(error) => (None, Some(Err(error))),
            };
            error.into_iter().chain(rows.into_iter().flatten())
        })
    }

    /// The first `count` rows, as text.
    ///
    /// # Errors
    /// If a data file cannot be read.
    pub fn first_rows(&self, count: usize) -> Result<FirstRows, ReadError> {
        let columns = self.schema.columns();
        let mut rows = Vec::new();
        for batch in self.rows(&[]) {
            let batch = batch?;
            for row in 0..batch.num_rows().min(count - rows.len()) {
                let cell = |(column, array): (&Column, &ArrayRef)| {
                    to_text(&value_at(array.as_ref(), row), column.column_type).map(Sample::from)
                };
                rows.push(columns.iter().zip(batch.columns()).map(cell).collect());
            }
            if rows.len() >= count {
                break;
            }
        }
        Ok(FirstRows {
            columns: columns.iter().map(|c| c.name.clone()).collect(),
            rows,
        })
    }

    /// Puts the rows of the given partitions (of all, if none is given) into a new folder, as an
    /// input of a task. A folder that is there already is filled up, so pass an empty one.
    ///
    /// # Errors
    /// If data files cannot be read, or the folder not be written; it may then be half filled.
    pub fn materialize(
        &self,
        format: InputFormat,
        data_files: DataFiles,
        into: &Path,
        partitions: &[PartitionValues],
    ) -> Result<Materialized, ReadError> {
        create_dir(into)?;
        let wanted = self.files_of(partitions);
        let (rows, digest) = self.digest_of(&wanted)?;
        let files = match format {
            InputFormat::Parquet => self.place_files(data_files, into, &wanted)?,
            InputFormat::Csv | InputFormat::Ndjson => self.write_text(format, into, partitions)?,
            InputFormat::Files => self.export_files(into)?,
        };
        Ok(Materialized {
            files,
            rows,
            digest,
        })
    }

    fn place_files(
        &self,
        how: DataFiles,
        into: &Path,
        files: &[&DataFile],
    ) -> Result<Vec<PathBuf>, ReadError> {
        let mut linked = Vec::with_capacity(files.len());
        for (number, file) in files.iter().enumerate() {
            let mut relative: PathBuf = folder(self.schema.partition_by(), &file.partition_values)
                .iter()
                .collect();
            create_dir(&into.join(&relative))?;
            relative.push(format!("part-{number:05}.parquet"));
            let to = into.join(&relative);
            let placed = match how {
                DataFiles::Linked => link(&file.path, &to),
                DataFiles::Copied => fs::copy(&file.path, &to).map(drop),
            };
            let write = |source| ReadError::Write {
                path: to.clone(),
                source,
            };
            placed.map_err(write)?;
            // What is handed out is checked, and not what was there before.
            if !has_all_columns(&self.schema, file, &to)? {
                fs::remove_file(&to).map_err(write)?;
                self.write_whole(file, &to)?;
            }
            linked.push(relative);
        }
        Ok(linked)
    }

    /// Writes a file that is older than a column of the table anew, with nulls in it: readers of
    /// several files take the first one's columns for those of all.
    fn write_whole(&self, file: &DataFile, to: &Path) -> Result<(), ReadError> {
        let encode = |source| ReadError::Encode { source };
        let schema = self.schema.file_arrow();
        let names = schema.fields().iter().map(|field| field.name());
        let places: Vec<usize> = names
            .filter_map(|name| self.schema.to_arrow().index_of(name).ok())
            .collect();
        let out = File::create_new(to).map_err(|source| ReadError::Write {
            path: to.to_owned(),
            source,
        })?;
        let properties = properties(&schema).build();
        let mut writer = GroupWriter::new(out, schema, properties).map_err(encode)?;
        for batch in rows_as(&self.schema, file)? {
            let part = batch?.project(&places).map_err(|source| ReadError::Rows {
                path: file.path.clone(),
                source,
            })?;
            writer.write(&part).map_err(encode)?;
        }
        writer.finish().map(drop).map_err(encode)
    }

    fn write_text(
        &self,
        format: InputFormat,
        into: &Path,
        partitions: &[PartitionValues],
    ) -> Result<Vec<PathBuf>, ReadError> {
        let extension = if format == InputFormat::Csv {
            "csv"
        } else {
            "ndjson"
        };
        let relative = PathBuf::from(format!("{}.{extension}", self.table.name()));
        let path = into.join(&relative);
        let write = |source| ReadError::Write {
            path: path.clone(),
            source,
        };
        let file = File::create_new(&path).map_err(write)?;
        let mut writer = TextWriter::new(BufWriter::new(file), format, &self.schema);
        writer.header().map_err(write)?;
        for batch in self.rows(partitions) {
            writer.rows(&batch?).map_err(write)?;
        }
        writer
            .finish()
            .and_then(|mut out| out.flush())
            .map_err(write)?;
        Ok(vec![relative])
    }
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    // Another file system cannot be linked to; data files never change, so a copy is as good.
    fs::hard_link(from, to).or_else(|error| match error.kind() {
        io::ErrorKind::CrossesDevices => fs::copy(from, to).map(drop),
        _ => Err(error),
    })
}

fn create_dir(path: &Path) -> Result<(), ReadError> {
    fs::create_dir_all(path).map_err(|source| ReadError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Whether a data file, which is at `path` too, has every column that the table keeps in its files.
fn has_all_columns(schema: &TableSchema, file: &DataFile, path: &Path) -> Result<bool, ReadError> {
    let rows = FileRows::open_at(schema, file, path)?;
    let found = rows.columns();
    let wanted = schema.file_arrow();
    let mut names = wanted.fields().iter().map(|field| field.name());
    Ok(names.all(|name| found.index_of(name).is_ok()))
}

/// The rows of one data file, as a table of `schema` has them.
pub(crate) fn rows_as<'a>(
    schema: &'a TableSchema,
    file: &'a DataFile,
) -> Result<impl Iterator<Item = Result<RecordBatch, ReadError>> + 'a, ReadError> {
    FileRows::open(schema, file)
}
