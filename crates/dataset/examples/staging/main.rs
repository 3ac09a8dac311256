//! How fast rows become a dataset: CSV, NDJSON and Parquet in, a Delta table out, every check on.
//!
//! `staging FOLDER [ROWS] [PYTHON]` makes rows of ten columns in FOLDER and stages them in each
//! format, each in a process of its own, so that the memory is that of one staging. PYTHON is one
//! that has DuckDB and Polars: they read the same files on one thread, into the same types, hold
//! the same columns to be not null and the same one to its pattern, and write one Parquet file with
//! the same codec at the same level. What they do not do, and staging does: keep a record that does
//! not fit and go on, hash every row for the content digest, hash the written bytes, put them
//! to the disk, and commit them to a Delta table.
//!
//! Each measurement is made several times, in turns, and the one with the least processor time
//! counts: on a machine that does other things too, that is nearest to what the work takes. Prints a
//! JSON object a line.

mod process;
mod rows;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use barecount_dataset::{
    decision::{AppTransaction, DatasetCommit, Decision, PartitionValues, WriteMode},
    stage::{self, Limits, OutputFormat, OutputSpec},
    table::StateTables,
};
use serde_json::{Value, json};

use process::{cpu_seconds, peak_mib};
use rows::{make_text, schema};

type Failure = Box<dyn std::error::Error>;

/// What the others run.
const ALTERNATIVE: &str = include_str!("alternative.py");
/// How often each is measured.
const TURNS: usize = 3;

/// A measurement: a name, what the files are, and the columns that divide the table.
struct Case {
    name: &'static str,
    format: &'static str,
    output: OutputFormat,
    partition_by: &'static [&'static str],
}

const CASES: [Case; 5] = [
    Case {
        name: "csv",
        format: "csv",
        output: OutputFormat::Csv,
        partition_by: &[],
    },
    Case {
        name: "ndjson",
        format: "ndjson",
        output: OutputFormat::Ndjson,
        partition_by: &[],
    },
    Case {
        name: "parquet",
        format: "parquet",
        output: OutputFormat::Parquet,
        partition_by: &[],
    },
    Case {
        name: "csv, 7 partitions",
        format: "csv",
        output: OutputFormat::Csv,
        partition_by: &["country"],
    },
    Case {
        name: "csv, 756 partitions",
        format: "csv",
        output: OutputFormat::Csv,
        partition_by: &["day"],
    },
];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts[..] {
        ["stage", case, folder] => measure(find(case)?, Path::new(folder)),
        [folder] => compare(Path::new(folder), 2_000_000, None),
        [folder, rows] => compare(Path::new(folder), rows.parse()?, None),
        [folder, rows, python] => compare(Path::new(folder), rows.parse()?, Some(python)),
        _ => Err("usage: staging FOLDER [ROWS] [PYTHON]".into()),
    }
}

fn find(name: &str) -> Result<&'static Case, Failure> {
    let found = CASES.iter().find(|case| case.name == name);
    found.ok_or_else(|| "no such case".into())
}

/// Measures each case in processes of their own, and the alternatives in turn with it.
fn compare(folder: &Path, rows: u64, python: Option<&str>) -> Result<(), Failure> {
    make_text(folder, rows)?;
    make_parquet(folder)?;
    for case in &CASES {
        let alternatives: &[&str] = match python {
            // They have no file for each partition to be held against.
            Some(_) if case.partition_by.is_empty() => &["duckdb", "polars"],
            _ => &[],
        };
        let mut best: Vec<Option<Value>> = vec![None; 1 + alternatives.len()];
        for _ in 0..TURNS {
            let mut commands = vec![Command::new(std::env::current_exe()?)];
            commands[0].args(["stage", case.name]).arg(folder);
            for engine in alternatives {
                let mut command = Command::new(python.unwrap_or_default());
                command
                    .args(["-c", ALTERNATIVE, engine, case.format])
                    .arg(folder)
                    .env("POLARS_MAX_THREADS", "1");
                commands.push(command);
            }
            for (best, command) in best.iter_mut().zip(&mut commands) {
                let line = run(command)?;
                let seconds = |line: &Value| line["cpu_seconds"].as_f64();
                if best
                    .as_ref()
                    .is_none_or(|best| seconds(&line) < seconds(best))
                {
                    *best = Some(line);
                }
            }
        }
        best.iter().flatten().for_each(print);
    }
    Ok(())
}

/// The line that a measurement prints.
fn run(command: &mut Command) -> Result<Value, Failure> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        let program = command.get_program().display();
        return Err(format!("{program} failed: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn place(folder: &Path, format: &str) -> PathBuf {
    folder.join(format).join(format!("part-0.{format}"))
}

/// The same rows as Parquet: what staging makes of the CSV.
fn make_parquet(folder: &Path) -> Result<(), Failure> {
    let staged = stage(folder, find("csv")?, "made")?;
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

fn stage(folder: &Path, case: &Case, into: &str) -> Result<stage::Staged, Failure> {
    let spec = OutputSpec {
        format: case.output,
        schema: schema(case.partition_by)?,
        only_partition: PartitionValues::new(),
        limits: Limits::default(),
    };
    let from = folder.join(case.format);
    Ok(stage::stage_output(&from, &folder.join(into), &spec, &())?)
}

/// Stages and commits one case, and prints the rate and the most memory that this took.
fn measure(case: &Case, folder: &Path) -> Result<(), Failure> {
    let state = folder.join("state");
    if state.exists() {
        fs::remove_dir_all(&state)?;
    }
    let (began, cpu_before) = (Instant::now(), cpu_seconds()?);
    let staged = stage(folder, case, "state/staged")?;
    let staged_in = began.elapsed().as_secs_f64();
    let digest = staged.content_digest.clone();
    let (rows, bytes, files) = (staged.rows, staged.bytes, staged.files.len());
    let commit = DatasetCommit {
        table: format!("bench.{}", case.format).parse()?,
        mode: WriteMode::Overwrite,
        replace_partition: PartitionValues::new(),
        schema: schema(case.partition_by)?,
        schema_evolution: Default::default(),
        staging: "staged".into(),
        files: staged.files,
        transaction: AppTransaction {
            app_id: format!("bench/{}", case.name),
            version: 1,
        },
    };
    let tables = StateTables::new(state).of(&"bench".parse()?);
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
        "case": case.name, "engine": "barecount", "rows": rows, "seconds": seconds,
        "staged_seconds": staged_in, "cpu_seconds": cpu, "rows_per_cpu_second": rows as f64 / cpu,
        "peak_mib": peak_mib()?, "files": files, "written_bytes": bytes, "digest": digest,
    }));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn print(line: &Value) {
    println!("{line}");
}
