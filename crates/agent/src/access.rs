//! The gate between an attempt and the platform's objects.
//!
//! An attempt comes with a signed [`Identity`]. [`IdentityVerifier::open`] checks the signature,
//! that the identity is this attempt's, and that it holds; what comes out is a [`Gate`], and there
//! is no other way to a [`DataPlane`]. Each access through the gate is held against the identity's
//! scopes and its expiry, and is recorded, whether it was allowed or refused. What an assignment
//! says of its inputs and outputs is therefore only a request: what it opens, was signed by who
//! placed it.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use barecount_api::assignment::Assignment;
use barecount_model::{
    digest::Digest,
    identity::{AccessScopes, Identity, SignedIdentity},
    manifest::{Egress, SecretSpec},
    pipeline::Output,
    plan::InputPlan,
    run::outcome::StagedCheckpoint,
};
use ed25519_dalek::{Signature, VerifyingKey};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    data::{DataError, DataPlane, StagedOutput},
    letters::Letters,
    live::StagingWatch,
    refused::{AccessError, Action},
};

/// So many accesses of an attempt are in its ledger entry, and a refusal; all of them are in the
/// record beside it.
const RECORDED: usize = 64;

/// So many accesses are in that record. A stage declares fewer inputs, outputs, secrets and
/// destinations than would make more; what comes after is counted only.
const KEPT: usize = 4_096;

/// Tells the time.
pub(crate) type Now<'a> = dyn Fn() -> Timestamp + Send + Sync + 'a;

/// Checks identities with the key of who mints them; cannot mint any.
#[derive(Debug, Clone)]
pub struct IdentityVerifier {
    key: VerifyingKey,
}

impl IdentityVerifier {
    /// Trusts identities that this key verifies.
    pub fn new(key: VerifyingKey) -> Self {
        Self { key }
    }

    /// The gate that an assignment's identity opens, by the clock `now`.
    ///
    /// # Errors
    /// If the identity was not signed as it is, is another attempt's, or does not hold now.
    pub(crate) fn open<'a>(
        &self,
        assignment: &'a Assignment,
        data: &'a dyn DataPlane,
        now: &'a Now<'a>,
    ) -> Result<Gate<'a>, AccessError> {
        let SignedIdentity {
            identity,
            signature,
        } = &assignment.identity;
        // Strict: no signature that a second key could pass for its own.
        self.key
            .verify_strict(&identity.signed_bytes(), &Signature::from_bytes(signature))
            .map_err(|_| AccessError::Forged)?;
        if !is_of(identity, assignment) {
            return Err(AccessError::NotOurs {
                holder: identity.workload.to_string(),
            });
        }
        let gate = Gate {
            identity,
            assignment,
            data,
            now,
            log: Mutex::default(),
        };
        gate.holds()?;
        Ok(gate)
    }
}

/// Whether an identity is that of the attempt it came with.
fn is_of(identity: &Identity, assignment: &Assignment) -> bool {
    let (workload, attempt) = (&identity.workload, &assignment.attempt);
    workload.run == attempt.run
        && workload.task == attempt.task
        && workload.attempt == attempt.number
        && workload.tenant == assignment.tenant
        && workload.pipeline == assignment.pipeline
        && workload.stage == assignment.stage.name
}

/// The accesses of one attempt.
#[derive(Debug, Default)]
struct AccessLog {
    allowed: u64,
    refused: u64,
    records: Vec<AccessRecord>,
}

impl AccessLog {
    /// What evidence shows of it.
    fn shown(&self) -> Vec<&AccessRecord> {
        let (first, rest) = self.records.split_at(self.records.len().min(RECORDED));
        let refused = rest.iter().filter(|record| record.verdict == REFUSED);
        first.iter().chain(refused).collect()
    }

    fn to_json_lines(&self) -> String {
        let lines = self.records.iter().map(|record| json!(record).to_string());
        lines.map(|line| line + "\n").collect()
    }
}

/// The verdicts, as evidence spells them.
const ALLOWED: &str = "allowed";
const REFUSED: &str = "refused";

/// One access, by reference: never what was read or written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct AccessRecord {
    action: Action,
    object: String,
    verdict: &'static str,
    at: Timestamp,
}

/// An attempt's only way to the platform's objects.
pub(crate) struct Gate<'a> {
    identity: &'a Identity,
    assignment: &'a Assignment,
    data: &'a dyn DataPlane,
    now: &'a Now<'a>,
    log: Mutex<AccessLog>,
}

impl Gate<'_> {
    /// Provides an input, if the attempt may read it. As [`DataPlane::provide`].
    pub(crate) async fn provide(&self, input: &InputPlan, into: &Path) -> Result<Value, DataError> {
        self.may_read(input)?;
        self.data.provide(input, self.assignment, into).await
    }

    /// Stages an output, if the attempt may write it. As [`DataPlane::stage`].
    pub(crate) async fn stage(
        &self,
        output: &Output,
        written: &Path,
        staging: &Path,
        letters: &Letters,
        watch: &StagingWatch,
    ) -> Result<StagedOutput, DataError> {
        let open = self.scopes().datasets_write.contains(&output.dataset);
        self.access(Action::Write, format!("dataset {}", output.dataset), open)?;
        self.data
            .stage(output, self.assignment, written, staging, letters, watch)
            .await
    }

    /// As [`DataPlane::dead_letters`].
    pub(crate) async fn dead_letters(
        &self,
        written: &Path,
        letters: &Letters,
    ) -> Result<(), DataError> {
        self.access(Action::Write, "its dead letters".to_owned(), true)?;
        self.data
            .dead_letters(self.assignment, written, letters)
            .await
    }

    /// As [`DataPlane::provide_checkpoint`]. An attempt's checkpoint is that of its own stage and
    /// partition, which the identity names; it is in no scope.
    pub(crate) async fn provide_checkpoint(
        &self,
        into: &Path,
    ) -> Result<Option<String>, DataError> {
        self.access(Action::Read, "its checkpoint".to_owned(), true)?;
        self.data.provide_checkpoint(self.assignment, into).await
    }

    /// As [`DataPlane::stage_checkpoint`].
    pub(crate) async fn stage_checkpoint(
        &self,
        saved: &Path,
        staging: &Path,
    ) -> Result<Option<StagedCheckpoint>, DataError> {
        self.access(Action::Write, "its checkpoint".to_owned(), true)?;
        self.data
            .stage_checkpoint(self.assignment, saved, staging)
            .await
    }

    /// As [`DataPlane::hand_on_checkpoint`].
    pub(crate) async fn hand_on_checkpoint(&self, saved: &Path) -> Result<(), DataError> {
        self.access(Action::Write, "its checkpoint".to_owned(), true)?;
        self.data.hand_on_checkpoint(self.assignment, saved).await
    }

    /// Describes the job, which tells of the inputs: those have to be open. As [`DataPlane::job`].
    pub(crate) async fn job(&self, job: &Path) -> Result<Value, DataError> {
        for input in &self.assignment.stage.inputs {
            self.may_read(input)?;
        }
        self.data.job(self.assignment, job).await
    }

    /// Whether the attempt may be let through to all these destinations.
    pub(crate) fn reach(&self, egress: &[Egress]) -> Result<(), AccessError> {
        for to in egress {
            let object = format!("{}:{}", to.host, to.port);
            let open = self.scopes().destinations.contains(&object);
            self.access(Action::Reach, object, open)?;
        }
        Ok(())
    }

    /// Whether the attempt may be given all these secrets.
    pub(crate) fn fetch<'b>(
        &self,
        secrets: impl IntoIterator<Item = &'b SecretSpec>,
    ) -> Result<(), AccessError> {
        for secret in secrets {
            let reference = secret.reference();
            let open = self.scopes().secrets.contains(&reference);
            self.access(Action::Fetch, format!("secret {reference}"), open)?;
        }
        Ok(())
    }

    /// Who the attempt was, what it could open, and what it opened or was refused, for evidence; and
    /// the record to keep beside that, a JSON object a line, where evidence has not all of it.
    pub(crate) fn evidence(&self) -> (Value, Option<String>) {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = log.shown();
        let total = log.allowed + log.refused;
        let whole = (shown.len() < log.records.len()).then(|| log.to_json_lines());
        let digest = whole.as_ref().map(|lines| Digest::of(lines.as_bytes()));
        let evidence = json!({
            "id": self.identity.workload.to_string(),
            "issued_at": self.identity.issued_at,
            "expires_at": self.identity.expires_at,
            "scopes": self.scopes().evidence(),
            "accesses": {
                "allowed": log.allowed,
                "refused": log.refused,
                "digest": digest,
                "records": shown,
                "left_out": total - shown.len() as u64,
                "unlisted": total - log.records.len() as u64,
            },
        });
        (evidence, whole)
    }

    fn may_read(&self, input: &InputPlan) -> Result<(), AccessError> {
        let (object, open) = match input {
            InputPlan::Dataset { dataset, .. } => (
                format!("dataset {dataset}"),
                self.scopes().datasets_read.contains(dataset),
            ),
            InputPlan::File { name, digest, .. } => {
                (format!("file {name}"), self.scopes().files.contains(digest))
            }
        };
        self.access(Action::Read, object, open)
    }

    fn scopes(&self) -> &AccessScopes {
        &self.identity.scopes
    }

    /// Allows or refuses one access, and records which.
    fn access(&self, action: Action, object: String, open: bool) -> Result<(), AccessError> {
        let verdict = self.holds().and_then(|()| {
            if open {
                Ok(())
            } else {
                let object = object.clone();
                Err(AccessError::OutOfScope { action, object })
            }
        });
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let record = AccessRecord {
            action,
            object,
            verdict: if verdict.is_ok() { ALLOWED } else { REFUSED },
            at: (self.now)(),
        };
        if let Err(refused) = &verdict {
            let workload = &self.identity.workload;
            tracing::warn!(%workload, %action, object = record.object, %refused, "an access was refused");
            log.refused += 1;
        } else {
            log.allowed += 1;
        }
        // A refusal ends the attempt, so that there is one at most, and it is worth its place.
        if log.records.len() < KEPT || verdict.is_err() {
            log.records.push(record);
        }
        verdict
    }

    fn holds(&self) -> Result<(), AccessError> {
        if self.identity.holds_at((self.now)()) {
            Ok(())
        } else {
            Err(AccessError::Expired {
                expires_at: self.identity.expires_at,
            })
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
