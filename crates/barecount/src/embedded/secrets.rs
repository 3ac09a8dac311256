//! Where secrets and their key are, as an environment says, and the service made of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use barecount_agent::SecretsService;
use barecount_model::environment::SecretsSpec;
use barecount_secrets::{
    Argon2Cost, EmbeddedStores, KeyFile, KeySource, MemoryFolder, PassphraseFile,
};

use super::ledger;
use crate::{
    environment::Found,
    failure::{Failure, Status},
};

/// Where every Linux system has a file system in memory (shm_overview(7)).
const MEMORY: &str = "/dev/shm";

/// Where an environment's secrets are.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// The folder of the stores; ciphertext alone.
    pub(crate) store: PathBuf,
    /// What they are encrypted under.
    pub(crate) key: KeyPlace,
    /// Where attempts find theirs.
    memory: PathBuf,
}

/// What stores are encrypted under.
#[derive(Debug, Clone)]
pub(crate) enum KeyPlace {
    /// A file of keys.
    File(PathBuf),
    /// A file with a passphrase.
    Passphrase(PathBuf),
}

impl KeyPlace {
    /// The source of keys; it is looked at when a key is needed, and not before.
    pub(crate) fn source(&self) -> Arc<dyn KeySource> {
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
        store: store.as_ref().map_or_else(|| state.join("secrets"), path),
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
        }
    }
}
