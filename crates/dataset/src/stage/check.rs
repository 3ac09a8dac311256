//! Checks of cells against their columns, and the collection of rows into batches.
//!
//! Cells go straight into the columns that they are of. A row that breaks off is filled up with
//! nulls and left out when the batch is taken, so that nothing is copied for the rows that fit.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use regex::Regex;

use super::StageError;
use crate::cell::{CellBuilder, quoted};
use crate::dead_letter::Refusal;
use crate::partition::NULL_FOLDER;
use crate::schema::{Column, ColumnType, TableSchema, compile_pattern};

/// Rows are handed on in batches of so many,
const BATCH_ROWS: usize = 8192;
/// or sooner, when their text has so many bytes, or what it becomes: a cell without a character takes
/// as much as another of its type.
const BATCH_BYTES: usize = 8 << 20;

/// So many texts that matched a pattern are remembered: what has a pattern often has few values.
const MATCHED: usize = 64;
/// The longest text that is remembered.
const MATCHED_BYTES: usize = 64;

/// What one column's cells must be.
pub(super) struct ColumnCheck<'a> {
    declared: &'a Column,
    pattern: Option<Regex>,
    /// Texts that the pattern matched, each in the place that [`place_of`] says.
    matched: Vec<String>,
    names_folders: bool,
}

impl<'a> ColumnCheck<'a> {
    /// The checks of a schema's columns, in its order.
    pub(super) fn of(schema: &'a TableSchema) -> Vec<Self> {
        let check = |column: &'a Column| Self {
            declared: column,
            pattern: match &column.pattern {
                // A `TableSchema` exists only with patterns that compile.
                Some(pattern) => compile_pattern(&column.name, pattern).ok(),
                None => None,
            },
            matched: vec![String::new(); if column.pattern.is_some() { MATCHED } else { 0 }],
            names_folders: schema.partition_by().contains(&column.name),
        };
        schema.columns().iter().map(check).collect()
    }

    /// Whether any text at all is accepted.
    pub(super) fn takes_any_text(&self) -> bool {
        self.pattern.is_none() && !self.names_folders
    }

    /// Checks the column's pattern, and that a partition value is not taken for null: the Delta
    /// protocol does so with the empty string, and readers of folders with the name of theirs.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Refusal> {
        if self.names_folders && text.is_empty() {
            return Err(self.refusal("a partition cannot be named by empty text"));
        }
        if self.names_folders && text == NULL_FOLDER {
            let reason = format!("a partition cannot be named by `{NULL_FOLDER}`, which is null");
            return Err(self.refusal(&reason));
        }
        let Some(regex) = &self.pattern else {
            return Ok(());
        };
        let place = place_of(text);
        if !text.is_empty() && self.matched[place] == text {
            return Ok(());
        }
        if !regex.is_match(text) {
            let pattern = self.declared.pattern.as_deref().unwrap_or_default();
            let reason = format!("does not match `{pattern}`");
            return Err(self.refusal(&reason).found(quoted(text)));
        }
        if text.len() <= MATCHED_BYTES {
            text.clone_into(&mut self.matched[place]);
        }
        Ok(())
    }

    /// Accepts a null where the column does.
    pub(super) fn null(&self) -> Result<(), Refusal> {
        if self.declared.nullable {
            return Ok(());
        }
        Err(self.refusal("a value is required, found none"))
    }

    pub(super) fn refusal(&self, reason: &str) -> Refusal {
        self.within(Refusal::new(reason.to_owned()))
    }

    fn within(&self, refusal: Refusal) -> Refusal {
        refusal.within(&format!("column `{}`: ", self.declared.name))
    }
}

/// Where a text that matched is remembered: one of [`MATCHED`] places.
fn place_of(text: &str) -> usize {
    let sum = text.bytes().take(16).fold(text.len(), |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(byte))
    });
    sum % MATCHED
}

/// Collects rows into a batch.
pub(super) struct Rows<'a> {
    schema: &'a TableSchema,
    columns: Vec<(ColumnCheck<'a>, CellBuilder)>,
    /// What the cells of a row take besides their text.
    width: usize,
    rows: usize,
    bytes: usize,
    refused: Vec<usize>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(schema: &'a TableSchema) -> Self {
        let column = |check: ColumnCheck<'a>| {
            let builder = CellBuilder::new(check.declared.column_type);
            (check, builder)
        };
        Self {
            schema,
            columns: ColumnCheck::of(schema).into_iter().map(column).collect(),
            width: schema.columns().iter().map(width).sum(),
            rows: 0,
            bytes: 0,
            refused: Vec::new(),
        }
    }

    /// Adds a cell of the row that is being written; `None` is null. Columns come in order.
    pub(super) fn cell(&mut self, column: usize, text: Option<&str>) -> Result<(), Refusal> {
        let (check, builder) = &mut self.columns[column];
        let Some(text) = text else {
            check.null()?;
            builder.append_null();
            return Ok(());
        };
        if !check.takes_any_text() {
            check.text(text)?;
        }
        builder
            .append_text(text)
            .map_err(|refusal| check.within(refusal))
    }

    /// Ends a row; `bytes` is its size as text.
    pub(super) fn end_row(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }

    /// Leaves out the row that is being written.
    pub(super) fn refuse_row(&mut self, bytes: usize) {
        for (_, builder) in &mut self.columns {
            if builder.len() == self.rows {
                builder.append_null();
            }
        }
        self.refused.push(self.rows);
        self.end_row(bytes);
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes + self.rows * self.width >= BATCH_BYTES
    }

    /// The rows that fit since the last call, if any.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>, StageError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let refused = std::mem::take(&mut self.refused);
        let mut columns: Vec<ArrayRef> = self
            .columns
            .iter_mut()
            .map(|(_, builder)| builder.finish())
            .collect();
        if rows == refused.len() {
            return Ok(None);
        }
        let arrange = |source| StageError::Arrange { source };
        if !refused.is_empty() {
            let mut fits = vec![true; rows];
            refused.into_iter().for_each(|row| fits[row] = false);
            columns = kept(&columns, &fits.into()).map_err(arrange)?;
        }
        RecordBatch::try_new(self.schema.to_arrow(), columns)
            .map(Some)
            .map_err(arrange)
    }
}

/// What a cell of a column takes in memory; of text and bytes where it ends, beside what it is.
fn width(column: &Column) -> usize {
    match column.column_type {
        ColumnType::Int64 | ColumnType::Float64 | ColumnType::Timestamp => 8,
        ColumnType::Decimal { .. } => 16,
        ColumnType::String | ColumnType::Binary | ColumnType::Date => 4,
        ColumnType::Bool => 1,
    }
}

/// The rows of columns that are to be kept.
pub(super) fn kept(
    columns: &[ArrayRef],
    fits: &BooleanArray,
) -> Result<Vec<ArrayRef>, arrow::error::ArrowError> {
    if fits.false_count() == 0 {
        return Ok(columns.to_vec());
    }
    columns
        .iter()
        .map(|column| filter(column.as_ref() as &dyn Array, fits))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_character_are_as_wide_as_others() -> Result<(), Box<dyn std::error::Error>> {
        let decimal = ColumnType::Decimal {
            precision: 38,
            scale: 2,
        };
        let columns = (0..2_000).map(|number| Column::nullable(format!("c{number}"), decimal));
        let schema = TableSchema::new(columns.collect(), vec![])?;
        let mut rows = Rows::new(&schema);
        while !rows.is_full() {
            for column in 0..2_000 {
                rows.cell(column, None)
                    .map_err(|refusal| refusal.to_string())?;
            }
            rows.end_row(0);
        }
        let batch = rows.take()?.ok_or("rows were added")?;
        let held = crate::groups::size(&batch);
        assert!(held <= 2 * BATCH_BYTES, "{held} bytes");
        Ok(())
    }
}
