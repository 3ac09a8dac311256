//! Columns under construction: values of one type after another, from text or known.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};

use super::{Value, bytes, date, decimal, float, time, truth, whole};
use crate::dead_letter::Refusal;
use crate::schema::{ArrowForm, ColumnType};

/// An Arrow column under construction.
pub(crate) enum CellBuilder {
    String(StringBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Decimal {
        values: Decimal128Builder,
        precision: u8,
        scale: u8,
    },
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Bool(BooleanBuilder),
    Binary(BinaryBuilder),
}

/// The builder of a column, whatever its type.
macro_rules! each {
    ($builder:expr, $values:ident => $what:expr) => {
        match $builder {
            CellBuilder::String($values) => $what,
            CellBuilder::Int64($values) => $what,
            CellBuilder::Float64($values) => $what,
            CellBuilder::Decimal {
                values: $values, ..
            } => $what,
            CellBuilder::Date($values) => $what,
            CellBuilder::Timestamp($values) => $what,
            CellBuilder::Bool($values) => $what,
            CellBuilder::Binary($values) => $what,
        }
    };
}

impl CellBuilder {
    pub(crate) fn new(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::String => Self::String(StringBuilder::new()),
            ColumnType::Int64 => Self::Int64(Int64Builder::new()),
            ColumnType::Float64 => Self::Float64(Float64Builder::new()),
            // The type carries precision and scale; the values are checked against both.
            ColumnType::Decimal { precision, scale } => Self::Decimal {
                values: Decimal128Builder::new().with_data_type(column_type.to_arrow()),
                precision,
                scale,
            },
            ColumnType::Date => Self::Date(Date32Builder::new()),
            ColumnType::Timestamp => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
            }
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnType::Binary => Self::Binary(BinaryBuilder::new()),
        }
    }

    /// Reads text as a value of this column, as [`super::parse`] does, and appends it. Of what is
    /// refused nothing is appended.
    pub(crate) fn append_text(&mut self, text: &str) -> Result<(), Refusal> {
        match self {
            Self::String(values) => values.append_value(text),
            Self::Int64(values) => values.append_value(whole(text)?),
            Self::Float64(values) => values.append_value(float(text)?),
            Self::Decimal {
                values,
                precision,
                scale,
            } => values.append_value(decimal::parse(text, *precision, *scale)?),
            Self::Date(values) => values.append_value(date(text)?),
            Self::Timestamp(values) => values.append_value(time::parse_timestamp(text)?),
            Self::Bool(values) => values.append_value(truth(text)?),
            Self::Binary(values) => values.append_value(bytes(text)?),
        }
        Ok(())
    }

    /// Appends a value of this column's type; a value of another type becomes a null, which
    /// cannot happen to values that were made for the same column.
    pub(crate) fn append(&mut self, value: &Value<'_>) {
        match (self, value) {
            (Self::String(values), Value::String(text)) => values.append_value(text),
            (Self::Int64(values), Value::Int64(number)) => values.append_value(*number),
            (Self::Float64(values), Value::Float64(number)) => values.append_value(*number),
            (Self::Decimal { values, .. }, Value::Decimal(unscaled)) => {
                values.append_value(*unscaled);
            }
            (Self::Date(values), Value::Date(days)) => values.append_value(*days),
            (Self::Timestamp(values), Value::Timestamp(micros)) => values.append_value(*micros),
            (Self::Bool(values), Value::Bool(flag)) => values.append_value(*flag),
            (Self::Binary(values), Value::Binary(bytes)) => values.append_value(bytes),
            (builder, _) => builder.append_null(),
        }
    }

    pub(crate) fn append_null(&mut self) {
        each!(self, values => values.append_null());
    }

    /// The values so far.
    pub(crate) fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        each!(self, values => Arc::new(values.finish()))
    }
}
