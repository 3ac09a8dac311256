//! Acceptance tests: what must hold of a staged output before it is committed.
//!
//! The tests are those of the manifest, in its spelling. The output is all that they see.

mod query;

use std::time::Duration;

use barecount_dataset::schema::TableSchema;
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::common::{DataFusionError, Result as PlanResult};
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::Statement;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, is_exhausted, reason, shortened};
use crate::plan::plan_query;
use crate::script::parse_query;
use crate::session::{InputTable, Resources, open, register, table};

/// The name under which assertions see the staged output, beside the dataset's own.
const OUTPUT: &str = "output";
/// The most rows in a sample.
const SAMPLE_ROWS: usize = 3;
/// The longest row in a sample, in characters.
const SAMPLE_CHARS: usize = 200;

/// A test, as the manifest declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AcceptanceTest {
    /// How many rows there are; both bounds are included.
    RowCount {
        /// At least so many.
        #[serde(default)]
        min: Option<u64>,
        /// At most so many.
        #[serde(default)]
        max: Option<u64>,
    },
    /// No two rows agree in all of these columns; nulls agree with each other.
    Unique(Vec<String>),
    /// These columns have a value in every row.
    NotNull(Vec<String>),
    /// Every value of a column that is not null is in a range; both bounds are included. NaN is in
    /// no range.
    Range {
        /// The column: a number, a date or a timestamp.
        column: String,
        /// The least value, as text, so that no digit is lost.
        #[serde(default)]
        min: Option<String>,
        /// The greatest value, as text.
        #[serde(default)]
        max: Option<String>,
    },
    /// A query over the table `output` that gives one row with one boolean, and that true.
    Sql {
        /// What the test says, for people.
        name: String,
        /// The query.
        assert: String,
    },
}

impl AcceptanceTest {
    /// What the test is called in results: `unique(month, currency)`, or as its author named it.
    pub fn name(&self) -> String {
        let text = |bound: &Option<String>| bound.clone().unwrap_or_default();
        let number = |bound: &Option<u64>| bound.map_or(String::new(), |n| n.to_string());
        match self {
            Self::RowCount { min, max } => format!("row_count({}..{})", number(min), number(max)),
            Self::Unique(columns) => format!("unique({})", columns.join(", ")),
            Self::NotNull(columns) => format!("not_null({})", columns.join(", ")),
            Self::Range { column, min, max } => {
                format!("range({column}, {}..{})", text(min), text(max))
            }
            Self::Sql { name, .. } => name.clone(),
        }
    }

    /// What has to be observed, in words.
    fn expected(&self) -> String {
        fn bounds<T: std::fmt::Display>(min: &Option<T>, max: &Option<T>) -> String {
            match (min, max) {
                (Some(min), Some(max)) => format!("from {min} to {max}"),
                (Some(min), None) => format!("at least {min}"),
                (None, Some(max)) => format!("at most {max}"),
                (None, None) => "anything".to_owned(),
            }
        }
        match self {
            Self::RowCount { min, max } => format!("{} rows", bounds(min, max)),
            Self::Unique(columns) => format!("no two rows agree in {}", columns.join(", ")),
            Self::NotNull(columns) => format!("{} in every row", columns.join(", ")),
            Self::Range { column, min, max } => format!("{column} {}", bounds(min, max)),
            Self::Sql { .. } => "true".to_owned(),
        }
    }
}

/// Tests, and what they are put to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptanceSpec {
    /// The tests.
    pub tests: Vec<AcceptanceTest>,
    /// The staged output: its staging folder, as Parquet.
    pub output: InputTable,
    /// What the tests may use.
    pub resources: Resources,
    /// How long all of them may take together, in milliseconds.
    pub timeout_ms: u64,
}

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResult {
    /// The test's name.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was found: counts and bounds.
    pub observed: String,
    /// What should have been found.
    pub expected: String,
    /// The first of the rows that break it, at most three, each cut to 200 characters: `a: 1, b: x`.
    /// These are data, and do not belong into evidence.
    pub sample: Vec<String>,
}

/// Puts tests to a staged output, in order. The first result is always that of the test `schema`,
/// which needs no declaration: the files can be read, and have the declared columns. A test that
/// cannot be evaluated has failed, and `observed` says why. Needs a Tokio runtime with time;
/// cancel-safe.
///
/// # Errors
/// If the session cannot be set up, the folder not be opened, memory does not suffice, or time is
/// up.
pub async fn check_acceptance(spec: &AcceptanceSpec) -> Result<Vec<TestResult>, EngineError> {
    let context = open(&spec.resources)?;
    register(&context, &spec.output)?;
    let output = context.register_table(OUTPUT, table(&spec.output)?);
    output.map_err(|error| EngineError::Input {
        dataset: spec.output.table.to_string(),
        reason: reason(&error),
    })?;
    let all = async {
        let mut results = vec![check_schema(&context, &spec.output.schema).await?];
        for test in &spec.tests {
            results.push(check(&context, &spec.output.schema, test).await?);
        }
        Ok(results)
    };
    let timeout_ms = spec.timeout_ms;
    tokio::time::timeout(Duration::from_millis(timeout_ms), all)
        .await
        .unwrap_or(Err(EngineError::Timeout { timeout_ms }))
}

/// What a test found.
struct Finding {
    passed: bool,
    observed: String,
    sample: Vec<String>,
}

/// Why a test found nothing.
enum Obstacle {
    /// In words.
    Test(String),
    /// By DataFusion.
    Engine(DataFusionError),
}

impl From<DataFusionError> for Obstacle {
    fn from(error: DataFusionError) -> Self {
        Self::Engine(error)
    }
}

/// Reads all columns of all files as they are declared. Staging wrote them, so this finds what
/// happened to them since.
async fn check_schema(
    context: &SessionContext,
    schema: &TableSchema,
) -> Result<TestResult, EngineError> {
    let columns = schema.columns();
    let expected = columns
        .iter()
        .map(|c| format!("{} {}", c.name, c.column_type));
    let expected = expected.collect::<Vec<_>>().join(", ");
    let finding = read_columns(context, schema).await;
    result("schema".to_owned(), &expected, finding)
}

async fn read_columns(context: &SessionContext, schema: &TableSchema) -> Result<Finding, Obstacle> {
    let sql = query::count_columns(schema);
    let row = only_row(context, &sql).await?;
    let count = |place: usize| row.column(place).as_primitive::<Int64Type>().value(0);
    let rows = count(0);
    let required = schema
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, c)| !c.nullable);
    let nulls = required.filter(|(place, _)| count(place + 1) < rows);
    let nulls: Vec<_> = nulls.map(|(_, column)| column.name.as_str()).collect();
    Ok(Finding {
        passed: nulls.is_empty(),
        observed: match nulls[..] {
            [] => format!("{} columns as declared", schema.columns().len()),
            _ => format!("nulls in {}", nulls.join(", ")),
        },
        sample: Vec::new(),
    })
}

async fn check(
    context: &SessionContext,
    schema: &TableSchema,
    test: &AcceptanceTest,
) -> Result<TestResult, EngineError> {
    let finding = evaluate(context, schema, test).await;
    result(test.name(), &test.expected(), finding)
}

fn result(
    name: String,
    expected: &str,
    finding: Result<Finding, Obstacle>,
) -> Result<TestResult, EngineError> {
    let finding = match finding {
        Ok(finding) => finding,
        // Not the data's fault, and different with more memory: no result at all.
        Err(Obstacle::Engine(error)) if is_exhausted(&error) => {
            return Err(EngineError::Resources {
                what: format!("acceptance test `{name}`"),
                reason: reason(&error),
            });
        }
        Err(obstacle) => Finding {
            passed: false,
            observed: match obstacle {
                Obstacle::Test(problem) => shortened(&problem),
                Obstacle::Engine(error) => reason(&error),
            },
            sample: Vec::new(),
        },
    };
    Ok(TestResult {
        name: shortened(&name),
        passed: finding.passed,
        observed: finding.observed,
        expected: shortened(expected),
        sample: finding.sample,
    })
}

async fn evaluate(
    context: &SessionContext,
    schema: &TableSchema,
    test: &AcceptanceTest,
) -> Result<Finding, Obstacle> {
    let queries = query::of_test(schema, test).map_err(Obstacle::Test)?;
    let row = only_row(context, &queries.found).await?;
    let count = |place: usize| row.column(place).as_primitive::<Int64Type>().value(0);
    let text = |place: usize| array_value_to_string(row.column(place), 0).unwrap_or_default();
    let (passed, observed) = match test {
        AcceptanceTest::RowCount { min, max } => {
            let rows = u64::try_from(count(0)).unwrap_or(0);
            let passed = min.is_none_or(|min| rows >= min) && max.is_none_or(|max| rows <= max);
            (passed, format!("{rows} rows"))
        }
        AcceptanceTest::Unique(_) => (
            count(0) == 0,
            format!("{} keys in {} rows more than once", count(0), count(1)),
        ),
        AcceptanceTest::NotNull(_) => (count(0) == 0, format!("{} rows with a null", count(0))),
        AcceptanceTest::Range { .. } => (
            count(0) == 0,
            format!(
                "{} values outside, all from {} to {}",
                count(0),
                text(1),
                text(2)
            ),
        ),
        AcceptanceTest::Sql { .. } => assertion(&row).map_err(Obstacle::Test)?,
    };
    let sample = match queries.sample {
        Some(sql) if !passed => sample(context, &sql).await?,
        _ => Vec::new(),
    };
    Ok(Finding {
        passed,
        observed,
        sample,
    })
}

fn assertion(row: &RecordBatch) -> Result<(bool, String), String> {
    let [value] = row.columns() else {
        let columns = row.num_columns();
        return Err(format!("the query must give one column, not {columns}"));
    };
    match value.data_type() {
        DataType::Boolean if value.is_valid(0) => {
            let value = value.as_boolean().value(0);
            Ok((value, value.to_string()))
        }
        DataType::Boolean | DataType::Null => Ok((false, "null".to_owned())),
        other => Err(format!("the query must give true or false, not {other}")),
    }
}

/// The only row of a query's result.
async fn only_row(context: &SessionContext, sql: &str) -> Result<RecordBatch, Obstacle> {
    let statement = parse_query(sql).map_err(|error| Obstacle::Test(error.to_string()))?;
    let rows = rows(context, statement, 2).await?;
    if rows.num_rows() == 1 {
        return Ok(rows);
    }
    let found = if rows.num_rows() == 0 { "none" } else { "more" };
    let problem = format!("the query must give exactly one row, and gives {found}");
    Err(Obstacle::Test(problem))
}

/// The first rows of a query's result.
async fn rows(
    context: &SessionContext,
    statement: Statement,
    limit: usize,
) -> PlanResult<RecordBatch> {
    let plan = plan_query(context, statement).await?;
    let result = DataFrame::new(context.state(), plan).limit(0, Some(limit))?;
    let schema = std::sync::Arc::clone(result.schema().inner());
    let batches = result.collect().await?;
    Ok(concat_batches(&schema, &batches)?)
}

/// Offending rows, as text.
async fn sample(context: &SessionContext, sql: &str) -> Result<Vec<String>, Obstacle> {
    let statement = parse_query(sql).map_err(|error| Obstacle::Test(error.to_string()))?;
    let rows = rows(context, statement, SAMPLE_ROWS).await?;
    let describe = |row: usize| {
        let schema = rows.schema();
        let cells = schema.fields().iter().zip(rows.columns());
        let cells = cells.map(|(field, column)| {
            let value = match column.is_valid(row) {
                true => array_value_to_string(column, row).unwrap_or_default(),
                false => "null".to_owned(),
            };
            format!("{}: {value}", field.name())
        });
        let text = cells.collect::<Vec<_>>().join(", ");
        match text.char_indices().nth(SAMPLE_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    };
    Ok((0..rows.num_rows()).map(describe).collect())
}
