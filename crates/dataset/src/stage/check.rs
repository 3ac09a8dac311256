//! Checks of single cells, and the collection of checked rows into batches.

use std::borrow::Cow;

use arrow::array::RecordBatch;
use regex::Regex;

use super::StageError;
use crate::cell::{CellBuilder, Value, parse, quoted};
use crate::schema::{Column, TableSchema, compile_pattern};

/// Rows are handed on in batches of so many,
const BATCH_ROWS: usize = 8192;
/// or sooner, when their text has so many bytes.
const BATCH_BYTES: usize = 16 << 20;

/// Checks cells against their columns.
pub(super) struct RowChecker<'a> {
    schema: &'a TableSchema,
    patterns: Vec<Option<Regex>>,
    schema_hash: String,
}

impl<'a> RowChecker<'a> {
    pub(super) fn new(schema: &'a TableSchema) -> Result<Self, StageError> {
        let compile = |column: &Column| match &column.pattern {
            // A `TableSchema` exists only with patterns that compile.
            Some(pattern) => compile_pattern(&column.name, pattern).ok(),
            None => None,
        };
        let patterns = schema.columns().iter().map(compile).collect();
        Ok(Self {
            schema,
            patterns,
            schema_hash: schema.hash(),
        })
    }

    pub(super) fn schema_hash(&self) -> &str {
        &self.schema_hash
    }

    /// Reads a cell's text; `None` is null.
    pub(super) fn text<'t>(
        &self,
        column: usize,
        text: Option<Cow<'t, str>>,
    ) -> Result<Value<'t>, String> {
        let declared = &self.schema.columns()[column];
        let name = &declared.name;
        let Some(text) = text else {
            return self.null(column).map(|()| Value::Null);
        };
        self.pattern(column, &text)?;
        parse(text, declared.column_type).map_err(|error| format!("column `{name}`: {error}"))
    }

    /// Accepts a null where the column does.
    pub(super) fn null(&self, column: usize) -> Result<(), String> {
        let declared = &self.schema.columns()[column];
        if declared.nullable {
            return Ok(());
        }
        Err(format!(
            "column `{}`: a value is required, found none",
            declared.name
        ))
    }

    /// Checks the column's pattern, and that a partition value is not the empty string, which
    /// the Delta protocol cannot tell from null.
    pub(super) fn pattern(&self, column: usize, text: &str) -> Result<(), String> {
        let declared = &self.schema.columns()[column];
        let name = &declared.name;
        if text.is_empty() && self.schema.partition_by().contains(name) {
            return Err(format!(
                "column `{name}`: a partition cannot be named by empty text"
            ));
        }
        match (&self.patterns[column], &declared.pattern) {
            (Some(regex), Some(pattern)) if !regex.is_match(text) => Err(format!(
                "column `{name}`: {} does not match `{pattern}`",
                quoted(text)
            )),
            _ => Ok(()),
        }
    }
}

/// Collects rows into a batch.
pub(super) struct RowBatch<'a> {
    schema: &'a TableSchema,
    columns: Vec<CellBuilder>,
    rows: usize,
    bytes: usize,
}

impl<'a> RowBatch<'a> {
    pub(super) fn new(schema: &'a TableSchema) -> Self {
        let builder = |column: &Column| CellBuilder::new(column.column_type);
        let columns = schema.columns().iter().map(builder).collect();
        Self {
            schema,
            columns,
            rows: 0,
            bytes: 0,
        }
    }

    /// Adds a row of one value a column; `bytes` is its size as text.
    pub(super) fn push(&mut self, row: &[Value<'_>], bytes: usize) {
        for (builder, value) in self.columns.iter_mut().zip(row) {
            builder.append(value);
        }
        self.rows += 1;
        self.bytes += bytes;
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// The rows since the last call, if any.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>, StageError> {
        if self.rows == 0 {
            return Ok(None);
        }
        (self.rows, self.bytes) = (0, 0);
        let columns = self.columns.iter_mut().map(CellBuilder::finish).collect();
        RecordBatch::try_new(self.schema.to_arrow(), columns)
            .map(Some)
            .map_err(|source| StageError::Arrange { source })
    }
}
