//! The versions of a table: what brought each, and how two differ.

mod change;

use std::collections::{BTreeMap, BTreeSet};

use deltalake_core::DeltaTable;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commit::COMMITTED_KEY;
use crate::decision::{AppTransaction, Committed};
use crate::evolution::{Change, changes};
use crate::schema::TableSchema;
use crate::table::{Snapshot, TableError, Tables, WRITTEN_AS_TAG, log_error};
use barecount_model::text::DatasetName;

pub use change::{ChangeError, Restoration};

/// The key in a log entry's `commitInfo` that holds an [`Act`] and who did it.
const ACT_KEY: &str = "barecount.act";

/// What brought a version of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// A run replaced the table, or one partition of it.
    Overwritten,
    /// A run added to it.
    Appended,
    /// Somebody made it what it was at an earlier version.
    Restored {
        /// That version.
        restored: u64,
    },
    /// Somebody dropped it.
    Dropped,
    /// Somebody gave it to a pipeline.
    Given {
        /// That pipeline.
        to: String,
    },
    /// Another program did something.
    Other {
        /// What, in its words.
        operation: String,
    },
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Overwritten => f.write_str("overwritten"),
            Self::Appended => f.write_str("appended"),
            Self::Restored { restored } => write!(f, "restored version {restored}"),
            Self::Given { to } => write!(f, "given to pipeline `{to}`"),
            Self::Dropped => f.write_str("dropped"),
            Self::Other { operation } => write!(f, "{operation} by another program"),
        }
    }
}

/// Files and their rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Rows in them; none where a file's writer did not say.
    pub rows: Option<u64>,
}

impl Amount {
    fn of(rows: impl IntoIterator<Item = Option<u64>>) -> Self {
        let mut amount = Self {
            files: 0,
            rows: Some(0),
        };
        for rows in rows {
            amount.files += 1;
            amount.rows = amount.rows.zip(rows).map(|(sum, rows)| sum + rows);
        }
        amount
    }
}

/// A version of a table, as its log tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Its number.
    pub version: u64,
    /// When it came, in Unix milliseconds, if its entry says so.
    pub at_ms: Option<i64>,
    /// What brought it.
    #[serde(flatten)]
    pub act: Act,
    /// Who restored or dropped.
    pub by: Option<String>,
    /// The transaction that a run committed: its task, and the attempt's number.
    pub transaction: Option<AppTransaction>,
    /// Rows of the whole table; none where that cannot be told.
    pub rows: Option<u64>,
    /// The content digest of the whole table, where a run committed it.
    pub digest: Option<String>,
    /// What came. Rows that were only written anew, with wider types, do not count.
    pub added: Amount,
    /// What went.
    pub removed: Amount,
    /// How the schema differs from the version before.
    pub schema_changes: Vec<Change>,
}

impl Version {
    /// When it came, if its entry says so.
    pub fn at(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.at_ms?).ok()
    }
}

impl Tables {
    /// All versions of a table that its log still has, oldest first. Also of one that was dropped.
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Errors
    /// [`TableError::NotFound`] if there never was such a table; if its log cannot be read.
    pub async fn history(&self, table: &DatasetName) -> Result<Vec<Version>, TableError> {
        Ok(self.replay(table, None).await?.told)
    }

    /// A version of a table (the latest, if none is named), and the versions that brought the rows
    /// that it holds, oldest first.
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Errors
    /// [`TableError::NotFound`] if there is no such table or version; if its log cannot be read.
    pub async fn origins(
        &self,
        table: &DatasetName,
        version: Option<u64>,
    ) -> Result<(Version, Vec<Version>), TableError> {
        let Replay { mut told, live } = self.replay(table, version).await?;
        let since: BTreeSet<u64> = live.values().map(|file| file.since).collect();
        let found = |last: &Version| version.is_none_or(|version| last.version == version);
        let last = told.last().cloned().filter(found);
        let last = last.ok_or_else(|| TableError::NotFound {
            table: table.clone(),
            version,
        })?;
        told.retain(|version| since.contains(&version.version));
        Ok((last, told))
    }

    /// Reads a log from its beginning, up to a version.
    async fn replay(&self, table: &DatasetName, upto: Option<u64>) -> Result<Replay, TableError> {
        let delta = self.load(table, None).await?;
        let delta = delta.ok_or_else(|| TableError::NotFound {
            table: table.clone(),
            version: None,
        })?;
        let error = |source| log_error(table, source);
        let latest = delta.snapshot().map_err(error)?.version();
        let log = delta.log_store();
        let mut replay = Replay::default();
        let mut first = BTreeMap::new();
        let mut schema: Option<TableSchema> = None;
        for version in 0..=upto.map_or(latest, |upto| upto.min(latest)) {
            // Another program may have cleaned up what a checkpoint has summed up.
            let Some(entry) = log.read_commit_entry(version).await.map_err(error)? else {
                continue;
            };
            let mut entry = Entry::read(&entry);
            for (_, new) in &mut entry.added {
                new.since = *first.entry(new.written_as.clone()).or_insert(version);
            }
            let before = schema.clone();
            if entry.metadata {
                schema = Some(self.schema_at(table, version).await?);
            }
            let mut found = entry.apply(version, &mut replay.live);
            if let (Some(before), Some(after), true) = (&before, &schema, entry.metadata) {
                found.schema_changes = changes(before, after);
            }
            replay.told.push(found);
        }
        Ok(replay)
    }

    async fn schema_at(
        &self,
        table: &DatasetName,
        version: u64,
    ) -> Result<TableSchema, TableError> {
        let delta = self.load(table, Some(version)).await?;
        let delta: DeltaTable = delta.ok_or_else(|| TableError::NotFound {
            table: table.clone(),
            version: Some(version),
        })?;
        Ok(self.describe(table, &delta).await?.schema)
    }
}

/// A log that was read.
#[derive(Debug, Default)]
struct Replay {
    told: Vec<Version>,
    live: BTreeMap<String, Live>,
}

/// A file that is in the table, as the log tells it.
#[derive(Debug, Clone)]
struct Live {
    written_as: String,
    /// The version that its rows were first committed in.
    since: u64,
    rows: Option<u64>,
}

/// What an entry of a log says.
#[derive(Debug, Default)]
struct Entry {
    added: Vec<(String, Live)>,
    removed: Vec<String>,
    metadata: bool,
    transaction: Option<AppTransaction>,
    info: Value,
}

impl Entry {
    /// What cannot be read is some other program's; the log itself was read before.
    fn read(entry: &[u8]) -> Self {
        let mut found = Self::default();
        for line in entry.split(|byte| *byte == b'\n') {
            let Ok(action) = serde_json::from_slice::<Value>(line) else {
                continue;
            };
            let add = &action["add"];
            if let Some(path) = add["path"].as_str() {
                let stats = add["stats"].as_str().unwrap_or_default();
                let stats: Value = serde_json::from_str(stats).unwrap_or_default();
                let first = add["tags"][WRITTEN_AS_TAG].as_str();
                let live = Live {
                    written_as: first.unwrap_or(path).to_owned(),
                    since: 0,
                    rows: stats["numRecords"].as_u64(),
                };
                found.added.push((path.to_owned(), live));
            }
            let removed = action["remove"]["path"].as_str();
            found.removed.extend(removed.map(str::to_owned));
            found.metadata |= action["metaData"].is_object();
            let transaction = &action["txn"];
            if let (Some(app_id), Some(version)) = (
                transaction["appId"].as_str(),
                transaction["version"].as_i64(),
            ) {
                let app_id = app_id.to_owned();
                found.transaction = Some(AppTransaction { app_id, version });
            }
            if action["commitInfo"].is_object() {
                found.info = action["commitInfo"].clone();
            }
        }
        found
    }

    /// Takes the entry into what is live, and tells what it did.
    fn apply(&mut self, version: u64, live: &mut BTreeMap<String, Live>) -> Version {
        let committed: Option<Committed> =
            serde_json::from_value(self.info[COMMITTED_KEY].clone()).ok();
        let gone: Vec<Live> = self
            .removed
            .iter()
            .filter_map(|path| live.remove(path))
            .collect();
        let is_rewritten = |name: &str| gone.iter().any(|gone| gone.written_as == name);
        let came = self.added.iter().map(|(_, new)| new);
        let added = Amount::of(
            came.clone()
                .filter(|new| !is_rewritten(&new.written_as))
                .map(|new| new.rows),
        );
        let stays = |name: &str| came.clone().any(|new| new.written_as == name);
        let removed = gone.iter().filter(|gone| !stays(&gone.written_as));
        let removed = Amount::of(removed.map(|gone| gone.rows));
        live.extend(self.added.drain(..));
        Version {
            version,
            at_ms: self.info["timestamp"].as_i64(),
            act: self.act(committed.is_some()),
            by: self.info[ACT_KEY]["by"].as_str().map(str::to_owned),
            transaction: self.transaction.take().filter(|_| committed.is_some()),
            rows: Amount::of(live.values().map(|file| file.rows)).rows,
            digest: committed.map(|committed| committed.digest),
            added,
            removed,
            schema_changes: Vec::new(),
        }
    }

    fn act(&self, committed: bool) -> Act {
        if let Ok(act) = serde_json::from_value(self.info[ACT_KEY].clone()) {
            return act;
        }
        let mode = self.info["operationParameters"]["mode"].as_str();
        match mode {
            Some("Append") if committed => Act::Appended,
            _ if committed => Act::Overwritten,
            _ => Act::Other {
                operation: self.info["operation"]
                    .as_str()
                    .unwrap_or("change")
                    .to_owned(),
            },
        }
    }
}

/// How two versions of a table differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How the columns differ.
    pub columns: Vec<Change>,
    /// What the second has and the first has not.
    pub added: Amount,
    /// What the first has and the second has not.
    pub removed: Amount,
}

impl Difference {
    /// How `to` differs from `from`, by their files: a file that was written anew with wider types is
    /// the same.
    pub fn between(from: &Snapshot, to: &Snapshot) -> Self {
        let (before, after) = (by_name(from), by_name(to));
        let only = |these: &BTreeMap<&str, Amount>, those: &BTreeMap<&str, Amount>| {
            let mut only = Amount::of([]);
            for (_, amount) in these.iter().filter(|(name, _)| !those.contains_key(*name)) {
                only.files += amount.files;
                only.rows = only.rows.zip(amount.rows).map(|(sum, rows)| sum + rows);
            }
            only
        };
        Self {
            columns: changes(&from.schema, &to.schema),
            added: only(&after, &before),
            removed: only(&before, &after),
        }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.columns.is_empty() && self.added.files == 0 && self.removed.files == 0
    }
}

/// A snapshot's files, by the names that their rows were committed under.
fn by_name(snapshot: &Snapshot) -> BTreeMap<&str, Amount> {
    let mut found: BTreeMap<&str, Amount> = BTreeMap::new();
    for file in &snapshot.files {
        let amount = found
            .entry(&file.written_as)
            .or_insert_with(|| Amount::of([]));
        amount.files += 1;
        amount.rows = amount.rows.zip(file.rows).map(|(sum, rows)| sum + rows);
    }
    found
}
