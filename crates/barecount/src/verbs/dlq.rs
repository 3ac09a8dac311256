//! `barecount dlq`.

use barecount_api::{letter::StoredDeadLetter, page::PageRequest};
use barecount_client::{client::DeadLetters as _, failure::Failure};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    global::Global,
    printer::{Printer, Table},
    tenant::{OfTenant, several},
};

/// Look at records that were set aside, and why.
#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// List records that were set aside, grouped by attempt and reason, newest first.
    Ls {
        /// Only those of this run.
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        #[command(flatten)]
        of: OfTenant,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show a group of them, with the first record.
    Show {
        /// Its number in the list.
        id: u64,
        /// Print all records of the group instead, a JSON object a line.
        #[arg(long)]
        records: bool,
    },
}

impl Dlq {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { run, of, limit } => list(global, printer, run.as_deref(), &of, limit),
            Self::Show { id, records } => show(global, printer, id, records),
        }
    }
}

fn list(
    global: &Global,
    printer: &Printer,
    run: Option<&str>,
    of: &OfTenant,
    limit: u32,
) -> Result<(), Failure> {
    let page = PageRequest::first(limit);
    let letters = global.client().letters(run, of.name(), &page)?.items;
    let items: Vec<Value> = letters.iter().map(|letter| json!(letter)).collect();
    printer.list("dead_letters", &items, || {
        let mut table = Table::new(
            &[
                "id", "tenant", "run", "stage", "dataset", "records", "reason",
            ],
            "no dead letters",
        );
        for stored in &letters {
            let run = stored.run.get(..12).unwrap_or(&stored.run);
            table.row([
                stored.id.to_string(),
                stored.tenant.clone(),
                run.to_owned(),
                stored.stage.clone(),
                dataset_of(stored),
                stored.letter.count.to_string(),
                stored.letter.told().to_string(),
            ]);
        }
        match several(letters.iter().map(|stored| stored.tenant.as_str())) {
            true => table,
            false => table.without("tenant"),
        }
    })
}

fn show(global: &Global, printer: &Printer, id: u64, records: bool) -> Result<(), Failure> {
    let client = global.client();
    let stored = client.letter(id)?;
    if records {
        return client.records(&stored, &mut |letter| printer.line(&json!(letter)));
    }
    let mut value = json!(stored);
    value["schema"] = json!("barecount/dead_letter/v1");
    printer.data(&value, || {
        format!(
            "dead letters {}\n  tenant   {}\n  run      {}\n  stage    {}\n  attempt  {}\n  dataset  {}\n  records  {}\n  reason   {}\n  error    {}\n  at       {}\n\n{}\n{}",
            stored.id,
            stored.tenant,
            stored.run,
            stored.stage,
            stored.attempt,
            dataset_of(&stored),
            stored.letter.count,
            stored.letter.told().lines(),
            stored.letter.error.lines(),
            stored.at,
            stored.letter.record.lines(),
            more(&stored),
        )
    })
}

fn dataset_of(stored: &StoredDeadLetter) -> String {
    let dataset = stored.letter.dataset.as_ref();
    dataset.map_or("-".to_owned(), ToString::to_string)
}

/// Where the rest of a group is.
fn more(stored: &StoredDeadLetter) -> String {
    match stored.letter.count {
        1 => String::new(),
        count => format!(
            "… and {} more: `barecount dlq show {} --records`\n",
            count - 1,
            stored.id
        ),
    }
}
