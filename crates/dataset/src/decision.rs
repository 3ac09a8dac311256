//! The commit decision: what the control plane recorded, as plain data.
//!
//! A decision is made once per task, for all its outputs; once recorded, it will be carried out,
//! whatever dies in between. It names files in the staging folder by digest, and nothing in it
//! depends on the state of a table, so that rolling it forward twice is rolling it forward once.

use std::path::PathBuf;

use barecount_model::text::DatasetName;
use serde::{Deserialize, Serialize};

use crate::digest::RowsHash;
use crate::evolution::{Rows, SchemaEvolution};
pub use crate::partition::PartitionValues;
use crate::schema::TableSchema;

/// What happens to the rows that a table has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// They are replaced: all of them, or those of [`DatasetCommit::replace_partition`].
    Overwrite,
    /// They stay.
    Append,
}

/// A Parquet file in a staging folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Its path in the staging folder, below a folder `column=value` for each partition column.
    pub path: String,
    /// How many rows it holds.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, `sha256:<hex>`.
    pub sha256: String,
    /// The partition all its rows belong to; empty if the table has none.
    pub partition_values: PartitionValues,
    /// Statistics in the Delta protocol's JSON form.
    pub stats: String,
    /// The sum of its rows' hashes, from which content digests are made.
    pub rows_hash: RowsHash,
}

/// The Delta application transaction that makes a commit happen once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AppTransaction {
    /// `token/stage/partition/dataset`.
    pub app_id: String,
    /// Grows if the same work is committed again on purpose, such as an approved replay.
    pub version: i64,
}

/// One dataset's part of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetCommit {
    /// The table; it is created if it does not exist.
    pub table: DatasetName,
    /// What happens to present rows.
    pub mode: WriteMode,
    /// With [`WriteMode::Overwrite`], the partition that is replaced; empty: the whole table.
    #[serde(default)]
    pub replace_partition: PartitionValues,
    /// The declared schema, partition columns included.
    pub schema: TableSchema,
    /// What may become of the table's schema.
    #[serde(default)]
    pub schema_evolution: SchemaEvolution,
    /// The staging folder, relative to the state folder.
    pub staging: PathBuf,
    /// The files that become part of the table.
    pub files: Vec<StagedFile>,
    /// The transaction identity of this commit.
    pub transaction: AppTransaction,
}

impl WriteMode {
    /// Which rows a commit leaves that covers one partition, or all of the table.
    pub fn rows(self, one_partition: bool) -> Rows {
        match self {
            Self::Overwrite if !one_partition => Rows::AllReplaced,
            Self::Overwrite | Self::Append => Rows::SomeStay,
        }
    }
}

impl DatasetCommit {
    /// Whether rows stay that the table has already.
    pub fn rows(&self) -> Rows {
        self.mode.rows(!self.replace_partition.is_empty())
    }
}

/// Everything that one task commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was decided, in Unix milliseconds; it becomes the time of the files in the log.
    pub decided_at_ms: i64,
    /// Its datasets, in the order in which they are committed.
    pub datasets: Vec<DatasetCommit>,
}

/// One dataset as it was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The table.
    pub dataset: DatasetName,
    /// The Delta version that holds this commit.
    pub version: u64,
    /// The table's location, a `file://` URL.
    pub uri: String,
    /// Rows of the whole table at this version.
    pub rows: u64,
    /// Bytes of the whole table's data files at this version.
    pub bytes: u64,
    /// The content digest of the whole table at this version (see [`crate::digest`]).
    pub digest: String,
    /// Rows that this commit brought.
    pub written_rows: u64,
    /// Bytes of the files that this commit brought.
    pub written_bytes: u64,
    /// The content digest of the rows that this commit brought.
    pub written_digest: String,
    /// The schema that they had then, where it tells in their digest that the table has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_schema: Option<TableSchema>,
}
