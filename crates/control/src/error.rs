//! Why something was not done.

use std::sync::Arc;

use barecount_model::{
    approval::NotDone,
    id::{ApprovalId, RunId},
    run::Rejection,
};

use crate::{authority::NotCovered, store::StoreError};

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// The state machine rejected it.
    #[error("the command does not apply")]
    Rejected(#[from] Rejection),
    /// The permit is for something else.
    #[error("governance has not permitted this of run {0}")]
    NotPermitted(RunId, #[source] NotCovered),
    /// The report hands over a dataset that the task's stage does not write.
    #[error("a task of run {run} handed over {dataset}, which its stage does not write")]
    OutOfPlan {
        /// The run.
        run: RunId,
        /// The dataset.
        dataset: String,
    },
    /// There is no such run.
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// There is no such approval that anything can be done to.
    #[error("nothing can be done to an approval {0}: there is none, or it is denied or revoked")]
    NoSuchApproval(ApprovalId),
    /// It cannot be done to an approval, or a run cannot begin by it.
    #[error(transparent)]
    Approval(#[from] NotDone),
    /// The permit is for something else.
    #[error("governance has not permitted this of approval {0}")]
    ActNotPermitted(ApprovalId, #[source] NotCovered),
    /// The run token names a run of another pipeline version.
    #[error("the run token is already used by {run}, of version {version}")]
    TokenConflict {
        /// The run that has it.
        run: RunId,
        /// That run's version.
        version: String,
    },
    /// The change could not be made durable; nothing of it has happened.
    #[error("the change could not be made durable")]
    Store(#[source] Arc<StoreError>),
    /// The change may be durable or not: the store failed while it wrote it, and cannot be read.
    /// What it holds is announced once it can be.
    #[error("whether the change is durable is not known")]
    Unknown(#[source] Arc<StoreError>),
    /// Another process has taken the state over; this one changes nothing any more.
    #[error("another process has taken this state over")]
    NotOwner,
    /// The writer has ended.
    #[error("the control plane has shut down")]
    Closed,
}

/// Why a writer did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Storage(#[from] StoreError),
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}
