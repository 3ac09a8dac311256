//! The columns of Parquet files, brought to the declared types without losing anything. What is taken
//! here has been [decoded](super::decode) already.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNumericType, AsArray as _, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options, max, min};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType,
};

use super::check::{ColumnCheck, kept};
use super::ipc::Messages;
use super::observer::Observed;
use super::{Stage, StageError};
use crate::cell::{DAYS, MICROS, to_text, value_at};
use crate::dead_letter::Refusal;
use crate::input::InputFile;
use crate::schema::{ArrowForm, Column, ColumnType, TableSchema};

/// Small batches bound what a few huge values can hold in memory at once.
pub(super) const BATCH_ROWS: usize = 2048;

impl Stage<'_, '_> {
    /// Takes the rows of a file that was decoded elsewhere, up to the end of its stream.
    pub(super) fn decoded(
        &mut self,
        file: &InputFile,
        content: &mut dyn Read,
    ) -> Result<(), StageError> {
        let content = Observed::uncounted(content, self.observer);
        let mut messages = Messages::of(file, content, "Parquet", u64::MAX);
        let stream = messages.begin()?;
        let columns = sources(&self.spec.schema, &stream).map_err(|difference| {
            let file = file.path.clone();
            StageError::Columns { file, difference }
        })?;
        self.batches(&mut messages, &Arc::new(stream), &columns)
    }

    /// Checks rows of the declared columns, and writes those that fit.
    pub(super) fn arrow_rows(
        &mut self,
        file: &InputFile,
        checks: &mut [ColumnCheck<'_>],
        sources: &[&ArrayRef],
        first_row: u64,
    ) -> Result<(), StageError> {
        let schema = &self.spec.schema;
        let arrange = |source| StageError::Arrange { source };
        let options = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        let mut columns = Vec::with_capacity(sources.len());
        let mut refused = BTreeMap::new();
        for (place, column) in schema.columns().iter().enumerate() {
            let (source, check) = (sources[place].as_ref(), &mut checks[place]);
            let cast = cast_with_options(source, &column.column_type.to_arrow(), &options)
                .map_err(arrange)?;
            check_column(column, check, source, &cast, &mut refused);
            columns.push(cast);
        }
        let mut fits = vec![true; columns[0].len()];
        for (row, refusal) in refused {
            fits[row] = false;
            let record = describe(schema, &columns, row);
            let number = first_row + row as u64 + 1;
            self.refuse(file, number, &refusal, record.as_bytes())?;
        }
        let fitting = kept(&columns, &fits.into()).map_err(arrange)?;
        let batch = RecordBatch::try_new(schema.to_arrow(), fitting).map_err(arrange)?;
        self.sink.write(&batch)
    }
}

/// Refuses the rows whose value of a column does not fit; of the reasons that a row has, the first
/// column's stays. A column without any is seen by its number of nulls.
fn check_column(
    column: &Column,
    check: &mut ColumnCheck<'_>,
    source: &dyn Array,
    cast: &ArrayRef,
    refused: &mut BTreeMap<usize, Refusal>,
) {
    let mut refuse = |row, refusal: Refusal| {
        refused.entry(row).or_insert(refusal);
    };
    let given = source.logical_nulls();
    let missing = given.as_ref().map_or(0, NullBuffer::null_count);
    if cast.null_count() > missing || (!column.nullable && missing > 0) {
        for row in (0..cast.len()).filter(|row| cast.is_null(*row)) {
            let is_given = given.as_ref().is_none_or(|nulls| nulls.is_valid(row));
            if is_given {
                let declared = column.column_type;
                refuse(
                    row,
                    check.refusal(&format!("the value does not fit {declared}")),
                );
            } else if let Err(refusal) = check.null() {
                refuse(row, refusal);
            }
        }
    }
    if let DataType::Timestamp(TimeUnit::Nanosecond, _) = source.data_type() {
        let nanoseconds = source.as_primitive::<TimestampNanosecondType>();
        for (row, value) in nanoseconds.iter().enumerate() {
            if value.is_some_and(|value| value % 1000 != 0) {
                refuse(row, check.refusal("more than 6 digits after the second"));
            }
        }
    }
    for row in out_of_range(cast.as_ref(), column.column_type) {
        let declared = column.column_type;
        refuse(
            row,
            check.refusal(&format!("the value does not fit {declared}")),
        );
    }
    if column.column_type == ColumnType::String && !check.takes_any_text() {
        for (row, text) in cast.as_string::<i32>().iter().enumerate() {
            if let Some(Err(refusal)) = text.map(|text| check.text(text)) {
                refuse(row, refusal);
            }
        }
    }
}

/// The rows whose value is beyond what a type holds, though Arrow's own type holds it: so a value
/// is one in every format, or in none.
fn out_of_range(array: &dyn Array, column_type: ColumnType) -> Vec<usize> {
    match column_type {
        ColumnType::Decimal { precision, .. } => {
            let limit = 10_i128.pow(u32::from(precision)) - 1;
            outside::<Decimal128Type>(array, &(-limit..=limit))
        }
        ColumnType::Date => outside::<Date32Type>(array, &DAYS),
        ColumnType::Timestamp => outside::<TimestampMicrosecondType>(array, &MICROS),
        _ => Vec::new(),
    }
}

/// The rows outside of a range; most columns are seen by their least and greatest value.
fn outside<T: ArrowNumericType>(array: &dyn Array, range: &RangeInclusive<T::Native>) -> Vec<usize>
where
    T::Native: PartialOrd,
{
    let values = array.as_primitive::<T>();
    let is_within = |value: Option<T::Native>| value.is_none_or(|value| range.contains(&value));
    if is_within(min(values)) && is_within(max(values)) {
        return Vec::new();
    }
    let rows = values.iter().enumerate();
    rows.filter(|(_, value)| !is_within(*value))
        .map(|(row, _)| row)
        .collect()
}

/// Runs a step of the reader; an error or a panic becomes a reason.
pub(super) fn guarded<T, E: std::fmt::Display>(
    step: impl FnOnce() -> Result<T, E>,
) -> Result<T, String> {
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
        let name = field.name();
        let hint = if name.starts_with("__index_level_") {
            "; pandas writes its index so, unless told `index=False`"
        } else {
            ""
        };
        return Err(format!("column `{name}` is not declared{hint}"));
    }
    let place = |column: &Column| {
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
        let hint = match (found, column.column_type) {
            (DataType::Timestamp(_, None), ColumnType::Timestamp) => {
                "; without a time zone it tells no instant: write it with one, such as UTC"
            }
            (DataType::Timestamp(..), ColumnType::Date) => "; write days, not instants",
            _ => "",
        };
        Err(format!(
            "column `{}` is {found}, declared as {}{hint}",
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
    // A column without a value has no type.
    if matches!(found, A::Null) {
        return true;
    }
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
        ColumnType::Timestamp => matches!(found, A::Timestamp(_, Some(_))),
        ColumnType::Bool => matches!(found, A::Boolean),
        ColumnType::Binary => matches!(
            found,
            A::Binary | A::LargeBinary | A::BinaryView | A::FixedSizeBinary(_)
        ),
    }
}

/// A row as a JSON object of texts, for a dead letter.
fn describe(schema: &TableSchema, columns: &[ArrayRef], row: usize) -> String {
    let cell = |(column, array): (&Column, &ArrayRef)| {
        let text = to_text(&value_at(array.as_ref(), row), column.column_type);
        (column.name.clone(), serde_json::Value::from(text))
    };
    let cells = schema.columns().iter().zip(columns).map(cell);
    serde_json::Value::Object(cells.collect()).to_string()
}
