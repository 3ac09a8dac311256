//! Acceptance tests: put to a staged output by the engine, in a sandbox of its own, because their
//! SQL is as foreign as the pipeline's other code.

use std::time::Duration;

use barecount_agent::{DataError, StagingWatch};
use barecount_api::assignment::Assignment;
use barecount_dataset::schema::TableSchema;
use barecount_engine::{
    acceptance::{AcceptanceSpec, AcceptanceTest, TestResult},
    process::{Request, Response},
    session::InputTable,
};
use barecount_model::{manifest, pipeline::Output};
use barecount_runner::launch::inside;
use serde_json::{Value, json};

use super::engine::{Answer, Engine, Question, engine_resources};

/// All tests of one output together may take so long.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What the tests of one output may use.
const MEMORY_BYTES: u64 = 1 << 30;

/// Puts acceptance tests.
pub(crate) struct Acceptance {
    engine: Engine,
}

impl Acceptance {
    /// Tests are put by such an engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Puts an output's tests to what is staged of it in `staging/<dataset>`, and answers with
    /// their results, for evidence. Ends them when the watch is stopped.
    ///
    /// # Errors
    /// [`DataError::Data`] if one of them does not hold.
    pub(super) async fn check(
        &self,
        output: &Output,
        table_schema: &TableSchema,
        assignment: &Assignment,
        staging: &std::path::Path,
        watch: &StagingWatch,
    ) -> Result<Value, DataError> {
        if output.tests.is_empty() {
            return Ok(json!([]));
        }
        let request = Request::Acceptance(AcceptanceSpec {
            tests: output.tests.iter().map(test).collect(),
            output: InputTable {
                table: output.dataset.clone(),
                path: std::path::Path::new(inside::INPUT).join(output.dataset.as_str()),
                schema: table_schema.clone(),
            },
            resources: engine_resources(MEMORY_BYTES, 4 << 30, 1),
            timeout_ms: TIMEOUT.as_millis().try_into().unwrap_or(u64::MAX),
        });
        let question = Question {
            what: "the tests",
            code: "BC0704",
            assignment,
            output,
            input: staging,
            request: &request,
            memory_bytes: MEMORY_BYTES,
            timeout: TIMEOUT,
        };
        let (asked, ()) = self.engine.ask(&question, |_| Ok(())).await?;
        let answered = tokio::select! {
            answered = asked.answer() => answered,
            () = watch.stopped() => Err(DataError::Host {
                code: "BC0704",
                message: "the tests were stopped".to_owned(),
            }),
        };
        asked.end().await;
        judge(output, answer(answered?)?)
    }
}

fn answer(answered: Answer) -> Result<Vec<TestResult>, DataError> {
    let code = "BC0704";
    match answered {
        Answer::Told(Response::Acceptance(results)) => Ok(results),
        Answer::Told(Response::Failed { message, .. }) => Err(DataError::Data { code, message }),
        Answer::OutOfMemory => {
            let mib = MEMORY_BYTES >> 20;
            let message = format!("the tests needed more than {mib} MiB of memory");
            Err(DataError::Data { code, message })
        }
        Answer::Told(_) => Err(DataError::Host {
            code,
            message: "the tests came to the result of something else".to_owned(),
        }),
    }
}

fn test(declared: &manifest::AcceptanceTest) -> AcceptanceTest {
    let names = |columns: &[barecount_model::text::ColumnName]| {
        columns.iter().map(ToString::to_string).collect()
    };
    match declared {
        manifest::AcceptanceTest::RowCount(test) => AcceptanceTest::RowCount {
            min: test.min,
            max: test.max,
        },
        manifest::AcceptanceTest::Unique(columns) => AcceptanceTest::Unique(names(columns)),
        manifest::AcceptanceTest::NotNull(columns) => AcceptanceTest::NotNull(names(columns)),
        manifest::AcceptanceTest::Range(test) => AcceptanceTest::Range {
            column: test.column.to_string(),
            min: test.min.clone(),
            max: test.max.clone(),
        },
        manifest::AcceptanceTest::Sql(test) => AcceptanceTest::Sql {
            name: test.name.clone(),
            assert: test.assert.clone(),
        },
    }
}

/// Results as evidence keeps them: counts and bounds, but none of the rows.
fn judge(output: &Output, results: Vec<TestResult>) -> Result<Value, DataError> {
    let failed: Vec<String> = results
        .iter()
        .filter(|result| !result.passed)
        .map(|result| {
            let TestResult {
                name,
                observed,
                expected,
                ..
            } = result;
            let keys = keys(output, result);
            format!("{name}: found {observed}{keys}, expected {expected}")
        })
        .collect();
    if failed.is_empty() {
        let kept = results.iter().map(|result| {
            json!({
                "name": result.name, "passed": result.passed, "observed": result.observed,
                "expected": result.expected,
            })
        });
        return Ok(kept.collect());
    }
    Err(DataError::Data {
        code: "BC0704",
        message: format!(
            "output {} does not hold what its acceptance tests ask for: {}; nothing of this \
             attempt was committed",
            output.dataset,
            failed.join("; ")
        ),
    })
}

/// The first keys that are there more than once, where a test on keys has failed. Values of columns
/// that are sensitive are told to nobody.
fn keys(output: &Output, result: &TestResult) -> String {
    let is_of_keys = output.tests.iter().any(|declared| {
        let manifest::AcceptanceTest::Unique(columns) = declared else {
            return false;
        };
        let is_sensitive = |name: &barecount_model::text::ColumnName| {
            let column = output.column(name.as_str());
            column.is_none_or(|column| column.sensitive)
        };
        test(declared).name() == result.name && !columns.iter().any(is_sensitive)
    });
    if !is_of_keys || result.sample.is_empty() {
        return String::new();
    }
    format!(", the first of them {}", result.sample.join("; "))
}
