//! Approvals: asked for, and answered.

use std::path::PathBuf;

use barecount_api::page::{Page, PageRequest};
use barecount_model::approval::Approval;
use jiff::{SignedDuration, Timestamp};

use crate::{failure::Failure, reporter::Reporter};

/// Approvals that are asked for.
#[derive(Debug, Clone)]
pub struct ApprovalRequest {
    /// The manifest's file.
    pub manifest: PathBuf,
    /// Only for this stage.
    pub stage: Option<String>,
    /// Why.
    pub reason: String,
}

/// What was asked for.
#[derive(Debug)]
pub struct AskedFor {
    /// The approvals, one for each stage.
    pub approvals: Vec<Approval>,
    /// For whose work.
    pub tenant: String,
    /// The environment, by name.
    pub environment: String,
    /// Whether anybody may grant them there.
    pub answerable: bool,
}

/// What is answered to who has asked.
#[derive(Debug, Clone, Copy)]
pub enum Answering {
    /// It is granted.
    Grant {
        /// When it ends.
        end: End,
        /// For how many runs; for any number, if absent.
        runs: Option<u32>,
    },
    /// It is denied.
    Deny,
    /// It is taken back.
    Revoke,
}

/// When an approval ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// At this moment.
    At(Timestamp),
    /// So long after it was granted, whoever had to be waited for.
    After(SignedDuration),
}

/// Approvals: acts on record.
pub trait Approvals {
    /// Asks for the approvals that a refused pipeline would need. What was asked for already and
    /// nobody has answered is not asked for again.
    ///
    /// # Errors
    /// If no approval would change anything, and if governance refuses to have it asked for.
    fn request_approvals(
        &self,
        request: &ApprovalRequest,
        reporter: &dyn Reporter,
    ) -> Result<AskedFor, Failure>;

    /// Approvals, newest first.
    ///
    /// # Errors
    /// If the state cannot be looked into.
    fn approvals(
        &self,
        tenant: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Approval>, Failure>;

    /// An approval.
    ///
    /// # Errors
    /// If there is none, or the state cannot be looked into.
    fn approval(&self, named: &str) -> Result<Approval, Failure>;

    /// Grants, denies or revokes an approval, and tells what has become of it.
    ///
    /// # Errors
    /// If there is none, it is answered already, or governance refuses.
    fn answer_approval(
        &self,
        named: &str,
        answer: Answering,
        reason: &str,
        reporter: &dyn Reporter,
    ) -> Result<Approval, Failure>;
}
