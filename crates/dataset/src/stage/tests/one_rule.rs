//! Rows that are staged by batches are what the rule of one cell says of each, in text of any format:
//! the same values, the same refusals, the same digest.

use std::borrow::Cow;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::RecordBatch;
use proptest::prelude::*;

use super::*;
use crate::cell::{CellBuilder, DAYS, MICROS, Value, parse, quoted, to_text, value_at};
use crate::digest::RowHasher;
use crate::stage::ndjson::is_numeric;

/// One of every type, with what else a column may ask for.
pub(super) fn columns() -> Vec<Column> {
    let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
    let mut code = Column::required("code", ColumnType::String);
    code.pattern = Some("[A-Z]{0,3}".to_owned());
    vec![
        Column::required("id", ColumnType::Int64),
        Column::nullable("text", ColumnType::String),
        code,
        Column::nullable("number", ColumnType::Float64),
        Column::nullable("rate", decimal(18, 6)),
        Column::required("large", decimal(38, 0)),
        Column::nullable("day", ColumnType::Date),
        Column::nullable("at", ColumnType::Timestamp),
        Column::required("flag", ColumnType::Bool),
        Column::nullable("bytes", ColumnType::Binary),
    ]
}

/// Texts that some reader takes for what they are not.
const HOSTILE: &[&str] = &[
    "",
    " ",
    "0",
    "-0",
    "+5",
    "007",
    "1e3",
    "1E-3",
    "1.50",
    ".5",
    "5.",
    "1_000",
    "0x10",
    "1,5",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "1e999",
    "-1e400",
    "NaN",
    "inf",
    "-Infinity",
    "999999999999.999999",
    "1000000000000",
    "0.0000001",
    "1e-7",
    "99999999999999999999999999999999999999",
    "100000000000000000000000000000000000000",
    "2024-02-29",
    "2023-02-29",
    "0000-01-01",
    "9999-12-31",
    "10000-01-01",
    "-0001-01-01",
    "2024-01-01T00:00:00Z",
    "2024-01-01T00:00:00",
    "2024-01-01 00:00:00Z",
    "2024-01-01T24:00:00Z",
    "2024-06-30T23:59:60Z",
    "2024-01-01T00:00:00.1234567Z",
    "2024-01-01t00:00:00z",
    "0000-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-00:01",
    "-000001-01-01T00:00:00Z",
    "true",
    "false",
    "TRUE",
    "1",
    "null",
    "NULL",
    "\\N",
    "\"",
    "a\"b",
    "a,b",
    "a\nb",
    "a\r\nb",
    "\u{feff}x",
    "\0",
    "é",
    "💥",
    "e\u{301}",
    "\u{202e}x",
    "AQI=",
    "AQI",
    "=AQI",
    "A",
    "ABC",
    "ABCD",
    "abc",
    "ABC\n",
    "x\u{85}y",
    "\u{2028}",
];

/// Text that is a value of the type.
fn fitting(column: &Column) -> BoxedStrategy<String> {
    let column_type = column.column_type;
    let text = move |value: Value<'_>| to_text(&value, column_type).unwrap_or_default();
    match column_type {
        ColumnType::String if column.pattern.is_some() => "[A-Z]{0,3}".boxed(),
        ColumnType::String => any::<String>().boxed(),
        ColumnType::Int64 => any::<i64>().prop_map(|n| n.to_string()).boxed(),
        ColumnType::Float64 => any::<f64>().prop_map(|n| n.to_string()).boxed(),
        ColumnType::Decimal { precision, .. } => {
            let limit = 10_i128.pow(u32::from(precision)) - 1;
            (-limit..=limit)
                .prop_map(move |unscaled| text(Value::Decimal(unscaled)))
                .boxed()
        }
        ColumnType::Date => DAYS.prop_map(move |days| text(Value::Date(days))).boxed(),
        ColumnType::Timestamp => MICROS
            .prop_map(move |micros| text(Value::Timestamp(micros)))
            .boxed(),
        ColumnType::Bool => any::<bool>().prop_map(|flag| flag.to_string()).boxed(),
        ColumnType::Binary => any::<Vec<u8>>()
            .prop_map(move |bytes| text(Value::Binary(bytes.into())))
            .boxed(),
    }
}

/// A cell as it is written.
#[derive(Debug, Clone)]
struct Cell {
    text: Option<String>,
    /// Whether it is written in the longer of two ways.
    long: bool,
}

fn row() -> impl Strategy<Value = Vec<Cell>> {
    let cell = |column: &Column| {
        let text = prop_oneof![
            40 => fitting(column).prop_map(Some),
            2 => prop::sample::select(HOSTILE).prop_map(|text| Some(text.to_owned())),
            1 => Just(None),
        ];
        (text, any::<bool>()).prop_map(|(text, long)| Cell { text, long })
    };
    columns().iter().map(cell).collect::<Vec<_>>()
}

/// What a column says of a text, by the rule of one value.
fn ruled<'t>(column: &Column, text: Option<&'t str>, divides: bool) -> Result<Value<'t>, String> {
    let place = |reason: &str| format!("column `{}`: {reason}", column.name);
    let Some(text) = text else {
        return if column.nullable {
            Ok(Value::Null)
        } else {
            Err(place("a value is required, found none"))
        };
    };
    if divides && text.is_empty() {
        return Err(place("a partition cannot be named by empty text"));
    }
    if let Some(pattern) = &column.pattern {
        let fits = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        if !fits {
            let found = quoted(text);
            return Err(place(&format!("does not match `{pattern}`, found {found}")));
        }
    }
    let read = parse(Cow::Borrowed(text), column.column_type);
    read.map_err(|refusal| place(&refusal.to_string()))
}

fn csv_text(cell: &Cell) -> String {
    match &cell.text {
        None => String::new(),
        Some(text) => {
            let must = text.is_empty() || text.contains(['"', ',', '\r', '\n', '\0', '\u{feff}']);
            if must || cell.long {
                format!("\"{}\"", text.replace('"', "\"\""))
            } else {
                text.clone()
            }
        }
    }
}

/// What CSV's field is, by the rule of what is empty.
fn csv_ruled<'t>(column: &Column, cell: &'t Cell, divides: bool) -> Result<Value<'t>, String> {
    let text = match (cell.text.as_deref(), column.column_type) {
        (None, ColumnType::String) if !column.nullable => Some(""),
        (Some(""), ColumnType::String | ColumnType::Binary) => Some(""),
        (Some(""), _) => None,
        (text, _) => text,
    };
    ruled(column, text, divides)
}

/// A JSON value: a number or a literal as such where it can be, a string with or without escapes.
fn json_text(column: &Column, cell: &Cell) -> String {
    let Some(text) = &cell.text else {
        return "null".to_owned();
    };
    let is_plain = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Number(_)) => is_numeric(column.column_type),
        Ok(serde_json::Value::Bool(_)) => column.column_type == ColumnType::Bool,
        _ => false,
    };
    if is_plain && cell.long {
        return text.clone();
    }
    if !cell.long {
        return serde_json::Value::from(text.as_str()).to_string();
    }
    let mut escaped = String::from("\"");
    for unit in text.encode_utf16() {
        escaped.push_str(&format!("\\u{unit:04x}"));
    }
    escaped + "\""
}

/// The rows of what was staged, as texts, in the order of the files.
pub(super) fn rows_of(output: &Output, staged: &Staged) -> TestResult<Vec<Vec<Option<String>>>> {
    let schema = &output.spec.schema;
    let mut rows = Vec::new();
    for file in &staged.files {
        let content = fs::File::open(output.home.path().join("staging").join(&file.path))?;
        for batch in ParquetRecordBatchReaderBuilder::try_new(content)?.build()? {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                let cell = |column: &Column| match batch.column_by_name(&column.name) {
                    Some(array) => to_text(&value_at(array.as_ref(), row), column.column_type),
                    None => file.partition_values[&column.name].clone(),
                };
                rows.push(schema.columns().iter().map(cell).collect());
            }
        }
    }
    Ok(rows)
}

/// The digest of rows that are hashed one by one.
pub(super) fn digest_of(schema: &TableSchema, rows: &[Vec<Value<'_>>]) -> TestResult<String> {
    let mut sum = RowsHash::default();
    for row in rows {
        let array = |(column, value): (&Column, &Value<'_>)| {
            let mut builder = CellBuilder::new(column.column_type);
            builder.append(value);
            builder.finish()
        };
        let arrays = schema.columns().iter().zip(row).map(array).collect();
        let batch = RecordBatch::try_new(schema.to_arrow(), arrays)?;
        RowHasher::new(schema).add_rows(&mut sum, &batch, [0]);
    }
    Ok(sum.digest(schema, rows.len() as u64))
}

/// What is expected of an output: the rows that fit, and of each other its line, why, and itself.
#[derive(Default)]
struct Expected<'t> {
    rows: Vec<Vec<Value<'t>>>,
    letters: Vec<(u64, String, Sample)>,
}

impl<'t> Expected<'t> {
    fn add(
        &mut self,
        line: u64,
        record: &str,
        cells: impl Iterator<Item = Result<Value<'t>, String>>,
    ) {
        match cells.collect::<Result<Vec<_>, _>>() {
            Ok(row) => self.rows.push(row),
            Err(error) => {
                let letter = (line, error, Sample::of_bytes(record.as_bytes()));
                self.letters.push(letter);
            }
        }
    }
}

/// Stages a text, and holds what comes of it against what is expected.
fn hold(
    format: OutputFormat,
    by: &[&str],
    text: &str,
    expected: &Expected<'_>,
) -> TestResult<Result<(), TestCaseError>> {
    let mut output = Output::new(format)?;
    let partition_by = by.iter().map(|name| (*name).to_owned()).collect();
    output.spec.schema = TableSchema::new(columns(), partition_by)?;
    let schema = output.spec.schema.clone();
    let name = if format == OutputFormat::Csv {
        "a.csv"
    } else {
        "a.ndjson"
    };
    let seen = output.write(name, text)?.stage()?;
    let letters: Vec<_> = seen
        .records
        .iter()
        .map(|letter| (letter.line, letter.error.clone(), letter.record.clone()))
        .collect();
    let texts = |row: &Vec<Value<'_>>| -> Vec<Option<String>> {
        let columns = schema.columns().iter().zip(row);
        columns
            .map(|(column, value)| to_text(value, column.column_type))
            .collect()
    };
    let mut wanted: Vec<_> = expected.rows.iter().map(texts).collect();
    let mut found = rows_of(&output, &seen.staged)?;
    if !by.is_empty() {
        wanted.sort();
        found.sort();
    }
    let digest = digest_of(&schema, &expected.rows)?;
    Ok((|| {
        prop_assert_eq!(&letters, &expected.letters);
        prop_assert_eq!(&found, &wanted);
        prop_assert_eq!(&seen.content_digest, &digest);
        Ok(())
    })())
}

/// How a table is divided.
const DIVISIONS: &[&[&str]] = &[&[], &["code"], &["flag", "day"], &["id", "flag"]];

fn divisions() -> impl Strategy<Value = &'static [&'static str]> {
    prop::sample::select(DIVISIONS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn csv_is_staged_as_the_rule_of_one_cell_says(
        rows in prop::collection::vec(row(), 0..24),
        by in divisions(),
        feed in prop::sample::select(&["\n", "\r\n"][..]),
    ) {
        let columns = columns();
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let mut text = names.join(",") + feed;
        let mut expected = Expected::default();
        for row in &rows {
            let line = text.matches('\n').count() as u64 + 1;
            let record = row.iter().map(csv_text).collect::<Vec<_>>().join(",");
            text = text + &record + feed;
            let cells = columns.iter().zip(row).map(|(column, cell)| {
                csv_ruled(column, cell, by.contains(&column.name.as_str()))
            });
            expected.add(line, &record, cells);
        }
        hold(OutputFormat::Csv, by, &text, &expected)
            .map_err(|error| TestCaseError::fail(format!("{error:?}")))??;
    }

    #[test]
    fn json_lines_are_staged_as_the_rule_of_one_cell_says(
        rows in prop::collection::vec((row(), any::<prop::sample::Index>()), 0..24),
        by in divisions(),
    ) {
        let columns = columns();
        let mut text = String::new();
        let mut expected = Expected::default();
        for (number, (row, first)) in (1..).zip(&rows) {
            let mut members: Vec<_> = columns
                .iter()
                .zip(row)
                .filter(|(_, cell)| cell.text.is_some() || cell.long)
                .map(|(column, cell)| format!("\"{}\":{}", column.name, json_text(column, cell)))
                .collect();
            if !members.is_empty() {
                let middle = first.index(members.len());
                members.rotate_left(middle);
            }
            let record = format!("{{{}}}", members.join(", "));
            text = text + &record + "\n";
            let cells = columns.iter().zip(row).map(|(column, cell)| {
                ruled(column, cell.text.as_deref(), by.contains(&column.name.as_str()))
            });
            expected.add(number, &record, cells);
        }
        hold(OutputFormat::Ndjson, by, &text, &expected)
            .map_err(|error| TestCaseError::fail(format!("{error:?}")))??;
    }

    #[test]
    fn a_text_is_appended_to_a_column_as_it_is_read(
        text in prop_oneof![
            prop::sample::select(HOSTILE).prop_map(str::to_owned),
            any::<String>(),
            "[-+0-9.eE:TZ]{0,24}",
        ],
    ) {
        for column in columns() {
            let read = parse(Cow::Borrowed(&text), column.column_type);
            let mut builder = CellBuilder::new(column.column_type);
            let appended = builder.append_text(&text);
            prop_assert_eq!(builder.len(), usize::from(read.is_ok()));
            match (read, appended) {
                (Ok(value), Ok(())) => {
                    let array = builder.finish();
                    let found = value_at(array.as_ref(), 0);
                    // A value that is no number is not equal to itself.
                    prop_assert_eq!(
                        to_text(&found, column.column_type),
                        to_text(&value, column.column_type)
                    );
                }
                (Err(refusal), Err(same)) => prop_assert_eq!(refusal, same),
                (read, appended) => prop_assert!(false, "{read:?}, {appended:?}"),
            }
        }
    }
}
