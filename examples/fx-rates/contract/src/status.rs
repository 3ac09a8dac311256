//! How a task says what kind of failure it met.
//!
//! A command says it with its exit code, a handler with the `errorType` of its error answer. Both
//! use the codes and names of `sysexits.h`, so that the platform decides about a retry, a dead
//! letter or neither in the same way for both.

use std::error::Error;

/// The kind of a failure, by the names of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The input is wrong, and will be wrong next time: no retry.
    DataErr,
    /// A program that this task relies on is missing or cannot be started.
    Unavailable,
    /// A file could not be read or written: an application failure, tried again.
    IoErr,
    /// The task was set up wrongly: a variable, a folder or a name is missing.
    Config,
}

impl Status {
    /// The exit code of a command.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::DataErr => 65,
            Self::Unavailable => 69,
            Self::IoErr => 74,
            Self::Config => 78,
        }
    }

    /// The `errorType` of a handler's error answer.
    #[must_use]
    pub fn error_type(self) -> &'static str {
        match self {
            Self::DataErr => "EX_DATAERR",
            Self::Unavailable => "EX_UNAVAILABLE",
            Self::IoErr => "EX_IOERR",
            Self::Config => "EX_CONFIG",
        }
    }
}

/// An error that knows which kind of failure it is.
pub trait Failure: Error {
    /// The kind.
    fn status(&self) -> Status;
}

/// The message of an error and of everything beneath it, outermost first.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
