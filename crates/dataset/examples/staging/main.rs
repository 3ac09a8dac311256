//! How fast rows become a dataset: CSV, NDJSON and Parquet in, a Delta table out, every check on.
//!
//! `staging FOLDER [ROWS] [PYTHON]` makes rows of ten columns in FOLDER and stages them in each
//! format, each in a process of its own, so that the memory is that of one staging. PYTHON is one
//! that has DuckDB, and Polars where it is installed: they then read the same files on one thread
//! and write Parquet with the same compression. Prints a JSON object a line.

use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use barecount_dataset::{
    decision::{AppTransaction, DatasetCommit, Decision, PartitionValues, WriteMode},
    schema::{Column, ColumnType, TableSchema},
    stage::{self, Limits, OutputFormat, OutputSpec},
    table::StateTables,
};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

/// What the others run.
const ALTERNATIVE: &str = include_str!("alternative.py");
const FORMATS: [(&str, OutputFormat); 3] = [
    ("csv", OutputFormat::Csv),
    ("ndjson", OutputFormat::Ndjson),
    ("parquet", OutputFormat::Parquet),
];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts[..] {
        ["stage", format, folder] => measure(format, Path::new(folder)),
        [folder] => compare(Path::new(folder), 2_000_000, None),
        [folder, rows] => compare(Path::new(folder), rows.parse()?, None),
        [folder, rows, python] => compare(Path::new(folder), rows.parse()?, Some(python)),
        _ => Err("usage: staging FOLDER [ROWS] [PYTHON]".into()),
    }
}

/// Measures each format in a process of its own, and the alternatives after it.
fn compare(folder: &Path, rows: u64, python: Option<&str>) -> Result<(), Failure> {
    make_text(folder, rows)?;
    make_parquet(folder)?;
    for (format, _) in FORMATS {
        run(Command::new(std::env::current_exe()?)
            .args(["stage", format])
            .arg(folder))?;
        let Some(python) = python else { continue };
        for engine in ["duckdb", "polars"] {
            let script = [engine, format];
            run(Command::new(python)
                .args(["-c", ALTERNATIVE])
                .args(script)
                .arg(folder)
                .env("POLARS_MAX_THREADS", "1"))?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{} failed: {status}", command.get_program().display()).into())
}

fn schema() -> Result<TableSchema, Failure> {
    let money = ColumnType::Decimal {
        precision: 18,
        scale: 2,
    };
    let mut country = Column::required("country", ColumnType::String);
    country.pattern = Some("[A-Z]{2}".to_owned());
    let columns = vec![
        Column::required("id", ColumnType::Int64),
        Column::required("account", ColumnType::Int64),
        country,
        Column::required("name", ColumnType::String),
        Column::required("amount", money),
        Column::nullable("rate", ColumnType::Float64),
        Column::required("day", ColumnType::Date),
        Column::required("at", ColumnType::Timestamp),
        Column::required("paid", ColumnType::Bool),
        Column::nullable("note", ColumnType::String),
    ];
    Ok(TableSchema::new(columns, vec![])?)
}

fn place(folder: &Path, format: &str) -> PathBuf {
    folder.join(format).join(format!("part-0.{format}"))
}

/// The same rows as CSV and as NDJSON, from numbers that look random and are not.
fn make_text(folder: &Path, rows: u64) -> Result<(), Failure> {
    let open = |format| -> Result<BufWriter<fs::File>, Failure> {
        fs::create_dir_all(folder.join(format))?;
        Ok(BufWriter::with_capacity(
            1 << 20,
            fs::File::create(place(folder, format))?,
        ))
    };
    let (mut csv, mut ndjson) = (open("csv")?, open("ndjson")?);
    writeln!(csv, "id,account,country,name,amount,rate,day,at,paid,note")?;
    let mut state = 7_u64;
    for id in 0..rows {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let row = Row::new(id, state >> 20);
        row.write_csv(&mut csv)?;
        row.write_json(&mut ndjson)?;
    }
    csv.flush()?;
    ndjson.flush()?;
    Ok(())
}

/// One row, each value as text.
struct Row {
    id: u64,
    account: u64,
    country: &'static str,
    name: String,
    amount: String,
    rate: Option<String>,
    day: String,
    at: String,
    paid: bool,
    note: Option<String>,
}

impl Row {
    fn new(id: u64, random: u64) -> Self {
        let countries = ["DE", "FR", "IT", "ES", "PL", "NL", "SE"];
        let sign = if random.is_multiple_of(5) { "-" } else { "" };
        let day = format!(
            "20{:02}-{:02}-{:02}",
            random % 25,
            random % 12 + 1,
            random % 28 + 1
        );
        let rated = !random.is_multiple_of(10);
        let noted = random.is_multiple_of(4);
        Self {
            id,
            account: random % 1_000_003,
            country: countries[(random % 7) as usize],
            name: format!("Customer {} of {}", random % 90_001, random % 97),
            amount: format!("{sign}{}.{:02}", random % 1_000_000, random % 100),
            rate: rated.then(|| format!("{}.{}", random % 10, random % 1_000_000 + 1)),
            at: format!(
                "{day}T{:02}:{:02}:{:02}.{:03}Z",
                random % 24,
                random % 60,
                random % 59,
                random % 1000
            ),
            day,
            paid: random.is_multiple_of(3),
            note: noted.then(|| format!("paid late, by {} days", random % 30)),
        }
    }

    fn write_csv(&self, to: &mut impl Write) -> Result<(), Failure> {
        let Self {
            id,
            account,
            country,
            name,
            amount,
            day,
            at,
            paid,
            ..
        } = self;
        let rate = self.rate.as_deref().unwrap_or_default();
        let note = self.note.as_ref().map(|note| format!("\"{note}\""));
        let note = note.unwrap_or_default();
        writeln!(
            to,
            "{id},{account},{country},{name},{amount},{rate},{day},{at},{paid},{note}"
        )?;
        Ok(())
    }

    fn write_json(&self, to: &mut impl Write) -> Result<(), Failure> {
        let Self {
            id,
            account,
            country,
            name,
            amount,
            day,
            at,
            paid,
            ..
        } = self;
        let rate = self.rate.as_deref().unwrap_or("null");
        let note = self.note.as_ref().map(|note| format!("\"{note}\""));
        let note = note.unwrap_or_else(|| "null".to_owned());
        writeln!(
            to,
            "{{\"id\":{id},\"account\":{account},\"country\":\"{country}\",\"name\":\"{name}\",\"amount\":{amount},\"rate\":{rate},\"day\":\"{day}\",\"at\":\"{at}\",\"paid\":{paid},\"note\":{note}}}"
        )?;
        Ok(())
    }
}

/// The same rows as Parquet: what staging makes of the CSV.
fn make_parquet(folder: &Path) -> Result<(), Failure> {
    let staged = stage(folder, "csv", OutputFormat::Csv, "made")?;
    fs::create_dir_all(folder.join("parquet"))?;
    for file in &staged.files {
        let name = Path::new(&file.path)
            .file_name()
            .ok_or("a file has a name")?;
        fs::rename(
            folder.join("made").join(&file.path),
            folder.join("parquet").join(name),
        )?;
    }
    Ok(())
}

fn stage(
    folder: &Path,
    format: &str,
    output: OutputFormat,
    into: &str,
) -> Result<stage::Staged, Failure> {
    let spec = OutputSpec {
        format: output,
        schema: schema()?,
        only_partition: PartitionValues::new(),
        limits: Limits::default(),
    };
    Ok(stage::stage_output(
        &folder.join(format),
        &folder.join(into),
        &spec,
        &(),
    )?)
}

/// Stages and commits one format, and prints the rate and the most memory that this took.
fn measure(format: &str, folder: &Path) -> Result<(), Failure> {
    let (_, output) = FORMATS
        .into_iter()
        .find(|(name, _)| *name == format)
        .ok_or("no such format")?;
    let (began, cpu_before) = (Instant::now(), cpu_seconds()?);
    let staged = stage(folder, format, output, "staged")?;
    let staged_in = began.elapsed().as_secs_f64();
    let digest = staged.content_digest.clone();
    let rows = staged.rows;
    let commit = DatasetCommit {
        table: format!("bench.{format}").parse()?,
        mode: WriteMode::Overwrite,
        replace_partition: PartitionValues::new(),
        schema: schema()?,
        schema_evolution: Default::default(),
        staging: "staged".into(),
        files: staged.files,
        transaction: AppTransaction {
            app_id: format!("bench/{format}"),
            version: 1,
        },
    };
    let tables = StateTables::new(folder.to_owned()).of(&"bench".parse()?);
    let decision = Decision {
        decided_at_ms: 0,
        datasets: vec![commit],
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tables.roll_forward(&decision))?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds()? - cpu_before;
    print(&json!({
        "case": format, "engine": "barecount", "rows": rows, "seconds": seconds,
        "staged_seconds": staged_in, "cpu_seconds": cpu, "rows_per_cpu_second": rows as f64 / cpu,
        "peak_mib": peak_mib()?, "digest": digest,
    }));
    Ok(())
}

/// The processor time of this process, in hundredths of a second as the kernel tells it.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name before may have blanks.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<u64>, _> = ticks.map(str::parse).collect();
    Ok(ticks?.iter().sum::<u64>() as f64 / 100.0)
}

/// The most memory that this process has had resident.
fn peak_mib() -> Result<f64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmHWM")?
        .parse()?;
    Ok(kib / 1024.0)
}

#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn print(line: &Value) {
    println!("{line}");
}
