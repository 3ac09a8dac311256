//! What goes into a dataset comes out of it: every type of column, in every format, in one partition
//! and in several, whatever the values are.

use arrow::array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;

use super::*;
use crate::cell::{CellBuilder, DAYS, MICROS, Value, to_text, value_at};
use crate::export::TextWriter;
use crate::partition::NULL_FOLDER;

const FORMATS: [(InputFormat, OutputFormat, &str); 3] = [
    (InputFormat::Csv, OutputFormat::Csv, "csv"),
    (InputFormat::Ndjson, OutputFormat::Ndjson, "ndjson"),
    (InputFormat::Parquet, OutputFormat::Parquet, "parquet"),
];
/// How the table is divided: by a column of one, two and eight values, and by the values themselves.
const DIVISIONS: [&[&str]; 8] = [
    &[],
    &["one"],
    &["two"],
    &["eight"],
    &["string"],
    &["int64"],
    &["date"],
    &["bool", "two"],
];

/// The place of the column `string`.
const STRING: usize = 3;

fn columns() -> Vec<Column> {
    let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
    let types = [
        ("string", ColumnType::String),
        ("int64", ColumnType::Int64),
        ("float64", ColumnType::Float64),
        ("money", decimal(18, 2)),
        ("large", decimal(38, 0)),
        ("fraction", decimal(38, 38)),
        ("date", ColumnType::Date),
        ("timestamp", ColumnType::Timestamp),
        ("bool", ColumnType::Bool),
        ("binary", ColumnType::Binary),
    ];
    let counts = ["one", "two", "eight"];
    let counts = counts.map(|name| Column::required(name, ColumnType::Int64));
    let values = types.map(|(name, column_type)| Column::nullable(name, column_type));
    // Of texts it makes a difference to CSV whether they may be absent.
    let required = [
        Column::required("text", ColumnType::String),
        Column::required("bytes", ColumnType::Binary),
    ];
    counts.into_iter().chain(values).chain(required).collect()
}

/// Texts that a reader or a writer may stumble over.
const TEXTS: &[&str] = &[
    "",
    " ",
    "null",
    "NULL",
    "\\N",
    "NaN",
    "\"",
    "a\"\"b",
    ",",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "\u{feff}x",
    "e\u{301}",
    "💥",
    "\u{202e}",
    "\u{2028}",
    "a/b=c%41",
    "..",
    NULL_FOLDER,
    "{}",
    "[",
    "1",
    "true",
    "2024-01-01",
    "\\u0041",
    "=1+1",
    "\t",
    "\u{10ffff}",
];
/// Such numbers.
const WHOLE: &[i64] = &[i64::MIN, i64::MAX, 0, -1, 1 << 53, (1 << 53) + 1];
const FLOATS: &[f64] = &[
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    -0.0,
    5e-324,
    f64::MAX,
    0.1,
    1e21,
];

fn present(column_type: ColumnType) -> BoxedStrategy<Value<'static>> {
    match column_type {
        ColumnType::String => {
            let any = prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter);
            let text =
                prop_oneof![2 => prop::sample::select(TEXTS).prop_map(str::to_owned), 1 => any];
            text.prop_map(|text| Value::String(text.into())).boxed()
        }
        ColumnType::Int64 => prop_oneof![2 => prop::sample::select(WHOLE), 1 => any::<i64>()]
            .prop_map(Value::Int64)
            .boxed(),
        ColumnType::Float64 => prop_oneof![2 => prop::sample::select(FLOATS), 1 => any::<f64>()]
            .prop_map(Value::Float64)
            .boxed(),
        ColumnType::Decimal { precision, .. } => {
            let limit = 10_i128.pow(u32::from(precision)) - 1;
            prop_oneof![Just(limit), Just(-limit), Just(0), Just(-1), -limit..=limit]
                .prop_map(Value::Decimal)
                .boxed()
        }
        ColumnType::Date => {
            let (first, last) = DAYS.into_inner();
            prop_oneof![Just(first), Just(last), Just(0), Just(-1), DAYS]
                .prop_map(Value::Date)
                .boxed()
        }
        ColumnType::Timestamp => {
            let (first, last) = MICROS.into_inner();
            prop_oneof![Just(first), Just(last), Just(0), Just(-1), MICROS]
                .prop_map(Value::Timestamp)
                .boxed()
        }
        ColumnType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnType::Binary => {
            let quote = b"\"\n,".to_vec();
            prop_oneof![Just(vec![]), Just(vec![0]), Just(quote), any::<Vec<u8>>()]
                .prop_map(|bytes| Value::Binary(bytes.into()))
                .boxed()
        }
    }
}

fn value(column: &Column) -> BoxedStrategy<Value<'static>> {
    let present = present(column.column_type);
    if column.nullable {
        prop_oneof![6 => present, 1 => Just(Value::Null)].boxed()
    } else {
        present
    }
}

fn rows() -> impl Strategy<Value = Vec<Vec<Value<'static>>>> {
    let row: Vec<_> = columns().iter().map(value).collect();
    prop::collection::vec(row, 8..24).prop_map(|mut rows| {
        for (number, row) in (0..).zip(&mut rows) {
            row[0] = Value::Int64(1);
            row[1] = Value::Int64(number % 2);
            row[2] = Value::Int64(number % 8);
        }
        rows
    })
}

fn batch(schema: &TableSchema, rows: &[Vec<Value<'_>>]) -> TestResult<RecordBatch> {
    let array = |(place, column): (usize, &Column)| -> ArrayRef {
        let mut builder = CellBuilder::new(column.column_type);
        rows.iter().for_each(|row| builder.append(&row[place]));
        builder.finish()
    };
    let arrays = schema.columns().iter().enumerate().map(array).collect();
    Ok(RecordBatch::try_new(schema.to_arrow(), arrays)?)
}

/// Rows as texts, in an order of their own.
fn sorted<'b>(
    schema: &TableSchema,
    batches: impl IntoIterator<Item = &'b RecordBatch>,
) -> Vec<Vec<Option<String>>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |(column, array): (&Column, &ArrayRef)| {
                to_text(&value_at(array.as_ref(), row), column.column_type)
            };
            let cells = schema.columns().iter().zip(batch.columns());
            rows.push(cells.map(cell).collect::<Vec<_>>());
        }
    }
    rows.sort();
    rows
}

fn written(format: InputFormat, schema: &TableSchema, batch: &RecordBatch) -> TestResult<Vec<u8>> {
    if format == InputFormat::Parquet {
        let mut content = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut content, schema.to_arrow(), None)?;
        writer.write(batch)?;
        writer.close()?;
        return Ok(content);
    }
    let mut writer = TextWriter::new(Vec::new(), format, schema);
    writer.header()?;
    writer.rows(batch)?;
    Ok(writer.finish()?)
}

/// Stages bytes of a format, of which every row fits.
fn staged_from(
    state: &Path,
    attempt: &str,
    schema: &TableSchema,
    (format, ending): (OutputFormat, &str),
    content: &[u8],
) -> TestResult<Staged> {
    let from = state.join(format!("attempts/{attempt}"));
    fs::create_dir_all(&from)?;
    fs::write(from.join(format!("rows.{ending}")), content)?;
    let spec = OutputSpec {
        format,
        schema: schema.clone(),
        only_partition: PartitionValues::new(),
        limits: Limits::default(),
    };
    fs::create_dir_all(state.join("staging"))?;
    Ok(stage_output(
        &from,
        &state.join("staging").join(attempt),
        &spec,
        &(),
    )?)
}

/// Takes rows through a dataset: in by one format, out by each.
fn through(
    by: &[&str],
    (format, output, ending): (InputFormat, OutputFormat, &str),
    rows: &[Vec<Value<'static>>],
) -> TestResult<Result<(), TestCaseError>> {
    let state = tempfile::tempdir()?;
    let partition_by: Vec<String> = by.iter().map(|name| (*name).to_owned()).collect();
    let schema = TableSchema::new(columns(), partition_by)?;
    let batch = batch(&schema, rows)?;
    let wanted = sorted(&schema, [&batch]);
    let content = written(format, &schema, &batch)?;
    let staged = staged_from(state.path(), "in", &schema, (output, ending), &content)?;
    let decision = decision("in", &schema, &staged, WriteMode::Overwrite)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tables = tables_in(state.path());
    let snapshot = runtime.block_on(async {
        tables.roll_forward(&decision).await?;
        Ok::<_, Box<dyn std::error::Error>>(tables.snapshot(&"gdp.rates".parse()?, None).await?)
    })?;
    let kept = snapshot.rows(&[]).collect::<Result<Vec<_>, _>>()?;
    let mut again = Vec::new();
    for (format, output, ending) in FORMATS {
        let mut content = Vec::new();
        if format == InputFormat::Parquet {
            snapshot.export_parquet(&mut content)?;
        } else {
            snapshot.export_text(format, &mut content)?;
        }
        let attempt = format!("out-{ending}");
        let staged = staged_from(state.path(), &attempt, &schema, (output, ending), &content)?;
        again.push((format, staged.dead_letters, staged.content_digest));
    }
    let digest = snapshot.digest()?;
    Ok((|| {
        prop_assert_eq!(staged.dead_letters, 0);
        prop_assert_eq!(sorted(&schema, &kept), wanted);
        prop_assert_eq!(digest, (rows.len() as u64, staged.content_digest.clone()));
        for (format, dead_letters, digest) in again {
            prop_assert_eq!(dead_letters, 0, "out as {:?}", format);
            prop_assert_eq!(&digest, &staged.content_digest, "out as {:?}", format);
        }
        Ok(())
    })())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_value_of_every_type_goes_through_a_dataset_in_every_format_and_division(
        mut rows in rows(),
    ) {
        for by in DIVISIONS {
            if by == ["string"] {
                // A partition cannot be named by a text that readers take for null.
                let nulls = ["", NULL_FOLDER].map(|text| Value::String(text.into()));
                rows.retain(|row| !nulls.contains(&row[STRING]));
            }
            for format in FORMATS {
                through(by, format, &rows).map_err(|error| {
                    TestCaseError::fail(format!("by {by:?} from {:?}: {error:?}", format.0))
                })??;
            }
        }
    }
}
