//! One cell: text to a typed value, typed values to Arrow columns and back to text.

use std::borrow::Cow;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::schema::ColumnType;

/// The day that dates are counted from.
const EPOCH: jiff::civil::Date = jiff::civil::date(1970, 1, 1);

/// A typed value, borrowing text where it can.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    String(Cow<'a, str>),
    Int64(i64),
    Float64(f64),
    /// The unscaled value.
    Decimal(i128),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    Bool(bool),
    Binary(Vec<u8>),
}

/// Reads text as a value of the given type; the error says what was expected.
pub(crate) fn parse(text: Cow<'_, str>, column_type: ColumnType) -> Result<Value<'_>, String> {
    let value = match column_type {
        ColumnType::String => return Ok(Value::String(text)),
        ColumnType::Int64 => text.parse().ok().map(Value::Int64),
        ColumnType::Float64 => text.parse().ok().map(Value::Float64),
        ColumnType::Decimal { precision, scale } => {
            return parse_decimal(&text, precision, scale).map(Value::Decimal);
        }
        ColumnType::Date => parse_date(&text).map(Value::Date),
        ColumnType::Timestamp => parse_timestamp(&text).map(Value::Timestamp),
        ColumnType::Bool => text.parse().ok().map(Value::Bool),
        ColumnType::Binary => STANDARD.decode(text.as_bytes()).ok().map(Value::Binary),
    };
    value.ok_or_else(|| {
        format!(
            "{} expected, found {}",
            expectation(column_type),
            quoted(&text)
        )
    })
}

fn expectation(column_type: ColumnType) -> String {
    match column_type {
        ColumnType::Date => "date (YYYY-MM-DD)".to_owned(),
        ColumnType::Timestamp => "timestamp (RFC 3339, with an offset)".to_owned(),
        ColumnType::Bool => "bool (true or false)".to_owned(),
        ColumnType::Binary => "binary (base64)".to_owned(),
        other => other.to_string(),
    }
}

/// Text in quotes for a message, cut short.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", short.escape_debug())
}

fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let date: jiff::civil::Date = shape.then(|| text.parse().ok())??;
    date.since((jiff::Unit::Day, EPOCH))
        .ok()
        .map(|span| span.get_days())
}

fn parse_timestamp(text: &str) -> Option<i64> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    Some(timestamp.as_microsecond())
}

/// Reads a decimal, exponent allowed, exactly: digits that the scale cannot hold are an error.
fn parse_decimal(text: &str, precision: u8, scale: u8) -> Result<i128, String> {
    let wrong = || {
        format!(
            "decimal({precision},{scale}) expected, found {}",
            quoted(text)
        )
    };
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (
            &text[..at],
            text[at + 1..].parse::<i32>().map_err(|_| wrong())?,
        ),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || !all_digits(whole)
        || !all_digits(fraction)
        || (fraction.is_empty() && digits.contains('.'))
        || exponent.unsigned_abs() > 100
    {
        return Err(wrong());
    }
    let mut unscaled: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        unscaled = unscaled
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit - b'0')))
            .ok_or_else(wrong)?;
    }
    let shift = i64::from(scale) + i64::from(exponent) - fraction.len() as i64;
    for _ in 0..shift.unsigned_abs() {
        unscaled = if shift > 0 {
            unscaled.checked_mul(10).ok_or_else(wrong)?
        } else if unscaled % 10 == 0 {
            unscaled / 10
        } else {
            return Err(format!(
                "more than {scale} digits after the point in {}",
                quoted(text)
            ));
        };
    }
    if unscaled >= 10_i128.pow(u32::from(precision)) {
        return Err(format!("{} has more than {precision} digits", quoted(text)));
    }
    Ok(if negative { -unscaled } else { unscaled })
}

/// An Arrow column under construction.
pub(crate) enum CellBuilder {
    String(StringBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, DataType),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Bool(BooleanBuilder),
    Binary(BinaryBuilder),
}

impl CellBuilder {
    pub(crate) fn new(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::String => Self::String(StringBuilder::new()),
            ColumnType::Int64 => Self::Int64(Int64Builder::new()),
            ColumnType::Float64 => Self::Float64(Float64Builder::new()),
            ColumnType::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::new(), column_type.to_arrow())
            }
            ColumnType::Date => Self::Date(Date32Builder::new()),
            ColumnType::Timestamp => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
            }
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnType::Binary => Self::Binary(BinaryBuilder::new()),
        }
    }

    /// Appends a value of this column's type; a value of another type becomes a null, which
    /// cannot happen to values that [`parse`] made for the same column.
    pub(crate) fn append(&mut self, value: &Value<'_>) {
        match self {
            Self::String(b) => b.append_option(match value {
                Value::String(text) => Some(text.as_ref()),
                _ => None,
            }),
            Self::Int64(b) => b.append_option(match value {
                Value::Int64(number) => Some(*number),
                _ => None,
            }),
            Self::Float64(b) => b.append_option(match value {
                Value::Float64(number) => Some(*number),
                _ => None,
            }),
            Self::Decimal(b, _) => b.append_option(match value {
                Value::Decimal(number) => Some(*number),
                _ => None,
            }),
            Self::Date(b) => b.append_option(match value {
                Value::Date(days) => Some(*days),
                _ => None,
            }),
            Self::Timestamp(b) => b.append_option(match value {
                Value::Timestamp(micros) => Some(*micros),
                _ => None,
            }),
            Self::Bool(b) => b.append_option(match value {
                Value::Bool(flag) => Some(*flag),
                _ => None,
            }),
            Self::Binary(b) => b.append_option(match value {
                Value::Binary(bytes) => Some(bytes.as_slice()),
                _ => None,
            }),
        }
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::String(b) => std::sync::Arc::new(b.finish()),
            Self::Int64(b) => std::sync::Arc::new(b.finish()),
            Self::Float64(b) => std::sync::Arc::new(b.finish()),
            // The type carries precision and scale; the values were checked against both.
            Self::Decimal(b, data_type) => {
                std::sync::Arc::new(b.finish().with_data_type(data_type.clone()))
            }
            Self::Date(b) => std::sync::Arc::new(b.finish()),
            Self::Timestamp(b) => std::sync::Arc::new(b.finish()),
            Self::Bool(b) => std::sync::Arc::new(b.finish()),
            Self::Binary(b) => std::sync::Arc::new(b.finish()),
        }
    }
}

/// The value at a row of an array that has one of our types.
pub(crate) fn value_at(array: &dyn Array, row: usize) -> Value<'_> {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => Value::String(Cow::Borrowed(array.as_string::<i32>().value(row))),
        DataType::Int64 => Value::Int64(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Float64(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => {
            Value::Decimal(array.as_primitive::<Decimal128Type>().value(row))
        }
        DataType::Date32 => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(..) => {
            Value::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Binary => Value::Binary(array.as_binary::<i32>().value(row).to_vec()),
        _ => Value::Null,
    }
}

/// The text of a value, which [`parse`] reads back to the same value; `None` for null.
pub(crate) fn to_text(value: &Value<'_>, column_type: ColumnType) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::String(text) => text.clone().into_owned(),
        Value::Int64(number) => number.to_string(),
        Value::Float64(number) => number.to_string(),
        Value::Decimal(unscaled) => {
            let scale = match column_type {
                ColumnType::Decimal { scale, .. } => usize::from(scale),
                _ => 0,
            };
            decimal_text(*unscaled, scale)
        }
        Value::Date(days) => date_text(*days),
        Value::Timestamp(micros) => jiff::Timestamp::from_microsecond(*micros)
            .map_or_else(|_| micros.to_string(), |timestamp| timestamp.to_string()),
        Value::Bool(flag) => flag.to_string(),
        Value::Binary(bytes) => STANDARD.encode(bytes),
    })
}

/// A day as `YYYY-MM-DD`; a day that no calendar reaches as its number.
pub(crate) fn date_text(days: i32) -> String {
    let date = jiff::Span::new()
        .try_days(days)
        .and_then(|span| EPOCH.checked_add(span));
    date.map_or_else(|_| days.to_string(), |date| date.to_string())
}

fn decimal_text(unscaled: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: ColumnType = ColumnType::Decimal {
        precision: 18,
        scale: 6,
    };

    #[test]
    fn decimals_are_read_exactly_or_refused() {
        let read = |text: &'static str| parse(text.into(), RATE);
        assert_eq!(read("1.5"), Ok(Value::Decimal(1_500_000)));
        assert_eq!(read("-0.000001"), Ok(Value::Decimal(-1)));
        assert_eq!(read("1.50000000"), Ok(Value::Decimal(1_500_000)));
        assert_eq!(read("2.5e-3"), Ok(Value::Decimal(2_500)));
        assert_eq!(
            read("999999999999.999999"),
            Ok(Value::Decimal(999_999_999_999_999_999))
        );
        for text in [
            "1000000000000",
            "0.0000001",
            ".5",
            "5.",
            "",
            "1e999999999",
            "NaN",
            "1,5",
            "--1",
        ] {
            assert!(read(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn dates_and_timestamps_have_one_spelling() {
        assert_eq!(
            parse("1970-01-02".into(), ColumnType::Date),
            Ok(Value::Date(1))
        );
        assert_eq!(
            parse("1969-12-31".into(), ColumnType::Date),
            Ok(Value::Date(-1))
        );
        for text in [
            "2024-02-30",
            "24-01-01",
            "2024-1-1",
            "20240101",
            "2024-01-01T00:00:00Z",
        ] {
            assert!(
                parse(text.into(), ColumnType::Date).is_err(),
                "{text} was accepted"
            );
        }
        let noon = parse("2024-01-01T12:00:00+01:00".into(), ColumnType::Timestamp);
        assert_eq!(
            noon,
            parse("2024-01-01T11:00:00Z".into(), ColumnType::Timestamp)
        );
        assert!(parse("2024-01-01T11:00:00".into(), ColumnType::Timestamp).is_err());
    }

    proptest! {
        #[test]
        fn a_value_written_as_text_is_read_back_unchanged(
            unscaled in -999_999_999_999_999_999_i128..=999_999_999_999_999_999,
            days in -500_000_i32..2_000_000,
            micros in -60_000_000_000_000_000_i64..200_000_000_000_000_000,
            number in any::<f64>().prop_filter("NaN differs from itself", |n| !n.is_nan()),
            bytes in any::<Vec<u8>>(),
        ) {
            let cases = [
                (Value::Decimal(unscaled), RATE),
                (Value::Date(days), ColumnType::Date),
                (Value::Timestamp(micros), ColumnType::Timestamp),
                (Value::Float64(number), ColumnType::Float64),
                (Value::Binary(bytes), ColumnType::Binary),
            ];
            for (value, column_type) in cases {
                let text = to_text(&value, column_type).unwrap_or_default();
                prop_assert_eq!(parse(text.into(), column_type), Ok(value));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            for column_type in [RATE, ColumnType::Date, ColumnType::Timestamp, ColumnType::Binary] {
                let _ = parse(text.as_str().into(), column_type);
            }
        }
    }
}
