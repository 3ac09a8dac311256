//! Handing tables out: CSV, NDJSON, Parquet, or the files that a table of files holds.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use memchr::{memchr2, memchr3};

use crate::cell::{Value, to_text, value_at};
use crate::groups::{GroupWriter, properties};
use crate::read::{InputFormat, ReadError};
use crate::schema::{ColumnType, TableSchema};
use crate::stage::files_schema;
use crate::table::Snapshot;

/// Rows as text, in a fixed spelling: nulls are empty fields in CSV and `null` in NDJSON,
/// an empty text is `""` in both, decimals have all digits of their scale, timestamps are RFC 3339 in UTC, bytes are base64.
pub struct TextWriter<'a, W: Write> {
    schema: &'a TableSchema,
    out: Out<W>,
}

enum Out<W: Write> {
    Csv(W),
    Ndjson(W),
}

impl<'a, W: Write> TextWriter<'a, W> {
    /// A writer of CSV if that is the format, and else of NDJSON.
    pub fn new(out: W, format: InputFormat, schema: &'a TableSchema) -> Self {
        let out = match format {
            InputFormat::Csv => Out::Csv(out),
            _ => Out::Ndjson(out),
        };
        Self { schema, out }
    }

    /// Writes the header row, which NDJSON does not have.
    ///
    /// # Errors
    /// The writer's.
    pub fn header(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Csv(out) => {
                for (place, column) in self.schema.columns().iter().enumerate() {
                    write_field(out, place, Some(&column.name))?;
                }
                out.write_all(b"\n")
            }
            Out::Ndjson(_) => Ok(()),
        }
    }

    /// Writes rows of the whole schema.
    ///
    /// # Errors
    /// The writer's.
    pub fn rows(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let columns = self.schema.columns();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(batch.columns());
            match &mut self.out {
                Out::Csv(out) => {
                    for (place, (column, array)) in cells.enumerate() {
                        let value = value_at(array.as_ref(), row);
                        let text = to_text(&value, column.column_type);
                        write_field(out, place, text.as_deref())?;
                    }
                    out.write_all(b"\n")?;
                }
                Out::Ndjson(out) => {
                    out.write_all(b"{")?;
                    for (place, (column, array)) in cells.enumerate() {
                        if place > 0 {
                            out.write_all(b",")?;
                        }
                        serde_json::to_writer(&mut *out, &column.name)?;
                        out.write_all(b":")?;
                        write_json(out, &value_at(array.as_ref(), row), column.column_type)?;
                    }
                    out.write_all(b"}\n")?;
                }
            }
        }
        Ok(())
    }

    /// The writer below, with everything handed to it.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(self) -> io::Result<W> {
        match self.out {
            Out::Csv(out) | Out::Ndjson(out) => Ok(out),
        }
    }
}

/// A field of a CSV record, in quotes where RFC 4180 needs them, and where it would else be taken
/// for a null, or for the mark of a byte order.
fn write_field(out: &mut impl Write, place: usize, text: Option<&str>) -> io::Result<()> {
    if place > 0 {
        out.write_all(b",")?;
    }
    let Some(text) = text else { return Ok(()) };
    let is_plain = !text.is_empty()
        && !text.starts_with('\u{feff}')
        && memchr3(b',', b'"', b'\r', text.as_bytes()).is_none()
        && memchr2(b'\n', 0, text.as_bytes()).is_none();
    if is_plain {
        return out.write_all(text.as_bytes());
    }
    out.write_all(b"\"")?;
    out.write_all(text.replace('"', "\"\"").as_bytes())?;
    out.write_all(b"\"")
}

/// Whole numbers, finite floats and truth values as such, all else as a string: a decimal in a
/// JSON number would lose digits in most readers.
fn write_json(out: &mut impl Write, value: &Value<'_>, column_type: ColumnType) -> io::Result<()> {
    match (value, to_text(value, column_type)) {
        (_, None) => out.write_all(b"null"),
        (Value::Int64(_) | Value::Bool(_), Some(text)) => out.write_all(text.as_bytes()),
        (Value::Float64(number), Some(text)) if number.is_finite() => {
            out.write_all(text.as_bytes())
        }
        (_, Some(text)) => serde_json::to_writer(out, &text).map_err(io::Error::from),
    }
}

impl Snapshot {
    /// Writes the whole table as text.
    ///
    /// # Errors
    /// If data files cannot be read or the writer refuses; part of the text is then written.
    pub fn export_text(&self, format: InputFormat, out: impl Write) -> Result<(), ReadError> {
        let write = |source| ReadError::Write {
            path: PathBuf::from("(export)"),
            source,
        };
        let mut writer = TextWriter::new(out, format, &self.schema);
        writer.header().map_err(write)?;
        for batch in self.rows(&[]) {
            writer.rows(&batch?).map_err(write)?;
        }
        writer
            .finish()
            .and_then(|mut out| out.flush())
            .map_err(write)
    }

    /// Writes the whole table, partition columns included, as one Parquet file.
    ///
    /// # Errors
    /// If data files cannot be read or the writer refuses; part of the file is then written.
    pub fn export_parquet(&self, out: impl Write + Send) -> Result<(), ReadError> {
        let encode = |source| ReadError::Encode { source };
        let schema = self.schema.to_arrow();
        let properties = properties(&schema).build();
        let mut writer = GroupWriter::new(out, schema, properties).map_err(encode)?;
        for batch in self.rows(&[]) {
            writer.write(&batch?).map_err(encode)?;
        }
        writer.finish().map(drop).map_err(encode)
    }

    /// Writes the files that a table of files holds below `into`, and returns their relative
    /// paths. Nothing is overwritten, and no link is followed out of the folder.
    ///
    /// # Errors
    /// If the table does not hold files, a path would leave the folder, or a file exists.
    pub fn export_files(&self, into: &Path) -> Result<Vec<PathBuf>, ReadError> {
        let names = |schema: &TableSchema| -> Vec<String> {
            schema
                .columns()
                .iter()
                .map(|column| column.name.clone())
                .collect()
        };
        if !files_schema().is_ok_and(|expected| names(&expected) == names(&self.schema)) {
            return Err(ReadError::NotFiles {
                table: self.table.to_string(),
            });
        }
        let mut written = Vec::new();
        for batch in self.rows(&[]) {
            let batch = batch?;
            let paths = batch.column(0).as_string::<i32>();
            let contents = batch.column(4).as_binary::<i32>();
            for row in 0..paths.len() {
                let relative = safe(paths.value(row))?;
                let path = into.join(&relative);
                write_new(into, &relative, contents.value(row))
                    .map_err(|source| ReadError::Write { path, source })?;
                written.push(relative);
            }
        }
        Ok(written)
    }
}

fn safe(path: &str) -> Result<PathBuf, ReadError> {
    let relative = PathBuf::from(path);
    let is_plain = |component| matches!(component, Component::Normal(_));
    if path.is_empty() || path.contains('\0') || !relative.components().all(is_plain) {
        return Err(ReadError::UnsafePath {
            path: path.chars().take(200).collect(),
        });
    }
    Ok(relative)
}

/// Writes a new file; the folders between are real folders, not links.
fn write_new(into: &Path, relative: &Path, content: &[u8]) -> io::Result<()> {
    let mut folder = into.to_owned();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&folder)?.is_dir() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            made => made?,
        }
    }
    let path = into.join(relative);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?
        .write_all(content)
}
