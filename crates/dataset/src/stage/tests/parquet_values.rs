//! Parquet is staged by columns; what comes of it is what each value is by itself.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array,
    Int16Array, LargeBinaryArray, RecordBatch, StringArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::Int32Type;
use proptest::prelude::*;

use super::one_rule::{columns, digest_of, rows_of};
use super::*;
use crate::cell::{DAYS, MICROS, Value, to_text};

/// A row as another program writes it, in types of its own.
#[derive(Debug, Clone)]
struct Foreign {
    id: Option<u64>,
    text: Option<String>,
    code: Option<String>,
    number: Option<f32>,
    /// Of four digits behind the point.
    rate: Option<i64>,
    large: Option<i16>,
    day: Option<i32>,
    nanos: Option<i64>,
    seconds: Option<i64>,
    flag: Option<bool>,
    bytes: Option<Vec<u8>>,
}

fn foreign() -> impl Strategy<Value = Foreign> {
    let often = prop::option::weighted(0.97, 0_u64..1 << 40);
    let code = prop_oneof![20 => "[A-Z]{0,3}", 1 => ".{0,5}"];
    let rate = prop_oneof![20 => -10_i64.pow(16)..10_i64.pow(16), 1 => any::<i64>()];
    let day = prop_oneof![20 => DAYS, 1 => any::<i32>()];
    let nanos = prop_oneof![
        20 => (-1_i64 << 52..1 << 52).prop_map(|micros| micros * 1000),
        1 => any::<i64>()
    ];
    let seconds = prop_oneof![
        20 => -62_167_219_200_i64..253_402_300_800,
        1 => any::<i64>(),
    ];
    (
        prop_oneof![20 => often, 1 => any::<Option<u64>>()],
        any::<Option<String>>(),
        prop::option::weighted(0.97, code),
        any::<Option<f32>>(),
        prop::option::of(rate),
        prop::option::weighted(0.97, any::<i16>()),
        prop::option::of(day),
        (prop::option::of(nanos), prop::option::of(seconds)),
        prop::option::weighted(0.97, any::<bool>()),
        any::<Option<Vec<u8>>>(),
    )
        .prop_map(
            |(id, text, code, number, rate, large, day, (nanos, seconds), flag, bytes)| Foreign {
                id,
                text,
                code,
                number,
                rate,
                large,
                day,
                nanos,
                seconds,
                flag,
                bytes,
            },
        )
}

impl Foreign {
    /// What each column says of its value: the value, or why not.
    fn ruled(&self, in_seconds: bool) -> Result<Vec<Value<'_>>, String> {
        let required = || "a value is required, found none".to_owned();
        let range = |column_type: &str| format!("the value does not fit {column_type}");
        let place = |name: &str, reason: String| format!("column `{name}`: {reason}");
        let id = self.id.ok_or_else(|| place("id", required()))?;
        let id = i64::try_from(id).map_err(|_| place("id", range("int64")))?;
        let code = self.code.as_deref();
        let code = code.ok_or_else(|| place("code", required()))?;
        if code.len() > 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
            let reason = format!(
                "does not match `[A-Z]{{0,3}}`, found {}",
                crate::cell::quoted(code)
            );
            return Err(place("code", reason));
        }
        let rate = self.rate.map(|rate| i128::from(rate) * 100);
        if rate.is_some_and(|rate| rate.abs() >= 10_i128.pow(18)) {
            return Err(place("rate", range("decimal(18,6)")));
        }
        let large = self.large.ok_or_else(|| place("large", required()))?;
        if self.day.is_some_and(|day| !DAYS.contains(&day)) {
            return Err(place("day", range("date")));
        }
        let micros = if in_seconds {
            let micros = self.seconds.map(|seconds| i128::from(seconds) * 1_000_000);
            let fits = |micros| i64::try_from(micros).is_ok_and(|micros| MICROS.contains(&micros));
            if micros.is_some_and(|micros| !fits(micros)) {
                return Err(place("at", range("timestamp")));
            }
            micros.and_then(|micros| i64::try_from(micros).ok())
        } else {
            if self.nanos.is_some_and(|nanos| nanos % 1000 != 0) {
                return Err(place(
                    "at",
                    "more than 6 digits after the second".to_owned(),
                ));
            }
            self.nanos.map(|nanos| nanos / 1000)
        };
        let flag = self.flag.ok_or_else(|| place("flag", required()))?;
        fn or_null<T>(value: Option<T>, some: impl FnOnce(T) -> Value<'static>) -> Value<'static> {
            value.map_or(Value::Null, some)
        }
        Ok(vec![
            Value::Int64(id),
            or_null(self.text.clone(), |text| Value::String(text.into())),
            Value::String(code.into()),
            or_null(self.number, |number| Value::Float64(number.into())),
            or_null(rate, Value::Decimal),
            Value::Decimal(large.into()),
            or_null(self.day, Value::Date),
            or_null(micros, Value::Timestamp),
            Value::Bool(flag),
            or_null(self.bytes.clone(), |bytes: Vec<u8>| {
                Value::Binary(bytes.into())
            }),
        ])
    }
}

fn batch(rows: &[Foreign], in_seconds: bool) -> TestResult<RecordBatch> {
    let code: DictionaryArray<Int32Type> = rows.iter().map(|row| row.code.as_deref()).collect();
    let at: ArrayRef = if in_seconds {
        let seconds: TimestampSecondArray = rows.iter().map(|row| row.seconds).collect();
        Arc::new(seconds.with_timezone("+02:00"))
    } else {
        let nanos: TimestampNanosecondArray = rows.iter().map(|row| row.nanos).collect();
        Arc::new(nanos.with_timezone("UTC"))
    };
    let rates: Decimal128Array = rows.iter().map(|row| row.rate.map(i128::from)).collect();
    let bytes = rows.iter().map(|row| row.bytes.as_deref());
    let columns: [(&str, ArrayRef); 10] = [
        (
            "id",
            Arc::new(rows.iter().map(|row| row.id).collect::<UInt64Array>()),
        ),
        (
            "text",
            Arc::new(
                rows.iter()
                    .map(|row| row.text.as_deref())
                    .collect::<StringArray>(),
            ),
        ),
        ("code", Arc::new(code)),
        (
            "number",
            Arc::new(rows.iter().map(|row| row.number).collect::<Float32Array>()),
        ),
        ("rate", Arc::new(rates.with_precision_and_scale(18, 4)?)),
        (
            "large",
            Arc::new(rows.iter().map(|row| row.large).collect::<Int16Array>()),
        ),
        (
            "day",
            Arc::new(rows.iter().map(|row| row.day).collect::<Date32Array>()),
        ),
        ("at", at),
        (
            "flag",
            Arc::new(rows.iter().map(|row| row.flag).collect::<BooleanArray>()),
        ),
        ("bytes", Arc::new(bytes.collect::<LargeBinaryArray>())),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.map(|(name, array)| (name, array, true)),
    )?)
}

fn hold(rows: &[Foreign], in_seconds: bool) -> TestResult<Result<(), TestCaseError>> {
    let mut output = Output::new(OutputFormat::Parquet)?;
    output.spec.schema = TableSchema::new(columns(), vec![])?;
    let batch = batch(rows, in_seconds)?;
    let mut content = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut content, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    let seen = output.write("a.parquet", content)?.stage()?;
    let (mut fitting, mut refused) = (Vec::new(), Vec::new());
    for (number, row) in (1..).zip(rows) {
        match row.ruled(in_seconds) {
            Ok(values) => fitting.push(values),
            Err(error) => refused.push((number, error)),
        }
    }
    let texts = |row: &Vec<Value<'_>>| -> Vec<Option<String>> {
        let columns = columns();
        let cells = columns.iter().zip(row);
        cells
            .map(|(column, value)| to_text(value, column.column_type))
            .collect()
    };
    let wanted: Vec<_> = fitting.iter().map(texts).collect();
    let found = rows_of(&output, &seen.staged)?;
    let digest = digest_of(&output.spec.schema, &fitting)?;
    let told: Vec<_> = seen
        .records
        .iter()
        .map(|letter| (letter.line, letter.error.clone()))
        .collect();
    Ok((|| {
        prop_assert_eq!(told, refused);
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(&seen.content_digest, &digest);
        Ok(())
    })())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn parquet_is_staged_as_each_value_is_by_itself(
        rows in prop::collection::vec(foreign(), 0..40),
        in_seconds in any::<bool>(),
    ) {
        hold(&rows, in_seconds).map_err(|error| TestCaseError::fail(format!("{error:?}")))??;
    }
}
