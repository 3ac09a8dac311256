//! The ledger's integrator: from the store's sequence of entries to tiles and a signed checkpoint.
//!
//! A thread of its own, because integrating blocks on the disk. It is a function of the sequence
//! alone, so it may die at any point: the entries stay queued in the store until a durable
//! checkpoint covers them.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use barecount_control::{Entries, EntryQueue, LedgerPort};
use barecount_ledger::{
    checkpoint::SignedCheckpoint,
    integrate::{IntegrateError, Integrator},
    note::{KeyError, SigningKey, VerifierKey},
    storage::{DirBlobs, DirCheckpoint},
};
use barecount_model::{codes, seal::SealKey};
use tokio::sync::{mpsc, watch};

use super::{
    high_water::{HighWater, HighWaterError},
    private_folder,
};
use crate::{
    failure::{self, Failure, Status, chain},
    manifest::read_bounded,
    reserve,
};

/// What the origin of a ledger that is made here begins with; the ledger's own name follows.
const ORIGIN: &str = "barecount.dev/ledger";
/// What the key of the seals in tables' logs is derived for.
pub(super) const TABLE_SEALS: &str = "barecount tables seals v1";
/// No name is longer.
const MAX_NAME_BYTES: u64 = 256;
/// What helps where a key is not where it should be.
const KEY_HELP: &str = "Put the key back (it is in the configuration folder of the user who ran this \
                        first), or name it as `signing_key` in the environment file.";
/// How another key is named.
const NAMED: &str = "as `signing_key` in the environment file";
/// The file in a state folder that holds the ledger's name.
const NAME_FILE: &str = "ledger.name";

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The ledger's name cannot be read or made.
    #[error("the ledger's name in {} cannot be used", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The signing key cannot be read or made.
    #[error("the ledger's signing key {} cannot be used", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The key that signed the log so far is not where it should be.
    #[error("the key that signs the ledger is gone: there is no file {}", path.display())]
    KeyGone {
        /// Where it should be.
        path: PathBuf,
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
    /// The log is not the one that was last signed here.
    #[error(transparent)]
    HighWater(#[from] HighWaterError),
}

impl LedgerError {
    /// The code, and what to do.
    pub(crate) fn code_and_help(&self) -> (&'static str, String) {
        match self {
            Self::HighWater(_) => (
                codes::LEDGER_OLDER.id,
                "Put back the newest copy of the state folder. If an older one is to go on, remove \
                 the checkpoint that is named: what came after it is lost to evidence then."
                    .to_owned(),
            ),
            Self::KeyFile { path, source } => (codes::LEDGER_KEY.id, help_of_key(path, source)),
            _ => (codes::LEDGER_KEY.id, KEY_HELP.to_owned()),
        }
    }
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
        self.checkpoint
            .as_ref()
            .map_or(0, |signed| signed.checkpoint().size)
    }
}

/// The log of a state folder.
pub(crate) type Log = Integrator<DirBlobs, DirCheckpoint>;

/// Opens the log of a state folder, with the key in `key_file`, which is made if absent.
///
/// # Errors
/// A log that has entries is never continued with a new key.
pub(crate) fn open(state: &Path, key_file: &Path) -> Result<Log, LedgerError> {
    let is_there = |path: &Path| {
        path.try_exists().map_err(|source| LedgerError::KeyFile {
            path: path.to_owned(),
            source,
        })
    };
    if is_there(&state.join("ledger/checkpoint"))? && !is_there(key_file)? {
        return Err(LedgerError::KeyGone {
            path: key_file.to_owned(),
        });
    }
    let key = signing_key(key_file, &name(state)?)?;
    let path = state.join("ledger");
    let log = Integrator::open(DirBlobs::new(&path), DirCheckpoint::new(&path), key, &[]);
    let log = log.map_err(|source| LedgerError::Log { path, source })?;
    if let Some(mark) = HighWater::of(state) {
        mark.hold(&log)?;
    }
    Ok(log)
}

/// How many entries are under the checkpoint of a state folder's log, which is held against the key
/// in `key_file`; `None` where there is no checkpoint yet.
///
/// # Errors
/// As [`open`].
pub(crate) fn signed(state: &Path, key_file: &Path) -> Result<Option<u64>, LedgerError> {
    match state.join("ledger/checkpoint").try_exists() {
        Ok(false) => Ok(None),
        // Where that cannot be told, opening it says why.
        _ => Ok(Some(open(state, key_file)?.size())),
    }
}

/// The ledger's name: random, so that no two ledgers are taken for one.
fn name(state: &Path) -> Result<String, LedgerError> {
    let path = state.join(NAME_FILE);
    let io = |source| LedgerError::Name {
        path: path.clone(),
        source,
    };
    match read_bounded(&path, MAX_NAME_BYTES) {
        Ok(text) => return Ok(String::from_utf8_lossy(&text).trim_end().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        Err(_) => {}
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io(std::io::Error::from(error)))?;
    let name = format!("{:016x}", u64::from_be_bytes(bytes));
    create_private(&path, name.as_bytes()).map_err(io)?;
    Ok(name)
}

/// The key with which a state folder's ledger is verified by the user who signs it: from the
/// signing key, and not from the state folder, which is what is to be verified.
pub(crate) fn verifier_key(
    state: &Path,
    configured: Option<&Path>,
) -> Result<VerifierKey, Failure> {
    let path = key_file(state, configured)?;
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            Status::NotFound,
            format!("there is no ledger key in {}", path.display()),
        )
        .because(error)
        .with_code("BC0901")
        .with_help(
            "Name the environment whose `signing_key` it is with `--env`. `barecount evidence \
             verify` can do with the verifier key that you trust: `--vkey`.",
        )
    };
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let key = SigningKey::parse(text.trim_end()).map_err(|error| failed(&error))?;
    Ok(key.verifier().clone())
}

/// The key of the seals in the logs of a state folder's tables, for who has the key that signs its ledger.
/// Who has not, or has no ledger yet, holds no log against seals.
pub(crate) fn table_seals(state: &Path, configured: Option<&Path>) -> Option<SealKey> {
    // Where there is none, its name would be made here.
    state.join("ledger/checkpoint").is_file().then_some(())?;
    let path = key_file(state, configured).ok()?;
    let text = std::fs::read_to_string(path).ok()?;
    let key = SigningKey::parse(text.trim_end()).ok()?;
    Some(SealKey::new(key.derive(TABLE_SEALS)))
}

/// Where the key is that signs a state folder's ledger: where the environment says, or in the
/// user's configuration folder, outside the reach of whoever can write the state folder.
pub(crate) fn key_file(state: &Path, configured: Option<&Path>) -> Result<PathBuf, Failure> {
    match configured {
        Some(path) => Ok(path.to_owned()),
        None => user_key(state, "key"),
    }
}

/// The folder of what this program keeps for a user, if that user has a place for such.
pub(super) fn user_folder() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    folder.map(|folder| folder.join("barecount"))
}

/// Where a key of a state folder is by default, whose file ends in `extension`.
pub(crate) fn user_key(state: &Path, extension: &str) -> Result<PathBuf, Failure> {
    let folder = user_folder().ok_or_else(|| {
        Failure::new(
            Status::Usage,
            "there is no folder for the keys of this state folder",
        )
        .with_code("BC0901")
        .with_help("Set HOME, or name the files of keys in the environment file.")
    })?;
    let name = name(state)
        .map_err(|error| Failure::from_error(Status::Unavailable, &error).with_code("BC0901"))?;
    Ok(folder.join("keys").join(format!("{name}.{extension}")))
}

/// Refuses a signing key that somebody else could read, or put another in the place of.
pub(crate) fn refuse_open_key(key_file: &Path) -> Result<(), Failure> {
    let found = |path: &Path| match std::fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(
            Status::Usage,
            format!("the ledger's signing key {} cannot be used", path.display()),
        )
        .because(&error)
        .with_code("BC0901")
        .or_help(&help_of_key(key_file, &error))),
    };
    if let Some(key) = found(key_file)? {
        let what = "the ledger's signing key";
        private_folder::refuse_open(
            what,
            key_file,
            &key,
            private_folder::ANYTHING,
            "BC0901",
            NAMED,
        )?;
    }
    let folder = key_file.parent().unwrap_or(Path::new("."));
    if let Some(around) = found(folder)? {
        let what = "the folder of the ledger's signing key";
        private_folder::refuse_open(
            what,
            folder,
            &around,
            private_folder::CHANGE,
            "BC0901",
            NAMED,
        )?;
    }
    Ok(())
}

/// What helps where a key cannot be read or made: whose folder it is, if that is closed to this user.
/// Whoever once ran as root with this user's home has left one.
fn help_of_key(key_file: &Path, error: &std::io::Error) -> String {
    let me = rustix::process::geteuid().as_raw();
    let closed = user_folder()
        .filter(|_| error.kind() == std::io::ErrorKind::PermissionDenied)
        .and_then(|folder| of_another(key_file, folder.parent()?, me));
    match closed {
        Some((folder, owner)) => format!(
            "{} belongs to another user (id {owner}). {}",
            folder.display(),
            private_folder::theirs(folder, NAMED)
        ),
        None => KEY_HELP.to_owned(),
    }
}

/// The nearest folder around a file of which anything can be told, if it is another user's, with that
/// user's id; not above `top`, where folders are not for one user to have.
fn of_another<'p>(file: &'p Path, top: &Path, me: u32) -> Option<(&'p Path, u32)> {
    let around = file.ancestors().skip(1);
    let mut around = around.take_while(|folder| folder.starts_with(top));
    let nearest = around.find_map(|folder| Some((folder, folder.metadata().ok()?.uid())));
    nearest.filter(|(_, owner)| *owner != me)
}

/// Reads the signing key; makes one, readable by its owner alone, where there is none.
fn signing_key(path: &Path, name: &str) -> Result<SigningKey, LedgerError> {
    let io = |source| LedgerError::KeyFile {
        path: path.to_owned(),
        source,
    };
    let bad = |source| LedgerError::Key {
        path: path.to_owned(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(text) => SigningKey::parse(text.trim_end()).map_err(bad),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = SigningKey::generate(&format!("{ORIGIN}/{name}")).map_err(bad)?;
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
    private_folder::make(folder)?;
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
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
    (state, mut log): (PathBuf, Log),
    mark: Option<HighWater>,
    control: LedgerPort,
    entries: mpsc::UnboundedReceiver<Entries>,
    runtime: tokio::runtime::Handle,
) -> std::io::Result<watch::Receiver<Progress>> {
    let initial = Progress {
        checkpoint: log.checkpoint().cloned(),
        failed: None,
    };
    let (progress, watcher) = watch::channel(initial);
    std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || {
            let mut queue = EntryQueue::new(entries);
            while let Some(Entries { first, bytes }) = queue.take() {
                let integrated = log.integrate(first, &bytes).or_else(|error| {
                    // What filled the disk has been ended or is about to be, and is still there.
                    match failure::is_full(&error) && reserve::give_up_if_full(&state) {
                        true => log.integrate(first, &bytes),
                        false => Err(error),
                    }
                });
                match integrated {
                    Ok(signed) => {
                        let size = signed.checkpoint().size;
                        if let Some(Err(error)) = mark.as_ref().map(|mark| mark.keep(&signed)) {
                            tracing::warn!(%error, "how far the ledger has come was not kept");
                        }
                        progress.send_replace(Progress {
                            checkpoint: Some(signed),
                            failed: None,
                        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_folder_keeps_a_user_from_a_key_is_found_out() -> Result<(), Box<dyn std::error::Error>>
    {
        let place = tempfile::tempdir()?;
        let top = place.path().join("barecount");
        let key = top.join("keys/0123.key");
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(of_another(&key, &top, me), None, "nothing is there");
        private_folder::make(&top)?;
        assert_eq!(of_another(&key, &top, me), None);
        assert_eq!(of_another(&key, &top, me + 1), Some((top.as_path(), me)));
        let keys = top.join("keys");
        private_folder::make(&keys)?;
        assert_eq!(of_another(&key, &top, me), None);
        // Only root can give something away: a test that cannot is no test.
        std::os::unix::fs::chown(&keys, Some(42_424), None)?;
        assert_eq!(of_another(&key, &top, me), Some((keys.as_path(), 42_424)));
        assert_eq!(of_another(Path::new("/etc/key"), &top, me + 1), None);
        Ok(())
    }
}
