//! Rolling a decision forward into the tables: idempotent, durable step by step.
//!
//! What could stand against it for good is asked before the decision ([`Tables::foresee`]).
//!
//! For each dataset: (1) look for the application transaction in the log, and stop if it is
//! there; (2) link the staged files into the table's folder under names that only this decision
//! uses, and sync the folders; (3) put the log entry, if absent, synced. Dying after (2) leaves
//! files that no reader sees and that the repeat uses again; (3) is where the dataset changes.
//! Delta's own conflict check refuses a *concurrent* duplicate, but would accept a *later* one:
//! that is what (1) is for.

mod actions;
mod files;
mod widen;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use barecount_model::text::DatasetName;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{Action, EagerSnapshot, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};

pub(crate) use actions::remove;
use actions::{add, metadata_actions};
pub(crate) use files::{content_of, digits_of, name as file_name};
use files::{create_folder, name, place, sync};

use crate::decision::{Committed, DatasetCommit, Decision, StagedFile, WriteMode};
use crate::digest::RowsHash;
use crate::disk::Disk;
use crate::evolution::{Evolution, Present, Refusal, compatible};
use crate::partition::matches;
use crate::read::ReadError;
use crate::schema::TableSchema;
use crate::stage::StageError;
use crate::table::{DataFile, Snapshot, TableError, Tables, log_error};

/// How often a commit starts over because another writer was faster.
const MAX_CONFLICTS: usize = 16;
/// The log is summed up in a checkpoint every so many commits.
const CHECKPOINT_INTERVAL: u64 = 20;
/// The key in a log entry's `commitInfo` that holds a [`Committed`].
pub(crate) const COMMITTED_KEY: &str = "barecount";

/// Why a decision could not be rolled forward. Each can be repeated; only [`CommitError::Schema`],
/// [`CommitError::Superseded`] and [`CommitError::Decision`] will then fail again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The table's log cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The table holds rows of another schema.
    #[error("dataset {table} cannot take these rows")]
    Schema {
        /// The table.
        table: DatasetName,
        /// What stands against it.
        source: Box<Refusal>,
    },
    /// Rows that stay could not be written with wider types.
    #[error("cannot write what dataset {table} holds with wider types")]
    Widen {
        /// The table.
        table: DatasetName,
        /// Why.
        source: Box<StageError>,
    },
    /// The decision contradicts itself.
    #[error("the decision for dataset {table} is not valid: {reason}")]
    Decision {
        /// The table.
        table: DatasetName,
        /// What is wrong.
        reason: String,
    },
    /// A later commit of the same work is already there.
    #[error(
        "dataset {table} already holds version {present} of transaction `{app_id}`, later than {version}"
    )]
    Superseded {
        /// The table.
        table: DatasetName,
        /// The transaction.
        app_id: String,
        /// Its version in the decision.
        version: i64,
        /// Its version in the table.
        present: i64,
    },
    /// A staged file is neither in staging nor in the table, or is not what was decided on.
    #[error("staged file `{path}` is missing or not what was decided on", path = path.display())]
    StagedFile {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot bring `{path}` into the table", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of another writer had to be read for the digest, and cannot be.
    #[error("cannot digest what dataset {table} holds")]
    Digest {
        /// The table.
        table: DatasetName,
        /// Why.
        source: Box<ReadError>,
    },
    /// The log entry could not be written.
    #[error("cannot commit to dataset {table}")]
    Log {
        /// The table.
        table: DatasetName,
        /// Why.
        source: Box<DeltaTableError>,
    },
    /// Other writers were always faster.
    #[error(
        "gave up committing to dataset {table}: other writers were faster {MAX_CONFLICTS} times"
    )]
    Contended {
        /// The table.
        table: DatasetName,
    },
    /// The blocking task was cut short.
    #[error("the commit was interrupted")]
    Interrupted {
        /// Why.
        source: tokio::task::JoinError,
    },
}

impl Tables {
    /// Carries a decision out, in its order of datasets, and says what was committed; what is
    /// committed already is reported, not repeated.
    ///
    /// Not cancel-safe in the sense that some datasets may be committed when it is dropped, and
    /// others not; repeating it completes the decision.
    ///
    /// # Errors
    /// See [`CommitError`]; datasets before the failing one are committed.
    pub async fn roll_forward(&self, decision: &Decision) -> Result<Vec<Committed>, CommitError> {
        let mut committed = Vec::with_capacity(decision.datasets.len());
        for dataset in &decision.datasets {
            let _lock = self.lock(&dataset.table).await;
            committed.push(self.commit(dataset, decision.decided_at_ms).await?);
        }
        Ok(committed)
    }

    /// What of a decision an earlier roll-forward did commit. Nothing is changed.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`CommitError::Table`] if a table cannot be read.
    pub async fn standing(&self, decision: &Decision) -> Result<Vec<Committed>, CommitError> {
        let mut standing = Vec::new();
        for commit in &decision.datasets {
            let Some(delta) = self.load(&commit.table, None).await? else {
                continue;
            };
            match self.find(commit, &delta).await {
                Ok(found) => standing.extend(found),
                // Later work of the same kind stands in its place.
                Err(CommitError::Superseded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(standing)
    }

    async fn commit(&self, commit: &DatasetCommit, at_ms: i64) -> Result<Committed, CommitError> {
        check(commit)?;
        for _ in 0..MAX_CONFLICTS {
            let delta = self.load(&commit.table, None).await?;
            if let Some(delta) = &delta
                && let Some(committed) = self.find(commit, delta).await?
            {
                return Ok(committed);
            }
            let plan = self.plan(commit, at_ms, delta.as_ref()).await?;
            self.place_files(commit, &plan.incoming).await?;
            match self.write_log(commit, delta, &plan).await {
                Ok(()) => return Ok(plan.committed),
                Err(error) if is_conflict(&error) => {}
                Err(error) => {
                    // The entry may be there all the same: what failed may be its sync, or the
                    // checkpoint after it. Reporting is left to the repeat, which will sync.
                    let table = commit.table.clone();
                    return Err(CommitError::Log {
                        table,
                        source: Box::new(error),
                    });
                }
            }
        }
        Err(CommitError::Contended {
            table: commit.table.clone(),
        })
    }

    /// What an earlier roll-forward of the same transaction committed, if there was one.
    async fn find(
        &self,
        commit: &DatasetCommit,
        delta: &DeltaTable,
    ) -> Result<Option<Committed>, CommitError> {
        let wanted = &commit.transaction;
        let error = |source| log_error(&commit.table, source);
        let log_store = delta.log_store();
        let state = delta.snapshot().map_err(error)?;
        let present = state
            .transaction_version(log_store.as_ref(), &wanted.app_id)
            .await
            .map_err(error)?;
        let Some(present) = present.filter(|present| *present >= wanted.version) else {
            return Ok(None);
        };
        // The entry can be seen, but whoever wrote it may have died before syncing the folder.
        let log = self.root(&commit.table).join("_delta_log");
        self.blocking(move |disk| sync(disk, &log)).await?;
        for version in (0..=state.version()).rev() {
            let entry = log_store.read_commit_entry(version).await.map_err(error)?;
            let Some(entry) = entry else { break };
            if let Some(mut committed) = committed_in(&entry, commit) {
                committed.version = version;
                committed.uri = self.url(&commit.table)?.into();
                return Ok(Some(committed));
            }
        }
        let (table, app_id) = (commit.table.clone(), wanted.app_id.clone());
        Err(CommitError::Superseded {
            table,
            app_id,
            version: wanted.version,
            present,
        })
    }

    /// Holds a commit against its table as it stands: what would become of the table's schema.
    /// Nothing is changed.
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Errors
    /// [`CommitError::Schema`] and [`CommitError::Decision`] if it could never be rolled forward,
    /// [`CommitError::Table`] if the table cannot be read.
    pub async fn foresee(&self, commit: &DatasetCommit) -> Result<Option<Evolution>, CommitError> {
        check(commit)?;
        let Some(delta) = self.load(&commit.table, None).await? else {
            return Ok(None);
        };
        let before = self.describe(&commit.table, &delta).await?;
        if before.dropped {
            return Ok(None);
        }
        evolve(commit, &before).map(Some)
    }

    /// What the commit changes, given the table as it is now.
    async fn plan(
        &self,
        commit: &DatasetCommit,
        at_ms: i64,
        delta: Option<&DeltaTable>,
    ) -> Result<Plan, CommitError> {
        let before = match delta {
            Some(delta) => Some(self.describe(&commit.table, delta).await?),
            None => None,
        };
        let (schema, present) = schema_after(commit, before.as_ref())?;
        let is_removed = |file: &DataFile| {
            present == Present::Removed
                || commit.mode == WriteMode::Overwrite
                    && matches(&file.partition_values, &commit.replace_partition)
        };
        let files = before.as_ref().map_or(&[][..], |before| &before.files);
        let (mut removed, mut kept): (Vec<DataFile>, Vec<DataFile>) =
            files.iter().cloned().partition(is_removed);
        let mut incoming = Vec::new();
        if present == Present::Widened {
            incoming = self.widen(commit, &schema, &kept).await?;
            removed.append(&mut kept);
        }

        let mut totals = Totals::default();
        for file in &kept {
            totals.add_present(commit, before.as_ref(), file).await?;
        }
        for file in &incoming {
            totals.add_staged(&file.file);
        }
        let written = Totals::staged(&commit.files);
        totals.add(written.rows, written.bytes, &written.hash);

        incoming.extend(commit.files.iter().map(|file| Incoming {
            from: commit.staging.join(&file.path),
            name: name(commit, file),
            written_as: None,
            modified_ms: at_ms,
            file: file.clone(),
        }));
        let mut actions = metadata_actions(commit, &schema, before.as_ref(), delta)
            .map_err(|source| log_error(&commit.table, source))?;
        actions.extend(removed.iter().map(|file| remove(file, at_ms)));
        let added = |file| add(file, self, &commit.table, &schema);
        actions.extend(incoming.iter().map(added));
        let committed = Committed {
            dataset: commit.table.clone(),
            version: before.as_ref().map_or(0, |before| before.version + 1),
            uri: self.url(&commit.table)?.into(),
            rows: totals.rows,
            bytes: totals.bytes,
            digest: totals.digest(&schema),
            written_rows: written.rows,
            written_bytes: written.bytes,
            written_digest: written.digest(&commit.schema),
            written_schema: (written.digest(&commit.schema) != written.digest(&schema))
                .then(|| commit.schema.clone()),
        };
        Ok(Plan {
            actions,
            incoming,
            committed,
        })
    }

    async fn widen(
        &self,
        commit: &DatasetCommit,
        schema: &TableSchema,
        kept: &[DataFile],
    ) -> Result<Vec<Incoming>, CommitError> {
        let (state, commit) = (self.state().to_owned(), commit.clone());
        let (schema, kept) = (schema.clone(), kept.to_vec());
        self.blocking(move |_| widen::rewrite(&state, &commit, &schema, &kept))
            .await
    }

    /// Links new files into the table's folder. Dying in between leaves links that no log entry
    /// names; the repeat finds them in place, and a sweep would remove them.
    async fn place_files(
        &self,
        commit: &DatasetCommit,
        incoming: &[Incoming],
    ) -> Result<(), CommitError> {
        let root = self.root(&commit.table);
        let (state, incoming) = (self.state().to_owned(), incoming.to_vec());
        self.blocking(move |disk| {
            create_folder(disk, &root)?;
            let mut folders = BTreeSet::new();
            for new in &incoming {
                let (from, to) = (state.join(&new.from), root.join(&new.name));
                if let Some(folder) = to.parent().filter(|folder| !folders.contains(*folder)) {
                    create_folder(disk, folder)?;
                    folders.insert(folder.to_owned());
                }
                place(disk, &from, &to, &new.file)?;
            }
            folders.iter().try_for_each(|folder| sync(disk, folder))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Disk) -> Result<T, CommitError> + Send + 'static,
    ) -> Result<T, CommitError> {
        let disk = Arc::clone(&self.disk);
        tokio::task::spawn_blocking(move || work(disk.as_ref()))
            .await
            .map_err(|source| CommitError::Interrupted { source })?
    }

    async fn write_log(
        &self,
        commit: &DatasetCommit,
        delta: Option<DeltaTable>,
        plan: &Plan,
    ) -> Result<(), DeltaTableError> {
        let delta = match delta {
            Some(delta) => delta,
            None => self.delta(&commit.table).map_err(|error| {
                DeltaTableError::generic(format!("the table cannot be created: {error}"))
            })?,
        };
        let committed = serde_json::to_value(&plan.committed)?;
        let transaction = Transaction::new(&commit.transaction.app_id, commit.transaction.version);
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_cleanup_expired_logs(Some(false))
            .with_metadata([(COMMITTED_KEY.to_owned(), committed)])
            .with_application_transaction(transaction);
        let partitions = commit.schema.partition_by().to_vec();
        let operation = DeltaOperation::Write {
            mode: match commit.mode {
                WriteMode::Overwrite => SaveMode::Overwrite,
                WriteMode::Append => SaveMode::Append,
            },
            partition_by: (!partitions.is_empty()).then_some(partitions),
            predicate: None,
        };
        let snapshot: Option<&EagerSnapshot> = delta.snapshot().ok().map(|state| state.snapshot());
        CommitBuilder::from(properties)
            .with_actions(plan.actions.clone())
            .build(
                snapshot.map(|s| s as &dyn TableReference),
                delta.log_store(),
                operation,
            )
            .await
            .map(drop)
    }
}

struct Plan {
    actions: Vec<Action>,
    incoming: Vec<Incoming>,
    committed: Committed,
}

/// A file that becomes part of the table.
#[derive(Debug, Clone)]
struct Incoming {
    /// Where it is, relative to the state folder.
    from: PathBuf,
    /// Its path in the table.
    name: String,
    /// The file that its rows came in, where this commit only writes them anew.
    written_as: Option<String>,
    /// When its rows were decided for, in Unix milliseconds.
    modified_ms: i64,
    /// What is in it.
    file: StagedFile,
}

/// The schema after a commit, and what becomes of the files that are there.
fn schema_after(
    commit: &DatasetCommit,
    before: Option<&Snapshot>,
) -> Result<(TableSchema, Present), CommitError> {
    Ok(match before {
        Some(before) if !before.dropped => {
            let evolution = evolve(commit, before)?;
            (evolution.schema, evolution.present)
        }
        // One that was dropped holds nothing that would have to stay.
        _ => (commit.schema.clone(), Present::Stay),
    })
}

fn evolve(commit: &DatasetCommit, before: &Snapshot) -> Result<Evolution, CommitError> {
    let rule = commit.schema_evolution;
    let evolution = compatible(&before.schema, &commit.schema, commit.rows(), rule);
    evolution.map_err(|source| CommitError::Schema {
        table: commit.table.clone(),
        source: Box::new(source),
    })
}

#[derive(Default)]
struct Totals {
    rows: u64,
    bytes: u64,
    hash: RowsHash,
}

impl Totals {
    fn add(&mut self, rows: u64, bytes: u64, hash: &RowsHash) {
        self.rows += rows;
        self.bytes += bytes;
        self.hash.add(hash);
    }

    fn digest(&self, schema: &TableSchema) -> String {
        self.hash.digest(schema, self.rows)
    }

    fn staged(files: &[StagedFile]) -> Self {
        let mut sum = Self::default();
        files.iter().for_each(|file| sum.add_staged(file));
        sum
    }

    fn add_staged(&mut self, file: &StagedFile) {
        self.add(file.rows, file.bytes, &file.rows_hash);
    }

    /// Adds a file of the table; one that another writer brought is read for its digest.
    async fn add_present(
        &mut self,
        commit: &DatasetCommit,
        snapshot: Option<&Snapshot>,
        file: &DataFile,
    ) -> Result<(), CommitError> {
        if let (Some(rows), Some(hash)) = (file.rows, &file.rows_hash) {
            self.add(rows, file.bytes, hash);
            return Ok(());
        }
        let Some(snapshot) = snapshot.cloned() else {
            return Ok(());
        };
        let wanted = file.clone();
        let (rows, hash) = tokio::task::spawn_blocking(move || snapshot.hash_file(&wanted))
            .await
            .map_err(|source| CommitError::Interrupted { source })?
            .map_err(|source| CommitError::Digest {
                table: commit.table.clone(),
                source: Box::new(source),
            })?;
        self.add(rows, file.bytes, &hash);
        Ok(())
    }
}

/// Refuses a decision that would put files where they do not belong.
fn check(commit: &DatasetCommit) -> Result<(), CommitError> {
    let refuse = |reason: String| {
        Err(CommitError::Decision {
            table: commit.table.clone(),
            reason,
        })
    };
    let is_inside = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_)));
    if !is_inside(&commit.staging) {
        return refuse(format!(
            "staging folder `{}` is not below the state folder",
            commit.staging.display()
        ));
    }
    for file in &commit.files {
        if !is_inside(Path::new(&file.path)) {
            return refuse(format!(
                "`{}` is not a file of the staging folder",
                file.path
            ));
        }
        if !file.partition_values.keys().eq(commit
            .schema
            .partition_by()
            .iter()
            .collect::<BTreeSet<_>>())
        {
            return refuse(format!(
                "`{}` does not have the table's partition columns",
                file.path
            ));
        }
        if !matches(&file.partition_values, &commit.replace_partition) {
            return refuse(format!(
                "`{}` is outside the partition that is replaced",
                file.path
            ));
        }
    }
    Ok(())
}

pub(crate) fn is_conflict(error: &DeltaTableError) -> bool {
    use deltalake_core::kernel::transaction::TransactionError as E;
    let DeltaTableError::Transaction { source } = error else {
        return false;
    };
    matches!(
        source,
        E::VersionAlreadyExists(_) | E::MaxCommitAttempts(_) | E::CommitConflict(_)
    )
}

/// What a log entry says it committed, if it is the transaction's.
fn committed_in(entry: &[u8], commit: &DatasetCommit) -> Option<Committed> {
    let mut is_ours = false;
    let mut committed = None;
    for line in entry.split(|byte| *byte == b'\n') {
        let Ok(action) = serde_json::from_slice::<serde_json::Value>(line) else {
            continue;
        };
        let transaction = &action["txn"];
        is_ours |= transaction["appId"] == commit.transaction.app_id.as_str()
            && transaction["version"] == commit.transaction.version;
        if let Some(info) = action
            .get("commitInfo")
            .and_then(|info| info.get(COMMITTED_KEY))
        {
            committed = serde_json::from_value(info.clone()).ok();
        }
    }
    committed.filter(|_| is_ours)
}

#[cfg(test)]
mod tests;
