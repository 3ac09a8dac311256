//! The rows of a data file, in batches that hold little, whatever the rows are.
//!
//! No batch has rows of two row groups, and our own groups are [bounded](crate::groups) by what their
//! rows hold. Of other files, and of ours from before that, so few rows are read at once that they
//! cannot hold more, by the most that a value of theirs can be.

use std::fs::File;
use std::io::{self, Seek as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Encoding, Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use sha2::{Digest as _, Sha256};

use super::ReadError;
use crate::cell::{CellBuilder, Value, parse};
use crate::commit::digits_of;
use crate::groups::GROUP_BYTES;
use crate::schema::{ArrowForm as _, Column, TableSchema};
use crate::table::{DataFile, Standing};

/// As many rows are read at once where they are small,
const BATCH_ROWS: usize = 8192;
/// and so many bytes of their cells that are neither text nor bytes, of which there may be thousands a
/// row.
const BATCH_BYTES: usize = 16 << 20;
/// No such cell takes more.
const CELL_BYTES: usize = 16;

/// The file at `path` at its start, once its bytes are known to be those that were committed.
pub(super) fn committed(file: &DataFile, path: &Path) -> Result<File, ReadError> {
    let open = |source| ReadError::Open {
        path: path.to_owned(),
        source,
    };
    if file.standing == Standing::Altered {
        let path = file.path.clone();
        return Err(ReadError::Unproved { path });
    }
    let mut content = File::open(path).map_err(open)?;
    let told = [file.sha256.as_deref(), digits_of(&file.name)];
    let told: Vec<_> = told.into_iter().flatten().collect();
    if !told.is_empty() {
        let mut hasher = Sha256::new();
        io::copy(&mut content, &mut hasher).map_err(open)?;
        let found = format!("{:x}", hasher.finalize());
        if let Some(committed) = told.iter().find(|told| !found.starts_with(**told)) {
            return Err(ReadError::Altered {
                path: path.to_owned(),
                committed: (*committed).to_owned(),
                found,
            });
        }
        content.rewind().map_err(open)?;
    }
    Ok(content)
}

/// The rows of one data file, widened to the table's columns.
pub(super) struct FileRows<'a> {
    schema: &'a TableSchema,
    file: &'a DataFile,
    content: File,
    metadata: ArrowReaderMetadata,
    /// Those to come.
    groups: Range<usize>,
    group: Option<Group>,
}

/// A row group that is read.
struct Group {
    reader: ParquetRecordBatchReader,
    /// Of its rows. With the last, what is held of its pages can go.
    left: usize,
}

impl<'a> FileRows<'a> {
    pub(super) fn open(schema: &'a TableSchema, file: &'a DataFile) -> Result<Self, ReadError> {
        Self::open_at(schema, file, &file.path)
    }

    /// The rows of a file that is at `path`, too.
    pub(super) fn open_at(
        schema: &'a TableSchema,
        file: &'a DataFile,
        path: &Path,
    ) -> Result<Self, ReadError> {
        let content = committed(file, path)?;
        let metadata = ArrowReaderMetadata::load(&content, ArrowReaderOptions::default());
        let metadata = metadata.map_err(|source| unreadable(file, source))?;
        Ok(Self {
            schema,
            file,
            content,
            groups: 0..metadata.metadata().num_row_groups(),
            metadata,
            group: None,
        })
    }

    /// The columns that are in the file itself.
    pub(super) fn columns(&self) -> &arrow::datatypes::Schema {
        self.metadata.schema()
    }

    /// Begins the next row group.
    fn begin(&self, number: usize) -> Result<Group, ParquetError> {
        let group = self.metadata.metadata().row_group(number);
        // What another program says of its values is not known to be so.
        let is_ours = self.file.rows_hash.is_some();
        let rows = rows_at_once(group, self.schema.columns().len(), is_ours);
        let left = usize::try_from(group.num_rows()).unwrap_or(0);
        let content = self.content.try_clone()?;
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(content, self.metadata.clone())
                .with_row_groups(vec![number])
                .with_batch_size(rows)
                .build()?;
        Ok(Group { reader, left })
    }

    fn read(&mut self) -> Option<Result<RecordBatch, ReadError>> {
        loop {
            let Some(group) = &mut self.group else {
                let number = self.groups.next()?;
                match self.begin(number) {
                    Ok(begun) => self.group = Some(begun),
                    Err(source) => return Some(Err(unreadable(self.file, source))),
                }
                continue;
            };
            let batch = group.reader.next();
            let read = batch.as_ref().and_then(|batch| batch.as_ref().ok());
            group.left = group
                .left
                .saturating_sub(read.map_or(0, RecordBatch::num_rows));
            if group.left == 0 || batch.is_none() {
                self.group = None;
            }
            if let Some(batch) = batch {
                return Some(batch.map_err(|source| ReadError::Rows {
                    path: self.file.path.clone(),
                    source,
                }));
            }
        }
    }

    fn widen(&self, batch: &RecordBatch) -> Result<RecordBatch, ReadError> {
        let rows = |source| ReadError::Rows {
            path: self.file.path.clone(),
            source,
        };
        let columns: Vec<ArrayRef> = self
            .schema
            .columns()
            .iter()
            .map(|column| self.column(column, batch))
            .collect::<Result<_, _>>()?;
        RecordBatch::try_new(self.schema.to_arrow(), columns).map_err(rows)
    }

    fn column(&self, column: &Column, batch: &RecordBatch) -> Result<ArrayRef, ReadError> {
        let data_type = column.column_type.to_arrow();
        if self.schema.partition_by().contains(&column.name) {
            return self.partition_column(column, batch.num_rows());
        }
        match batch.column_by_name(&column.name) {
            Some(array) if array.data_type() == &data_type => Ok(Arc::clone(array)),
            // A value that does not fit is damage, and no null.
            Some(array) => {
                let strict = CastOptions {
                    safe: false,
                    ..CastOptions::default()
                };
                cast_with_options(array, &data_type, &strict).map_err(|source| ReadError::Rows {
                    path: self.file.path.clone(),
                    source,
                })
            }
            // The column was added after this file was written.
            None => Ok(new_null_array(&data_type, batch.num_rows())),
        }
    }

    fn partition_column(&self, column: &Column, rows: usize) -> Result<ArrayRef, ReadError> {
        let text = self
            .file
            .partition_values
            .get(&column.name)
            .cloned()
            .flatten();
        let value = match text {
            None => Value::Null,
            Some(text) => parse(text.into(), column.column_type).map_err(|refusal| {
                ReadError::PartitionValue {
                    path: self.file.path.clone(),
                    reason: refusal.to_string(),
                }
            })?,
        };
        let mut builder = CellBuilder::new(column.column_type);
        (0..rows).for_each(|_| builder.append(&value));
        Ok(builder.finish())
    }
}

impl Iterator for FileRows<'_> {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.read()?;
        Some(batch.and_then(|batch| self.widen(&batch)))
    }
}

/// Whether each column of a file is one of the table's, of the same type: so the rows of the table are
/// those that were hashed when it was written. What the table has besides is null in them, and no part
/// of a row's hash.
pub(super) fn has_columns_of(schema: &TableSchema, file: &DataFile) -> bool {
    let metadata = File::open(&file.path)
        .map_err(ParquetError::from)
        .and_then(|content| ArrowReaderMetadata::load(&content, ArrowReaderOptions::default()));
    // What cannot be told is not so: whoever reads the file says why.
    let Ok(metadata) = metadata else {
        return false;
    };
    let mut fields = metadata.schema().fields().iter();
    fields.all(|field| {
        let column = schema.column(field.name());
        column.is_some_and(|column| {
            !schema.partition_by().contains(&column.name)
                && field.data_type() == &column.column_type.to_arrow()
        })
    })
}

fn unreadable(file: &DataFile, source: ParquetError) -> ReadError {
    ReadError::Parquet {
        path: file.path.clone(),
        source,
    }
}

/// How many rows of a group are read at once: so many that their texts hold no more than
/// [`GROUP_BYTES`], and their other cells no more than [`BATCH_BYTES`]; or one. `columns` are those of
/// the table. Whether what the file says of its values' sizes is believed, is `believed`.
fn rows_at_once(group: &RowGroupMetaData, columns: usize, believed: bool) -> usize {
    let missing = columns.saturating_sub(group.num_columns());
    let (mut row, mut all, mut longest) = (missing * CELL_BYTES, 0_usize, 0_usize);
    for chunk in group.columns() {
        let fixed = usize::try_from(chunk.column_descr().type_length()).unwrap_or(0);
        row = row.saturating_add(fixed.max(CELL_BYTES));
        if chunk.column_type() == Type::BYTE_ARRAY {
            let of_chunk = most(chunk, believed);
            all = all.saturating_add(of_chunk);
            longest = longest.saturating_add(of_chunk.min(unpacked(chunk)));
        }
    }
    let by_cells = BATCH_BYTES / row.max(1);
    let by_texts = match all <= GROUP_BYTES {
        true => BATCH_ROWS,
        false => GROUP_BYTES / longest.max(1),
    };
    by_cells.min(by_texts).clamp(1, BATCH_ROWS)
}

/// The most bytes that the values of a column of a group are together.
fn most(chunk: &ColumnChunkMetaData, believed: bool) -> usize {
    let is_plain = |encoding: Encoding| {
        // Of levels, where it is not the first.
        #[expect(deprecated, reason = "files that have it are read")]
        let levels = [Encoding::RLE, Encoding::BIT_PACKED];
        encoding == Encoding::PLAIN || levels.contains(&encoding)
    };
    if chunk.dictionary_page_offset().is_none() && chunk.encodings().all(is_plain) {
        return unpacked(chunk);
    }
    // Values that repeat, whole or how they begin, are written once.
    let told = chunk.unencoded_byte_array_data_bytes();
    let told = told.filter(|_| believed).map(usize::try_from);
    told.and_then(Result::ok).unwrap_or(usize::MAX)
}

/// The bytes of a column of a group in its encoding: no value has more.
fn unpacked(chunk: &ColumnChunkMetaData) -> usize {
    usize::try_from(chunk.uncompressed_size()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::Int32Type;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_writer::ArrowWriterOptions;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use crate::digest::RowsHash;
    use crate::groups::size;
    use crate::schema::ColumnType;

    type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

    /// A file as other programs write it, all in one group.
    fn file(folder: &Path, texts: ArrayRef, plain: bool) -> TestResult<DataFile> {
        let numbers = Int64Array::from_iter_values(0..texts.len() as i64);
        let columns: Vec<(&str, ArrayRef)> = vec![("n", Arc::new(numbers)), ("text", texts)];
        let batch = RecordBatch::try_from_iter(columns)?;
        let properties = WriterProperties::builder()
            .set_dictionary_page_size_limit(64 << 20)
            .set_dictionary_enabled(!plain)
            .build();
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let path = folder.join("part.parquet");
        let out = File::create(&path)?;
        let mut writer = ArrowWriter::try_new_with_options(out, batch.schema(), options)?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(DataFile {
            name: "part.parquet".to_owned(),
            written_as: "part.parquet".to_owned(),
            path,
            bytes: 0,
            rows: None,
            partition_values: Default::default(),
            rows_hash: None,
            standing: Standing::Told,
            sha256: None,
            modified_ms: 0,
        })
    }

    fn schema() -> TestResult<TableSchema> {
        let columns = vec![
            Column::nullable("n", ColumnType::Int64),
            Column::nullable("text", ColumnType::String),
        ];
        Ok(TableSchema::new(columns, Vec::new())?)
    }

    /// The rows of each batch, and what the largest of them holds.
    fn batches(file: &DataFile) -> TestResult<(Vec<usize>, usize)> {
        let schema = schema()?;
        let (mut rows, mut most) = (Vec::new(), 0);
        for batch in FileRows::open(&schema, file)? {
            let batch = batch?;
            rows.push(batch.num_rows());
            most = most.max(size(&batch));
        }
        Ok((rows, most))
    }

    /// One text of 256 KiB, which so many rows have.
    fn repeated(rows: usize) -> TestResult<ArrayRef> {
        let values: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(256 << 10)]));
        let keys = Int32Array::from(vec![0; rows]);
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(
            keys, values,
        )?))
    }

    #[test]
    fn what_repeats_in_one_large_group_is_read_a_few_rows_at_once() -> TestResult {
        let folder = tempfile::tempdir()?;
        let mut file = file(folder.path(), repeated(400)?, false)?;
        assert!(std::fs::metadata(&file.path)?.len() < 1 << 20);
        for ours in [None, Some(RowsHash::default())] {
            file.rows_hash = ours;
            let (rows, most) = batches(&file)?;
            assert_eq!(rows.iter().sum::<usize>(), 400);
            assert!(most <= GROUP_BYTES, "{most} bytes in one of {rows:?}");
        }
        Ok(())
    }

    #[test]
    fn rows_that_hold_little_are_read_many_at_once() -> TestResult {
        let folder = tempfile::tempdir()?;
        let texts =
            || StringArray::from_iter_values((0..20_000).map(|n| format!("text {}", n % 100)));
        // Another program's, whose values are written one by one; and ours, of which it is known what
        // they are together.
        for (plain, ours) in [(true, None), (false, Some(RowsHash::default()))] {
            let mut file = file(folder.path(), Arc::new(texts()), plain)?;
            file.rows_hash = ours;
            assert_eq!(batches(&file)?.0, [8192, 8192, 3616], "plain: {plain}");
        }
        Ok(())
    }
}
