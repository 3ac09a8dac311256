//! A column's values as numbers of eight bytes, whose order is that of the values.

use barecount_dataset::schema::ColumnType;
use datafusion::arrow::array::{ArrayRef, AsArray as _, BinaryArray, BooleanArray, StringArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};

/// Bytes of a text that go into a number. How many are left is its last byte, from 1 for none.
const PART_BYTES: usize = 7;
/// That byte where there are more than go into the number.
const MORE: u8 = PART_BYTES as u8 + 2;

/// The values of a column of a batch.
pub(super) struct Values<'a> {
    nulls: Option<&'a NullBuffer>,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Bool(&'a BooleanArray),
    Date(&'a [i32]),
    /// Whole numbers and instants.
    Int64(&'a [i64]),
    Float64(&'a [f64]),
    Decimal(&'a [i128]),
    String(&'a StringArray),
    Binary(&'a BinaryArray),
}

impl<'a> Values<'a> {
    /// The values of a column, which is of the type's Arrow type.
    pub(super) fn of(array: &'a ArrayRef, column_type: ColumnType) -> Self {
        let kind = match column_type {
            ColumnType::Bool => Kind::Bool(array.as_boolean()),
            ColumnType::Date => Kind::Date(array.as_primitive::<Date32Type>().values()),
            ColumnType::Int64 => Kind::Int64(array.as_primitive::<Int64Type>().values()),
            ColumnType::Timestamp => {
                Kind::Int64(array.as_primitive::<TimestampMicrosecondType>().values())
            }
            ColumnType::Float64 => Kind::Float64(array.as_primitive::<Float64Type>().values()),
            ColumnType::Decimal { .. } => {
                Kind::Decimal(array.as_primitive::<Decimal128Type>().values())
            }
            ColumnType::String => Kind::String(array.as_string()),
            ColumnType::Binary => Kind::Binary(array.as_binary()),
        };
        let nulls = array.nulls();
        Self { nulls, kind }
    }

    /// A part of a value, the first of which is 0; later ones tell apart only values whose earlier
    /// ones are equal. A null is below all values.
    pub(super) fn key(&self, row: usize, part: usize) -> u64 {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return 0;
        }
        match &self.kind {
            Kind::Bool(values) => number(values.value(row).into(), part),
            Kind::Date(values) => number(values[row].into(), part),
            Kind::Int64(values) => number(values[row].into(), part),
            // As `f64::total_cmp` has it.
            Kind::Float64(values) => {
                let bits = values[row].to_bits().cast_signed();
                number(
                    (bits ^ (bits >> 63).cast_unsigned().wrapping_shr(1).cast_signed()).into(),
                    part,
                )
            }
            Kind::Decimal(values) => number(values[row], part),
            Kind::String(values) => text(values.value(row).as_bytes(), part),
            Kind::Binary(values) => text(values.value(row), part),
        }
    }

    /// Whether values that are equal up to this part are equal.
    pub(super) fn is_whole(&self, key: u64, part: usize) -> bool {
        match (&self.kind, part) {
            (Kind::String(_) | Kind::Binary(_), _) => key.to_be_bytes()[PART_BYTES] != MORE,
            (_, 0) => key != 1 && key != u64::MAX,
            (_, part) => part == 2,
        }
    }
}

/// Whole where it is within 64 bits, and neither the least nor the greatest of these; else its upper
/// and its lower half follow.
fn number(value: i128, part: usize) -> u64 {
    const LEAST: i64 = i64::MIN + 1;
    let in_order = |number: i64| number.cast_unsigned() ^ (1 << 63);
    match part {
        0 => in_order(
            i64::try_from(value).map_or(if value < 0 { LEAST } else { i64::MAX }, |n| n.max(LEAST)),
        ),
        1 => in_order((value >> 64) as i64),
        _ => value as u64,
    }
}

/// Some bytes, and how many are left.
fn text(bytes: &[u8], part: usize) -> u64 {
    let left = &bytes[part * PART_BYTES..];
    let mut key = [0; PART_BYTES + 1];
    if let Some(first) = left.first_chunk::<PART_BYTES>() {
        key[..PART_BYTES].copy_from_slice(first);
    } else {
        key[..left.len()].copy_from_slice(left);
    }
    key[PART_BYTES] = MORE.min(left.len().min(PART_BYTES + 1) as u8 + 1);
    u64::from_be_bytes(key)
}
