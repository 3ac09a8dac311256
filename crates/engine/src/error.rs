//! What can go wrong in a job, and whose fault it is.

use barecount_dataset::stage::StageError;
use barecount_model::lack::is_of_host;
use datafusion::common::DataFusionError;
use serde::{Deserialize, Serialize};

use crate::script::Place;

/// The longest reason that is passed on from DataFusion, in characters.
const MAX_REASON: usize = 600;

/// Whose fault it is that a job or a test did not get done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The script: it is not valid SQL, forbidden, names what there is not, or gives other columns
    /// than are declared.
    Script,
    /// The data: a value cannot be computed with, or a file cannot be read.
    Data,
    /// A statement failed on its way, nobody knows through whose fault.
    Execution,
    /// The way the job is set up: the request, a folder.
    Configuration,
    /// The job's size: neither memory nor spill space sufficed.
    OutOfMemory,
    /// The time that was given.
    Timeout,
    /// The host: an output or the result could not be written.
    Write,
    /// The engine: it panicked.
    Bug,
}

impl FailureKind {
    /// The exit status of the process, after `sysexits.h` where that has one: 65 the data, 78 the
    /// script or the configuration, 74 writing, 70 a bug. As of programs that were ended for it, 137
    /// says out of memory and, as `timeout` does, 124 out of time. 1 is everything else.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Execution => 1,
            Self::Data => 65,
            Self::Bug => 70,
            Self::Write => 74,
            Self::Script | Self::Configuration => 78,
            Self::Timeout => 124,
            Self::OutOfMemory => 137,
        }
    }
}

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
    /// Files of an output cannot be decoded.
    #[error(transparent)]
    Decoding {
        /// Why.
        source: StageError,
    },
    /// A statement cannot be planned: it names what there is not, or mixes types.
    #[error("statement {number} (line {line}): {reason}")]
    Statement {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// The line and column of the part that cannot be planned, if they are known.
        at: Option<(u64, u64)>,
        /// What DataFusion says, shortened.
        reason: String,
    },
    /// A statement met a value that it cannot compute with.
    #[error("statement {number} (line {line}) met a value that it cannot use: {reason}")]
    Value {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// What DataFusion says, shortened.
        reason: String,
    },
    /// A statement failed in another way.
    #[error("statement {number} (line {line}) failed: {reason}")]
    Execution {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// What DataFusion says, shortened.
        reason: String,
    },
    /// A statement or a test needs more memory or spill space than it may have.
    #[error("{what} needs more memory than its size gives it: {reason}")]
    Resources {
        /// `statement 2 (line 14)`, or the test.
        what: String,
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
    /// A file that a statement reads is not what it should be.
    #[error("statement {number} (line {line}) cannot read its input: {reason}")]
    Malformed {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// What the reader says, shortened.
        reason: String,
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
    /// A file of an input is broken, as its size alone shows.
    #[error("input {dataset} cannot be read: {reason}")]
    BrokenInput {
        /// The input.
        dataset: String,
        /// Which file, and why.
        reason: String,
    },
    /// An output cannot be written, or nothing can be spilled.
    #[error("statement {number} (line {line}) cannot write: {reason}")]
    Write {
        /// The statement's number, from 1.
        number: usize,
        /// The line it begins on.
        line: u64,
        /// What the system says.
        reason: String,
    },
    /// The engine has a bug, which this request shows.
    #[error("the engine panicked; its standard error says where")]
    Panicked,
    /// Time is up.
    #[error("not done after {timeout_ms} ms")]
    Timeout {
        /// How long it was given.
        timeout_ms: u64,
    },
}

impl EngineError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Value { .. } | Self::Malformed { .. } | Self::BrokenInput { .. } => {
                FailureKind::Data
            }
            Self::Decoding { source } if source.is_data_fault() => FailureKind::Data,
            Self::Decoding { source } if source.is_unread() => FailureKind::Write,
            Self::Execution { .. } | Self::Decoding { .. } => FailureKind::Execution,
            Self::Input { .. } | Self::Setup { .. } => FailureKind::Configuration,
            Self::Resources { .. } => FailureKind::OutOfMemory,
            Self::Timeout { .. } => FailureKind::Timeout,
            Self::Write { .. } => FailureKind::Write,
            Self::Panicked => FailureKind::Bug,
            _ => FailureKind::Script,
        }
    }

    /// Where in the script it is, as line and column from 1, if anything is known of it.
    pub fn place(&self) -> Option<(u64, u64)> {
        match self {
            Self::Syntax { reason } => place_told(reason),
            Self::Statement { at: Some(at), .. } => Some(*at),
            Self::Statement { line, .. }
            | Self::Forbidden { line, .. }
            | Self::Columns { line, .. }
            | Self::Value { line, .. }
            | Self::Execution { line, .. } => Some((*line, 1)),
            _ => None,
        }
    }

    /// The exit status that says so; see [`FailureKind::exit_status`].
    pub fn exit_status(&self) -> u8 {
        self.kind().exit_status()
    }
}

/// Where the text of a statement is at fault, as the planner noted it.
fn place_in_text(error: &DataFusionError) -> Option<(u64, u64)> {
    let start = error.diagnostic()?.span?.start;
    Some((start.line, start.column))
}

/// The place that the parser's words end with, as in `at Line: 3, Column: 14`.
fn place_told(reason: &str) -> Option<(u64, u64)> {
    let (_, place) = reason.rsplit_once("ine: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some((line.parse().ok()?, column.trim().parse().ok()?))
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
        "Arrow error: ",
        "Schema error: ",
        "SQL error: ",
    ] {
        if let Some(rest) = line.strip_prefix(prefix) {
            line = rest.to_owned();
        }
    }
    // The names of our making that tables without a dot and all others have in front.
    shortened(&line.replace("job.view.", "").replace("'job.", "'"))
}

/// A reason that is no longer than people read.
pub(crate) fn shortened(reason: &str) -> String {
    if reason.chars().count() > MAX_REASON {
        reason.chars().take(MAX_REASON).chain(['…']).collect()
    } else {
        reason.to_owned()
    }
}

/// A statement's failure, by its cause.
pub(crate) fn statement_error(place: Place, error: &DataFusionError) -> EngineError {
    let Place { number, line } = place;
    let reason = reason(error);
    if is_exhausted(error) {
        return EngineError::Resources {
            what: format!("statement {number} (line {line})"),
            reason,
        };
    }
    match error.find_root() {
        root if is_of_host(root) => EngineError::Write {
            number,
            line,
            reason,
        },
        DataFusionError::ParquetError(_) | DataFusionError::ObjectStore(_) => {
            EngineError::Malformed {
                number,
                line,
                reason,
            }
        }
        DataFusionError::IoError(_) => EngineError::Write {
            number,
            line,
            reason,
        },
        DataFusionError::ArrowError(..) => EngineError::Value {
            number,
            line,
            reason,
        },
        DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_) => EngineError::Statement {
            number,
            line,
            at: place_in_text(error),
            reason,
        },
        _ => EngineError::Execution {
            number,
            line,
            reason,
        },
    }
}

/// Whether the error says that a limit on memory or spill space was reached.
pub(crate) fn is_exhausted(error: &DataFusionError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let is_memory = matches!(
            error.downcast_ref(),
            Some(DataFusionError::ResourcesExhausted(_))
        );
        if is_memory || error.downcast_ref().is_some_and(is_spill_limit) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a writer of spilled rows was refused. DataFusion says so in words only, to which the
/// name of the setting belongs.
fn is_spill_limit(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::Other
        && error
            .to_string()
            .contains("datafusion.runtime.max_temp_directory_size")
}
