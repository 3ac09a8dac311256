//! Identities of attempts: who an attempt is, how long that holds, and what it may reach.
//!
//! Each attempt has an identity of its own, made when it is placed and gone soon after it should
//! have ended. It is named as [SPIFFE](https://spiffe.io) names workloads, and carries its access
//! scopes: what of the platform's objects the attempt may read, write or reach, as its plan has it
//! and no more. Here identities are plain data; who signs them, and who checks the signature, is
//! elsewhere.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::evidence::canonical_json;
use crate::id::{RunId, TaskId};
use crate::plan::{InputPlan, StagePlan, WorkPlan};
use crate::text::DatasetName;

/// What the signed bytes begin with, so that a signature of anything else is none of an identity.
const PURPOSE: &str = "barecount.dev/attempt-identity/v1\n";
/// For getting ready and for staging outputs, beyond the attempt's timeout and grace period.
const ALLOWANCE: SignedDuration = SignedDuration::from_hours(1);
/// So many entries of a scope are shown in evidence; the digest covers all.
const SHOWN: usize = 32;

/// One attempt, by everything that tells it from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// The environment, which is the trust domain.
    pub environment: String,
    /// The tenant.
    pub tenant: String,
    /// The pipeline.
    pub pipeline: String,
    /// The stage.
    pub stage: String,
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt's number.
    pub attempt: u32,
}

impl std::fmt::Display for Workload {
    /// The SPIFFE ID. Names of the platform are of its characters, so that nothing is escaped.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            environment,
            tenant,
            pipeline,
            stage,
            run,
            task,
            attempt,
        } = self;
        write!(
            f,
            "spiffe://{environment}/tenant/{tenant}/pipeline/{pipeline}/stage/{stage}/run/{run}/\
             task/{task}/attempt/{attempt}"
        )
    }
}

/// What an attempt may reach. What is in no scope is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessScopes {
    /// Datasets that it reads.
    pub datasets_read: BTreeSet<DatasetName>,
    /// Datasets that it writes.
    pub datasets_write: BTreeSet<DatasetName>,
    /// Files beside the manifest that it reads, by digest.
    pub files: BTreeSet<String>,
    /// Secrets, by reference.
    pub secrets: BTreeSet<String>,
    /// Destinations, as `host:port`.
    pub destinations: BTreeSet<String>,
    /// Topics whose messages start it.
    pub topics: BTreeSet<String>,
}

impl AccessScopes {
    /// What a stage's plan declares, and nothing else.
    pub fn of(stage: &StagePlan) -> Self {
        let mut scopes = Self::default();
        for input in &stage.inputs {
            match input {
                InputPlan::Dataset { dataset, .. } => {
                    scopes.datasets_read.insert(dataset.clone());
                }
                InputPlan::File { digest, .. } => {
                    scopes.files.insert(digest.clone());
                }
            }
        }
        let outputs = stage.outputs.iter();
        scopes.datasets_write = outputs.map(|output| output.dataset.clone()).collect();
        let egress = stage.egress.iter();
        scopes.destinations = egress
            .map(|to| format!("{}:{}", to.host, to.port))
            .collect();
        if let WorkPlan::Handler { event, .. } = &stage.work
            && event["type"] == "message"
            && let Some(topic) = event["topic"].as_str()
        {
            scopes.topics.insert(topic.to_owned());
        }
        scopes
    }

    /// The scopes as evidence keeps them: their digest, and as much of each as anyone reads.
    pub fn evidence(&self) -> Value {
        let whole = serde_json::to_value(self).unwrap_or_default();
        let mut shown = json!({ "digest": Digest::of(canonical_json(&whole).as_bytes()) });
        for (name, entries) in whole.as_object().into_iter().flatten() {
            let entries = entries.as_array().map_or(&[][..], Vec::as_slice);
            let (first, rest) = entries.split_at(entries.len().min(SHOWN));
            shown[name] = first.into();
            if !rest.is_empty() {
                shown[format!("{name}_left_out")] = rest.len().into();
            }
        }
        shown
    }
}

/// An attempt's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Whose it is.
    pub workload: Workload,
    /// What it opens.
    pub scopes: AccessScopes,
    /// Since when it holds.
    pub issued_at: Timestamp,
    /// From when on it no longer holds.
    pub expires_at: Timestamp,
}

impl Identity {
    /// The identity of an attempt that is placed at `now`. It outlasts what the attempt is given
    /// by an hour, in which inputs are provided and outputs are staged.
    pub fn issue(workload: Workload, stage: &StagePlan, now: Timestamp) -> Self {
        let given = stage.timeout_ms.saturating_add(stage.grace_ms);
        let given = SignedDuration::from_millis(given.try_into().unwrap_or(i64::MAX));
        let expires_at = now
            .saturating_add(given)
            .and_then(|end| end.saturating_add(ALLOWANCE))
            .unwrap_or(Timestamp::MAX);
        Self {
            workload,
            scopes: AccessScopes::of(stage),
            issued_at: now,
            expires_at,
        }
    }

    /// Whether it holds at `now`.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        (self.issued_at..self.expires_at).contains(&now)
    }

    /// What is signed: a line that says what for, and the identity as canonical JSON.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).unwrap_or_default();
        format!("{PURPOSE}{}", canonical_json(&value)).into_bytes()
    }
}

/// An identity and its Ed25519 signature. Nobody has checked it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIdentity {
    /// What is claimed.
    pub identity: Identity,
    /// The signature of [`Identity::signed_bytes`].
    pub signature: [u8; 64],
}
