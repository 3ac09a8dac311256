//! How the program says which kind of failure it met, by the names of `sysexits.h`: as the type of the
//! error that it answers, or, where there is nothing to answer, as its exit code.

use std::error::Error;

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// What the API answers is wrong, and will be wrong next time: no retry.
    DataErr,
    /// A file could not be read or written: an application failure.
    IoErr,
    /// The API is not well, or has had enough of us: another attempt goes on where this one stopped.
    TempFail,
    /// The API does not let this client in.
    NoPerm,
    /// A variable, a folder or a secret is missing.
    Config,
}

impl Status {
    /// The `errorType` of an error answer.
    pub(crate) fn error_type(self) -> &'static str {
        match self {
            Self::DataErr => "EX_DATAERR",
            Self::IoErr => "EX_IOERR",
            Self::TempFail => "EX_TEMPFAIL",
            Self::NoPerm => "EX_NOPERM",
            Self::Config => "EX_CONFIG",
        }
    }

    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::DataErr => 65,
            Self::IoErr => 74,
            Self::TempFail => 75,
            Self::NoPerm => 77,
            Self::Config => 78,
        }
    }
}

/// An error that knows which kind of failure it is.
pub(crate) trait Failure: Error {
    /// The kind.
    fn status(&self) -> Status;
}

/// The message of an error and of everything beneath it, outermost first.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
