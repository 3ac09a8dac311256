//! Where a task finds its inputs and puts its outputs.
//!
//! A command is a fresh process and reads them from its environment. A handler's process stays
//! warm over many attempts, so its environment cannot name the folders of one of them; they come
//! with every event instead, beside the event itself.

use std::path::PathBuf;

use serde::Deserialize;

use crate::status::{Failure, Status};

/// What a handler is invoked with.
#[derive(Debug, Deserialize)]
pub struct Invocation<E> {
    /// The attempt that this invocation carries out.
    pub barecount: Attempt,
    /// What happened; `None` when the stage was started by its inputs.
    #[serde(default = "Option::default")]
    pub event: Option<E>,
}

/// The attempt, as far as the example's tasks look at it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Attempt {
    /// The task's name, for the log.
    pub task_id: String,
    /// The attempt's number, for the log.
    pub attempt: u64,
    /// One folder per input dataset.
    pub input_dir: PathBuf,
    /// One folder per output dataset, and `_dead_letters`.
    pub output_dir: PathBuf,
}

/// The places that a command finds in its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `BARECOUNT_INPUT_DIR`: one folder per input dataset.
    pub input_dir: PathBuf,
    /// `BARECOUNT_OUTPUT_DIR`: one folder per output dataset, and `_dead_letters`.
    pub output_dir: PathBuf,
}

/// A variable of the task contract is not set.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} is not set to readable text")]
pub struct MissingVariable {
    name: &'static str,
    source: std::env::VarError,
}

impl Failure for MissingVariable {
    fn status(&self) -> Status {
        Status::Config
    }
}

impl Places {
    /// Reads the places from the environment of this process.
    ///
    /// # Errors
    /// When one of the two variables is not set.
    pub fn from_environment() -> Result<Self, MissingVariable> {
        Ok(Self {
            input_dir: variable("BARECOUNT_INPUT_DIR")?.into(),
            output_dir: variable("BARECOUNT_OUTPUT_DIR")?.into(),
        })
    }
}

/// A variable of the task contract.
///
/// # Errors
/// When it is not set, or is not UTF-8.
pub fn variable(name: &'static str) -> Result<String, MissingVariable> {
    std::env::var(name).map_err(|source| MissingVariable { name, source })
}
