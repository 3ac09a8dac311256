//! What the engine makes of expressions: a JSON text a line on standard input, a JSON object a line
//! on standard output, in the same order: `{"value": TEXT}`, null for a null, or `{"error": TEXT}`.
//!
//! Each is a column of a job, some hundred at a time. Of a job that fails, each half is tried by
//! itself, until what fails stands alone.

use std::{
    error::Error,
    fs,
    io::{BufRead, Write},
    path::Path,
};

use arrow_ipc::reader::StreamReader;
use barecount_dataset::schema::{Column, ColumnType, TableSchema};
use barecount_engine::{
    job::{DeclaredTable, JobSpec, run_job},
    session::Resources,
};
use datafusion::arrow::{array::AsArray, datatypes::DataType};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Columns of one job.
const COLUMNS: usize = 100;
/// Expressions are deep, and planned by recursion.
const STACK_BYTES: usize = 512 << 20;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    match thread.spawn(answer)?.join() {
        Ok(outcome) => outcome,
        Err(_) => Err("the engine panicked".into()),
    }
}

fn answer() -> Result<(), Failure> {
    let lines = std::io::stdin().lock().lines();
    let expressions: Vec<String> = lines
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<_, Failure>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let folder = tempfile::tempdir()?;
    let mut out = std::io::stdout().lock();
    for expressions in expressions.chunks(COLUMNS) {
        for answer in evaluate(&runtime, folder.path(), expressions)? {
            writeln!(out, "{answer}")?;
        }
        out.flush()?;
    }
    Ok(())
}

fn evaluate(
    runtime: &Runtime,
    folder: &Path,
    expressions: &[String],
) -> Result<Vec<Value>, Failure> {
    let (error, half) = match job(runtime, folder, expressions) {
        Ok(values) => {
            return Ok(values
                .into_iter()
                .map(|value| json!({ "value": value }))
                .collect());
        }
        Err(error) => (error, expressions.len() / 2),
    };
    if half == 0 {
        return Ok(vec![json!({ "error": error.to_string() })]);
    }
    let (first, second) = expressions.split_at(half);
    let mut answers = evaluate(runtime, folder, first)?;
    answers.extend(evaluate(runtime, folder, second)?);
    Ok(answers)
}

fn job(
    runtime: &Runtime,
    folder: &Path,
    expressions: &[String],
) -> Result<Vec<Option<String>>, Failure> {
    let (output_dir, spill_dir) = (folder.join("out"), folder.join("spill"));
    for folder in [&output_dir, &spill_dir] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir(folder)?;
    }
    let columns = expressions.iter().enumerate();
    let columns: Vec<String> = columns
        .map(|(number, expression)| format!("CAST({expression} AS VARCHAR) AS c{number}"))
        .collect();
    let names = (0..expressions.len()).map(|number| format!("c{number}"));
    let schema = names.map(|name| Column::nullable(name, ColumnType::String));
    let spec = JobSpec {
        sql: format!("INSERT INTO kpi.figures SELECT {};", columns.join(",\n")),
        inputs: Vec::new(),
        outputs: vec![DeclaredTable {
            table: "kpi.figures".parse()?,
            schema: TableSchema::new(schema.collect(), Vec::new())?,
        }],
        output_dir: output_dir.clone(),
        resources: Resources {
            memory_limit_bytes: 256 << 20,
            target_partitions: 1,
            spill_dir,
            spill_limit_bytes: 1 << 30,
        },
        parameters: Default::default(),
        timeout_ms: None,
    };
    runtime.block_on(run_job(&spec))?;
    row(&output_dir.join("kpi.figures"))
}

/// The values of the only row in a folder of files.
fn row(folder: &Path) -> Result<Vec<Option<String>>, Failure> {
    let entry = fs::read_dir(folder)?
        .next()
        .ok_or("a job writes a file")??;
    let mut reader = StreamReader::try_new_buffered(fs::File::open(entry.path())?, None)?;
    let batch = reader.next().ok_or("a query without rows gives one")??;
    let value = |column: &datafusion::arrow::array::ArrayRef| {
        let column = datafusion::arrow::compute::cast(column, &DataType::Utf8)?;
        let texts = column.as_string::<i32>();
        let present = texts.iter().next().flatten();
        Ok(present.map(str::to_owned))
    };
    batch.columns().iter().map(value).collect()
}
