//! Parquet that a stranger wrote: sizes are checked before pages are unpacked, columns are brought
//! to the declared types without losing anything, and a reader's panic is a malformed file.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, ArrayRef, AsArray as _, BooleanArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Stage, StageError};
use crate::cell::{to_text, value_at};
use crate::input::InputFile;
use crate::schema::{ColumnType, TableSchema};

/// Small batches bound what a few huge values can hold in memory at once.
const BATCH_ROWS: usize = 2048;

impl Stage<'_, '_> {
    pub(super) fn parquet(&mut self, file: &InputFile, content: File) -> Result<(), StageError> {
        let malformed = |reason: String| StageError::Malformed {
            file: file.path.clone(),
            format: "Parquet",
            reason,
        };
        let builder =
            guarded(|| ParquetRecordBatchReaderBuilder::try_new(content)).map_err(malformed)?;
        self.check_claims(file, builder.metadata())?;
        let columns = sources(&self.spec.schema, builder.schema()).map_err(|difference| {
            StageError::Columns {
                file: file.path.clone(),
                difference,
            }
        })?;
        let mut reader =
            guarded(|| builder.with_batch_size(BATCH_ROWS).build()).map_err(malformed)?;
        let mut row = 0;
        while let Some(batch) = guarded(|| reader.next().transpose()).map_err(malformed)? {
            self.count_rows(file, batch.num_rows() as u64)?;
            self.unpacked_bytes += batch.get_array_memory_size() as u64;
            self.check_unpacked(file, self.unpacked_bytes)?;
            let sources = columns
                .iter()
                .map(|place| batch.column(*place))
                .collect::<Vec<_>>();
            self.parquet_rows(file, &sources, row)?;
            row += batch.num_rows() as u64;
        }
        Ok(())
    }

    /// Refuses a file whose pages claim too much, before any is unpacked. Repetition makes many
    /// rows of few page bytes, so rows are counted again as they come.
    fn check_claims(
        &self,
        file: &InputFile,
        metadata: &parquet::file::metadata::ParquetMetaData,
    ) -> Result<(), StageError> {
        let chunks = metadata
            .row_groups()
            .iter()
            .flat_map(|group| group.columns());
        let claimed = |bytes: i64| u64::try_from(bytes).unwrap_or(u64::MAX);
        let sizes = chunks.map(|chunk| claimed(chunk.uncompressed_size()));
        self.check_unpacked(file, sizes.fold(self.unpacked_bytes, u64::saturating_add))
    }

    fn check_unpacked(&self, file: &InputFile, bytes: u64) -> Result<(), StageError> {
        let limit = self.spec.limits.max_unpacked_bytes;
        if bytes > limit {
            let (file, what) = (file.path.clone(), "bytes when unpacked");
            return Err(StageError::Limit { file, what, limit });
        }
        Ok(())
    }

    fn parquet_rows(
        &mut self,
        file: &InputFile,
        sources: &[&ArrayRef],
        first_row: u64,
    ) -> Result<(), StageError> {
        let schema = &self.spec.schema;
        let arrange = |source| StageError::Arrange { source };
        let cast = |(source, column): (&&ArrayRef, &crate::schema::Column)| {
            let options = CastOptions {
                safe: true,
                ..CastOptions::default()
            };
            cast_with_options(*source, &column.column_type.to_arrow(), &options)
        };
        let columns: Vec<ArrayRef> = sources
            .iter()
            .zip(schema.columns())
            .map(cast)
            .collect::<Result<_, _>>()
            .map_err(arrange)?;
        let rows = columns[0].len();
        let mut good = vec![true; rows];
        for (row, good) in good.iter_mut().enumerate() {
            if let Err(error) = self.parquet_row(sources, &columns, row) {
                *good = false;
                let record = describe(schema, &columns, row);
                self.refuse(file, first_row + row as u64 + 1, error, record.as_bytes());
            }
        }
        // Columns are checked for nulls as the batch is made, so refused rows go first.
        let nullable = arrow::datatypes::Schema::new(
            schema
                .to_arrow()
                .fields()
                .iter()
                .map(|f| f.as_ref().clone().with_nullable(true))
                .collect::<Vec<_>>(),
        );
        let all = RecordBatch::try_new(nullable.into(), columns).map_err(arrange)?;
        let kept = filter_record_batch(&all, &BooleanArray::from(good)).map_err(arrange)?;
        let kept =
            RecordBatch::try_new(schema.to_arrow(), kept.columns().to_vec()).map_err(arrange)?;
        self.sink.write(&kept)
    }

    fn parquet_row(
        &self,
        sources: &[&ArrayRef],
        columns: &[ArrayRef],
        row: usize,
    ) -> Result<(), String> {
        for (place, column) in self.spec.schema.columns().iter().enumerate() {
            let (source, array) = (sources[place], &columns[place]);
            if array.is_valid(row) {
                if column.column_type == ColumnType::String {
                    self.checker
                        .pattern(place, array.as_string::<i32>().value(row))?;
                }
            } else if source.is_valid(row) {
                let (name, declared) = (&column.name, column.column_type);
                return Err(format!(
                    "column `{name}`: the value does not fit {declared}"
                ));
            } else {
                self.checker.null(place)?;
            }
        }
        Ok(())
    }
}

/// Runs a step of the reader; an error or a panic becomes a reason.
fn guarded<T, E: std::fmt::Display>(step: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the reader gave up on it".to_owned()),
    }
}

/// For each declared column, its place in the file.
fn sources(schema: &TableSchema, file: &arrow::datatypes::Schema) -> Result<Vec<usize>, String> {
    if let Some(field) = file
        .fields()
        .iter()
        .find(|field| schema.column(field.name()).is_none())
    {
        return Err(format!("column `{}` is not declared", field.name()));
    }
    let place = |column: &crate::schema::Column| {
        let places: Vec<usize> = (0..file.fields().len())
            .filter(|place| file.field(*place).name() == &column.name)
            .collect();
        let [place] = places[..] else {
            let count = if places.is_empty() {
                "missing"
            } else {
                "there more than once"
            };
            return Err(format!("column `{}` is {count}", column.name));
        };
        let found = file.field(place).data_type();
        if is_lossless(found, column.column_type) {
            return Ok(place);
        }
        Err(format!(
            "column `{}` is {found}, declared as {}",
            column.name, column.column_type
        ))
    };
    schema.columns().iter().map(place).collect()
}

/// Whether every value of the Arrow type has an equal one in the column type, except those out
/// of its range, which are refused row by row.
fn is_lossless(found: &DataType, declared: ColumnType) -> bool {
    use DataType as A;
    let found = match found {
        A::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    match declared {
        ColumnType::String => matches!(found, A::Utf8 | A::LargeUtf8 | A::Utf8View),
        ColumnType::Int64 => found.is_integer(),
        ColumnType::Float64 => matches!(found, A::Float64 | A::Float32 | A::Float16),
        ColumnType::Decimal { scale, .. } => match found {
            A::Decimal32(_, s) | A::Decimal64(_, s) | A::Decimal128(_, s) => {
                (0..=i32::from(scale)).contains(&i32::from(*s))
            }
            _ => found.is_integer(),
        },
        ColumnType::Date => matches!(found, A::Date32),
        ColumnType::Timestamp => matches!(
            found,
            A::Timestamp(
                TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond,
                Some(_)
            )
        ),
        ColumnType::Bool => matches!(found, A::Boolean),
        ColumnType::Binary => matches!(
            found,
            A::Binary | A::LargeBinary | A::BinaryView | A::FixedSizeBinary(_)
        ),
    }
}

/// A row as a JSON object of texts, for a dead letter.
fn describe(schema: &TableSchema, columns: &[ArrayRef], row: usize) -> String {
    let cell = |(column, array): (&crate::schema::Column, &ArrayRef)| {
        let text = to_text(&value_at(array.as_ref(), row), column.column_type);
        (column.name.clone(), serde_json::Value::from(text))
    };
    let cells = schema.columns().iter().zip(columns).map(cell);
    serde_json::Value::Object(cells.collect()).to_string()
}
