//! Datasets: looked at, written out, and changed by hand.

use std::{io::Write, path::Path};

use barecount_api::dataset::{DatasetRef, DatasetSummary, DatasetView, OutputSummary, Preview};
use barecount_dataset::versions::{Difference, Version};
use serde::Serialize;
use serde_json::Value;

use crate::{failure::Failure, reporter::Reporter};

/// A version of a dataset, with the run that brought it.
#[derive(Debug, Clone, Serialize)]
pub struct Brought {
    /// The version.
    #[serde(flatten)]
    pub version: Version,
    /// When it came, if that is known.
    pub at: Option<String>,
    /// The run.
    pub run: Option<String>,
    /// Its task.
    pub task: Option<String>,
    /// Its pipeline.
    pub pipeline: Option<String>,
}

/// How two versions of a dataset differ.
#[derive(Debug, Clone)]
pub struct Diff {
    /// The dataset.
    pub dataset: String,
    /// Whose it is.
    pub tenant: String,
    /// The first version, and its rows.
    pub from: (u64, Option<u64>),
    /// The second version, and its rows.
    pub to: (u64, Option<u64>),
    /// What only one of them has.
    pub difference: Difference,
}

/// What is to become of a dataset.
pub enum DatasetChange {
    /// It is what it was at this version.
    Restore(u64),
    /// It holds nothing, and belongs to nobody.
    Drop,
    /// It belongs to this pipeline.
    Give(String),
}

/// Where a dataset comes from.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Whose it is.
    pub tenant: String,
    /// What brought it, and what brought that, as `barecount/trace/v1` has it.
    pub trace: Value,
}

/// How a dataset is written out.
pub struct Export<'a> {
    /// In which format.
    pub format: ExportFormat,
    /// The file or folder, which must not exist yet; else the stream.
    pub to: Option<&'a Path>,
    /// Where it goes if it goes to no file.
    pub stream: &'a mut (dyn Write + Send),
}

/// The format of what is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// The files of a dataset of files.
    Files,
}

/// Datasets.
pub trait Datasets {
    /// The datasets that there are, each at its latest version.
    ///
    /// # Errors
    /// If the state cannot be looked into, or a dataset not be read.
    fn datasets(&self, tenant: Option<&str>) -> Result<Vec<DatasetSummary>, Failure>;

    /// A dataset at a version; at the latest one if none is named.
    ///
    /// # Errors
    /// If there is no such dataset or version, several tenants have it and none is named, or it
    /// cannot be read. So of all that follow.
    fn dataset(&self, which: &DatasetRef, version: Option<u64>) -> Result<DatasetView, Failure>;

    /// Its versions, newest first.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset).
    fn history(&self, which: &DatasetRef) -> Result<Vec<Brought>, Failure>;

    /// How two versions differ: by default the latest one from the one before it.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset).
    fn diff(&self, which: &DatasetRef, from: Option<u64>, to: Option<u64>)
    -> Result<Diff, Failure>;

    /// Changes a dataset, if `agreed` agrees to what would become of it; tells what it is now, as
    /// `barecount/change/v1`, whose version is null where it was that already. Before there is a
    /// second thread.
    ///
    /// # Errors
    /// If it cannot be done, or governance refuses; and what `agreed` fails with.
    fn change(
        &self,
        which: &DatasetRef,
        asked: &DatasetChange,
        agreed: &dyn Fn(&str) -> Result<(), Failure>,
        reporter: &dyn Reporter,
    ) -> Result<Value, Failure>;

    /// What brought a version, and what brought that.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset). What cannot be told of an input is told in its place.
    fn trace(&self, which: &DatasetRef, version: Option<u64>) -> Result<Trace, Failure>;

    /// The datasets that runs committed, each at its latest version.
    ///
    /// # Errors
    /// As of [`datasets`](Self::datasets).
    fn outputs(
        &self,
        tenant: Option<&str>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<OutputSummary>, Failure>;

    /// A dataset with so many of its first rows.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset).
    fn preview(
        &self,
        which: &DatasetRef,
        version: Option<u64>,
        rows: u16,
    ) -> Result<Preview, Failure>;

    /// Writes a dataset out, and says what was written; nothing, where that is the stream.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset); and if it cannot be written, of which nothing is left then.
    fn export(
        &self,
        which: &DatasetRef,
        version: Option<u64>,
        export: Export<'_>,
    ) -> Result<String, Failure>;

    /// Says whose a dataset of an older state folder is, in which datasets had no tenant.
    ///
    /// # Errors
    /// If there is none of this name that waits for it.
    fn give_to_tenant(&self, dataset: &str, tenant: &str) -> Result<(), Failure>;
}
