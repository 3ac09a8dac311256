//! Datasets: staged as files, committed once for each decision.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use barecount_agent::{
    Artifacts, DataError, DataPlane, Letters, Located, StagedOutput, StagingFolders, StagingWatch,
};
use barecount_api::assignment::Assignment;
use barecount_model::{
    pipeline::Output,
    plan::{InputPlan, Pin, WorkPlan},
    run::outcome::{CommittedDataset, Staged, StagedCheckpoint, StagedDataset},
};
use barecount_runner::launch::AttemptToken;
use serde_json::{Value, json};

use crate::dice::Dice;

/// Everything that is committed, and the disk of the agent's host as far as staging needs it.
#[derive(Debug, Clone)]
pub(crate) struct Tables(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    dice: Dice,
    healthy: bool,
    /// By dataset, the attempts that wrote its versions.
    versions: BTreeMap<String, Vec<String>>,
}

/// Why a decision was not rolled forward.
pub(crate) enum Unrolled {
    /// It failed this time.
    Failed(String),
    /// What was decided for is not there.
    Gone(String),
}

impl Tables {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            healthy: false,
            versions: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn heal(&self) {
        self.state().healthy = true;
    }

    pub(crate) fn versions(&self) -> BTreeMap<String, Vec<String>> {
        self.state().versions.clone()
    }

    fn fails(&self, of_thousand: u64) -> bool {
        let mut state = self.state();
        !state.healthy && state.dice.chance(of_thousand)
    }

    /// Makes all datasets of a decision versions of their tables. Idempotent.
    pub(crate) fn roll_forward(
        &self,
        folders: &StagingFolders,
        token: &AttemptToken,
        staged: &Staged,
    ) -> Result<Vec<CommittedDataset>, Unrolled> {
        let mut committed = Vec::new();
        for dataset in &staged.datasets {
            if self.fails(150) {
                return Err(Unrolled::Failed(format!("{} is busy", dataset.dataset)));
            }
            let writer = dataset.commit.as_str().unwrap_or_default().to_owned();
            let file = folders.staged(token).join(&dataset.dataset);
            let mut state = self.state();
            let versions = state.versions.entry(dataset.dataset.clone()).or_default();
            let version = match versions.iter().position(|known| *known == writer) {
                Some(known) => known,
                None => {
                    let found = std::fs::read_to_string(&file);
                    if !found.is_ok_and(|found| found == writer) {
                        let what = format!("what {writer} staged for {}", dataset.dataset);
                        return Err(Unrolled::Gone(what));
                    }
                    versions.push(writer);
                    versions.len() - 1
                }
            };
            committed.push(CommittedDataset {
                dataset: dataset.dataset.clone(),
                uri: String::new(),
                version: version as u64,
                rows: dataset.rows,
                bytes: dataset.bytes,
                digest: dataset.digest.clone(),
            });
        }
        Ok(committed)
    }
}

fn host(message: &str) -> DataError {
    DataError::Host {
        code: "BC0612",
        message: message.to_owned(),
    }
}

#[async_trait]
impl DataPlane for Tables {
    async fn provide(&self, _: &InputPlan, _: &Assignment, _: &Path) -> Result<Value, DataError> {
        Ok(Value::Null)
    }

    async fn stage(
        &self,
        output: &Output,
        assignment: &Assignment,
        _: &Path,
        staging: &Path,
        _: &Letters,
        _: &StagingWatch,
    ) -> Result<StagedOutput, DataError> {
        tokio::task::yield_now().await;
        if self.fails(40) {
            return Err(host("the disk is full"));
        }
        let (dataset, token) = (output.dataset.to_string(), assignment.attempt.token());
        std::fs::write(staging.join(&dataset), token.to_string())
            .map_err(|error| host(&error.to_string()))?;
        tokio::task::yield_now().await;
        Ok(StagedOutput {
            dataset: StagedDataset {
                dataset,
                rows: 1,
                bytes: 1,
                digest: String::new(),
                commit: json!(token.to_string()),
            },
            tests: Value::Null,
        })
    }

    async fn dead_letters(&self, _: &Assignment, _: &Path, _: &Letters) -> Result<(), DataError> {
        Ok(())
    }

    async fn provide_checkpoint(
        &self,
        _: &Assignment,
        _: &Path,
    ) -> Result<Option<String>, DataError> {
        tokio::task::yield_now().await;
        if self.fails(20) {
            return Err(host("the disk does not answer"));
        }
        Ok(None)
    }

    async fn stage_checkpoint(
        &self,
        _: &Assignment,
        _: &Path,
        _: &Path,
    ) -> Result<Option<StagedCheckpoint>, DataError> {
        Ok(None)
    }

    async fn hand_on_checkpoint(&self, _: &Assignment, _: &Path) -> Result<(), DataError> {
        Ok(())
    }

    async fn job(&self, _: &Assignment, _: &Path) -> Result<Value, DataError> {
        Ok(Value::Null)
    }
}

#[async_trait]
impl Artifacts for Tables {
    async fn locate(&self, _: &WorkPlan, _: &[Pin]) -> Result<Located, DataError> {
        tokio::task::yield_now().await;
        Ok(Located {
            artifact: "/nonexistent".into(),
            drivers: BTreeMap::new(),
        })
    }
}
