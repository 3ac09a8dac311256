//! What an attempt is kept from.

use barecount_model::{
    codes::{self, Code},
    run::outcome::{Failure, FailureKind},
    text::DatasetName,
};
use jiff::Timestamp;
use serde::Serialize;

/// Why an attempt was kept from something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Who placed the attempt did not sign this identity, or it was changed since.
    #[error("the identity of the attempt does not verify")]
    Forged,
    /// The identity is that of another attempt.
    #[error("the identity is of {holder}, and not of this attempt")]
    NotOurs {
        /// Whose it is.
        holder: String,
    },
    /// The identity holds no more, or not yet.
    #[error("the identity of the attempt held until {expires_at}")]
    Expired {
        /// From when on it no longer held.
        expires_at: Timestamp,
    },
    /// What lies in a dataset was written in a boundary from which nothing leads to the attempt's.
    #[error(
        "some of {dataset} was written within a stricter boundary ({boundary}) than the manifest \
         declares for it, and may not be read outside of that"
    )]
    StricterData {
        /// The dataset.
        dataset: DatasetName,
        /// The boundary.
        boundary: String,
    },
    /// The identity does not open this object.
    #[error("the attempt has no access to {object}: its identity does not let it {action} that")]
    OutOfScope {
        /// What was to be done.
        action: Action,
        /// With what.
        object: String,
    },
}

impl AccessError {
    /// The code of what happened, which has a page.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::OutOfScope { .. } => codes::ACCESS_OUT_OF_SCOPE,
            Self::StricterData { .. } => codes::CROSSING_UNDECLARED,
            Self::Forged | Self::NotOurs { .. } | Self::Expired { .. } => codes::IDENTITY_INVALID,
        }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        Self {
            kind: FailureKind::Policy,
            code: error.code().id.to_owned(),
            message: error.to_string().into(),
        }
    }
}

/// What is done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is read.
    Read,
    /// It is written.
    Write,
    /// A connection to it is allowed.
    Reach,
    /// Its value is given to the attempt.
    Fetch,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Reach => "reach",
            Self::Fetch => "fetch",
        })
    }
}
