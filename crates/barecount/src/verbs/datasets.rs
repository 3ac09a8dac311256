//! `barecount datasets`.

mod changing;

use barecount_api::dataset::{DatasetRef, ReadBy};
use barecount_client::{
    client::Datasets as _,
    failure::Failure,
    words::{amount, bytes, number},
};
use barecount_dataset::evolution::Change;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::changing::{Drop, Give, Restore};
use crate::{
    global::Global,
    printer::{Printer, Table},
    tenant::{OfTenant, several},
    view,
};

/// Look at datasets and their versions, and go back to one.
#[derive(Debug, Subcommand)]
pub(crate) enum Datasets {
    /// List the datasets that there are, each at its latest version, with the pipeline that it
    /// belongs to.
    Ls {
        #[command(flatten)]
        of: OfTenant,
    },
    /// Show a dataset: its schema, where it is, and whose.
    Show {
        #[command(flatten)]
        which: Which,
        /// The version; the latest one if absent.
        #[arg(long)]
        version: Option<u64>,
    },
    /// List a dataset's versions, newest first: what brought each, which run, what came and went,
    /// and how the schema changed.
    History {
        #[command(flatten)]
        which: Which,
    },
    /// Tell how two versions differ: columns, and rows that only one of them has.
    Diff {
        #[command(flatten)]
        which: Which,
        /// The first of the two; the one before the second if absent.
        #[arg(long, value_name = "VERSION")]
        from: Option<u64>,
        /// The second of the two; the latest one if absent.
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
    },
    /// Make a dataset what it was at an earlier version, as a new version.
    ///
    /// Pipelines then find what they have to do by what the dataset holds: a run that wrote what is
    /// restored answers again, and one that wrote what is gone does not.
    Restore(Restore),
    /// Drop a dataset: a new version that holds nothing, and belongs to no pipeline.
    ///
    /// An earlier version can be restored for as long as `gc` keeps its files.
    Drop(Drop),
    /// Give a dataset to another pipeline, which alone writes it from then on.
    Give(Give),
}

/// A dataset.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Its name, as `layer.name`.
    #[arg(value_name = "DATASET")]
    name: String,
    #[command(flatten)]
    of: OfTenant,
}

impl Datasets {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { of } => list(global, printer, &of),
            Self::Show { which, version } => show(global, printer, &which, version),
            Self::History { which } => history(global, printer, &which),
            Self::Diff { which, from, to } => diff(global, printer, &which, from, to),
            Self::Restore(verb) => verb.execute(global, printer),
            Self::Drop(verb) => verb.execute(global, printer),
            Self::Give(verb) => verb.execute(global, printer),
        }
    }
}

impl Which {
    fn dataset(&self) -> DatasetRef {
        self.of.dataset(&self.name)
    }
}

fn list(global: &Global, printer: &Printer, of: &OfTenant) -> Result<(), Failure> {
    let datasets = global.client().datasets(of.name())?;
    let items: Vec<Value> = datasets.iter().map(|dataset| json!(dataset)).collect();
    printer.list("datasets", &items, || {
        let headings = ["tenant", "dataset", "version", "rows", "size", "pipeline"];
        let mut table = Table::new(
            &headings,
            "no datasets yet; `barecount run FILE` makes some",
        );
        for dataset in &datasets {
            table.row([
                dataset.tenant.clone(),
                dataset.dataset.clone(),
                dataset.version.to_string(),
                number(dataset.rows),
                bytes(dataset.bytes),
                dataset.pipeline.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        match several(datasets.iter().map(|dataset| dataset.tenant.as_str())) {
            true => table,
            false => table.without("tenant"),
        }
    })
}

fn show(
    global: &Global,
    printer: &Printer,
    which: &Which,
    version: Option<u64>,
) -> Result<(), Failure> {
    let shown = global.client().dataset(&which.dataset(), version)?;
    printer.data(&json!(shown), || {
        let mut text = format!(
            "{}, version {}\n  tenant    {}\n  pipeline  {}\n  read by   {}\n  at        {}\n  rows      \
             {}\n  size      {} in {} files\n  digest    {}\n\n",
            shown.dataset,
            shown.version,
            shown.tenant,
            shown.pipeline.as_deref().unwrap_or("none"),
            readers(&shown.read_by),
            shown.uri,
            shown.rows,
            bytes(shown.bytes),
            shown.files,
            shown.digest
        );
        text.push_str(&view::columns(&shown.columns, &shown.partition_by).render());
        text
    })
}

/// Who of other pipelines reads a dataset.
fn readers(read_by: &[ReadBy]) -> String {
    match read_by {
        [] => "no other pipeline".to_owned(),
        _ => {
            let readers: Vec<_> = read_by.iter().map(ToString::to_string).collect();
            readers.join(", ")
        }
    }
}

fn history(global: &Global, printer: &Printer, which: &Which) -> Result<(), Failure> {
    let versions = global.client().history(&which.dataset())?;
    let items: Vec<Value> = versions.iter().map(|brought| json!(brought)).collect();
    printer.list("history", &items, || {
        let headings = [
            "version", "at", "what", "rows", "added", "removed", "by", "run", "schema",
        ];
        let mut table = Table::new(&headings, "no versions");
        for brought in &versions {
            let version = &brought.version;
            let by = version.by.as_ref().or(brought.pipeline.as_ref());
            table.row([
                version.version.to_string(),
                version.at().map_or("-".to_owned(), |at| format!("{at:.0}")),
                version.act.to_string(),
                number(version.rows),
                number(version.added.rows),
                number(version.removed.rows),
                by.cloned().unwrap_or_else(|| "-".to_owned()),
                brought.run.clone().unwrap_or_else(|| "-".to_owned()),
                changes_text(&version.schema_changes),
            ]);
        }
        table
    })
}

fn changes_text(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "-".to_owned();
    }
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    changes.join("; ")
}

fn diff(
    global: &Global,
    printer: &Printer,
    which: &Which,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<(), Failure> {
    let diff = global.client().diff(&which.dataset(), from, to)?;
    let side = |(version, rows): (u64, Option<u64>)| json!({ "version": version, "rows": rows });
    let difference = &diff.difference;
    let value = json!({
        "schema": "barecount/diff/v1", "dataset": diff.dataset, "tenant": diff.tenant,
        "from": side(diff.from), "to": side(diff.to),
        "columns": difference.columns, "added": difference.added, "removed": difference.removed,
    });
    printer.data(&value, || {
        let mut text = format!(
            "{}, version {} to {}\n",
            diff.dataset, diff.from.0, diff.to.0
        );
        if difference.is_none() {
            text.push_str("  no difference: the same columns, and the same files\n");
            return text;
        }
        text.push_str(&format!(
            "  rows     {} to {}\n  added    {}\n  removed  {}\n",
            number(diff.from.1),
            number(diff.to.1),
            amount(&difference.added),
            amount(&difference.removed)
        ));
        for change in &difference.columns {
            text.push_str(&format!("  schema   {change}\n"));
        }
        text
    })
}
