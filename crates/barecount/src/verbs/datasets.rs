//! `barecount datasets`.

mod changing;

use barecount_client::{
    embedded::{
        datasets::{Dataset, amount, number, rows, size, unreadable},
        owners,
    },
    failure::{Failure, Status},
    runtime::runtime,
    state,
    words::bytes,
};
use barecount_dataset::{
    evolution::Change,
    table::{Snapshot, StateTables, TableError},
    versions::{Difference, Version},
};
use barecount_model::text::DatasetName;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::changing::{Drop, Give, Restore};
use crate::{
    global::Global,
    printer::{Printer, Table},
    tenant::{OfTenant, several, tenant},
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
    fn find(&self, global: &Global) -> Result<Dataset, Failure> {
        let table: DatasetName = self.name.parse().map_err(|error| {
            let what = format!("`{}` does not name a dataset", self.name);
            Failure::new(Status::Usage, what).because(&error)
        })?;
        let folder = state::folder(&global.state)?;
        let reader = state::reader(&folder)?.ok_or_else(|| state::nothing_ran(&folder))?;
        let tables = self.of.tables_with(&StateTables::new(folder), &table)?;
        Ok(Dataset {
            table,
            tables,
            reader,
        })
    }
}

fn list(global: &Global, printer: &Printer, of: &OfTenant) -> Result<(), Failure> {
    let folder = state::folder(&global.state)?;
    let reader = state::reader(&folder)?;
    let all = StateTables::new(folder);
    let unlisted = |error: std::io::Error| {
        Failure::new(Status::Unavailable, "the datasets cannot be listed").because(&error)
    };
    let tenants = match of.name() {
        Some(name) => vec![tenant(name)?],
        None => all.tenants().map_err(unlisted)?,
    };
    let headings = ["tenant", "dataset", "version", "rows", "size", "pipeline"];
    let mut table = Table::new(
        &headings,
        "no datasets yet; `barecount run FILE` makes some",
    );
    let mut items = Vec::new();
    let runtime = runtime()?;
    for tenant in &tenants {
        let tables = all.of(tenant);
        for name in tables.names().map_err(unlisted)? {
            let snapshot = match runtime.block_on(tables.snapshot(&name, None)) {
                Err(TableError::NotFound { .. }) => continue,
                found => found.map_err(|error| unreadable(&error))?,
            };
            let owner = match &reader {
                Some(reader) => owners::owner(reader, tenant, &snapshot)?,
                None => None,
            };
            table.row([
                tenant.to_string(),
                name.to_string(),
                snapshot.version.to_string(),
                number(rows(&snapshot)),
                bytes(size(&snapshot)),
                owner.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
            items.push(json!({
                "tenant": tenant.as_str(), "dataset": name.to_string(),
                "version": snapshot.version, "rows": rows(&snapshot), "bytes": size(&snapshot),
                "pipeline": owner, "uri": snapshot.uri,
            }));
        }
    }
    let names = items.iter().filter_map(|item| item["tenant"].as_str());
    let several = several(names);
    printer.list("datasets", &items, || match several {
        true => table,
        false => table.without("tenant"),
    })
}

fn show(
    global: &Global,
    printer: &Printer,
    which: &Which,
    version: Option<u64>,
) -> Result<(), Failure> {
    let found = which.find(global)?;
    let snapshot = found.snapshot(version)?;
    let owner = owners::owner(&found.reader, found.tables.tenant(), &snapshot)?;
    let (count, digest) = snapshot
        .digest()
        .map_err(|error| Failure::from_error(Status::Failed, &error).with_code("BC0701"))?;
    let schema = &snapshot.schema;
    let value = json!({
        "schema": "barecount/dataset/v1", "dataset": found.table.to_string(),
        "tenant": found.tables.tenant().as_str(), "version": snapshot.version,
        "pipeline": owner, "uri": snapshot.uri, "rows": count, "bytes": size(&snapshot),
        "files": snapshot.files.len(), "digest": digest, "columns": schema.columns(),
        "partition_by": schema.partition_by(),
    });
    printer.data(&value, || {
        let mut text = format!(
            "{}, version {}\n  tenant    {}\n  pipeline  {}\n  at        {}\n  rows      {count}\n  \
             size      {} in {} files\n  digest    {digest}\n\n",
            found.table,
            snapshot.version,
            found.tables.tenant(),
            owner.as_deref().unwrap_or("none"),
            snapshot.uri,
            bytes(size(&snapshot)),
            snapshot.files.len(),
        );
        let mut columns = Table::new(&["column", "type", "null", "partition"], "no columns");
        for column in schema.columns() {
            let by = schema.partition_by().contains(&column.name);
            columns.row([
                column.name.clone(),
                column.column_type.to_string(),
                if column.nullable { "yes" } else { "no" }.to_owned(),
                if by { "yes" } else { "-" }.to_owned(),
            ]);
        }
        text.push_str(&columns.render());
        text
    })
}

fn history(global: &Global, printer: &Printer, which: &Which) -> Result<(), Failure> {
    let found = which.find(global)?;
    let told = runtime()?.block_on(found.tables.history(&found.table));
    let told = told.map_err(|error| unreadable(&error))?;
    let writers = found.writers()?;
    let writer = |version: &Version| {
        let task = &version.transaction.as_ref()?.app_id;
        writers.iter().find(|writer| writer.task == *task)
    };
    let newest_first = || told.iter().rev();
    let items: Vec<Value> = newest_first()
        .map(|version| {
            let mut item = json!(version);
            let writer = writer(version);
            item["at"] = json!(at(version).map(|at| at.to_string()));
            item["run"] = json!(writer.map(|writer| &writer.run));
            item["task"] = json!(writer.map(|writer| &writer.task));
            item["pipeline"] = json!(writer.map(|writer| &writer.pipeline));
            item
        })
        .collect();
    printer.list("history", &items, || {
        let headings = [
            "version", "at", "what", "rows", "added", "removed", "by", "run", "schema",
        ];
        let mut table = Table::new(&headings, "no versions");
        for version in newest_first() {
            let writer = writer(version);
            let by = version
                .by
                .as_ref()
                .or(writer.map(|writer| &writer.pipeline));
            table.row([
                version.version.to_string(),
                at(version).map_or("-".to_owned(), |at| format!("{at:.0}")),
                version.act.to_string(),
                number(version.rows),
                number(version.added.rows),
                number(version.removed.rows),
                by.cloned().unwrap_or_else(|| "-".to_owned()),
                writer.map_or("-".to_owned(), |writer| writer.run.clone()),
                changes_text(&version.schema_changes),
            ]);
        }
        table
    })
}

fn at(version: &Version) -> Option<Timestamp> {
    Timestamp::from_millisecond(version.at_ms?).ok()
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
    let found = which.find(global)?;
    let to = found.snapshot(to)?;
    let first = from.or(to.version.checked_sub(1));
    let first = first.ok_or_else(|| {
        let what = format!("{} has no version before its first", found.table);
        Failure::new(Status::Usage, what).with_help("Name two versions with `--from` and `--to`.")
    })?;
    let from = found.snapshot(Some(first))?;
    let difference = Difference::between(&from, &to);
    let side = |snapshot: &Snapshot| json!({ "version": snapshot.version, "rows": rows(snapshot) });
    let value = json!({
        "schema": "barecount/diff/v1", "dataset": found.table.to_string(),
        "tenant": found.tables.tenant().as_str(), "from": side(&from), "to": side(&to),
        "columns": difference.columns, "added": difference.added, "removed": difference.removed,
    });
    printer.data(&value, || {
        let mut text = format!(
            "{}, version {} to {}\n",
            found.table, from.version, to.version
        );
        if difference.is_none() {
            text.push_str("  no difference: the same columns, and the same files\n");
            return text;
        }
        text.push_str(&format!(
            "  rows     {} to {}\n  added    {}\n  removed  {}\n",
            number(rows(&from)),
            number(rows(&to)),
            amount(&difference.added),
            amount(&difference.removed)
        ));
        for change in &difference.columns {
            text.push_str(&format!("  schema   {change}\n"));
        }
        text
    })
}
