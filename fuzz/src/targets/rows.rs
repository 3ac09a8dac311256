//! What attempts write: rows as CSV, as JSON lines, as Parquet, as an Arrow stream.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
        Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    datatypes::Schema,
    error::ArrowError,
};
use arrow_ipc::writer::StreamWriter;
use barecount_dataset::{
    dead_letter::BadRecord,
    decision::PartitionValues,
    schema::{Column, ColumnType, TableSchema},
    stage::{Limits, OutputFormat, OutputSpec, StageError, StageObserver, Staged, stage_output},
};

use super::Target;

const LONGEST: usize = 64 << 10;
const MEMORY_BYTES: u64 = 2 << 30;
const MAX_ROWS: u64 = 10_000;

const WORDS: &[&str] = &[
    "\"",
    "\"\"",
    ",",
    "\r\n",
    "\n",
    "\r",
    "\u{feff}",
    "\u{0}",
    "null",
    "true",
    "false",
    "NaN",
    "inf",
    "-inf",
    "-0",
    "1e400",
    "1e-400",
    "99999999999999999999999999999999999999",
    "0.0000001",
    "9223372036854775808",
    "0000-00-00",
    "9999-12-31",
    "10000-01-01",
    "2024-02-30",
    "2024-01-01T00:00:00Z",
    "2016-12-31T23:59:60Z",
    "2024-01-01T00:00:00+14:00",
    "=",
    "====",
    "AAAA",
    "{}",
    "[]",
    "{\"",
    "\":",
    "\\u0000",
    "\\ud800",
    "\\",
    "PAR1",
    "é",
    "𝄞",
    "\u{202e}",
    "text",
    "int",
    "float",
    "decimal",
    "date",
    "timestamp",
    "bool",
    "binary",
];

const CSV_ROWS: &str = "\
text,int,float,decimal,date,timestamp,bool,binary
one,1,1.5,12.340000,2024-01-31,2024-01-31T10:00:00Z,true,AQID
\"two, \"\"2\"\"\",-2,-1e10,,1999-12-31,1999-12-31T23:59:59.999999Z,false,
three,9223372036854775807,,-99999999.999999,,,,
";

const JSON_ROWS: &str = r#"{"text":"one","int":1,"float":1.5,"decimal":"12.34","date":"2024-01-31","timestamp":"2024-01-31T10:00:00Z","bool":true,"binary":"AQID"}
{"text":"two \u00e9","int":-2,"float":-1e10,"decimal":null,"date":null,"timestamp":null,"bool":null,"binary":null}

{"text":"three","int":3}
"#;

const fn target(
    name: &'static str,
    seeds: fn() -> io::Result<Vec<Vec<u8>>>,
    run: fn(&[u8], &Path) -> String,
) -> Target {
    Target {
        name,
        seeds,
        words: WORDS,
        longest: LONGEST,
        memory_bytes: MEMORY_BYTES,
        run,
    }
}

pub(crate) const CSV: Target = target(
    "csv",
    || Ok(vec![CSV_ROWS.into()]),
    |input, scratch| read(OutputFormat::Csv, "rows.csv", input, scratch),
);

pub(crate) const NDJSON: Target = target(
    "ndjson",
    || Ok(vec![JSON_ROWS.into()]),
    |input, scratch| read(OutputFormat::Ndjson, "rows.ndjson", input, scratch),
);

pub(crate) const PARQUET: Target = target(
    "parquet",
    || Ok(vec![parquet_rows()?]),
    |input, scratch| read(OutputFormat::Parquet, "rows.parquet", input, scratch),
);

pub(crate) const ARROW: Target = target(
    "arrow",
    || Ok(vec![arrow_rows().map_err(io::Error::other)?]),
    |input, scratch| read(OutputFormat::Arrow, "rows.arrows", input, scratch),
);

/// Why each row was refused.
#[derive(Default)]
struct Errors(Mutex<Vec<String>>);

impl Errors {
    fn take(self) -> Vec<String> {
        self.0.into_inner().expect("nobody panicked")
    }
}

impl StageObserver for Errors {
    fn advanced(&self, _rows: u64, _bytes: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn set_aside(&self, record: BadRecord) -> io::Result<()> {
        let mut errors = self.0.lock().expect("nobody panicked");
        errors.push(record.error);
        Ok(())
    }
}

/// Stages the input as an output's one file, twice, and holds that both are the same.
fn read(format: OutputFormat, name: &str, input: &[u8], scratch: &Path) -> String {
    let written = scratch.join("written");
    fs::create_dir(&written).expect("the scratch folder is empty");
    fs::write(written.join(name), input).expect("the file is written");
    let (first, second) = (Errors::default(), Errors::default());
    let outcome = stage(format, &written, &scratch.join("one"), &first);
    let outcome = outcome.map(|(staged, _)| staged);
    let again = stage(format, &written, &scratch.join("two"), &second);
    let again = again.map(|(staged, _)| staged);
    let (first, second) = (first.take(), second.take());
    assert_eq!(first, second, "the same is refused for the same reasons");
    let answer = match (outcome, again) {
        (Ok(one), Ok(two)) => {
            assert_eq!(one.content_digest, two.content_digest);
            assert_eq!((one.rows, one.dead_letters), (two.rows, two.dead_letters));
            assert_eq!(one.dead_letters, first.len() as u64);
            assert!(one.rows + one.dead_letters <= MAX_ROWS);
            let reasons = &first[..first.len().min(2)];
            format!("{} rows; {}", one.rows.min(1), reasons.join("; "))
        }
        (Err(one), Err(two)) => {
            assert_eq!(one.to_string(), two.to_string());
            assert!(
                one.is_data_fault(),
                "the data is at fault, not this host: {one:?}"
            );
            one.to_string()
        }
        (one, two) => panic!("staged once, and once not: {one:?} {two:?}"),
    };
    let emptied = fs::remove_dir_all(scratch).and_then(|()| fs::create_dir(scratch));
    emptied.expect("the scratch folder is emptied");
    answer
}

/// Stages what is in a folder; the answer has the first staged file too.
fn stage(
    format: OutputFormat,
    written: &Path,
    staging: &Path,
    observer: &dyn StageObserver,
) -> Result<(Staged, Option<PathBuf>), StageError> {
    let spec = OutputSpec {
        format,
        schema: schema(),
        only_partition: PartitionValues::new(),
        limits: Limits {
            max_bytes: 1 << 20,
            max_record_bytes: 4 << 10,
            max_rows: MAX_ROWS,
            max_unpacked_bytes: 16 << 20,
            ..Limits::default()
        },
    };
    let staged = stage_output(written, staging, &spec, observer)?;
    let file = staged.files.first().map(|file| staging.join(&file.path));
    Ok((staged, file))
}

fn schema() -> TableSchema {
    let decimal = ColumnType::Decimal {
        precision: 18,
        scale: 6,
    };
    let columns = vec![
        Column::required("text", ColumnType::String),
        Column::nullable("int", ColumnType::Int64),
        Column::nullable("float", ColumnType::Float64),
        Column::nullable("decimal", decimal),
        Column::nullable("date", ColumnType::Date),
        Column::nullable("timestamp", ColumnType::Timestamp),
        Column::nullable("bool", ColumnType::Bool),
        Column::nullable("binary", ColumnType::Binary),
    ];
    TableSchema::new(columns, vec![]).expect("the schema is valid")
}

/// The rows of [`CSV_ROWS`] as they are staged.
fn parquet_rows() -> io::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let written = folder.path().join("written");
    fs::create_dir(&written)?;
    fs::write(written.join("rows.csv"), CSV_ROWS)?;
    let (_, file) = stage(
        OutputFormat::Csv,
        &written,
        &folder.path().join("staged"),
        &(),
    )
    .map_err(io::Error::other)?;
    fs::read(file.ok_or_else(|| io::Error::other("nothing was staged"))?)
}

/// Two rows, of which the second has nothing that may be missing.
fn arrow_rows() -> Result<Vec<u8>, ArrowError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["one", "two \u{e9}"])),
        Arc::new(Int64Array::from(vec![Some(1), None])),
        Arc::new(Float64Array::from(vec![Some(1.5), None])),
        Arc::new(
            Decimal128Array::from(vec![Some(12_340_000), None]).with_precision_and_scale(18, 6)?,
        ),
        Arc::new(Date32Array::from(vec![Some(19_753), None])),
        Arc::new(
            TimestampMicrosecondArray::from(vec![Some(1_706_695_200_000_000), None])
                .with_timezone("UTC"),
        ),
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(BinaryArray::from_opt_vec(vec![Some(&[1, 2, 3]), None])),
    ];
    let fields = schema().to_arrow();
    let fields = fields.fields().iter();
    let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&RecordBatch::try_new(schema, columns)?)?;
    writer.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_taken_so_that_mutations_begin_where_it_matters() {
        for target in [CSV, NDJSON, PARQUET, ARROW] {
            let scratch = tempfile::tempdir().expect("a folder");
            for seed in (target.seeds)().expect("there are seeds") {
                let answer = (target.run)(&seed, scratch.path());
                assert_eq!(answer, "1 rows; ", "{}", target.name);
            }
        }
    }
}
