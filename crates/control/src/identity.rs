//! Identities of attempts, minted where attempts are placed.
//!
//! Only what governance has permitted gets one: a run is known here once it was submitted with a
//! [`Permit`](crate::governance::Permit), in this process. The signing key is made anew by each
//! process and never leaves it, so that an identity is worth nothing beyond the process that minted
//! it; an agent holds the public half, checks identities, and cannot make any.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use barecount_model::{
    id::RunId,
    identity::{Identity, SignedIdentity, Workload},
};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use jiff::Timestamp;

use crate::handle::{Fenced, Update};

/// Mints identities.
pub(crate) struct Issuer {
    key: SigningKey,
    permitted: Mutex<HashMap<RunId, Update>>,
}

/// Why an attempt gets no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Governance has not permitted the run, or not in this process.
    #[error("governance has not permitted run {0} here")]
    NotPermitted(RunId),
    /// The run has no such task, or its plan no such stage.
    #[error("run {run} has no task {task} that could be carried out")]
    NoSuchTask {
        /// The run.
        run: RunId,
        /// The task's index.
        task: usize,
    },
}

impl Issuer {
    /// With a key of its own.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed)?;
        Ok(Self {
            key: SigningKey::from_bytes(&seed),
            permitted: Mutex::new(HashMap::new()),
        })
    }

    /// The key that identities are verified with.
    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Notes that governance permits a run, with the plan that it carries out.
    pub(crate) fn permit(&self, run: &Update) {
        self.runs().insert(run.run.id.clone(), run.clone());
    }

    /// Forgets a run that has ended.
    pub(crate) fn forget(&self, run: &RunId) {
        self.runs().remove(run);
    }

    /// Mints the identity of an attempt. What it opens follows from the plan that was permitted,
    /// whatever anybody says of it since.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub(crate) fn mint(
        &self,
        attempt: &Fenced,
        now: Timestamp,
    ) -> Result<SignedIdentity, IdentityError> {
        let Fenced { run, task, number } = attempt;
        let permitted = self.runs().get(run).cloned();
        let permitted = permitted.ok_or_else(|| IdentityError::NotPermitted(run.clone()))?;
        let none = || IdentityError::NoSuchTask {
            run: run.clone(),
            task: *task,
        };
        let placed = permitted.run.tasks.get(*task).ok_or_else(none)?;
        let stage = permitted.plan.stage(&placed.stage).ok_or_else(none)?;
        let workload = Workload {
            environment: permitted.run.environment.clone(),
            tenant: permitted.run.tenant.clone(),
            pipeline: permitted.run.pipeline.clone(),
            stage: placed.stage.clone(),
            run: run.clone(),
            task: placed.id.clone(),
            attempt: *number,
        };
        let identity = Identity::issue(workload, stage, now);
        let signature = self.key.sign(&identity.signed_bytes()).to_bytes();
        Ok(SignedIdentity {
            identity,
            signature,
        })
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Update>> {
        // A map of what was permitted has no half-made state.
        self.permitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
