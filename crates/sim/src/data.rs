//! Datasets and checkpoints: staged on the disk of the agent's host, committed once for each decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use barecount_agent::{
    Artifacts, DataError, DataPlane, Files, Letters, Located, StagedOutput, StagingWatch,
};
use barecount_api::assignment::Assignment;
use barecount_model::{
    id::TaskId,
    pipeline::Output,
    plan::{InputPlan, Pin, WorkPlan},
    run::outcome::{CommittedDataset, Staged, StagedCheckpoint, StagedDataset},
};
use barecount_runner::launch::AttemptToken;
use serde_json::{Value, json};

use crate::{dice::Dice, disk::WorldDisk, site::Site};

/// Everything that is committed. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Tables(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    dice: Dice,
    healthy: bool,
    /// By dataset, the attempts that wrote its versions.
    versions: BTreeMap<String, Vec<String>>,
    /// What cannot be committed, ever: its schema does not fit the table's.
    stuck: BTreeSet<String>,
    saved: BTreeMap<TaskId, Saved>,
    wrong: Option<String>,
}

/// The checkpoint of a task.
#[derive(Debug, Default)]
struct Saved {
    /// How far the work has come.
    steps: u64,
    /// The last attempt that was given it.
    given_to: u32,
}

/// The same, as the agent on one host sees them.
#[derive(Debug)]
pub(crate) struct SiteTables {
    pub(crate) tables: Tables,
    pub(crate) disk: WorldDisk,
}

/// Why a decision was not rolled forward.
pub(crate) enum Unrolled {
    /// It failed this time.
    Failed(String),
    /// It fails every time.
    Stuck,
    /// What was decided for is not there.
    Gone(String),
}

impl Tables {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            healthy: false,
            versions: BTreeMap::new(),
            stuck: BTreeSet::new(),
            saved: BTreeMap::new(),
            wrong: None,
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

    /// What should never have been asked, if anything was.
    pub(crate) fn wrong(&self) -> Option<String> {
        self.state().wrong.clone()
    }

    fn fails(&self, of_thousand: u64) -> bool {
        let mut state = self.state();
        !state.healthy && state.dice.chance(of_thousand)
    }

    /// Makes all datasets of a decision versions of their tables. Idempotent.
    pub(crate) fn roll_forward(
        &self,
        site: &Site,
        token: &AttemptToken,
        staged: &Staged,
    ) -> Result<Vec<CommittedDataset>, Unrolled> {
        let mut committed = Vec::new();
        for dataset in &staged.datasets {
            if self.fails(150) {
                return Err(Unrolled::Failed(format!("{} is busy", dataset.dataset)));
            }
            let version = self.version(site, token, dataset)?;
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

    fn version(
        &self,
        site: &Site,
        token: &AttemptToken,
        dataset: &StagedDataset,
    ) -> Result<usize, Unrolled> {
        let writer = dataset.commit.as_str().unwrap_or_default();
        let mut state = self.state();
        let versions = state.versions.get(&dataset.dataset);
        let known = versions.and_then(|found| found.iter().position(|by| by == writer));
        if let Some(known) = known {
            return Ok(known);
        }
        if state.stuck.contains(writer) {
            return Err(Unrolled::Stuck);
        }
        if !state.healthy && state.dice.chance(20) {
            state.stuck.insert(writer.to_owned());
            return Err(Unrolled::Stuck);
        }
        let gone = || {
            let what = format!("what {writer} staged for {}", dataset.dataset);
            Unrolled::Gone(what)
        };
        let path = site.folders.staged(token).join(&dataset.dataset);
        if site.gone {
            return Err(gone());
        }
        match site.disk.read(&path) {
            Ok(found) if found == writer.as_bytes() => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Unrolled::Failed(error.to_string()));
            }
            _ => return Err(gone()),
        }
        let versions = state.versions.entry(dataset.dataset.clone()).or_default();
        versions.push(writer.to_owned());
        Ok(versions.len() - 1)
    }
}

fn host(message: &str) -> DataError {
    DataError::Host {
        code: "BC0612",
        message: message.to_owned(),
    }
}

#[async_trait]
impl DataPlane for SiteTables {
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
        let token = assignment.attempt.token();
        let dataset = output.dataset.to_string();
        let commit = token.to_string();
        self.disk
            .write_durably(&staging.join(&dataset), commit.as_bytes())
            .and_then(|()| self.disk.sync_folder(staging))
            .map_err(|error| host(&error.to_string()))?;
        tokio::task::yield_now().await;
        Ok(StagedOutput {
            dataset: StagedDataset {
                dataset,
                rows: 1,
                bytes: 1,
                digest: String::new(),
                commit: json!(commit),
            },
            tests: Value::Null,
        })
    }

    async fn dead_letters(&self, _: &Assignment, _: &Path, _: &Letters) -> Result<(), DataError> {
        Ok(())
    }

    async fn provide_checkpoint(
        &self,
        assignment: &Assignment,
        _: &Path,
    ) -> Result<Option<String>, DataError> {
        tokio::task::yield_now().await;
        if self.tables.fails(20) {
            return Err(host("the disk does not answer"));
        }
        let (task, number) = (assignment.attempt.task.clone(), assignment.attempt.number);
        let mut state = self.tables.state();
        let saved = state.saved.entry(task.clone()).or_default();
        let (steps, given_to) = (saved.steps, saved.given_to);
        saved.given_to = number.max(given_to);
        if number < given_to {
            let what = format!("attempt {number} of {task} begins after attempt {given_to}");
            state.wrong.get_or_insert(what);
        }
        Ok((steps > 0).then(|| steps.to_string()))
    }

    async fn stage_checkpoint(
        &self,
        _: &Assignment,
        _: &Path,
        _: &Path,
    ) -> Result<Option<StagedCheckpoint>, DataError> {
        Ok(None)
    }

    async fn hand_on_checkpoint(&self, assignment: &Assignment, _: &Path) -> Result<(), DataError> {
        tokio::task::yield_now().await;
        if self.tables.fails(50) {
            return Err(host("the disk does not answer"));
        }
        let (task, number) = (assignment.attempt.task.clone(), assignment.attempt.number);
        let mut state = self.tables.state();
        let saved = state.saved.entry(task.clone()).or_default();
        saved.steps += 1;
        let given_to = saved.given_to;
        if number < given_to {
            let what = format!("attempt {number} of {task} saves over attempt {given_to}");
            state.wrong.get_or_insert(what);
        }
        Ok(())
    }

    async fn job(&self, _: &Assignment, _: &Path) -> Result<Value, DataError> {
        Ok(Value::Null)
    }
}

#[async_trait]
impl Artifacts for SiteTables {
    async fn locate(&self, _: &WorkPlan, _: &[Pin]) -> Result<Located, DataError> {
        tokio::task::yield_now().await;
        Ok(Located {
            artifact: "/nonexistent".into(),
            drivers: BTreeMap::new(),
        })
    }
}
