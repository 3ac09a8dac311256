//! The ledger's integrator: from the store's sequence of entries to tiles and a signed checkpoint.
//!
//! A thread of its own, because integrating blocks on the disk. It is a function of the sequence
//! alone, so it may die at any point: the entries stay queued in the store until a durable
//! checkpoint covers them.

use std::path::{Path, PathBuf};

use barecount_control::{Control, Entries};
use barecount_ledger::{
    checkpoint::SignedCheckpoint,
    integrate::{IntegrateError, Integrator},
    note::{KeyError, SigningKey},
    storage::{DirBlobs, DirCheckpoint},
};
use tokio::sync::{mpsc, watch};

use crate::failure::chain;

/// The origin of a ledger that is made here, and the name of its key.
const ORIGIN: &str = "barecount.dev/ledger";

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The signing key cannot be read or made.
    #[error("the ledger's signing key {} cannot be used", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file holds no key.
    #[error("the ledger's signing key {} is not a key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: KeyError,
    },
    /// The log is damaged, or was signed by another key.
    #[error("the ledger in {} cannot be continued", path.display())]
    Log {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: IntegrateError,
    },
}

/// What is known of the ledger's checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// The latest durable checkpoint.
    pub(crate) checkpoint: Option<SignedCheckpoint>,
    /// Why integration has stopped, if it has.
    pub(crate) failed: Option<String>,
}

impl Progress {
    /// How many entries the checkpoint covers.
    pub(crate) fn size(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |signed| signed.checkpoint().size)
    }
}

/// The log of a state folder.
pub(crate) type Log = Integrator<DirBlobs, DirCheckpoint>;

/// Opens the log of a state folder, with the key in `key_file`, which is made if absent.
pub(crate) fn open(state: &Path, key_file: &Path) -> Result<Log, LedgerError> {
    let key = signing_key(key_file)?;
    let path = state.join("ledger");
    Integrator::open(DirBlobs::new(&path), DirCheckpoint::new(&path), key, &[])
        .map_err(|source| LedgerError::Log { path, source })
}

/// Reads the signing key; makes one, readable by its owner alone, where there is none.
fn signing_key(path: &Path) -> Result<SigningKey, LedgerError> {
    let io = |source| LedgerError::KeyFile { path: path.to_owned(), source };
    let bad = |source| LedgerError::Key { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => SigningKey::parse(text.trim_end()).map_err(bad),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = SigningKey::generate(ORIGIN).map_err(bad)?;
            create_private(path, key.encode().as_bytes()).map_err(io)?;
            Ok(key)
        }
        Err(error) => Err(io(error)),
    }
}

/// Writes a new file that only its owner can read, durably. Dying half-way leaves a temporary
/// file, and no key.
fn create_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // A hard link never replaces: of two processes that make a key at once, one wins for both.
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    linked?;
    std::fs::File::open(folder)?.sync_all()
}

/// Integrates whatever the store queues, until nobody sends any more.
pub(crate) fn spawn(
    mut log: Log,
    control: Control,
    mut entries: mpsc::UnboundedReceiver<Entries>,
    runtime: tokio::runtime::Handle,
) -> std::io::Result<watch::Receiver<Progress>> {
    let initial = Progress { checkpoint: log.checkpoint().cloned(), failed: None };
    let (progress, watcher) = watch::channel(initial);
    std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
        let mut pieces = Vec::new();
        while entries.blocking_recv_many(&mut pieces, 64) > 0 {
            let first = pieces[0].first;
            let bytes: Vec<Vec<u8>> = pieces.drain(..).flat_map(|piece| piece.bytes).collect();
            match log.integrate(first, &bytes) {
                Ok(signed) => {
                    let size = signed.checkpoint().size;
                    progress.send_replace(Progress { checkpoint: Some(signed), failed: None });
                    let control = control.clone();
                    runtime.spawn(async move {
                        // The store keeps the bytes a little longer; the next start integrates
                        // them again, which changes nothing.
                        if let Err(error) = control.integrated(size).await {
                            tracing::warn!(%error, "the ledger's queue was not trimmed");
                        }
                    });
                }
                Err(error) => {
                    progress.send_modify(|state| state.failed = Some(chain(&error)));
                    return;
                }
            }
        }
    })?;
    Ok(watcher)
}
