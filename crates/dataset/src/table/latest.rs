//! Tables as they stand, each log read once as long as nothing is added to it.

use std::{
    collections::HashMap,
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use barecount_model::text::DatasetName;

use super::{Snapshot, TableError, Tables};

/// Snapshots that were read, by the table's folder, each with the state of the log that it is of.
pub(super) type Seen = Arc<Mutex<HashMap<PathBuf, (LogState, Arc<Snapshot>)>>>;

impl Tables {
    /// A table as it stands; `None` if there is no such table, or it was dropped.
    ///
    /// Its log is read unless a clone has read it before and nothing was added since. Blocks
    /// while the log's folder is listed. Cancel-safe: it only reads.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn latest(&self, table: &DatasetName) -> Result<Option<Arc<Snapshot>>, TableError> {
        let root = self.root(table);
        let before = LogState::of(&root);
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = &before
            && let Some((known, snapshot)) = seen().get(&root)
            && known == before
        {
            return Ok(Some(Arc::clone(snapshot)));
        }
        let snapshot = match self.snapshot(table, None).await {
            Ok(snapshot) => Arc::new(snapshot),
            Err(TableError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        // What was added meanwhile may be in the snapshot or not: then it is read again next time.
        if let Some(before) = before {
            seen().insert(root, (before, Arc::clone(&snapshot)));
        }
        Ok(Some(snapshot))
    }
}

/// How far a table's log has come: its newest entry, and which file that is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogState {
    entry: String,
    file: (u64, i64, i64, u64),
}

impl LogState {
    /// None if there is no log.
    fn of(root: &Path) -> Option<Self> {
        let log = root.join("_delta_log");
        let names = std::fs::read_dir(&log).ok()?.flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let entry = names.filter(|name| is_entry(name)).max()?;
        let found = std::fs::metadata(log.join(&entry)).ok()?;
        let file = |found: &Metadata| (found.ino(), found.mtime(), found.mtime_nsec(), found.len());
        Some(Self {
            file: file(&found),
            entry,
        })
    }
}

fn is_entry(name: &str) -> bool {
    let digits = name.strip_suffix(".json");
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}
