//! SQL jobs: a script of `CREATE VIEW` and `INSERT INTO` statements over declared datasets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use barecount_dataset::schema::TableSchema;
use barecount_model::text::DatasetName;
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, statement_error};
use crate::metrics::Metrics;
use crate::output;
use crate::parameters::Parameters;
use crate::plan;
use crate::process::on_own_thread;
use crate::script::{Action, JobStatement, Place, parse};
use crate::session::{InputTable, Resources, open, open_without_disk, register, register_empty};

/// How long planning may take before there is any data, in milliseconds.
pub(crate) const CHECK_TIMEOUT_MS: u64 = 10_000;

/// A dataset as a job's manifest declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredTable {
    /// The name that statements use.
    pub table: DatasetName,
    /// Its columns and partitions.
    pub schema: TableSchema,
}

/// A script that is to be planned, and not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// The script.
    pub sql: String,
    /// What it reads.
    pub inputs: Vec<DeclaredTable>,
    /// What it writes, all of it.
    pub outputs: Vec<DeclaredTable>,
    /// What it may name with a `$`.
    pub parameters: Parameters,
}

/// A job, with everything it may touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The script.
    pub sql: String,
    /// What it reads.
    pub inputs: Vec<InputTable>,
    /// What it writes, all of it.
    pub outputs: Vec<DeclaredTable>,
    /// The folder in which each output gets a folder `<layer>.<name>`.
    pub output_dir: PathBuf,
    /// What it may use.
    pub resources: Resources,
    /// What it may name with a `$`.
    #[serde(default)]
    pub parameters: Parameters,
    /// How long it may take, in milliseconds; without it, as long as the process lives.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// What a job did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// Rows written to each output.
    pub rows: BTreeMap<DatasetName, u64>,
    /// Figures of all statements together.
    pub metrics: Metrics,
}

/// Runs a job to its end, statement by statement. All statements are read and planned before the
/// first is carried out.
///
/// Files are written as `<output_dir>/<layer>.<name>/part-<statement>.arrows`, with all columns
/// and sorted by all of them. Inputs that hold equal rows give outputs that are staged as equal
/// bytes, whatever the number of partitions, the division of the inputs into files, and the memory.
/// Needs a Tokio runtime with time; cancelled by dropping, which leaves files behind that nobody
/// commits.
///
/// # Errors
/// The first statement that fails; see [`EngineError::kind`] for whose fault it is.
pub async fn run_job(spec: &JobSpec) -> Result<JobReport, EngineError> {
    match spec.timeout_ms {
        None => run(spec).await,
        Some(timeout_ms) => tokio::time::timeout(Duration::from_millis(timeout_ms), run(spec))
            .await
            .unwrap_or(Err(EngineError::Timeout { timeout_ms })),
    }
}

async fn run(spec: &JobSpec) -> Result<JobReport, EngineError> {
    let started = Instant::now();
    let statements = parse(&spec.sql, &spec.parameters)?;
    let context = open(&spec.resources)?;
    for input in &spec.inputs {
        register(&context, input)?;
    }
    let inserts = plan_all(&context, statements, &spec.outputs).await?;
    let mut report = JobReport {
        rows: BTreeMap::new(),
        metrics: Metrics::default(),
    };
    for insert in inserts {
        let table = insert.output.table.clone();
        let place = insert.place;
        let rows = carry_out(spec, insert, &mut report.metrics).await;
        let rows = rows.map_err(|error| statement_error(place, &error))?;
        *report.rows.entry(table).or_default() += rows;
    }
    report.metrics.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// Whether a script can be planned over tables of these columns, and writes all its outputs: what
/// [`run_job`] would find before it carries out the first statement. Reads and writes nothing.
///
/// Blocks, for ten seconds at most. A thread of its own plans, because statements may be deep; it
/// is left to itself when time is up. Constants are computed: what that takes is bounded by
/// [`check_jobs`](crate::check::check_jobs) alone.
///
/// # Errors
/// The first statement that cannot be planned, with its place where that is known.
pub fn check_job(job: CheckSpec) -> Result<(), EngineError> {
    let check = async move {
        let statements = parse(&job.sql, &job.parameters)?;
        let context = open_without_disk()?;
        for input in &job.inputs {
            register_empty(&context, input)?;
        }
        plan_all(&context, statements, &job.outputs).await.map(drop)
    };
    on_own_thread(Some(CHECK_TIMEOUT_MS), move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| EngineError::Setup {
            reason: error.to_string(),
        })?;
        runtime.block_on(check)
    })
}

/// Plans all statements; refuses a script that leaves an output unwritten.
async fn plan_all<'a>(
    context: &SessionContext,
    statements: Vec<JobStatement>,
    outputs: &'a [DeclaredTable],
) -> Result<Vec<Insert<'a>>, EngineError> {
    let mut inserts = Vec::new();
    for statement in statements {
        inserts.extend(prepare(context, outputs, statement).await?);
    }
    let is_written =
        |output: &&DeclaredTable| inserts.iter().any(|i| i.output.table == output.table);
    match outputs.iter().find(|output| !is_written(output)) {
        Some(missing) => Err(EngineError::Unwritten {
            dataset: missing.table.to_string(),
        }),
        None => Ok(inserts),
    }
}

/// An insert that is planned.
struct Insert<'a> {
    place: Place,
    output: &'a DeclaredTable,
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

/// Creates a view, or plans an insert.
async fn prepare<'a>(
    context: &SessionContext,
    outputs: &'a [DeclaredTable],
    statement: JobStatement,
) -> Result<Option<Insert<'a>>, EngineError> {
    let place = statement.place;
    let Place { number, line } = place;
    let failed = |error: DataFusionError| statement_error(place, &error);
    let (dataset, columns) = match statement.action {
        Action::View => {
            let created = plan::create_view(context, statement.statement).await;
            return created.map(|()| None).map_err(failed);
        }
        Action::Insert { dataset, columns } => (dataset, columns),
    };
    let output = outputs.iter().find(|o| o.table.to_string() == dataset);
    let output = output.ok_or_else(|| EngineError::Forbidden {
        number,
        line,
        reason: format!(
            "`{dataset}` is not a declared output; declared: {}",
            names(outputs)
        ),
    })?;
    let query = plan::plan_query(context, statement.statement).await;
    let result = DataFrame::new(context.state(), query.map_err(failed)?);
    let rows = output::align(result, &columns, &output.schema).map_err(failed)?;
    let rows = rows.map_err(|difference| EngineError::Columns {
        number,
        line,
        dataset,
        difference,
    })?;
    let task = Arc::new(rows.task_ctx());
    let plan = rows.create_physical_plan().await.map_err(failed)?;
    Ok(Some(Insert {
        place,
        output,
        plan,
        task,
    }))
}

fn names(tables: &[DeclaredTable]) -> String {
    let names = tables.iter().map(|table| format!("`{}`", table.table));
    names.collect::<Vec<_>>().join(", ")
}

async fn carry_out(
    spec: &JobSpec,
    insert: Insert<'_>,
    metrics: &mut Metrics,
) -> Result<u64, DataFusionError> {
    let Insert {
        place,
        output,
        plan,
        task,
    } = insert;
    let folder = spec.output_dir.join(output.table.to_string());
    let path = folder.join(format!("part-{:05}.arrows", place.number));
    output::write(plan, task, &output.schema, &path, metrics).await
}
