//! Acceptance tests: put to a staged output by the engine, in a sandbox of its own, because their
//! SQL is as foreign as the pipeline's other code.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use barecount_agent::{DataError, StagingWatch};
use barecount_api::assignment::Assignment;
use barecount_dataset::schema::TableSchema;
use barecount_engine::{
    acceptance::{AcceptanceSpec, AcceptanceTest, TestResult},
    process::{Request, Response},
    session::InputTable,
};
use barecount_model::{class::Size, digest::Digest, id::TaskId, manifest, pipeline::Output};
use barecount_runner::{
    Runner, RunnerError,
    launch::{AttemptToken, End, Isolation, Launch, Limits, Places, Work, inside},
};
use serde_json::{Value, json};

use super::data::{blocking, engine_resources};
use crate::failure::chain;

/// All tests of one output together may take so long.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What the tests of one output may use.
const MEMORY_BYTES: u64 = 1 << 30;
/// The largest result that is read.
const MAX_RESULT_BYTES: u64 = 1 << 20;
/// Where the engine leaves its result, in its output folder.
pub(super) const RESULT: &str = ".engine.json";

/// Puts acceptance tests.
pub(crate) struct Acceptance {
    runner: Arc<dyn Runner>,
    folder: PathBuf,
}

impl Acceptance {
    /// Tests run on `runner`, which serves jobs; `folder` is for their files alone.
    pub(crate) fn new(runner: Arc<dyn Runner>, folder: PathBuf) -> Self {
        Self { runner, folder }
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
        let token = token(assignment, output);
        let results = tokio::select! {
            results = self.run(&request, &token, staging) => results,
            () = watch.stopped() => Err(DataError::Host {
                code: "BC0704",
                message: "the tests were stopped".to_owned(),
            }),
        };
        self.clean_up(&token).await;
        judge(output, results?)
    }

    async fn run(
        &self,
        request: &Request,
        token: &AttemptToken,
        staging: &std::path::Path,
    ) -> Result<Vec<TestResult>, DataError> {
        let launch = self.launch(request, token, staging)?;
        let handle = self
            .runner
            .launch(&launch)
            .await
            .map_err(|error| failed(&error))?;
        let ended = tokio::time::timeout(TIMEOUT, self.runner.wait(&handle)).await;
        let ended = match ended {
            Ok(ended) => ended.map_err(|error| failed(&error))?,
            Err(_) => {
                return Err(DataError::Data {
                    code: "BC0704",
                    message: format!("the tests took longer than {} s", TIMEOUT.as_secs()),
                });
            }
        };
        match read(&launch.places.output.join(RESULT)) {
            Some(Response::Acceptance(results)) => Ok(results),
            Some(Response::Failed { message, .. }) => Err(DataError::Data {
                code: "BC0704",
                message,
            }),
            _ if ended.end == End::OutOfMemory => Err(DataError::Data {
                code: "BC0704",
                message: format!(
                    "the tests needed more than {} MiB of memory",
                    MEMORY_BYTES >> 20
                ),
            }),
            _ => Err(DataError::Host {
                code: "BC0704",
                message: format!("the tests came to no result: {:?}", ended.end),
            }),
        }
    }

    fn launch(
        &self,
        request: &Request,
        token: &AttemptToken,
        staging: &std::path::Path,
    ) -> Result<Launch, DataError> {
        let folder = self.folder.join(token.to_string());
        let places = Places {
            input: staging.to_owned(),
            output: folder.join("output"),
            checkpoint: folder.join("checkpoint"),
            cache: None,
            drivers: BTreeMap::new(),
        };
        for place in [&places.output, &places.checkpoint] {
            std::fs::create_dir_all(place).map_err(|error| DataError::Host {
                code: "BC0612",
                message: format!("{} cannot be made: {error}", place.display()),
            })?;
        }
        let spec = serde_json::to_value(request).map_err(|error| DataError::Host {
            code: "BC0704",
            message: format!("the tests cannot be written down: {error}"),
        })?;
        Ok(Launch {
            token: token.clone(),
            size: Size::Small,
            work: Work::Job { spec },
            limits: Limits {
                memory_bytes: MEMORY_BYTES,
                cpu_millis: 2_000,
                pids: 256,
                open_files: 1_024,
                scratch_bytes: 64 << 20,
                log_bytes: 1 << 20,
            },
            places,
            env: BTreeMap::new(),
            isolation: Isolation::Sandbox,
            reuse: None,
            secrets: None,
            network: None,
            timeout: TIMEOUT,
            log: folder.join("log"),
        })
    }

    async fn clean_up(&self, token: &AttemptToken) {
        if let Err(error) = self.runner.destroy(token).await {
            tracing::warn!(%token, error = chain(&error), "tests could not be cleaned up");
        }
        let folder = self.folder.join(token.to_string());
        let removed =
            blocking(move || barecount_tree::remove(&folder, &barecount_tree::to_the_end)).await;
        let why = match removed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(error) => chain(&error),
        };
        // The next start removes it, or moves it aside.
        tracing::warn!(%token, why, "the folder of tests could not be removed");
    }
}

/// A token of its own: the attempt's may still name the attempt's sandbox.
fn token(assignment: &Assignment, output: &Output) -> AttemptToken {
    let attempt = &assignment.attempt;
    let text = format!("acceptance\n{}\n{}", attempt.token(), output.dataset);
    let digest = Digest::of(text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    AttemptToken {
        task: TaskId::from_bytes(bytes),
        number: attempt.number,
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

fn read(path: &std::path::Path) -> Option<Response> {
    use std::{io::Read, os::unix::fs::OpenOptionsExt};
    // Written inside the sandbox: neither a link nor something that blocks is followed.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
        .ok()?;
    let mut text = String::new();
    file.take(MAX_RESULT_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn failed(error: &RunnerError) -> DataError {
    DataError::Host {
        code: "BC0704",
        message: format!("the tests cannot be run: {}", chain(error)),
    }
}
