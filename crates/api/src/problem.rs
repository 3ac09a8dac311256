//! Why something was not done, as the pages of errors have it. As JSON it is a problem of RFC 9457
//! with members of its own.

use barecount_model::untrusted::Report;
use serde::{Deserialize, Serialize};

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind of it.
    pub kind: ProblemKind,
    /// `BC` and four digits: its page says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened, as one fragment.
    pub detail: Report,
    /// Why, from the nearest cause to the farthest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Report>,
    /// What to do, as a whole sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Report>,
}

/// The kinds of problems: what exit statuses are made of, and statuses of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The work failed.
    Failed,
    /// Wrong usage or manifest.
    Usage,
    /// Refused by policy, or an approval is missing.
    Refused,
    /// Not found.
    NotFound,
    /// A token or version is already used differently.
    Conflict,
    /// The platform or a backend cannot be reached.
    Unavailable,
    /// Evidence or a signature does not verify.
    Unverified,
    /// A bug of the platform.
    Bug,
}
