//! Going back to an earlier version of a table, and dropping one: each a version of its own, so that
//! nothing is lost by it and each can be taken back.

use std::collections::BTreeSet;
use std::path::PathBuf;

use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{Action, Add, Metadata};
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use super::{ACT_KEY, Act, Difference};
use crate::commit::{is_conflict, remove};
use crate::name::TableName;
use crate::table::{DROPPED, OWNER, Snapshot, TableError, Tables, log_error};

/// Why a table was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The table cannot be read, or there is none of that name or version.
    #[error(transparent)]
    Table(#[from] TableError),
    /// What the version holds is not on the disk any more.
    #[error("a file of version {version} of dataset {table} is gone: `{}`", path.display())]
    FileGone {
        /// The table.
        table: TableName,
        /// The version.
        version: u64,
        /// The file.
        path: PathBuf,
    },
    /// Somebody else changed the table meanwhile.
    #[error("dataset {table} is no longer at version {expected}")]
    Changed {
        /// The table.
        table: TableName,
        /// The version that the change was made up for.
        expected: u64,
    },
    /// The log entry could not be written.
    #[error("cannot commit to dataset {table}")]
    Log {
        /// The table.
        table: TableName,
        /// Why.
        source: Box<DeltaTableError>,
    },
}

/// What going back to a version would do.
#[derive(Debug, Clone)]
pub struct Restoration {
    /// The version that the table is at; one that was dropped is at one, too.
    pub now: Snapshot,
    /// The version that it goes back to.
    pub then: Snapshot,
    /// What would come and go.
    pub difference: Difference,
}

impl Tables {
    /// What going back to a version would do. Nothing is changed.
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Errors
    /// [`ChangeError::Table`] if there is no such table or version, [`ChangeError::FileGone`] if the
    /// version's files were removed since.
    pub async fn foresee_restore(
        &self,
        table: &TableName,
        version: u64,
    ) -> Result<Restoration, ChangeError> {
        let now = self.described(table, None).await?.1;
        if version > now.version {
            return Err(not_found(table, Some(version)).into());
        }
        let then = self.described(table, Some(version)).await?.1;
        if then.dropped {
            return Err(not_found(table, Some(version)).into());
        }
        for file in &then.files {
            if !file.path.is_file() {
                return Err(ChangeError::FileGone {
                    table: table.clone(),
                    version,
                    path: file.path.clone(),
                });
            }
        }
        let difference = Difference::between(&now, &then);
        Ok(Restoration {
            now,
            then,
            difference,
        })
    }

    /// Makes a table what it was at the version that `to` tells of: its schema, and its files under
    /// their own names, so that whatever was true of it then is true of it again. Gives the new
    /// version.
    ///
    /// # Errors
    /// [`ChangeError::Changed`] if the table is not what `to` was made up for any more.
    pub async fn restore(
        &self,
        to: &Restoration,
        by: &str,
        at_ms: i64,
    ) -> Result<u64, ChangeError> {
        let table = &to.then.table;
        let _lock = self.lock(table).await;
        let (delta, now) = self.expected(table, to.now.version).await?;
        let (then_delta, then) = self.described(table, Some(to.then.version)).await?;
        let kept: BTreeSet<&str> = then.files.iter().map(|file| file.name.as_str()).collect();
        let live: BTreeSet<&str> = now.files.iter().map(|file| file.name.as_str()).collect();
        let mut actions = Vec::new();
        let log = |source| log_error(table, source);
        // Whose it is does not change by what it holds.
        let after =
            metadata(&then_delta).and_then(|then| with(&then, OWNER, now.given_to.as_deref()));
        let after = after.map_err(log)?;
        if metadata(&delta).map_err(log)? != after {
            actions.push(Action::Metadata(after));
        }
        let gone = now
            .files
            .iter()
            .filter(|file| !kept.contains(file.name.as_str()));
        actions.extend(gone.map(|file| remove(file, at_ms)));
        let adds = adds(&then_delta).await.map_err(log)?;
        let come = adds
            .into_iter()
            .filter(|add| !live.contains(add.path.as_str()));
        actions.extend(come.map(Action::Add));
        let operation = DeltaOperation::Restore {
            version: Some(then.version),
            datetime: None,
        };
        let restored = then.version;
        let act = Act::Restored { restored };
        self.change(&now, &delta, actions, operation, &act, by)
            .await
    }

    /// Drops a table: it is not there any more for whoever reads, and an earlier version of it can
    /// be restored for as long as its files are kept. Gives the new version.
    ///
    /// # Errors
    /// [`ChangeError::Changed`] if the table is not at `version` any more.
    pub async fn drop_table(
        &self,
        table: &TableName,
        version: u64,
        by: &str,
        at_ms: i64,
    ) -> Result<u64, ChangeError> {
        let _lock = self.lock(table).await;
        let (delta, now) = self.expected(table, version).await?;
        let log = |source| log_error(table, source);
        // Nobody owns what is not there.
        let dropped = metadata(&delta)
            .and_then(|now| with(&now, OWNER, None))
            .and_then(|now| with(&now, DROPPED, Some("true")));
        let dropped = dropped.map_err(log)?;
        let mut actions = vec![Action::Metadata(dropped)];
        actions.extend(now.files.iter().map(|file| remove(file, at_ms)));
        let operation = DeltaOperation::Delete { predicate: None };
        self.change(&now, &delta, actions, operation, &Act::Dropped, by)
            .await
    }

    /// Says which pipeline a table belongs to from now on. Gives the new version.
    ///
    /// # Errors
    /// [`ChangeError::Changed`] if the table is not at `version` any more.
    pub async fn give(
        &self,
        table: &TableName,
        version: u64,
        to: &str,
        by: &str,
    ) -> Result<u64, ChangeError> {
        let _lock = self.lock(table).await;
        let (delta, now) = self.expected(table, version).await?;
        let given = metadata(&delta).and_then(|now| with(&now, OWNER, Some(to)));
        let given = given.map_err(|source| log_error(table, source))?;
        let properties = std::iter::once((OWNER.to_owned(), to.to_owned())).collect();
        let operation = DeltaOperation::SetTableProperties { properties };
        let act = Act::Given { to: to.to_owned() };
        let actions = vec![Action::Metadata(given)];
        self.change(&now, &delta, actions, operation, &act, by)
            .await
    }

    async fn described(
        &self,
        table: &TableName,
        version: Option<u64>,
    ) -> Result<(DeltaTable, Snapshot), TableError> {
        let delta = self.load(table, version).await?;
        let delta = delta.ok_or_else(|| not_found(table, version))?;
        let snapshot = self.describe(table, &delta).await?;
        Ok((delta, snapshot))
    }

    async fn expected(
        &self,
        table: &TableName,
        version: u64,
    ) -> Result<(DeltaTable, Snapshot), ChangeError> {
        let (delta, now) = self.described(table, None).await?;
        if now.version != version {
            return Err(ChangeError::Changed {
                table: table.clone(),
                expected: version,
            });
        }
        Ok((delta, now))
    }

    async fn change(
        &self,
        now: &Snapshot,
        delta: &DeltaTable,
        actions: Vec<Action>,
        operation: DeltaOperation,
        act: &Act,
        by: &str,
    ) -> Result<u64, ChangeError> {
        let table = now.table.clone();
        let log = |source| log_error(&now.table, source);
        let mut told: Value = serde_json::to_value(act).map_err(|error| log(error.into()))?;
        told["by"] = json!(by);
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_cleanup_expired_logs(Some(false))
            .with_metadata([(ACT_KEY.to_owned(), told)]);
        let snapshot = delta.snapshot().map_err(log)?.snapshot();
        let written = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(
                Some(snapshot as &dyn TableReference),
                delta.log_store(),
                operation,
            )
            .await;
        match written {
            Ok(_) => Ok(now.version + 1),
            Err(error) if is_conflict(&error) => Err(ChangeError::Changed {
                table,
                expected: now.version,
            }),
            Err(source) => Err(ChangeError::Log {
                table,
                source: Box::new(source),
            }),
        }
    }
}

fn not_found(table: &TableName, version: Option<u64>) -> TableError {
    TableError::NotFound {
        table: table.clone(),
        version,
    }
}

fn metadata(delta: &DeltaTable) -> Result<Metadata, DeltaTableError> {
    Ok(delta.snapshot()?.metadata().clone())
}

/// The metadata with another property, or without it.
fn with(metadata: &Metadata, name: &str, value: Option<&str>) -> Result<Metadata, DeltaTableError> {
    let mut fields = serde_json::to_value(metadata)?;
    match (value, fields["configuration"].as_object_mut()) {
        (None, Some(properties)) => {
            properties.remove(name);
        }
        (Some(value), _) => fields["configuration"][name] = json!(value),
        (None, None) => {}
    }
    Ok(serde_json::from_value(fields)?)
}

/// The entries of the log that brought the files of a version, as they were.
#[expect(
    deprecated,
    reason = "the file view offers no other way to an `add` action"
)]
async fn adds(delta: &DeltaTable) -> Result<Vec<Add>, DeltaTableError> {
    let log = delta.log_store();
    let state = delta.snapshot()?.snapshot();
    let views: Vec<_> = state.file_views(&log, None).try_collect().await?;
    let add = |view: &deltalake_core::kernel::LogicalFileView| Add {
        data_change: true,
        ..view.add_action()
    };
    Ok(views.iter().map(add).collect())
}
