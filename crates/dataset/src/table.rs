//! Tables in a state folder, and snapshots of them.

mod latest;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use barecount_model::seal::SealKey;
use barecount_model::text::DatasetName;
use deltalake_core::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use futures::TryStreamExt as _;
use url::Url;

use crate::commit::content_of;
use crate::digest::RowsHash;
use crate::disk::{Disk, LocalDisk};
use crate::name::{Tenant, folder};
use crate::partition::PartitionValues;
use crate::schema::{ArrowForm, Column, ColumnType, InvalidSchema, TableSchema};
use crate::seal::Claim;
pub use crate::seal::Standing;
use crate::store::DurableStore;
use latest::Seen;

/// The folder of all tables in a state folder.
pub(crate) const DATASETS: &str = "datasets";
/// The tag of an `add` action that holds the sum of the file's row hashes.
pub(crate) const ROWS_HASH_TAG: &str = "barecount.rows_hash";
pub(crate) const FILE_DIGEST_TAG: &str = "barecount.sha256";
/// The tag that holds the seal over what the others say.
pub(crate) const SEAL_TAG: &str = "barecount.seal";
/// Names the file whose rows a file holds, where they were written anew.
pub(crate) const WRITTEN_AS_TAG: &str = "barecount.written_as";

/// The property of a table that was dropped. Its log stays, so that it can be restored.
pub(crate) const DROPPED: &str = "barecount.dropped";
/// The property of a table that says which pipeline it was given to.
pub(crate) const OWNER: &str = "barecount.owner";

/// Why a table cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The table, or that version of it, does not exist.
    #[error("there is no {}of dataset {table}", version.map_or("version ".to_owned(), |v| format!("version {v} ")))]
    NotFound {
        /// The table.
        table: DatasetName,
        /// The version that was asked for.
        version: Option<u64>,
    },
    /// Its folder may not be looked into.
    #[error("the folder of dataset {table} cannot be looked into")]
    Closed {
        /// The table.
        table: DatasetName,
        /// Why.
        source: std::io::Error,
    },
    /// The log cannot be read.
    #[error("cannot read the log of dataset {table}")]
    Log {
        /// The table.
        table: DatasetName,
        /// Why.
        source: Box<DeltaTableError>,
    },
    /// Someone else's table uses what we do not read.
    #[error("dataset {table} uses {feature}, which is not supported")]
    Unsupported {
        /// The table.
        table: DatasetName,
        /// What it uses.
        feature: String,
    },
    /// The table's columns are not ours.
    #[error("the schema of dataset {table} cannot be used")]
    Schema {
        /// The table.
        table: DatasetName,
        /// Why.
        source: InvalidSchema,
    },
}

/// All tables of a state folder, each tenant's in a folder of its own:
/// `<state>/datasets/<tenant>/<layer>/<name>/`.
///
/// Nothing is done to a table from here: [`StateTables::of`] gives those of one tenant, so that no
/// caller reaches another's for want of a word. Cheap to clone. Commits and sweeps of one table wait
/// for each other within clones, which share what they have read; between processes the Delta log
/// decides.
#[derive(Debug, Clone)]
pub struct StateTables {
    state: PathBuf,
    disk: Arc<dyn Disk>,
    seals: Option<SealKey>,
    locks: Locks,
    seen: Seen,
}

/// One lock a table, whoever's it is.
type Locks = Arc<Mutex<HashMap<(Tenant, DatasetName), Arc<tokio::sync::Mutex<()>>>>>;

impl StateTables {
    /// The tables of the state folder at an absolute path.
    pub fn new(state: PathBuf) -> Self {
        Self::on_disk(state, Arc::new(LocalDisk::default()))
    }

    /// As [`StateTables::new`], with a disk of the caller's.
    pub fn on_disk(state: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self {
            state,
            disk,
            seals: None,
            locks: Arc::default(),
            seen: Seen::default(),
        }
    }

    /// The same tables for who has the key of their logs' seals: what is committed is sealed, and of
    /// what the logs say of data files only that is believed which has a seal that holds. Without the
    /// key all of it is believed, and nothing sealed.
    #[must_use]
    pub fn sealed(self, key: SealKey) -> Self {
        let seals = Some(key);
        Self { seals, ..self }
    }

    /// The tables of one tenant.
    pub fn of(&self, tenant: &Tenant) -> Tables {
        Tables {
            state: self.state.clone(),
            tenant: tenant.clone(),
            disk: Arc::clone(&self.disk),
            seals: self.seals.clone(),
            locks: Arc::clone(&self.locks),
            seen: Arc::clone(&self.seen),
        }
    }

    /// The tenants that have a folder, in order. Blocks.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn tenants(&self) -> std::io::Result<Vec<Tenant>> {
        let found = folders(&self.state.join(DATASETS))?;
        let mut tenants: Vec<_> = found.iter().filter_map(|name| name.parse().ok()).collect();
        tenants.sort();
        Ok(tenants)
    }
}

/// The tables of one tenant, at `<state>/datasets/<tenant>/<layer>/<name>/`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tables {
    state: PathBuf,
    tenant: Tenant,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) seals: Option<SealKey>,
    locks: Locks,
    seen: Seen,
}

impl Tables {
    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Whose they are.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The folder of all of them.
    fn folder(&self) -> PathBuf {
        self.state.join(DATASETS).join(self.tenant.as_str())
    }

    /// The folder of a table, whether it exists or not.
    pub fn root(&self, table: &DatasetName) -> PathBuf {
        self.folder().join(folder(table))
    }

    /// The names of all tables that have a folder, in order. Blocks.
    ///
    /// # Errors
    /// If the folders cannot be listed.
    pub fn names(&self) -> std::io::Result<Vec<DatasetName>> {
        let mut names = Vec::new();
        for layer in folders(&self.folder())? {
            for name in folders(&self.folder().join(&layer))? {
                names.extend(format!("{layer}.{name}").parse::<DatasetName>().ok());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The lock that commits and sweeps of a table take.
    pub(crate) async fn lock(&self, table: &DatasetName) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (self.tenant.clone(), table.clone());
            Arc::clone(locks.entry(key).or_default())
        };
        lock.lock_owned().await
    }

    /// The table's location as a URL, for those who read it from outside.
    pub(crate) fn url(&self, table: &DatasetName) -> Result<Url, TableError> {
        Url::from_directory_path(self.root(table)).map_err(|()| TableError::Unsupported {
            table: table.clone(),
            feature: "a state folder without an absolute path".to_owned(),
        })
    }

    /// The Delta table, not loaded; its folder is there.
    pub(crate) fn delta(&self, table: &DatasetName) -> Result<DeltaTable, TableError> {
        let error = |source| log_error(table, source);
        let store = DurableStore::new(&self.root(table), Arc::clone(&self.disk))
            .map_err(|source| error(source.into()))?;
        // The root of a store that is the table's folder alone.
        let root = Url::parse("file:///").map_err(|source| {
            error(DeltaTableError::generic(format!(
                "no URL of a root: {source}"
            )))
        })?;
        DeltaTableBuilder::from_url(root.clone())
            .and_then(|builder| builder.with_storage_backend(Arc::new(store), root).build())
            .map_err(error)
    }

    /// The Delta table at a version, or at its latest; `None` if there is no table.
    pub(crate) async fn load(
        &self,
        table: &DatasetName,
        version: Option<u64>,
    ) -> Result<Option<DeltaTable>, TableError> {
        let unreadable = |source| TableError::Closed {
            table: table.clone(),
            source,
        };
        let log = self.root(table).join("_delta_log");
        if !log.try_exists().map_err(unreadable)? {
            return Ok(None);
        }
        let mut delta = self.delta(table)?;
        let error = |source| log_error(table, source);
        if !delta.verify_deltatable_existence().await.map_err(error)? {
            return Ok(None);
        }
        let loaded = match version {
            Some(version) => delta.load_version(version).await,
            None => delta.load().await,
        };
        match loaded {
            Ok(()) => Ok(Some(delta)),
            Err(DeltaTableError::InvalidVersion(_)) => Err(TableError::NotFound {
                table: table.clone(),
                version,
            }),
            Err(source) => Err(error(source)),
        }
    }

    /// A snapshot of a table at a version, or at its latest.
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Errors
    /// [`TableError::NotFound`] if there is no such table or version, or it was dropped there.
    pub async fn snapshot(
        &self,
        table: &DatasetName,
        version: Option<u64>,
    ) -> Result<Snapshot, TableError> {
        let not_found = || TableError::NotFound {
            table: table.clone(),
            version,
        };
        let delta = self.load(table, version).await?.ok_or_else(not_found)?;
        let snapshot = self.describe(table, &delta).await?;
        match snapshot.dropped {
            true => Err(not_found()),
            false => Ok(snapshot),
        }
    }

    /// What a loaded Delta table holds.
    pub(crate) async fn describe(
        &self,
        table: &DatasetName,
        delta: &DeltaTable,
    ) -> Result<Snapshot, TableError> {
        let error = |source| log_error(table, source);
        let state = delta.snapshot().map_err(error)?.snapshot();
        let schema = schema_of(table, state)?;
        let log_store = delta.log_store();
        let views: Vec<_> = state
            .file_views(&log_store, None)
            .try_collect()
            .await
            .map_err(error)?;
        let root = self.root(table);
        let mut files = Vec::with_capacity(views.len());
        for view in views {
            if view.deletion_vector_descriptor().is_some() {
                let feature = "deletion vectors".to_owned();
                return Err(TableError::Unsupported {
                    table: table.clone(),
                    feature,
                });
            }
            files.push(self.data_file(table, &schema, &root, &view));
        }
        files.sort_by_cached_key(|file| file.order(&schema));
        let version = state.version();
        let properties = state.metadata().configuration();
        Ok(Snapshot {
            dropped: properties.contains_key(DROPPED),
            given_to: properties.get(OWNER).cloned(),
            table: table.clone(),
            version,
            uri: self.url(table)?.into(),
            schema,
            files,
        })
    }
}

impl Tables {
    #[expect(
        deprecated,
        reason = "the file view offers no other way to an `add` action's tags"
    )]
    fn data_file(
        &self,
        table: &DatasetName,
        schema: &TableSchema,
        root: &Path,
        view: &deltalake_core::kernel::LogicalFileView,
    ) -> DataFile {
        let name = view.path().into_owned();
        let tags = view.add_action().tags.unwrap_or_default();
        let tag = |name: &str| tags.get(name).cloned().flatten();
        let hash = tag(ROWS_HASH_TAG);
        // Files from before the tag was written have the first digits in their names.
        let named = || {
            hash.as_ref()
                .and_then(|_| content_of(&name).split('.').next())
        };
        let sha256 = tag(FILE_DIGEST_TAG).or_else(|| named().map(str::to_owned));
        let mut file = DataFile {
            path: root.join(&name),
            written_as: tag(WRITTEN_AS_TAG).unwrap_or_else(|| name.clone()),
            name,
            bytes: u64::try_from(view.size()).unwrap_or(0),
            rows: view.num_records().map(|rows| rows as u64),
            partition_values: view.partition_values_map().into_iter().collect(),
            sha256,
            rows_hash: hash.and_then(|hash| RowsHash::try_from(hash).ok()),
            standing: Standing::Told,
            modified_ms: view.modification_time(),
        };
        file.standing = self.held_against(tag(SEAL_TAG), table, schema, &file);
        file
    }

    /// What is known of that which the log says of a file, with the seal that it has.
    fn held_against(
        &self,
        seal: Option<String>,
        table: &DatasetName,
        schema: &TableSchema,
        file: &DataFile,
    ) -> Standing {
        let Some(key) = &self.seals else {
            return Standing::Told;
        };
        let Some(seal) = seal else {
            return Standing::Unsealed;
        };
        // What has a seal has all of these.
        let (Some(sha256), Some(rows), Some(rows_hash)) =
            (&file.sha256, file.rows, &file.rows_hash)
        else {
            return Standing::Altered;
        };
        let claim = Claim {
            tenant: &self.tenant,
            table,
            name: &file.name,
            written_as: &file.written_as,
            sha256,
            rows,
            rows_hash,
            partition_values: &file.partition_values,
        };
        match claim.holds(schema, key, &seal) {
            true => Standing::Sealed,
            false => Standing::Altered,
        }
    }
}

/// A table at one version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The table.
    pub table: DatasetName,
    /// The Delta version.
    pub version: u64,
    /// The table's location, a `file://` URL.
    pub uri: String,
    /// Its schema; patterns are not part of what a table remembers.
    pub schema: TableSchema,
    /// Whether it was dropped at this version: then it holds nothing.
    pub dropped: bool,
    /// The pipeline that it was given to, if it was.
    pub given_to: Option<String>,
    /// Its data files: by partition values, then in the order in which they were committed.
    pub files: Vec<DataFile>,
}

/// One data file of a snapshot.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Its path as the log has it, relative to the table's folder.
    pub name: String,
    /// The name that its rows were first committed under: its own, unless a later commit wrote them
    /// anew, with wider types.
    pub written_as: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How many rows it holds, if its writer said so.
    pub rows: Option<u64>,
    /// Its partition.
    pub partition_values: PartitionValues,
    /// The sum of its rows' hashes, if we wrote it.
    pub rows_hash: Option<RowsHash>,
    /// The SHA-256 that its bytes had when it was committed, or the first digits of it, in hex; if we
    /// wrote it.
    pub sha256: Option<String>,
    /// What is known of all this.
    pub standing: Standing,
    /// Unix milliseconds of the decision that brought it.
    pub modified_ms: i64,
}

impl DataFile {
    /// Where the file stands among its table's: whole numbers by value, all else as text.
    fn order(&self, schema: &TableSchema) -> (Vec<(i64, Option<String>)>, i64, String) {
        let part = |name: &String| {
            let value = self.partition_values.get(name).cloned().flatten();
            let number = match schema.column(name).map(|column| column.column_type) {
                Some(ColumnType::Int64) => value.as_ref().and_then(|v| v.parse().ok()).unwrap_or(0),
                _ => 0,
            };
            (number, value)
        };
        let parts = schema.partition_by().iter().map(part).collect();
        (parts, self.modified_ms, self.name.clone())
    }
}

fn schema_of(
    table: &DatasetName,
    state: &deltalake_core::kernel::EagerSnapshot,
) -> Result<TableSchema, TableError> {
    let mut columns = Vec::new();
    for field in state.arrow_schema().fields() {
        let column_type = ColumnType::from_arrow(field.data_type()).ok_or_else(|| {
            let feature = format!("column `{}` of type {}", field.name(), field.data_type());
            TableError::Unsupported {
                table: table.clone(),
                feature,
            }
        })?;
        let (name, nullable) = (field.name().clone(), field.is_nullable());
        columns.push(Column {
            name,
            column_type,
            nullable,
            pattern: None,
        });
    }
    TableSchema::new(columns, state.metadata().partition_columns().to_vec()).map_err(|source| {
        TableError::Schema {
            table: table.clone(),
            source,
        }
    })
}

pub(crate) fn log_error(table: &DatasetName, source: DeltaTableError) -> TableError {
    TableError::Log {
        table: table.clone(),
        source: Box::new(source),
    }
}

/// The names of the folders in a folder; none if it does not exist. Links are not followed.
pub(crate) fn folders(path: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}
