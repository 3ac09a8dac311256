//! Rows of a dataset that the platform laid out as CSV files with a header.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use csv::StringRecord;

use crate::status::{Failure, Status};

/// How deep a dataset's folder is searched: a level for each partition column, with room to spare.
const MAX_DEPTH: usize = 4;

/// A dataset could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The dataset's folder, or one below it, cannot be listed.
    #[error("cannot list {}", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The dataset's folder holds no CSV file.
    #[error("{} holds no CSV file", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be opened or created.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not CSV in UTF-8 with rows of one width, or reading or writing it broke off.
    #[error("cannot read or write rows of {}", path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// A column that is needed is not in the header.
    #[error("{} has no column {column}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
}

impl Failure for TableError {
    fn status(&self) -> Status {
        match self {
            Self::List { .. } | Self::Open { .. } => Status::IoErr,
            Self::Rows { source, .. } if source.is_io_error() => Status::IoErr,
            Self::Empty { .. } | Self::Rows { .. } | Self::Column { .. } => Status::DataErr,
        }
    }
}

/// The CSV files of a dataset, ordered by path; folders of partitions are searched.
///
/// # Errors
/// When a folder cannot be listed, or there is no such file at all.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, TableError> {
    let mut found = Vec::new();
    collect(folder, MAX_DEPTH, &mut found)?;
    if found.is_empty() {
        return Err(TableError::Empty {
            path: folder.to_owned(),
        });
    }
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), TableError> {
    let failed = |source| TableError::List {
        path: folder.to_owned(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|ending| ending == "csv") {
            found.push(path);
        }
    }
    Ok(())
}

/// Opens one file of a dataset for reading.
///
/// # Errors
/// When the file cannot be opened.
pub fn open(path: &Path) -> Result<csv::Reader<File>, TableError> {
    let file = File::open(path).map_err(|source| TableError::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok(csv::Reader::from_reader(file))
}

/// Hands every row of a dataset to `visit`, reduced to `columns`, files in the order of their names.
///
/// # Errors
/// What `visit` answers, or why the dataset cannot be read.
pub fn each_row<const N: usize, E: From<TableError>>(
    folder: &Path,
    columns: [&str; N],
    mut visit: impl FnMut([&str; N]) -> Result<(), E>,
) -> Result<(), E> {
    for path in files(folder)? {
        let failed = |source| TableError::Rows {
            path: path.clone(),
            source,
        };
        let mut reader = open(&path)?;
        let positions = positions(&path, reader.headers().map_err(failed)?, columns)?;
        let mut record = StringRecord::new();
        while reader.read_record(&mut record).map_err(failed)? {
            // The reader refuses rows that are not as wide as the header, so no field is missing.
            visit(positions.map(|position| record.get(position).unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn positions<const N: usize>(
    path: &Path,
    header: &StringRecord,
    columns: [&str; N],
) -> Result<[usize; N], TableError> {
    let mut positions = [0; N];
    for (position, column) in positions.iter_mut().zip(columns) {
        *position = header
            .iter()
            .position(|name| name == column)
            .ok_or_else(|| TableError::Column {
                path: path.to_owned(),
                column: column.to_owned(),
            })?;
    }
    Ok(positions)
}

/// Creates `part-0.csv` in the output folder of a dataset, with its header.
///
/// # Errors
/// When the folder or file cannot be created or written.
pub fn create(output_dir: &Path, dataset: &str, header: &[&str]) -> Result<Sink, TableError> {
    create_file(output_dir.join(dataset).join("part-0.csv"), header)
}

/// Creates a CSV file with its header, and the folders above it.
///
/// # Errors
/// When a folder or the file cannot be created or written.
pub fn create_file(path: PathBuf, header: &[&str]) -> Result<Sink, TableError> {
    let create = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::create(&path)
    };
    let file = create().map_err(|source| TableError::Open {
        path: path.clone(),
        source,
    })?;
    let mut sink = Sink {
        writer: csv::Writer::from_writer(file),
        path,
        rows: 0,
    };
    sink.write(header)?;
    sink.rows = 0;
    Ok(sink)
}

/// A file of an output dataset that is being written.
#[derive(Debug)]
pub struct Sink {
    writer: csv::Writer<File>,
    path: PathBuf,
    rows: u64,
}

impl Sink {
    /// Appends a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write<I, T>(&mut self, row: I) -> Result<(), TableError>
    where
        I: IntoIterator<Item = T>,
        T: AsRef<[u8]>,
    {
        self.rows += 1;
        self.writer
            .write_record(row)
            .map_err(|source| TableError::Rows {
                path: self.path.clone(),
                source,
            })
    }

    /// Writes what is still in memory and answers with the number of rows.
    ///
    /// The platform makes the file durable when it accepts the attempt, so nothing is synced here.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<u64, TableError> {
        self.writer.flush().map_err(|source| TableError::Open {
            path: self.path.clone(),
            source,
        })?;
        Ok(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    type Outcome = Result<(), Box<dyn Error>>;

    #[test]
    fn rows_of_all_partitions_come_in_the_order_of_the_paths_and_by_column_name() -> Outcome {
        let folder = tempfile::tempdir()?;
        for (partition, text) in [
            ("year=2023", "rate,date\n2,b\n"),
            ("year=2022", "date,rate\na,1\n"),
        ] {
            fs::create_dir(folder.path().join(partition))?;
            fs::write(folder.path().join(partition).join("part-0.csv"), text)?;
        }
        let mut seen = Vec::new();
        each_row(folder.path(), ["date", "rate"], |[date, rate]| {
            seen.push(format!("{date}{rate}"));
            Ok::<_, TableError>(())
        })?;
        assert_eq!(seen, ["a1", "b2"]);
        Ok(())
    }

    #[test]
    fn a_missing_column_an_uneven_row_and_an_empty_folder_are_bad_data() -> Outcome {
        let folder = tempfile::tempdir()?;
        let read = || each_row(folder.path(), ["date"], |_| Ok::<_, TableError>(()));
        assert_eq!(read().map_err(|error| error.status()), Err(Status::DataErr));
        for text in ["day\n1\n", "date\n1,2\n", "date\n\u{fffd}\n\"a"] {
            let mut bytes = text.as_bytes().to_vec();
            bytes.retain(|byte| *byte != 0xbf);
            fs::write(folder.path().join("part-0.csv"), bytes)?;
            assert_eq!(
                read().map_err(|error| error.status()),
                Err(Status::DataErr),
                "{text:?}"
            );
        }
        Ok(())
    }
}
