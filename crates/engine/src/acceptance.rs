//! Acceptance tests: what must hold of a staged output before it is committed.

use std::sync::Arc;
use std::time::Duration;

use barecount_dataset::schema::{Column, ColumnType};
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as PlannedStatement;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, reason};
use crate::script::parse_query;
use crate::session::{InputTable, Resources, open, register, table};

/// The name under which SQL assertions see the staged output.
const OUTPUT: &str = "output";

/// A test, as the manifest declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AcceptanceTest {
    /// How many rows there are.
    RowCount {
        /// At least so many.
        #[serde(default)]
        min: Option<u64>,
        /// At most so many.
        #[serde(default)]
        max: Option<u64>,
    },
    /// No two rows are equal in all of these columns; nulls are equal to each other.
    Unique(Vec<String>),
    /// No value of these columns is null.
    NotNull(Vec<String>),
    /// Every value of a column lies between two bounds; nulls do not count.
    Range {
        /// The column.
        column: String,
        /// The least value, in the column's spelling.
        #[serde(default)]
        min: Option<String>,
        /// The greatest value, in the column's spelling.
        #[serde(default)]
        max: Option<String>,
    },
    /// A query whose only value must be true. It sees the staged output as `output`, and the
    /// task's inputs by their names.
    Sql {
        /// What the test is called.
        name: String,
        /// The query.
        assert: String,
    },
}

impl AcceptanceTest {
    /// What the test is called in results: `unique(month, currency)`.
    pub fn name(&self) -> String {
        let bound = |bound: &Option<String>| bound.clone().unwrap_or_default();
        match self {
            Self::RowCount { min, max } => {
                let bound = |bound: &Option<u64>| bound.map_or(String::new(), |n| n.to_string());
                format!("row_count({}..{})", bound(min), bound(max))
            }
            Self::Unique(columns) => format!("unique({})", columns.join(", ")),
            Self::NotNull(columns) => format!("not_null({})", columns.join(", ")),
            Self::Range { column, min, max } => {
                format!("range({column}, {}..{})", bound(min), bound(max))
            }
            Self::Sql { name, .. } => name.clone(),
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
    /// Datasets that SQL assertions may compare with.
    #[serde(default)]
    pub inputs: Vec<InputTable>,
    /// What the tests may use.
    pub resources: Resources,
    /// How long all of them may take together, in milliseconds.
    pub timeout_ms: u64,
}

/// The result of one test. It holds counts and bounds, never rows: it goes into evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResult {
    /// The test's name.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was found.
    pub observed: String,
    /// The query that found it.
    pub sql: String,
}

/// Puts tests to a staged output, in order; a test that cannot be evaluated has failed, and
/// `observed` says why. Needs a Tokio runtime; cancel-safe.
///
/// # Errors
/// If the session cannot be set up, a table not be opened, or time is up.
pub async fn check_acceptance(spec: &AcceptanceSpec) -> Result<Vec<TestResult>, EngineError> {
    let context = open(&spec.resources)?;
    for input in &spec.inputs {
        register(&context, input)?;
    }
    let output = table(&spec.output).and_then(|output| context.register_table(OUTPUT, output));
    output.map_err(|error| EngineError::Input {
        dataset: spec.output.table.to_string(),
        reason: reason(&error),
    })?;
    let all = async {
        let mut results = Vec::with_capacity(spec.tests.len());
        for test in &spec.tests {
            results.push(check(&context, spec, test).await);
        }
        results
    };
    let limit = Duration::from_millis(spec.timeout_ms);
    let timeout = |_| EngineError::Timeout {
        timeout_ms: spec.timeout_ms,
    };
    tokio::time::timeout(limit, all).await.map_err(timeout)
}

async fn check(
    context: &SessionContext,
    spec: &AcceptanceSpec,
    test: &AcceptanceTest,
) -> TestResult {
    let query = sql(spec, test);
    let (sql, outcome) = match query {
        Ok(sql) => {
            let outcome = evaluate(context, test, &sql).await;
            (sql, outcome)
        }
        Err(problem) => (String::new(), Err(problem)),
    };
    let (passed, observed) = outcome.unwrap_or_else(|problem| (false, problem));
    TestResult {
        name: test.name(),
        passed,
        observed,
        sql,
    }
}

/// The query of a test.
fn sql(spec: &AcceptanceSpec, test: &AcceptanceTest) -> Result<String, String> {
    let column = |name: &String| {
        let column = spec.output.schema.column(name);
        column.ok_or_else(|| format!("the output has no column `{name}`"))
    };
    let names = |columns: &[String]| -> Result<Vec<String>, String> {
        if columns.is_empty() {
            return Err("no column is named".to_owned());
        }
        columns
            .iter()
            .map(|name| column(name).map(|_| quote(name)))
            .collect()
    };
    Ok(match test {
        AcceptanceTest::RowCount { .. } => format!("SELECT count(*) FROM {OUTPUT}"),
        AcceptanceTest::Unique(columns) => {
            let keys = names(columns)?.join(", ");
            format!(
                "SELECT count(*), coalesce(sum(n), 0) FROM \
                 (SELECT count(*) AS n FROM {OUTPUT} GROUP BY {keys} HAVING count(*) > 1)"
            )
        }
        AcceptanceTest::NotNull(columns) => {
            let nulls = names(columns)?.join(" IS NULL OR ");
            format!("SELECT count(*) FROM {OUTPUT} WHERE {nulls} IS NULL")
        }
        AcceptanceTest::Range {
            column: name,
            min,
            max,
        } => {
            let declared = column(name)?;
            let quoted = quote(name);
            let mut outside = Vec::new();
            for (bound, operator) in [(min, "<"), (max, ">")] {
                if let Some(bound) = bound {
                    outside.push(format!("{quoted} {operator} {}", literal(bound, declared)));
                }
            }
            if outside.is_empty() {
                return Err("a range needs a bound".to_owned());
            }
            format!(
                "SELECT count(*) FILTER (WHERE {}), min({quoted}), max({quoted}) FROM {OUTPUT}",
                outside.join(" OR ")
            )
        }
        AcceptanceTest::Sql { assert, .. } => assert.clone(),
    })
}

async fn evaluate(
    context: &SessionContext,
    test: &AcceptanceTest,
    sql: &str,
) -> Result<(bool, String), String> {
    let statement = parse_query(sql).map_err(|error| error.to_string())?;
    let row = first_row(context, statement)
        .await
        .map_err(|error| reason(&error))?;
    let Some(row) = row else {
        return Err("the query must give exactly one row".to_owned());
    };
    let number = |place: usize| row.column(place).as_primitive::<Int64Type>().value(0);
    Ok(match test {
        AcceptanceTest::RowCount { min, max } => {
            let rows = u64::try_from(number(0)).unwrap_or(0);
            let passed = min.is_none_or(|min| rows >= min) && max.is_none_or(|max| rows <= max);
            (passed, format!("{rows} rows"))
        }
        AcceptanceTest::Unique(_) => (
            number(0) == 0,
            format!("{} keys in {} rows more than once", number(0), number(1)),
        ),
        AcceptanceTest::NotNull(_) => (number(0) == 0, format!("{} rows with a null", number(0))),
        AcceptanceTest::Range { .. } => {
            let bound = |place: usize| array_value_to_string(row.column(place), 0);
            let (low, high) = (bound(1), bound(2));
            let (low, high) = (low.unwrap_or_default(), high.unwrap_or_default());
            (
                number(0) == 0,
                format!("{} values outside, all from {low} to {high}", number(0)),
            )
        }
        AcceptanceTest::Sql { .. } => return assertion(&row),
    })
}

fn assertion(row: &RecordBatch) -> Result<(bool, String), String> {
    let [value] = row.columns() else {
        return Err(format!(
            "the query must give one column, not {}",
            row.num_columns()
        ));
    };
    if value.data_type() != &DataType::Boolean {
        return Err(format!(
            "the query must give true or false, not {}",
            value.data_type()
        ));
    }
    let value = value.as_boolean();
    Ok(
        match (value.is_valid(0), value.is_valid(0) && value.value(0)) {
            (true, passed) => (passed, passed.to_string()),
            (false, _) => (false, "null".to_owned()),
        },
    )
}

/// The only row of a query's result; `None` if there is none, or there are more.
async fn first_row(
    context: &SessionContext,
    statement: datafusion::sql::sqlparser::ast::Statement,
) -> Result<Option<RecordBatch>, DataFusionError> {
    let statement = PlannedStatement::Statement(Box::new(statement));
    let plan = context.state().statement_to_plan(statement).await?;
    let result = DataFrame::new(context.state(), plan).limit(0, Some(2))?;
    let schema = Arc::clone(result.schema().inner());
    let batches = result.collect().await?;
    let rows = datafusion::arrow::compute::concat_batches(&schema, &batches)?;
    Ok((rows.num_rows() == 1).then_some(rows))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A bound as a literal of the column's type.
fn literal(bound: &str, column: &Column) -> String {
    let text = format!("'{}'", bound.replace('\'', "''"));
    let sql_type = match column.column_type {
        ColumnType::String | ColumnType::Binary => return text,
        ColumnType::Int64 => "BIGINT".to_owned(),
        ColumnType::Float64 => "DOUBLE".to_owned(),
        ColumnType::Decimal { precision, scale } => format!("DECIMAL({precision}, {scale})"),
        ColumnType::Date => "DATE".to_owned(),
        ColumnType::Timestamp => "TIMESTAMP".to_owned(),
        ColumnType::Bool => "BOOLEAN".to_owned(),
    };
    format!("CAST({text} AS {sql_type})")
}
