//! What can go wrong in a job, and whose fault it is.

use std::path::PathBuf;

use datafusion::common::DataFusionError;

/// The longest reason that is passed on from DataFusion, in characters.
const MAX_REASON: usize = 600;

/// Why a job or a test did not get done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The script cannot be read as SQL.
    #[error("the script is not valid SQL: {reason}")]
    Syntax {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A statement of a kind that jobs do not have.
    #[error("statement {number} (line {line}): {reason}")]
    Forbidden {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// What is allowed instead.
        reason: String,
    },
    /// A statement failed.
    #[error("statement {number} (line {line}): {reason}")]
    Statement {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// What DataFusion says, shortened.
        reason: String,
    },
    /// A statement needs more memory or spill space than it may have.
    #[error(
        "statement {number} (line {line}) needs more memory than the job's size gives it: {reason}"
    )]
    Resources {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// What DataFusion says, shortened.
        reason: String,
    },
    /// A statement's columns are not those of its output.
    #[error(
        "statement {number} (line {line}) does not give the columns of {dataset}: {difference}"
    )]
    Columns {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// The output.
        dataset: String,
        /// What differs.
        difference: String,
    },
    /// A declared output that no statement writes.
    #[error("no statement inserts into {dataset}")]
    Unwritten {
        /// The output.
        dataset: String,
    },
    /// An input cannot be opened.
    #[error("cannot open input {dataset}: {reason}")]
    Input {
        /// The input.
        dataset: String,
        /// Why.
        reason: String,
    },
    /// The session cannot be set up.
    #[error("cannot set up the engine: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
    /// An output cannot be written.
    #[error("cannot write `{path}`", path = path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Time is up.
    #[error("not done after {timeout_ms} ms")]
    Timeout {
        /// How long it was given.
        timeout_ms: u64,
    },
}

impl EngineError {
    /// The exit status that says whose fault it is: 65 the data (a schema that does not fit),
    /// 78 the way the job is set up, 1 the script.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Columns { .. } => 65,
            Self::Input { .. } | Self::Setup { .. } => 78,
            _ => 1,
        }
    }
}

/// DataFusion's reason in one line: without backtraces, contexts and its own prefixes.
pub(crate) fn reason(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::Diagnostic(_, inner) => inner.strip_backtrace(),
        root => root.strip_backtrace(),
    };
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = line.collect::<Vec<_>>().join(" ");
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Schema error: ",
        "SQL error: ",
    ] {
        if let Some(rest) = line.strip_prefix(prefix) {
            line = rest.to_owned();
        }
    }
    if line.chars().count() > MAX_REASON {
        line = line.chars().take(MAX_REASON).chain(['…']).collect();
    }
    line
}

/// Whether the error says that a limit on memory or spill space was reached.
pub(crate) fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}
