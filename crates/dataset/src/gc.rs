//! Clean-up: data files that no log entry needs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use barecount_model::text::DatasetName;

use crate::disk::TEMPORARY_PREFIX;
use crate::table::{TableError, Tables};

/// Why a sweep stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The table's log cannot be read, so nothing is known to be unneeded.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A folder cannot be listed, or a file not be removed.
    #[error("cannot sweep `{path}`", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The blocking task was cut short.
    #[error("the sweep was interrupted")]
    Interrupted {
        /// Why.
        source: tokio::task::JoinError,
    },
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tables {
    /// Removes data files of a table that neither its latest version nor one of those to `keep`
    /// uses, and that are at least `retention` old at `now`: files of overwritten versions, which
    /// can then no longer be read, and files whose commit never came. A commit in this process
    /// waits; to be safe from one in another process, `retention` must exceed the time from staging
    /// to commit.
    ///
    /// # Errors
    /// If the log or a folder cannot be read, or a file not be removed; a repeat goes on.
    pub async fn sweep_table(
        &self,
        table: &DatasetName,
        now: SystemTime,
        retention: Duration,
        keep: &BTreeSet<u64>,
    ) -> Result<Swept, SweepError> {
        let _lock = self.lock(table).await;
        let mut used: BTreeSet<PathBuf> = BTreeSet::new();
        for version in keep.iter().copied().map(Some).chain([None]) {
            if let Some(delta) = self.load(table, version).await? {
                let files = self.describe(table, &delta).await?.files;
                used.extend(files.into_iter().map(|file| file.path));
            }
        }
        let root = self.root(table);
        let sweep = move || {
            let is_due = |path: &Path| -> io::Result<bool> {
                let is_data = path.extension().is_some_and(|e| e == "parquet")
                    && !path.starts_with(root.join("_delta_log"));
                let is_temporary = path
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY_PREFIX));
                if !(is_temporary || is_data && !used.contains(path)) {
                    return Ok(false);
                }
                // The age of the link, not of the content: a file may be staged long before.
                use std::os::unix::fs::MetadataExt as _;
                let changed = fs::symlink_metadata(path)?.ctime();
                let changed = Duration::from_secs(u64::try_from(changed).unwrap_or(0));
                let age = now.duration_since(SystemTime::UNIX_EPOCH + changed);
                Ok(age.unwrap_or_default() >= retention)
            };
            let mut swept = Swept::default();
            sweep_folder(&root, &is_due, &mut swept).map(|()| swept)
        };
        tokio::task::spawn_blocking(sweep)
            .await
            .map_err(|source| SweepError::Interrupted { source })?
    }
}

fn sweep_folder(
    folder: &Path,
    is_due: &dyn Fn(&Path) -> io::Result<bool>,
    swept: &mut Swept,
) -> Result<(), SweepError> {
    let error = |path: &Path, source| SweepError::Io {
        path: path.to_owned(),
        source,
    };
    for (path, is_dir) in entries(folder)? {
        if is_dir {
            sweep_folder(&path, is_due, swept)?;
        } else if is_due(&path).map_err(|source| error(&path, source))? {
            let bytes = fs::symlink_metadata(&path)
                .map_err(|source| error(&path, source))?
                .len();
            remove(fs::remove_file(&path), &path)?;
            swept.files += 1;
            swept.bytes += bytes;
        }
    }
    Ok(())
}

/// The entries of a folder, links not followed; none if it does not exist.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>, SweepError> {
    let list = || -> io::Result<Vec<(PathBuf, bool)>> {
        let listing = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing?,
        };
        listing
            .map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir()))))
            .collect()
    };
    list().map_err(|source| SweepError::Io {
        path: folder.to_owned(),
        source,
    })
}

fn remove(removed: io::Result<()>, path: &Path) -> Result<(), SweepError> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SweepError::Io {
            path: path.to_owned(),
            source,
        }),
        Ok(()) => Ok(()),
    }
}
