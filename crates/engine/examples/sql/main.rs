//! How long SQL takes from a dataset's files to a committed dataset: a whole job, its output staged
//! with every check on, and the Delta table.
//!
//! `sql FOLDER PYTHON [ROWS]` has DuckDB make rows of ten columns in FOLDER, 2,000,000 if not told,
//! and measures each statement in processes of its own: ours, and DuckDB that reads the same file
//! and writes what the same query gives as one Parquet file with Zstandard at level 1, as ours is,
//! both on one thread, but that ours hashes rows on a second one; DuckDB once more, with the rows
//! sorted by all columns, as ours are (equal inputs give equal bytes). The file has the types that
//! are declared: of others, ours would convert and check every value, and DuckDB compute in the
//! file's. What DuckDB does not do: check the rows against what is declared, hash each for the
//! content digest, put the file to the disk, and commit it to a table.
//!
//! Each is measured several times, in turns, and the one with the least processor time counts.
//! Prints a JSON object a line.

use std::{
    error::Error,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use barecount_dataset::{
    decision::{AppTransaction, DatasetCommit, Decision, PartitionValues, WriteMode},
    schema::{Column, ColumnType, TableSchema},
    stage::{self, OutputFormat, OutputSpec},
    table::StateTables,
};
use barecount_engine::{
    job::{DeclaredTable, JobSpec, run_job},
    session::{InputTable, Resources},
};
use serde_json::{Value, json};

#[path = "../../../dataset/examples/staging/process.rs"]
mod process;

use process::{cpu_seconds, peak_mib};

type Failure = Box<dyn Error>;

const ALTERNATIVE: &str = include_str!("alternative.py");
/// How often each is measured.
const TURNS: usize = 3;
const INPUT: &str = "raw.payments";
const OUTPUT: &str = "gdp.result";
const MEMORY: u64 = 1 << 30;

struct Case {
    name: &'static str,
    query: &'static str,
    /// Of the result, as texts.
    columns: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 3] = [
    Case {
        name: "two million rows, row by row",
        query: "SELECT id, account, country, upper(name) AS name, \
                CAST(amount * 2 AS DECIMAL(18, 2)) AS amount, rate, day, \"at\", NOT paid AS due, note \
                FROM raw.payments",
        columns: &[
            ("id", "int64"),
            ("account", "int64"),
            ("country", "string"),
            ("name", "string"),
            ("amount", "decimal(18,2)"),
            ("rate", "float64"),
            ("day", "date"),
            ("at", "timestamp"),
            ("due", "bool"),
            ("note", "string"),
        ],
    },
    Case {
        name: "a sum for each of 864,314 accounts",
        query: "SELECT account, CAST(sum(amount) AS DECIMAL(38, 2)) AS amount, count(*) AS payments, \
                max(day) AS latest FROM raw.payments GROUP BY account",
        columns: &[
            ("account", "int64"),
            ("amount", "decimal(38,2)"),
            ("payments", "int64"),
            ("latest", "date"),
        ],
    },
    Case {
        name: "a sum for each of 45,990 countries and days",
        query: "SELECT country, day, CAST(sum(amount) AS DECIMAL(38, 2)) AS amount, \
                count(*) AS payments FROM raw.payments WHERE NOT paid GROUP BY country, day",
        columns: &[
            ("country", "string"),
            ("day", "date"),
            ("amount", "decimal(38,2)"),
            ("payments", "int64"),
        ],
    },
];

/// What is read.
const PAYMENTS: [(&str, &str); 10] = [
    ("id", "int64"),
    ("account", "int64"),
    ("country", "string"),
    ("name", "string"),
    ("amount", "decimal(18,2)"),
    ("rate", "float64"),
    ("day", "date"),
    ("at", "timestamp"),
    ("paid", "bool"),
    ("note", "string"),
];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts[..] {
        ["job", case, folder] => measure(find(case)?, Path::new(folder)),
        [folder, python] => compare(Path::new(folder), python, "2000000"),
        [folder, python, rows] => compare(Path::new(folder), python, rows),
        _ => Err("usage: sql FOLDER PYTHON [ROWS]".into()),
    }
}

fn find(name: &str) -> Result<&'static Case, Failure> {
    let found = CASES.iter().find(|case| case.name == name);
    found.ok_or_else(|| "no such case".into())
}

fn compare(folder: &Path, python: &str, rows: &str) -> Result<(), Failure> {
    let duckdb = |verb: &str| {
        let mut command = Command::new(python);
        command.args(["-c", ALTERNATIVE, verb]).arg(folder);
        command
    };
    let made = duckdb("make").arg(rows).status()?;
    if !made.success() {
        return Err(format!("making rows failed: {made}").into());
    }
    for case in &CASES {
        let mut best: [Option<Value>; 3] = [const { None }; 3];
        for _ in 0..TURNS {
            let mut ours = Command::new(std::env::current_exe()?);
            ours.args(["job", case.name]).arg(folder);
            let lines = [
                run(&mut ours, "")?,
                run(&mut duckdb("query"), case.query)?,
                run(&mut duckdb("sorted"), case.query)?,
            ];
            for (best, line) in best.iter_mut().zip(lines) {
                let seconds = |line: &Value| line["cpu_seconds"].as_f64();
                if best
                    .as_ref()
                    .is_none_or(|best| seconds(&line) < seconds(best))
                {
                    *best = Some(line);
                }
            }
        }
        for line in best.iter_mut().flatten() {
            line["case"] = case.name.into();
            print(line);
        }
    }
    Ok(())
}

/// The line that a measurement prints.
fn run(command: &mut Command, input: &str) -> Result<Value, Failure> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    child
        .stdin
        .take()
        .ok_or("no pipe")?
        .write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let program = command.get_program().display();
        return Err(format!("{program} failed: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn schema(columns: &[(&str, &str)]) -> Result<TableSchema, Failure> {
    let column = |(name, kind): &(&str, &str)| -> Result<Column, Failure> {
        let kind: ColumnType = kind.parse()?;
        Ok(Column::nullable(*name, kind))
    };
    let columns = columns.iter().map(column).collect::<Result<_, _>>()?;
    Ok(TableSchema::new(columns, vec![])?)
}

/// Runs, stages and commits one case, and prints how long that took, and the most memory.
fn measure(case: &Case, folder: &Path) -> Result<(), Failure> {
    let state = folder.join("state");
    if state.exists() {
        fs::remove_dir_all(&state)?;
    }
    let out: PathBuf = state.join("out");
    let spill_dir = state.join("spill");
    fs::create_dir_all(&spill_dir)?;
    let job = JobSpec {
        sql: format!("INSERT INTO {OUTPUT} {}", case.query),
        inputs: vec![InputTable {
            table: INPUT.parse()?,
            path: folder.join(INPUT),
            schema: schema(&PAYMENTS)?,
        }],
        outputs: vec![DeclaredTable {
            table: OUTPUT.parse()?,
            schema: schema(case.columns)?,
        }],
        output_dir: out.clone(),
        resources: Resources {
            memory_limit_bytes: MEMORY,
            target_partitions: 1,
            spill_dir,
            spill_limit_bytes: 8 << 30,
        },
        parameters: Default::default(),
        timeout_ms: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (began, cpu_before) = (Instant::now(), cpu_seconds()?);
    runtime.block_on(run_job(&job))?;
    let (ran_in, ran_cpu) = (began.elapsed().as_secs_f64(), cpu_seconds()? - cpu_before);
    let (rows, bytes) = commit(case, &state, &out, &runtime)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds()? - cpu_before;
    print(&json!({
        "engine": "barecount", "rows": rows, "seconds": seconds, "ran_seconds": ran_in,
        "ran_cpu_seconds": ran_cpu, "cpu_seconds": cpu, "peak_mib": peak_mib()?,
        "written_bytes": bytes,
    }));
    Ok(())
}

/// Stages what the job wrote, and makes it a table's content. Gives its rows and bytes.
fn commit(
    case: &Case,
    state: &Path,
    out: &Path,
    runtime: &tokio::runtime::Runtime,
) -> Result<(u64, u64), Failure> {
    let spec = OutputSpec {
        format: OutputFormat::Arrow,
        schema: schema(case.columns)?,
        only_partition: PartitionValues::new(),
        limits: stage::Limits::default(),
    };
    let staged = stage::stage_output(&out.join(OUTPUT), &state.join("staged"), &spec, &())?;
    let commit = DatasetCommit {
        table: OUTPUT.parse()?,
        mode: WriteMode::Overwrite,
        replace_partition: PartitionValues::new(),
        schema: schema(case.columns)?,
        schema_evolution: Default::default(),
        staging: "staged".into(),
        files: staged.files,
        transaction: AppTransaction {
            app_id: "bench".to_owned(),
            version: 1,
        },
    };
    let decision = Decision {
        decided_at_ms: 0,
        datasets: vec![commit],
    };
    let tables = StateTables::new(state.to_owned()).of(&"bench".parse()?);
    runtime.block_on(tables.roll_forward(&decision))?;
    Ok((staged.rows, staged.bytes))
}

#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn print(line: &Value) {
    println!("{line}");
}
