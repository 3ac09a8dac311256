//! Identities of attempts, minted where attempts are placed.
//!
//! Only what governance has permitted gets one: the writer makes a run known here, with what is
//! stored of its permit, before anybody hears of it. The signing key is the state folder's own, made
//! once and readable by its owner alone: a process that starts again goes on minting what agents
//! that outlived it can check. An agent holds the public half, and cannot make any.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use barecount_model::{
    id::{RunId, TaskId},
    identity::{Identity, SignedIdentity, Workload},
    plan::Plan,
    run::Run,
};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use jiff::Timestamp;

use crate::{shard::Active, told::Fenced};

/// The file of the signing key, in a state folder.
const KEY_FILE: &str = "identity.key";

/// Mints identities.
pub(crate) struct Issuer {
    key: SigningKey,
    permitted: Mutex<HashMap<RunId, Arc<Permitted>>>,
}

/// What of a run never changes. Where it belongs, it has from its plan.
struct Permitted {
    /// Tasks, and where in the plan their stages are: there may be a million of them.
    tasks: Box<[(TaskId, Option<u16>)]>,
    plan: Arc<Plan>,
}

impl Permitted {
    fn of(run: &Run, plan: &Arc<Plan>) -> Self {
        let place = |name: &str| {
            let place = plan.stages.iter().position(|stage| stage.name == name);
            place.and_then(|place| u16::try_from(place).ok())
        };
        let tasks = run.tasks.iter();
        Self {
            tasks: tasks
                .map(|task| (task.id.clone(), place(&task.stage)))
                .collect(),
            plan: Arc::clone(plan),
        }
    }
}

/// Why an attempt gets no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Governance has not permitted the run, or it is not under way.
    #[error("no permit is known for run {0}")]
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
    /// With the key of a state folder, which is made if absent.
    ///
    /// # Errors
    /// If the key cannot be read or made, is no key, or is open to others.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self::with(key(&folder.join(KEY_FILE))?))
    }

    pub(crate) fn with(key: SigningKey) -> Self {
        Self {
            key,
            permitted: Mutex::new(HashMap::new()),
        }
    }

    /// The key that identities are verified with.
    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Notes what is permitted of a run: all of it while it is under way by a permit for its plan,
    /// and nothing otherwise.
    pub(crate) fn know(&self, active: &Active) {
        let authority = active.authority.as_ref();
        let lets = authority.is_some_and(|authority| authority.lets(&active.plan));
        let mut runs = self.runs();
        if lets && !active.run.state.is_final() {
            runs.entry(active.run.id.clone())
                .or_insert_with(|| Arc::new(Permitted::of(&active.run, &active.plan.plan)));
        } else {
            runs.remove(&active.run.id);
        }
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
        let (id, place) = permitted.tasks.get(*task).ok_or_else(none)?;
        let plan = &permitted.plan;
        let planned = place.and_then(|place| plan.stages.get(usize::from(place)));
        let planned = planned.ok_or_else(none)?;
        let workload = Workload {
            environment: plan.environment.clone(),
            tenant: plan.tenant.clone(),
            pipeline: plan.pipeline.clone(),
            stage: planned.name.clone(),
            run: run.clone(),
            task: id.clone(),
            attempt: *number,
        };
        let identity = Identity::issue(workload, planned, now);
        let signature = self.key.sign(&identity.signed_bytes()).to_bytes();
        Ok(SignedIdentity {
            identity,
            signature,
        })
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Permitted>>> {
        // A map of what was permitted has no half-made state.
        self.permitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the key; makes one, durably, where there is none.
fn key(path: &Path) -> io::Result<SigningKey> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make_key(path),
        Err(error) => return Err(error),
    };
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(invalid(
            "the key of identities is open to others than its owner",
        ));
    }
    let mut seed = zeroize::Zeroizing::new(Vec::new());
    io::Read::read_to_end(&mut file, &mut seed)?;
    let seed: &[u8; 32] = seed
        .as_slice()
        .try_into()
        .map_err(|_| invalid("the key of identities is not one"))?;
    Ok(SigningKey::from_bytes(seed))
}

/// The folder's lock is held, so nobody else makes one. Dying half-way leaves a temporary file.
fn make_key(path: &Path) -> io::Result<SigningKey> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(io::Error::from)?;
    let temporary = path.with_extension("key.new");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&*seed)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(SigningKey::from_bytes(&seed))
}
