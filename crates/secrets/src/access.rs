//! Who asks for a secret, what it may have, and the record of what it was given.

use std::collections::BTreeSet;

use async_trait::async_trait;
use barecount_model::id::RunId;
use barecount_model::text::Name;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// One attempt, and the secrets that its manifest declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Whose work it is.
    pub tenant: Name,
    /// The pipeline.
    pub pipeline: Name,
    /// The stage.
    pub stage: Name,
    /// The run.
    pub run: RunId,
    /// The attempt's number.
    pub attempt: u32,
    /// What the manifest declares, and nothing else is given: a reference to the newest version
    /// does not stand for an older one, which may have been replaced for a reason.
    pub declared: BTreeSet<Reference>,
    /// For how long it is asked: the longest that the attempt may take, its grace included.
    pub lasts: SignedDuration,
}

/// How a request for a secret ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The value was given.
    Allowed,
    /// The value is not for whoever asked.
    Refused,
    /// The value could not be had.
    Failed,
}

/// A request for a secret, by reference only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// What was asked for; with its version if it was given.
    pub reference: Reference,
    /// Whose work asked.
    pub tenant: Name,
    /// Its pipeline.
    pub pipeline: Name,
    /// Its stage.
    pub stage: Name,
    /// Its run.
    pub run: RunId,
    /// Its attempt's number.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it was not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where accesses are recorded, durably before [`record`](Self::record) answers.
#[async_trait]
pub trait AccessLog: Send + Sync {
    /// Records an access.
    ///
    /// # Errors
    /// [`NotRecorded`]: nothing is given then.
    async fn record(&self, access: &Access) -> Result<(), NotRecorded>;
}

/// An access that could not be recorded.
#[derive(Debug, thiserror::Error)]
#[error("the access to a secret cannot be recorded")]
pub struct NotRecorded(#[source] pub Box<dyn std::error::Error + Send + Sync>);

#[async_trait]
impl<L: AccessLog + ?Sized> AccessLog for &L {
    async fn record(&self, access: &Access) -> Result<(), NotRecorded> {
        (**self).record(access).await
    }
}

/// Keeps accesses in memory.
#[async_trait]
impl AccessLog for std::sync::Mutex<Vec<Access>> {
    async fn record(&self, access: &Access) -> Result<(), NotRecorded> {
        let mut accesses = self
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        accesses.push(access.clone());
        Ok(())
    }
}
