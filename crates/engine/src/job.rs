//! SQL jobs: a script of `CREATE VIEW` and `INSERT INTO` statements over declared datasets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use barecount_dataset::name::TableName;
use barecount_dataset::schema::TableSchema;
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as PlannedStatement;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, is_exhausted, reason};
use crate::metrics::Metrics;
use crate::output;
use crate::script::{Action, JobStatement, parse};
use crate::session::{InputTable, Resources, open, register};

/// An output of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputTable {
    /// The dataset that `INSERT INTO` names.
    pub table: TableName,
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
}

/// What a job did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// Rows written to each output.
    pub rows: BTreeMap<TableName, u64>,
    /// Figures of all statements together.
    pub metrics: Metrics,
}

/// Runs a job to its end, statement by statement.
///
/// Files are written as `<output_dir>/<layer>.<name>/part-<statement>.parquet`, with all columns
/// and in a fixed row order. Given equal inputs, a job gives equal rows, unless it sums floats in
/// parallel or asks the clock. Needs a Tokio runtime; cancelled by dropping, which leaves files
/// behind that nobody commits.
///
/// # Errors
/// The first statement that fails; see [`EngineError::exit_status`] for whose fault it is.
pub async fn run_job(spec: &JobSpec) -> Result<JobReport, EngineError> {
    let started = Instant::now();
    let statements = parse(&spec.sql)?;
    let context = open(&spec.resources)?;
    for input in &spec.inputs {
        register(&context, input)?;
    }
    let mut report = JobReport {
        rows: BTreeMap::new(),
        metrics: Metrics::default(),
    };
    for statement in statements {
        let (number, line) = (statement.number, statement.line);
        let failed = |error: DataFusionError| statement_error(number, line, &error);
        match &statement.action {
            Action::View => create_view(&context, statement).await.map_err(failed)?,
            Action::Insert { dataset, columns } => {
                let (dataset, columns) = (dataset.clone(), columns.clone());
                let output = spec.outputs.iter().find(|o| o.table.to_string() == dataset);
                let output = output.ok_or_else(|| EngineError::Forbidden {
                    number,
                    line,
                    reason: format!("`{dataset}` is not a declared output"),
                })?;
                let rows = insert(
                    &context,
                    spec,
                    output,
                    statement,
                    &columns,
                    &mut report.metrics,
                );
                *report.rows.entry(output.table.clone()).or_default() += rows.await?;
            }
        }
    }
    if let Some(missing) = spec
        .outputs
        .iter()
        .find(|o| !report.rows.contains_key(&o.table))
    {
        return Err(EngineError::Unwritten {
            dataset: missing.table.to_string(),
        });
    }
    report.metrics.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

async fn create_view(
    context: &SessionContext,
    statement: JobStatement,
) -> Result<(), DataFusionError> {
    let planned = PlannedStatement::Statement(Box::new(statement.statement));
    let plan = context.state().statement_to_plan(planned).await?;
    context.execute_logical_plan(plan).await.map(drop)
}

async fn insert(
    context: &SessionContext,
    spec: &JobSpec,
    output: &OutputTable,
    statement: JobStatement,
    columns: &[String],
    metrics: &mut Metrics,
) -> Result<u64, EngineError> {
    let (number, line) = (statement.number, statement.line);
    let failed = |error: DataFusionError| statement_error(number, line, &error);
    let query = PlannedStatement::Statement(Box::new(statement.statement));
    let plan = context
        .state()
        .statement_to_plan(query)
        .await
        .map_err(failed)?;
    let result = DataFrame::new(context.state(), plan);
    let aligned = output::align(result, columns, &output.schema).map_err(failed)?;
    let aligned = aligned.map_err(|difference| EngineError::Columns {
        number,
        line,
        dataset: output.table.to_string(),
        difference,
    })?;
    let task = std::sync::Arc::new(aligned.task_ctx());
    let plan = aligned.create_physical_plan().await.map_err(failed)?;
    let folder = spec.output_dir.join(output.table.to_string());
    let path = folder.join(format!("part-{number:05}.parquet"));
    let rows = output::write(std::sync::Arc::clone(&plan), task, &output.schema, &path)
        .await
        .map_err(failed)?;
    metrics.add_plan(plan.as_ref());
    Ok(rows)
}

fn statement_error(number: usize, line: u64, error: &DataFusionError) -> EngineError {
    let reason = reason(error);
    if is_exhausted(error) {
        EngineError::Resources {
            number,
            line,
            reason,
        }
    } else {
        EngineError::Statement {
            number,
            line,
            reason,
        }
    }
}
