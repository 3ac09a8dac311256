//! Where secrets and their key are, as an environment says, and the service made of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use barecount_agent::{Hints, SecretsService};
use barecount_model::{
    environment::SecretsSpec,
    text::{Name, SecretName},
};
use barecount_secrets::{
    Argon2Cost, EmbeddedStores, KeyFile, KeySource, Limits, MemoryFolder, PassphraseFile, Place,
    Reference, Secret, Store,
};

use super::ledger;
use crate::{
    client::KeyPlace,
    environment::Found,
    failure::{Failure, Status},
};

/// Where every Linux system has a file system in memory (shm_overview(7)).
const MEMORY: &str = "/dev/shm";

/// Where an environment's secrets are.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// The folder of the stores, and that of how far each had come, beside the user's keys.
    pub store: Place,
    /// What they are encrypted under.
    pub key: KeyPlace,
    /// Where attempts find theirs.
    memory: PathBuf,
}

impl KeyPlace {
    /// The source of keys; it is looked at when a key is needed, and not before.
    pub fn source(&self) -> Arc<dyn KeySource> {
        match self {
            Self::File(path) => Arc::new(KeyFile::at(path)),
            Self::Passphrase(path) => Arc::new(PassphraseFile::at(path, Argon2Cost::RECOMMENDED)),
        }
    }
}

/// Where the secrets of a state folder are in an environment; `None` where it has none.
pub(crate) fn locate(found: &Found, state: &Path) -> Result<Option<Location>, Failure> {
    let Some(spec) = &found.environment.secrets else {
        return Ok(None);
    };
    let SecretsSpec {
        store,
        key_file,
        passphrase_file,
        memory,
    } = spec;
    let path = |path: &String| found.folder.join(path);
    let key = match (key_file, passphrase_file) {
        (Some(file), _) => KeyPlace::File(path(file)),
        (None, Some(file)) => KeyPlace::Passphrase(path(file)),
        // Beside the key of the ledger, outside the reach of whoever reads the state folder.
        (None, None) => KeyPlace::File(ledger::user_key(state, "secrets-key")?),
    };
    Ok(Some(Location {
        store: Place {
            folder: store.as_ref().map_or_else(|| state.join("secrets"), path),
            marks: ledger::user_folder().map(|folder| folder.join("keys")),
        },
        key,
        memory: memory.as_ref().map_or_else(|| MEMORY.into(), path),
    }))
}

/// The same for those who cannot go on without.
pub(crate) fn required(found: &Found, state: &Path) -> Result<Location, Failure> {
    locate(found, state)?.ok_or_else(|| {
        let name = &found.environment.name;
        let what = format!("environment `{name}` has no secrets service");
        Failure::new(Status::Usage, what)
            .with_code("BC0309")
            .with_help("Add `secrets` to the `spec` of its file.")
    })
}

/// Whose the secrets are that an environment itself needs. No pipeline's: a manifest that named
/// this tenant would be refused.
const ENVIRONMENT: &str = barecount_model::manifest::RESERVED_TENANT;

/// A secret of the environment's own.
pub(super) fn of_environment(
    found: &Found,
    state: &Path,
    name: &SecretName,
) -> Result<Secret, Failure> {
    let location = required(found, state)?;
    let tenant: Name = ENVIRONMENT
        .parse()
        .map_err(|error| Failure::from_error(Status::Bug, &error))?;
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let what = format!("secret `{name}` of the environment cannot be fetched");
        Failure::new(Status::Usage, what)
            .because(error)
            .with_code("BC0309")
            .with_help(format!(
                "Keep it with `barecount secrets set {name} --tenant {ENVIRONMENT}`."
            ))
    };
    let keys = Box::new(location.key.source());
    let store = Store::open(location.store, tenant, keys, Limits::default())
        .map_err(|error| failed(&error))?;
    let (_, value) = store
        .get(&Reference::current(name.clone()))
        .map_err(|error| failed(&error))?;
    Ok(value)
}

impl Location {
    /// The service that attempts get secrets from. What an earlier process left in memory is
    /// removed: whoever calls this has the state folder to himself.
    pub(super) fn service(&self, state: &Path) -> SecretsService {
        let memory = MemoryFolder::new(&self.memory, &super::host_name(state));
        match memory.sweep() {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "secrets of an earlier process were removed"),
            // Attempts with secrets fail by it, and say why; others need not.
            Err(error) => {
                let error = crate::failure::chain(&error);
                tracing::error!(error, "secrets of an earlier process cannot be removed");
            }
        }
        SecretsService {
            provider: Arc::new(EmbeddedStores::new(self.store.clone(), self.key.source())),
            memory,
            hints: Hints::default(),
        }
    }
}
