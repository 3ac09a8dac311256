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
use crate::plan;
use crate::script::{Action, JobStatement, Place, parse};
use crate::session::{InputTable, Resources, open, register};

/// An output of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputTable {
    /// The dataset that `INSERT INTO` names.
    pub table: DatasetName,
    /// Its columns and partitions.
    pub schema: TableSchema,
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
    pub outputs: Vec<OutputTable>,
    /// The folder in which each output gets a folder `<layer>.<name>`.
    pub output_dir: PathBuf,
    /// What it may use.
    pub resources: Resources,
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
/// Files are written as `<output_dir>/<layer>.<name>/part-<statement>.parquet`, with all columns
/// and sorted by all of them. Inputs that hold equal rows give equal bytes, whatever the number of
/// partitions, the division of the inputs into files, and the memory. Needs a Tokio runtime with
/// time; cancelled by dropping, which leaves files behind that nobody commits.
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
    let statements = parse(&spec.sql)?;
    let context = open(&spec.resources)?;
    for input in &spec.inputs {
        register(&context, input)?;
    }
    let mut inserts = Vec::new();
    for statement in statements {
        inserts.extend(prepare(&context, spec, statement).await?);
    }
    let is_written = |output: &&OutputTable| inserts.iter().any(|i| i.output.table == output.table);
    if let Some(missing) = spec.outputs.iter().find(|output| !is_written(output)) {
        return Err(EngineError::Unwritten {
            dataset: missing.table.to_string(),
        });
    }
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

/// An insert that is planned.
struct Insert<'a> {
    place: Place,
    output: &'a OutputTable,
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

/// Creates a view, or plans an insert.
async fn prepare<'a>(
    context: &SessionContext,
    spec: &'a JobSpec,
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
    let output = spec.outputs.iter().find(|o| o.table.to_string() == dataset);
    let output = output.ok_or_else(|| EngineError::Forbidden {
        number,
        line,
        reason: format!("`{dataset}` is not a declared output"),
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
    let path = folder.join(format!("part-{:05}.parquet", place.number));
    let rows = output::write(Arc::clone(&plan), task, &output.schema, &path).await?;
    metrics.add_plan(plan.as_ref());
    Ok(rows)
}
