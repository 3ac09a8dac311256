//! How attempts ended, one small file each, for the process after this one.
//!
//! A record must not outlive what it vouches for. Outputs are synced only when they are committed,
//! so after a crash of the *host* a record could tell of a success whose files are cut short.
//! Therefore a record names the boot it was written in and counts for nothing in another, and for
//! the same reason needs no sync of its own: within one boot the kernel keeps both.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    Handle,
    launch::{AttemptToken, Ended},
};

#[derive(Debug, Clone)]
pub(super) struct Records {
    folder: PathBuf,
    boot: Arc<str>,
}

#[derive(Serialize)]
struct Written<'a> {
    boot: &'a str,
    token: &'a AttemptToken,
    native: &'a str,
    ended: &'a Ended,
}

#[derive(Deserialize)]
struct Found {
    boot: String,
    token: AttemptToken,
    native: String,
    ended: Ended,
}

impl Records {
    /// Opens the folder `ends` below `state` and reads what is in it. Files that are not records of
    /// this boot are removed.
    pub(super) fn open(state: &Path) -> io::Result<(Self, Vec<(Handle, Ended)>)> {
        let folder = state.join("ends");
        fs_err::create_dir_all(&folder)?;
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let records = Self {
            folder,
            boot: boot.trim().into(),
        };
        let mut ended = Vec::new();
        for entry in fs_err::read_dir(&records.folder)? {
            let path = entry?.path();
            match records.read(&path) {
                Some(found) => ended.push(found),
                None => fs_err::remove_file(&path)?,
            }
        }
        Ok((records, ended))
    }

    fn read(&self, path: &Path) -> Option<(Handle, Ended)> {
        let bytes = fs_err::read(path).ok()?;
        let found: Found = serde_json::from_slice(&bytes).ok()?;
        let counts = *found.boot == *self.boot && path == self.path(&found.token);
        counts.then_some((
            Handle {
                token: found.token,
                native: found.native,
            },
            found.ended,
        ))
    }

    /// Writes a record. A host that cannot (a full disk) loses the knowledge, not the attempt:
    /// whoever waits hears of the end, a later process finds it gone.
    ///
    /// Written in place, as is removing it: some microseconds, less than it takes to have it done
    /// elsewhere.
    pub(super) fn write(&self, token: &AttemptToken, native: &str, ended: &Ended) {
        let written = Written {
            boot: &self.boot,
            token,
            native,
            ended,
        };
        let path = self.path(token);
        let result = match serde_json::to_vec(&written) {
            Ok(bytes) => replace(&path, &bytes),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            tracing::warn!(%token, %error, "the end of an attempt could not be recorded");
        }
    }

    /// Removes the record, if there is one.
    pub(super) fn remove(&self, token: &AttemptToken) {
        match fs_err::remove_file(self.path(token)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%token, %error, "the record of an attempt could not be removed");
            }
        }
    }

    fn path(&self, token: &AttemptToken) -> PathBuf {
        self.folder.join(format!("{token}.json"))
    }
}

/// A reader sees the whole record or none: it appears by a rename.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs_err::write(&draft, bytes)?;
    fs_err::rename(&draft, path)
}

/// Runs file system work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
