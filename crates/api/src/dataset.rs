//! Datasets as they are listed and shown.

use barecount_model::{
    text::ColumnType,
    untrusted::{Label, Sample},
};
use serde::{Deserialize, Serialize};

/// A dataset that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRef {
    /// Its name, as `layer.name`.
    pub dataset: String,
    /// The tenant whose it is; none where only one tenant has it.
    pub tenant: Option<String>,
}

/// A dataset in a list of datasets, at its latest version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub dataset: String,
    /// The version.
    pub version: u64,
    /// Rows; none where a file's writer did not say how many.
    pub rows: Option<u64>,
    /// Bytes of its files.
    pub bytes: u64,
    /// The pipeline that it belongs to.
    pub pipeline: Option<String>,
    /// Where it is.
    pub uri: String,
}

/// A dataset at a version: `barecount/dataset/v1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatasetView {
    /// `barecount/dataset/v1`.
    pub schema: String,
    /// Its name.
    pub dataset: String,
    /// Whose it is.
    pub tenant: String,
    /// The version.
    pub version: u64,
    /// The pipeline that it belongs to.
    pub pipeline: Option<String>,
    /// Where it is.
    pub uri: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// How many files it has.
    pub files: usize,
    /// The content digest.
    pub digest: String,
    /// Its columns.
    pub columns: Vec<ColumnView>,
    /// The columns that divide it into folders, outermost first.
    pub partition_by: Vec<String>,
    /// The stages of other pipelines that read it, by the latest version of each that was run.
    #[serde(default)]
    pub read_by: Vec<ReadBy>,
}

/// A stage of another pipeline that reads a dataset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReadBy {
    /// The dataset.
    pub dataset: String,
    /// The pipeline.
    pub pipeline: String,
    /// Its stage.
    pub stage: String,
}

impl std::fmt::Display for ReadBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stage `{}` of pipeline `{}`", self.stage, self.pipeline)
    }
}

/// A column of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnView {
    /// Its name.
    pub name: Label,
    /// Its type.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// What every value matches as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// A dataset that runs committed, at its latest version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutputSummary {
    /// Its name.
    pub dataset: String,
    /// The version.
    pub version: u64,
    /// Where it is.
    pub uri: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// The content digest.
    pub digest: String,
    /// Whose it is.
    pub tenant: String,
    /// The run that committed it last.
    pub run: String,
    /// When it did.
    pub committed_at: String,
}

/// A dataset at a version, with its first rows: `barecount/output/v1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preview {
    /// Its name.
    pub dataset: String,
    /// The version.
    pub version: u64,
    /// Where it is.
    pub uri: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// The content digest.
    pub digest: String,
    /// `barecount/output/v1`.
    pub schema: String,
    /// Its columns.
    pub columns: Vec<ColumnView>,
    /// The columns that divide it into folders, outermost first.
    pub partition_by: Vec<String>,
    /// The first rows, as text.
    pub first_rows: Rows,
}

/// Rows as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Column names.
    pub columns: Vec<Label>,
    /// Cells, none for null.
    pub rows: Vec<Vec<Option<Sample>>>,
}
