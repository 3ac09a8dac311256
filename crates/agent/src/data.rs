//! What an agent needs of datasets and artifacts, as it needs it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use barecount_api::assignment::Assignment;
use barecount_model::{
    codes,
    lack::is_of_host,
    pipeline::Output,
    plan::{InputPlan, Pin, WorkPlan},
    run::outcome::{Failure, FailureKind, StagedCheckpoint, StagedDataset},
};

use crate::{letters::Letters, live::StagingWatch, refused::AccessError};

/// What one output of an attempt became in staging.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedOutput {
    /// The dataset, durable in staging.
    pub dataset: StagedDataset,
    /// Results of the acceptance tests, for evidence.
    pub tests: serde_json::Value,
}

/// Why an input could not be provided or an output not be staged.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The data is at fault, or a test on it failed: a retry would meet the same data.
    #[error("{message}")]
    Data {
        /// The error code.
        code: &'static str,
        /// What happened, for a person.
        message: String,
    },
    /// The work left something that is no output at all.
    #[error("{message}")]
    Work {
        /// The error code.
        code: &'static str,
        /// What happened, for a person.
        message: String,
    },
    /// The attempt's identity does not open what was asked for.
    #[error(transparent)]
    Refused(#[from] AccessError),
    /// The host failed: a full disk, a missing file of ours.
    #[error("{message}")]
    Host {
        /// The error code.
        code: &'static str,
        /// What happened, for a person.
        message: String,
    },
}

impl DataError {
    /// The same, as this host's failure where that is what brought it about ([`is_of_host`]).
    #[must_use]
    pub fn unless_of_host(self, cause: &(dyn std::error::Error + 'static)) -> Self {
        match self {
            Self::Data { message, .. } | Self::Work { message, .. } if is_of_host(cause) => {
                Self::Host {
                    code: codes::FOLDERS_FAILED.id,
                    message,
                }
            }
            other => other,
        }
    }

    /// The code of what happened, which has a page.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Data { code, .. } | Self::Work { code, .. } | Self::Host { code, .. } => code,
            Self::Refused(refused) => refused.code().id,
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let (kind, code, message) = match error {
            DataError::Data { code, message } => (FailureKind::Data, code, message),
            DataError::Work { code, message } => (FailureKind::Application, code, message),
            DataError::Host { code, message } => (FailureKind::Infrastructure, code, message),
            DataError::Refused(refused) => return refused.into(),
        };
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// Datasets, as an agent sees them.
#[async_trait]
pub trait DataPlane: Send + Sync {
    /// Puts an input where the attempt will read it, and says what exactly it is, for evidence.
    async fn provide(
        &self,
        input: &InputPlan,
        assignment: &Assignment,
        into: &Path,
    ) -> Result<serde_json::Value, DataError>;

    /// Takes what the attempt wrote for one declared output: checks every row against the schema,
    /// puts those that do not fit to the `letters`, makes the rest durable in `staging`, and runs the
    /// acceptance tests on it. Tells `watch` how far that is, and fails soon after the watch is
    /// stopped; how does not matter then.
    async fn stage(
        &self,
        output: &Output,
        assignment: &Assignment,
        written: &Path,
        staging: &Path,
        letters: &Letters,
        watch: &StagingWatch,
    ) -> Result<StagedOutput, DataError>;

    /// Puts records that the attempt itself set aside, by the task contract, to the `letters`.
    async fn dead_letters(
        &self,
        assignment: &Assignment,
        written: &Path,
        letters: &Letters,
    ) -> Result<(), DataError>;

    /// Puts what was saved last by the same stage and partition into the attempt's checkpoint
    /// folder, and says its digest; none if nothing was saved yet.
    async fn provide_checkpoint(
        &self,
        assignment: &Assignment,
        into: &Path,
    ) -> Result<Option<String>, DataError>;

    /// Makes what an attempt saved durable in `staging`. It counts when the decision that commits
    /// the attempt's outputs is rolled forward.
    async fn stage_checkpoint(
        &self,
        assignment: &Assignment,
        saved: &Path,
        staging: &Path,
    ) -> Result<Option<StagedCheckpoint>, DataError>;

    /// Keeps what an attempt saved that asks to be tried again, for the next attempt of its task.
    async fn hand_on_checkpoint(
        &self,
        assignment: &Assignment,
        saved: &Path,
    ) -> Result<(), DataError>;

    /// The job description for the engine, with paths as they are inside the sandbox.
    async fn job(
        &self,
        assignment: &Assignment,
        job: &Path,
    ) -> Result<serde_json::Value, DataError>;
}

/// Where the artifacts of an attempt are on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The unpacked image or package, or the job file.
    pub artifact: PathBuf,
    /// Unpacked driver bundles, by name.
    pub drivers: BTreeMap<String, PathBuf>,
}

/// Artifacts, as an agent sees them: verified against their pins, unpacked, read-only.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Finds what an attempt runs.
    async fn locate(&self, work: &WorkPlan, drivers: &[Pin]) -> Result<Located, DataError>;
}
