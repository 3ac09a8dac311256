mod any_bytes;
mod arrow_streams;
mod one_rule;
mod parquet_values;
mod partitions;

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::schema::{Column, ColumnType};

type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// An output folder, a staging folder and a schema.
struct Output {
    home: tempfile::TempDir,
    spec: OutputSpec,
}

impl Output {
    fn new(format: OutputFormat) -> TestResult<Self> {
        let mut currency = Column::required("currency", ColumnType::String);
        currency.pattern = Some("[A-Z]{3}".to_owned());
        let columns = vec![
            Column::required("date", ColumnType::Date),
            currency,
            Column::nullable(
                "rate",
                ColumnType::Decimal {
                    precision: 18,
                    scale: 6,
                },
            ),
        ];
        let spec = OutputSpec {
            format,
            schema: TableSchema::new(columns, vec![])?,
            only_partition: PartitionValues::new(),
            limits: Limits::default(),
        };
        let home = tempfile::tempdir()?;
        fs::create_dir(home.path().join("out"))?;
        Ok(Self { home, spec })
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> TestResult<&Self> {
        fs::write(self.home.path().join("out").join(name), content)?;
        Ok(self)
    }

    fn stage(&self) -> Result<Seen, StageError> {
        let keeper = Keeper::default();
        let staged = self.observed_by(&keeper)?;
        let records = keeper.0.into_inner().unwrap_or_default();
        assert_eq!(records.len() as u64, staged.dead_letters, "all are kept");
        Ok(Seen { staged, records })
    }

    fn observed_by(&self, observer: &dyn StageObserver) -> Result<Staged, StageError> {
        let home = self.home.path();
        stage_output(
            &home.join("out"),
            &home.join("staging"),
            &self.spec,
            observer,
        )
    }
}

/// A staged output, and the rows that were refused.
#[derive(Debug, PartialEq)]
struct Seen {
    staged: Staged,
    records: Vec<BadRecord>,
}

impl std::ops::Deref for Seen {
    type Target = Staged;

    fn deref(&self) -> &Staged {
        &self.staged
    }
}

/// Keeps the rows that are refused.
#[derive(Default)]
struct Keeper(Mutex<Vec<BadRecord>>);

impl StageObserver for Keeper {
    fn advanced(&self, _rows: u64, _bytes: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn set_aside(&self, record: BadRecord) -> io::Result<()> {
        let mut kept = self.0.lock().map_err(|_| io::ErrorKind::Other)?;
        kept.push(record);
        Ok(())
    }
}

/// Counts what it hears, and ends the staging after so many bytes.
struct Watcher {
    rows: AtomicU64,
    bytes: AtomicU64,
    until: u64,
}

impl Watcher {
    fn until(until: u64) -> Self {
        let (rows, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { rows, bytes, until }
    }
}

impl StageObserver for Watcher {
    fn advanced(&self, rows: u64, bytes: u64) -> ControlFlow<()> {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.until {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn set_aside(&self, _record: BadRecord) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_observer_hears_of_every_row_and_byte_that_is_read() -> TestResult {
    for (format, name, text) in [
        (
            OutputFormat::Csv,
            "a.csv",
            "date,currency,rate\n2024-01-01,USD,1\n2024-01-02,x,1\n",
        ),
        (
            OutputFormat::Ndjson,
            "a.ndjson",
            "{\"date\":\"2024-01-01\",\"currency\":\"USD\"}\n{\"date\":1}\n",
        ),
    ] {
        let output = Output::new(format)?;
        let watcher = Watcher::until(u64::MAX);
        output.write(name, text)?.observed_by(&watcher)?;
        let heard = (watcher.rows.into_inner(), watcher.bytes.into_inner());
        assert_eq!(heard, (2, text.len() as u64), "{name}");
    }
    Ok(())
}

#[test]
fn an_observer_ends_a_long_staging_within_a_buffer_even_inside_one_endless_record() -> TestResult {
    let row = "2024-01-01,USD,1\n";
    let many = format!("date,currency,rate\n{}", row.repeat(100_000));
    let endless = format!("date,currency,rate\n\"{}", "x".repeat(2 << 20));
    for text in [many, endless] {
        let output = Output::new(OutputFormat::Csv)?;
        let watcher = Watcher::until(100_000);
        let ended = output.write("a.csv", &text)?.observed_by(&watcher);
        assert!(matches!(ended, Err(StageError::Stopped)), "{ended:?}");
        let read = watcher.bytes.into_inner();
        assert!(read < 300_000, "{read} bytes were read");
    }
    Ok(())
}

fn letters(staged: &Seen) -> Vec<(u64, &str)> {
    staged
        .records
        .iter()
        .map(|r| (r.line, r.error.as_str()))
        .collect()
}

#[test]
fn bad_csv_rows_are_set_aside_with_their_line_and_the_rest_goes_on() -> TestResult {
    let mut output = Output::new(OutputFormat::Csv)?;
    output.spec.limits.max_record_bytes = 1000;
    let long = "X".repeat(5000);
    let rows = [
        b"rate,date,currency\n1.5,2024-01-01,USD\n".as_slice(),
        b"x,2024-01-02,USD\n",
        b"1,2024-01-03\n",
        b"1,2024-13-01,USD\n",
        b",2024-01-04,USD\n",
        b"1,,USD\n",
        b"1,2024-01-05,usd\n",
        b"1,2024-01-06,\xff\xfe\xfd\n",
        format!("1,2024-01-07,\"{long}\"\n").as_bytes(),
        b"\"2\",2024-01-08,\"EUR\"\r\n",
    ]
    .concat();
    let staged = output.write("rates.csv", rows)?.stage()?;
    assert_eq!((staged.rows, staged.dead_letters), (3, 7));
    assert_eq!(
        letters(&staged),
        [
            (3, "column `rate`: decimal(18,6) expected, found `x`"),
            (4, "3 fields expected, found 2"),
            (
                5,
                "column `date`: date (YYYY-MM-DD) expected, found `2024-13-01`"
            ),
            (7, "column `date`: a value is required, found none"),
            (
                8,
                "column `currency`: does not match `[A-Z]{3}`, found `usd`"
            ),
            (9, "column `currency`: the text is not UTF-8"),
            (10, "the record has more than 1000 bytes or 4001 fields"),
        ]
    );
    let first = &staged.records[0];
    assert_eq!(
        (first.record.raw(), first.file.as_str()),
        ("x,2024-01-02,USD", "rates.csv")
    );
    assert_eq!(first.schema_hash, output.spec.schema.hash());
    Ok(())
}

#[test]
fn csv_that_breaks_the_rules_of_quotes_is_set_aside_and_never_repaired() -> TestResult {
    let output = Output::new(OutputFormat::Csv)?;
    let rows = [
        "\u{feff}date,currency,rate\n2024-01-01,USD,1\n",
        "2024-01-02,\"EUR\"x,1\n",
        "2024-01-03,E\"UR,1\n",
        "2024-01-04,\"EUR\n2024-01-05,USD,1\n2024-01-06,\"USD\",1\n",
        "2024-01-07,GBP,1\r\n",
        "2024-01-08,GBP\r,1\n",
        "2024-01-09,G\0P,1\n",
        "\n2024-01-10,CHF,1",
    ];
    let staged = output.write("a.CSV", rows.concat())?.stage()?;
    assert_eq!(staged.rows, 3);
    let broken = |reason: &str| format!("not valid CSV: {reason}");
    let told: Vec<(u64, String)> = letters(&staged)
        .into_iter()
        .map(|(line, error)| (line, error.to_owned()))
        .collect();
    let after = broken("text follows a closing quote");
    assert_eq!(
        told,
        [
            (3, after.clone()),
            (
                4,
                broken("there is a quote inside a field that is not quoted")
            ),
            (5, after),
            (9, broken("a line ends otherwise than the file's first")),
            (
                10,
                broken("there is a NUL byte in a field that is not quoted")
            ),
        ]
    );
    let swallowed = &staged.records[2].record;
    assert!(swallowed.raw().contains("2024-01-05,USD,1"), "{swallowed}");
    Ok(())
}

#[test]
fn a_csv_that_ends_inside_quotes_fails_the_output() -> TestResult {
    let mut output = Output::new(OutputFormat::Csv)?;
    output.spec.limits.max_record_bytes = 1000;
    for rest in ["2024-01-03,USD,1\n".to_owned(), "x".repeat(400_000)] {
        let rows = format!("date,currency,rate\n2024-01-01,USD,1\n2024-01-02,\"EUR,1\n{rest}");
        match output.write("a.csv", rows)?.stage() {
            Err(error @ StageError::Malformed { .. }) => {
                assert!(error.is_data_fault());
                assert!(error.to_string().contains("begins in line 3,"), "{error}");
            }
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

#[test]
fn a_record_longer_than_is_read_at_once_is_set_aside_whole() -> TestResult {
    let mut output = Output::new(OutputFormat::Csv)?;
    output.spec.limits.max_record_bytes = 1000;
    let long = "y\n\"\"".repeat(200_000);
    let rows = format!(
        "date,currency,rate\r\n2024-01-01,USD,1\r\n2024-01-02,\"{long}\",1\r\n2024-01-03,EUR,1\r\nx\r\n"
    );
    let staged = output.write("a.csv", rows)?.stage()?;
    assert_eq!(staged.rows, 2);
    let lines: Vec<u64> = letters(&staged).iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 200_005]);
    Ok(())
}

#[test]
fn files_of_carriage_returns_are_read_by_their_own_line_ends() -> TestResult {
    let output = Output::new(OutputFormat::Csv)?;
    let rows = "date,currency,rate\r2024-01-01,USD,1\r2024-01-02,\"A\nB\",1\rx\ny\r";
    let staged = output.write("a.csv", rows)?.stage()?;
    let lines: Vec<u64> = letters(&staged).iter().map(|(line, _)| *line).collect();
    assert_eq!((staged.rows, lines), (1, vec![3, 4]));
    Ok(())
}

#[test]
fn json_that_says_a_thing_twice_or_has_something_after_it_is_set_aside() -> TestResult {
    let output = Output::new(OutputFormat::Ndjson)?;
    let row = r#""date":"2024-01-01","currency":"USD""#;
    let lines = [
        format!(r#"{{{row},"rate":1}}"#),
        format!(r#"{{{row},"rate":1,"rate":2}}"#),
        format!(r#"{{{row},"rate":1,"r\u0061te":2}}"#),
        format!(r#"{{{row}}} {{}}"#),
        format!(r#"{{{row},}}"#),
        format!(r#"{{{row},"rate":01}}"#),
        r#"{"date":"2024-01-01","currency":"\ud800"}"#.to_owned(),
        r#"{"date":"2024-01-01","currency":"U\u0053D","rate":null}"#.to_owned(),
    ];
    let staged = output.write("a.JSONL", lines.join("\n"))?.stage()?;
    assert_eq!((staged.rows, staged.dead_letters), (2, 6));
    let told = letters(&staged);
    let twice = "column `rate` is there twice";
    assert_eq!(told[..2], [(2, twice), (3, twice)]);
    assert!(
        told[2]
            .1
            .starts_with("not a JSON object: trailing characters")
    );
    assert_eq!(told[5].1, "column `currency`: the string is not valid");
    Ok(())
}

#[test]
fn a_json_array_is_refused_with_a_word() -> TestResult {
    let output = Output::new(OutputFormat::Ndjson)?;
    let refused = output
        .write("a.json", "[{\"date\":\"2024-01-01\"}]")?
        .stage();
    match refused {
        Err(error @ StageError::Malformed { .. }) => {
            assert!(error.to_string().contains("JSON array"), "{error}");
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}

#[test]
fn a_file_whose_header_is_not_the_schema_fails_the_output() -> TestResult {
    for (header, expected) in [
        ("date,currency\n", "column `rate` is missing"),
        (
            "date,currency,rate,extra\n",
            "column `extra` is not declared",
        ),
        ("date,currency,rate,date\n", "column `date` is there twice"),
        ("", "there is no header row"),
    ] {
        let output = Output::new(OutputFormat::Csv)?;
        match output.write("a.csv", header)?.stage() {
            Err(error @ StageError::Columns { .. }) => {
                assert!(error.is_data_fault());
                assert!(error.to_string().ends_with(expected), "{error}");
            }
            other => return Err(format!("{header:?} gave {other:?}").into()),
        }
    }
    Ok(())
}

#[test]
fn the_same_rows_have_the_same_digest_in_every_format() -> TestResult {
    let csv = Output::new(OutputFormat::Csv)?;
    csv.write("a.csv", "date,currency,rate\n2024-01-01,USD,1.5\n")?;
    csv.write("b.csv", "currency,rate,date\nEUR,,2024-01-02\n")?;
    let ndjson = Output::new(OutputFormat::Ndjson)?;
    ndjson.write(
        "a.ndjson",
        "\n{\"date\":\"2024-01-02\",\"currency\":\"EUR\"}\n{\"rate\":1.5,\"currency\":\"\\u0055SD\",\"date\":\"2024-01-01\"}",
    )?;
    let (csv, ndjson) = (csv.stage()?, ndjson.stage()?);
    assert_eq!(csv.content_digest, ndjson.content_digest);
    assert_eq!((csv.rows, ndjson.rows), (2, 2));

    let parquet = Output::new(OutputFormat::Parquet)?;
    let name = &csv.files[0].path;
    let other = Output::new(OutputFormat::Csv)?;
    other
        .write(
            "a.csv",
            "date,currency,rate\n2024-01-01,USD,1.5\n2024-01-02,EUR,\n",
        )?
        .stage()?;
    let staged = fs::read(other.home.path().join("staging").join(name))?;
    assert_eq!(
        parquet.write("a.parquet", staged)?.stage()?.content_digest,
        csv.content_digest
    );
    Ok(())
}

#[test]
fn bad_json_lines_are_set_aside() -> TestResult {
    let mut output = Output::new(OutputFormat::Ndjson)?;
    output.spec.limits.max_record_bytes = 200;
    let deep = "[".repeat(180);
    let lines = [
        r#"{"date":"2024-01-01","currency":"USD","rate":"1.5"}"#,
        r#"{"date":"2024-01-01","currency":"USD","rate":1.5"#,
        r#"[1,2]"#,
        r#"{"date":"2024-01-01","currency":"USD","rate":{"a":1}}"#,
        r#"{"date":"2024-01-01","currency":"USD","who":1}"#,
        r#"{"currency":"USD"}"#,
        &deep,
        &"x".repeat(300),
    ];
    let staged = output.write("a.jsonl", lines.join("\n"))?.stage()?;
    assert_eq!((staged.rows, staged.dead_letters), (1, 7));
    assert_eq!(letters(&staged)[3], (5, "column `who` is not declared"));
    assert_eq!(letters(&staged)[6], (8, "the line has more than 200 bytes"));
    Ok(())
}

#[test]
fn what_is_not_parquet_is_malformed_and_never_a_panic() -> TestResult {
    let csv = Output::new(OutputFormat::Csv)?;
    let staged = csv
        .write("a.csv", "date,currency,rate\n2024-01-01,USD,1.5\n")?
        .stage()?;
    let good = fs::read(csv.home.path().join("staging").join(&staged.files[0].path))?;
    let output = Output::new(OutputFormat::Parquet)?;
    for bytes in [
        &b""[..],
        b"PAR1",
        b"PAR1\xff\xff\xff\x7fPAR1",
        &good[..good.len() - 3],
    ] {
        let staged = output.write("a.parquet", bytes)?.stage();
        assert!(
            matches!(staged, Err(StageError::Malformed { .. })),
            "{staged:?}"
        );
    }
    for at in (0..good.len()).step_by(5) {
        let mut damaged = good.clone();
        damaged[at] ^= 0x55;
        match output.write("a.parquet", damaged)?.stage() {
            Ok(_) => {}
            Err(error) => assert!(error.is_data_fault(), "byte {at}: {error:?}"),
        }
    }
    Ok(())
}

#[test]
fn parquet_that_unpacks_to_too_much_is_refused() -> TestResult {
    let csv = Output::new(OutputFormat::Csv)?;
    let rows = "2024-01-01,USD,1.5\n".repeat(50_000);
    let staged = csv
        .write("a.csv", format!("date,currency,rate\n{rows}"))?
        .stage()?;
    let small = fs::read(csv.home.path().join("staging").join(&staged.files[0].path))?;
    assert!(small.len() < 20_000, "{} bytes", small.len());
    let mut output = Output::new(OutputFormat::Parquet)?;
    output.spec.limits.max_unpacked_bytes = 1_000;
    let refused = output.write("a.parquet", small)?.stage();
    assert!(matches!(
        refused,
        Err(StageError::Limit {
            what: "bytes when unpacked",
            ..
        })
    ));
    Ok(())
}

#[test]
fn a_text_that_matched_does_not_let_another_pass() -> TestResult {
    let output = Output::new(OutputFormat::Csv)?;
    let mut text = "date,currency,rate\n".to_owned();
    let mut bad = 0;
    for number in 0..4_000_u32 {
        // Of three capitals, or of two and something else: many share a place in what is remembered.
        let letter =
            |shift: u32| char::from(b'A' + u8::try_from((number >> shift) % 26).unwrap_or(0));
        let last = char::from(b'A' + u8::try_from(number % 40).unwrap_or(0));
        bad += u64::from(!last.is_ascii_uppercase());
        text += &format!("2024-01-01,{}{}{last},1\n", letter(3), letter(7));
    }
    let staged = output.write("a.csv", text)?.stage()?;
    assert_eq!(staged.dead_letters, bad);
    assert_eq!(staged.rows, 4_000 - bad);
    Ok(())
}

#[test]
fn nothing_written_is_not_an_empty_table_but_a_header_is() -> TestResult {
    let output = Output::new(OutputFormat::Csv)?;
    assert!(matches!(
        output.stage(),
        Err(StageError::Input(InputError::Nothing))
    ));
    output.write("_SUCCESS", "")?;
    assert!(matches!(
        output.stage(),
        Err(StageError::Input(InputError::Nothing))
    ));
    output.write("a.txt", "")?;
    assert!(matches!(
        output.stage(),
        Err(StageError::UnexpectedFile { .. })
    ));
    fs::remove_file(output.home.path().join("out/a.txt"))?;
    assert_eq!(
        output.write("a.csv", "date,currency,rate\n")?.stage()?.rows,
        0
    );
    Ok(())
}

#[test]
fn staging_twice_gives_the_same_files() -> TestResult {
    let output = Output::new(OutputFormat::Csv)?;
    output.write(
        "a.csv",
        "date,currency,rate\n2024-01-01,USD,1.5\n2024-01-02,USD,\n",
    )?;
    assert_eq!(output.stage()?, output.stage()?);
    Ok(())
}

#[test]
fn files_become_rows_and_files_again() -> TestResult {
    let mut output = Output::new(OutputFormat::Files)?;
    output.spec.schema = files_schema()?;
    fs::create_dir(output.home.path().join("out/charts"))?;
    output
        .write("report.html", "<p>")?
        .write("charts/a.csv", "a\n")?;
    let staged = output.stage()?;
    assert_eq!((staged.rows, staged.files.len()), (2, 1));

    output.spec.limits.max_file_bytes = 2;
    assert!(matches!(
        output.stage(),
        Err(StageError::Limit {
            what: "bytes",
            limit: 2,
            ..
        })
    ));
    Ok(())
}
