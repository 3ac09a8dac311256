//! Pipelines: held against the rules, built and run.

use std::{collections::BTreeMap, path::Path};

use barecount_api::{
    dataset::ReadBy,
    run::{RunRequest, RunView},
};
use barecount_control::governance::{Action, Explanation};
use barecount_model::{
    diagnostic::Diagnostic, lock::Lock, pipeline::Pipeline, plan::Pinned, run::Run,
    text::DatasetName, work::Why,
};

use crate::{
    failure::Failure,
    reporter::{Reporter, Watcher},
};

/// What becomes of a task.
pub enum Fate {
    /// It runs.
    Runs(Why),
    /// It runs if a task that it needs comes to something else than before.
    Depends(String),
    /// It has been done, by this run.
    Unchanged(String),
}

impl Fate {
    /// In a word: `runs`, `depends` or `unchanged`.
    pub fn does(&self) -> &'static str {
        match self {
            Self::Runs(_) => "runs",
            Self::Depends(_) => "depends",
            Self::Unchanged(_) => "unchanged",
        }
    }

    /// Why, in words.
    pub fn why(&self) -> String {
        match self {
            Self::Runs(why) => why.to_string(),
            Self::Depends(on) => format!("runs if {on} comes to something else than before"),
            Self::Unchanged(by) => format!("answered by run {by}"),
        }
    }
}

/// What would become of a run.
pub struct DryRun {
    /// The run as it would be submitted.
    pub run: Run,
    /// The run that is there already: it answers, or is taken up.
    pub existing: Option<Run>,
    /// What would become of each task.
    pub fates: Vec<Fate>,
    /// The datasets of other pipelines that it would read, each at its version.
    pub reads: BTreeMap<DatasetName, Pinned>,
    /// What governance says of it.
    pub decision: Explanation,
}

/// What was found of a manifest.
pub struct Checked {
    /// Everything that is wrong or doubtful.
    pub found: Vec<Diagnostic>,
    /// The same for a person, with the lines that it is about.
    pub rendered: Vec<String>,
    /// The stages of other pipelines that read what it writes, by the latest version of each that
    /// was run.
    pub read_by: Vec<ReadBy>,
    /// The pipeline, if it is one.
    pub pipeline: Option<Pipeline>,
}

/// Pipelines, by their manifests.
pub trait Pipelines {
    /// Runs a pipeline to its end, and tells how the run ended. Before there is a second thread.
    ///
    /// Ctrl-C cancels the run in good order; the second one ends the process.
    ///
    /// # Errors
    /// If the run could not be begun or not be followed to its end; a run that fails is none.
    fn run(&self, asked: &RunRequest, watcher: &dyn Watcher) -> Result<RunView, Failure>;

    /// What would run, and why. Nothing is changed.
    ///
    /// # Errors
    /// What would keep the run from starting; a refusal is none.
    fn dry_run(&self, asked: &RunRequest, reporter: &dyn Reporter) -> Result<DryRun, Failure>;

    /// Builds everything that a pipeline runs, and pins it. Before there is a second thread.
    ///
    /// # Errors
    /// Of the build; and if governance refuses to have the lock file written.
    fn build(&self, manifest: &Path, reporter: &dyn Reporter) -> Result<Lock, Failure>;

    /// What is wrong with a manifest, held against what the state holds. Nothing is changed.
    ///
    /// # Errors
    /// If it cannot be read, or the state not be looked into.
    fn check(&self, manifest: &Path) -> Result<Checked, Failure>;

    /// Whether something may be done to a pipeline here, by which policies, and what would change
    /// the answer.
    ///
    /// # Errors
    /// If the manifest or its environment is not valid; a refusal is none.
    fn explain(
        &self,
        manifest: &Path,
        action: Action,
        reporter: &dyn Reporter,
    ) -> Result<Explanation, Failure>;
}
