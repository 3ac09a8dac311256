//! Managed ETL beside the bare engine: the same SQL over the same files, in one run, best of
//! several.
//!
//! `etl [SCALE [REPEATS [MEMORY_MIB]]]` prints a JSON line a case: `ours_ms` is a whole job (read,
//! plan, settle ties, sort, write Parquet), `bare_ms` the same statements on a DataFusion session
//! of its own settings, whose results are written to Parquet in whatever order they come. Then a
//! line with the most memory that the process held: bare sessions included, which are not limited.
//! `SCALE` is of TPC-H's `lineitem`, 0.01 if not given; 0 leaves Q1 and Q6 out.

mod lineitem;
mod rates;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use barecount_dataset::schema::{Column, ColumnType, TableSchema};
use barecount_engine::job::{DeclaredTable, JobSpec, run_job};
use barecount_engine::session::{InputTable, Resources};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

const PARTITIONS: usize = 2;

const Q1: &str = "SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, \
    sum(l_extendedprice) AS sum_base_price, \
    sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price, \
    sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge, \
    avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, \
    count(*) AS count_order FROM tpch.lineitem WHERE l_shipdate <= DATE '1998-09-02' \
    GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus";

const Q6: &str = "SELECT sum(l_extendedprice * l_discount) AS revenue FROM tpch.lineitem \
    WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1995-01-01' \
    AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24";

/// Statements over one table.
struct Case {
    name: &'static str,
    scale: f64,
    input: InputTable,
    outputs: Vec<DeclaredTable>,
    sql: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let scale: f64 = arguments.next().map_or(Ok(0.01), |text| text.parse())?;
    let repeats: u32 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let memory_mib: u64 = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(PARTITIONS)
        .thread_stack_size(16 << 20)
        .enable_time()
        .build()?;
    for case in cases(folder.path(), scale)? {
        let (mut ours_ms, mut bare_ms) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..repeats.max(1) {
            let out = tempfile::tempdir_in(folder.path())?;
            let job = case.job(out.path(), memory_mib << 20)?;
            let started = Instant::now();
            runtime.block_on(run_job(&job))?;
            ours_ms = ours_ms.min(started.elapsed().as_secs_f64() * 1e3);
            let out = tempfile::tempdir_in(folder.path())?;
            let started = Instant::now();
            runtime.block_on(case.run_bare(out.path()))?;
            bare_ms = bare_ms.min(started.elapsed().as_secs_f64() * 1e3);
        }
        let line = serde_json::json!({
            "bench": "etl", "case": case.name, "scale": case.scale,
            "ours_ms": rounded(ours_ms), "bare_ms": rounded(bare_ms),
            "ratio": rounded(ours_ms / bare_ms),
        });
        print(&line);
    }
    print(&serde_json::json!({
        "bench": "etl", "memory_limit_mib": memory_mib, "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]
fn print(line: &serde_json::Value) {
    println!("{line}");
}

fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn cases(folder: &Path, scale: f64) -> Result<Vec<Case>, Box<dyn Error>> {
    let input = |table: &str, schema: TableSchema| -> Result<InputTable, Box<dyn Error>> {
        let path = folder.join(table);
        fs::create_dir(&path)?;
        Ok(InputTable {
            table: table.parse()?,
            path,
            schema,
        })
    };
    let example = input("gdp.fx_rates", rates::input_schema()?)?;
    rates::write(&example.path.join("part-00000.parquet"))?;
    let mut cases = vec![Case {
        name: "fx-rates",
        scale: 1.0,
        input: example,
        outputs: rates::outputs()?,
        sql: rates::script()?,
    }];
    if scale > 0.0 {
        let lineitem = input("tpch.lineitem", lineitem::schema()?)?;
        lineitem::write(&lineitem.path.join("part-00000.parquet"), scale)?;
        for (name, columns, query) in [("tpch-q1", q1_columns(), Q1), ("tpch-q6", q6_columns(), Q6)]
        {
            cases.push(Case {
                name,
                scale,
                input: lineitem.clone(),
                outputs: vec![DeclaredTable {
                    table: "tpch.result".parse()?,
                    schema: TableSchema::new(columns, vec![])?,
                }],
                sql: format!("INSERT INTO tpch.result {query}"),
            });
        }
    }
    Ok(cases)
}

fn decimal(scale: u8) -> ColumnType {
    ColumnType::Decimal {
        precision: 38,
        scale,
    }
}

fn q1_columns() -> Vec<Column> {
    let sums = [
        ("sum_qty", 2),
        ("sum_base_price", 2),
        ("sum_disc_price", 4),
        ("sum_charge", 6),
    ];
    let means = [("avg_qty", 6), ("avg_price", 6), ("avg_disc", 6)];
    let figures = sums.into_iter().chain(means);
    let mut columns = vec![
        Column::required("l_returnflag", ColumnType::String),
        Column::required("l_linestatus", ColumnType::String),
    ];
    columns.extend(figures.map(|(name, scale)| Column::required(name, decimal(scale))));
    columns.push(Column::required("count_order", ColumnType::Int64));
    columns
}

fn q6_columns() -> Vec<Column> {
    vec![Column::nullable("revenue", decimal(4))]
}

impl Case {
    fn job(&self, out: &Path, memory_limit_bytes: u64) -> Result<JobSpec, Box<dyn Error>> {
        let spill_dir: PathBuf = out.join("spill");
        fs::create_dir(&spill_dir)?;
        Ok(JobSpec {
            sql: self.sql.clone(),
            inputs: vec![self.input.clone()],
            outputs: self.outputs.clone(),
            output_dir: out.join("out"),
            resources: Resources {
                memory_limit_bytes,
                target_partitions: PARTITIONS,
                spill_dir,
                spill_limit_bytes: 8 << 30,
            },
            parameters: Default::default(),
            timeout_ms: None,
        })
    }

    /// The same statements on a session that nothing of ours touches.
    async fn run_bare(&self, out: &Path) -> Result<(), Box<dyn Error>> {
        let config = SessionConfig::new().with_target_partitions(PARTITIONS);
        let context = SessionContext::new_with_config(config);
        let layer = self.input.table.layer();
        context
            .sql(&format!("CREATE SCHEMA {layer}"))
            .await?
            .collect()
            .await?;
        let (table, path) = (
            self.input.table.to_string(),
            self.input.path.display().to_string(),
        );
        context
            .register_parquet(table, path, ParquetReadOptions::default())
            .await?;
        let script: String = self
            .sql
            .lines()
            .filter(|line| !line.starts_with("--"))
            .fold(String::new(), |script, line| script + line + "\n");
        for (number, statement) in script.split(';').enumerate() {
            let statement = statement.trim();
            if let Some(insert) = statement.strip_prefix("INSERT INTO ") {
                let (_, query) = insert
                    .split_once("SELECT")
                    .ok_or("an insert has no query")?;
                let file = out.join(format!("{number}.parquet")).display().to_string();
                let result = context.sql(&format!("SELECT{query}")).await?;
                let options = DataFrameWriteOptions::new().with_single_file_output(true);
                result.write_parquet(&file, options, None).await?;
            } else if !statement.is_empty() {
                context.sql(statement).await?.collect().await?;
            }
        }
        Ok(())
    }
}

/// The most memory that the process held, in MiB, where the kernel tells.
fn peak_rss_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes >> 10)
}
