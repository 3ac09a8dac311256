//! One cell: text to a typed value, typed values to Arrow columns and back to text.

use std::borrow::Cow;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
pub(crate) use barecount_model::diagnostic::quoted;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::dead_letter::Refusal;
use crate::schema::ColumnType;

mod builder;
mod decimal;
mod time;

pub(crate) use builder::CellBuilder;
pub(crate) use time::{DAYS, MICROS, date_text};

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
    Binary(Cow<'a, [u8]>),
}

/// Reads text as a value of the given type; the refusal says what was expected.
pub(crate) fn parse(text: Cow<'_, str>, column_type: ColumnType) -> Result<Value<'_>, Refusal> {
    match column_type {
        ColumnType::String => Ok(Value::String(text)),
        ColumnType::Int64 => whole(&text).map(Value::Int64),
        ColumnType::Float64 => float(&text).map(Value::Float64),
        ColumnType::Decimal { precision, scale } => {
            decimal::parse(&text, precision, scale).map(Value::Decimal)
        }
        ColumnType::Date => date(&text).map(Value::Date),
        ColumnType::Timestamp => time::parse_timestamp(&text).map(Value::Timestamp),
        ColumnType::Bool => truth(&text).map(Value::Bool),
        ColumnType::Binary => bytes(&text).map(|bytes| Value::Binary(bytes.into())),
    }
}

fn whole(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| wrong(text, ColumnType::Int64))
}

/// A float; a number that is too large for one is none, though infinity is.
fn float(text: &str) -> Result<f64, Refusal> {
    let has_digits = || text.bytes().any(|byte| byte.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() || !has_digits() => Ok(number),
        _ => Err(wrong(text, ColumnType::Float64)),
    }
}

fn date(text: &str) -> Result<i32, Refusal> {
    time::parse_date(text).ok_or_else(|| wrong(text, ColumnType::Date))
}

fn truth(text: &str) -> Result<bool, Refusal> {
    text.parse().map_err(|_| wrong(text, ColumnType::Bool))
}

/// The bytes of [`to_base64`]'s text.
fn bytes(text: &str) -> Result<Vec<u8>, Refusal> {
    let decoded = STANDARD.decode(text);
    decoded.map_err(|_| wrong(text, ColumnType::Binary))
}

#[cold]
fn wrong(text: &str, column_type: ColumnType) -> Refusal {
    expected(column_type).found(quoted(text))
}

fn expected(column_type: ColumnType) -> Refusal {
    let expectation = match column_type {
        ColumnType::Date => "date (YYYY-MM-DD)".to_owned(),
        ColumnType::Bool => "bool (true or false)".to_owned(),
        ColumnType::Binary => "binary (base64)".to_owned(),
        other => other.to_string(),
    };
    Refusal::new(format!("{expectation} expected"))
}

/// Bytes as text: base64 with padding, in every format that is text.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
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
        DataType::Binary => Value::Binary(array.as_binary::<i32>().value(row).into()),
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
            decimal::text(*unscaled, scale)
        }
        Value::Date(days) => date_text(*days),
        Value::Timestamp(micros) => time::timestamp_text(*micros),
        Value::Bool(flag) => flag.to_string(),
        Value::Binary(bytes) => to_base64(bytes),
    })
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
        for text in [
            "2024-01-01T11:00:00",
            "2024-01-01T23:59:60Z",
            "2024-02-30T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T11:00:00.0000001Z",
            "2024-01-01T11:00:00+01:00[Europe/Paris]",
        ] {
            let read = parse(text.into(), ColumnType::Timestamp);
            assert!(read.is_err(), "{text} was accepted");
        }
        assert_eq!(
            parse("0001-01-01T00:00:00Z".into(), ColumnType::Timestamp),
            Ok(Value::Timestamp(-62_135_596_800_000_000))
        );
        assert_eq!(
            parse(
                "9999-12-31T23:59:59.999999000Z".into(),
                ColumnType::Timestamp
            ),
            Ok(Value::Timestamp(253_402_300_799_999_999))
        );
    }

    #[test]
    fn a_number_beyond_a_floats_range_is_not_infinity() {
        let read = |text: &'static str| parse(text.into(), ColumnType::Float64);
        assert_eq!(read("-inf"), Ok(Value::Float64(f64::NEG_INFINITY)));
        assert!(read("1e999").is_err() && read("-1e400").is_err());
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
                (Value::Binary(bytes.into()), ColumnType::Binary),
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
