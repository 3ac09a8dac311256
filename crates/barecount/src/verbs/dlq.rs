//! `barecount dlq`.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    failure::{Failure, Status},
    harmless::SetOff,
    printer::{Printer, Table},
    state,
    tenant::{OfTenant, several},
};

/// Look at records that were set aside, and why.
#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// List records that were set aside, newest first.
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
    /// Show one of them, with its record.
    Show {
        /// Its number in the list.
        id: u64,
    },
}

impl Dlq {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { run, of, limit } => list(global, printer, run.as_deref(), &of, limit),
            Self::Show { id } => show(global, printer, id),
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
    let run = run
        .map(|text| state::find_run(&global.state, text))
        .transpose()?;
    let run = run.as_ref().map(|(_, run, _)| run.id.as_str());
    let letters = match state::reader(&global.state)? {
        Some(reader) => reader
            .dead_letters(of.name(), run, limit)
            .map_err(state::store_failure)?,
        None => Vec::new(),
    };
    let items: Vec<Value> = letters.iter().map(|letter| json!(letter)).collect();
    printer.list("dead_letters", &items, || {
        let mut table = Table::new(
            &["id", "tenant", "run", "stage", "dataset", "error"],
            "no dead letters",
        );
        for stored in &letters {
            let dataset = stored.letter.dataset.as_deref().unwrap_or("-");
            let run = stored.run.get(..12).unwrap_or(&stored.run);
            table.row([
                &stored.id.to_string(),
                stored.tenant.as_str(),
                run,
                &stored.stage,
                dataset,
                &stored.letter.error,
            ]);
        }
        match several(letters.iter().map(|stored| stored.tenant.as_str())) {
            true => table,
            false => table.without("tenant"),
        }
    })
}

fn show(global: &Global, printer: &Printer, id: u64) -> Result<(), Failure> {
    let found = match state::reader(&global.state)? {
        Some(reader) => reader.dead_letter(id).map_err(state::store_failure)?,
        None => None,
    };
    let stored = found.ok_or_else(|| {
        Failure::new(Status::NotFound, format!("there is no dead letter {id}"))
            .with_help("`barecount dlq ls` lists them.")
    })?;
    let mut value = json!(stored);
    value["schema"] = json!("barecount/dead_letter/v1");
    printer.data(&value, || {
        format!(
            "dead letter {}\n  tenant   {}\n  run      {}\n  stage    {}\n  attempt  {}\n  dataset  {}\n  error    {}\n  at       {}\n\n{}\n",
            stored.id,
            stored.tenant,
            stored.run,
            stored.stage,
            stored.attempt,
            stored.letter.dataset.as_deref().unwrap_or("-"),
            SetOff(&stored.letter.error),
            stored.at,
            stored.letter.record
        )
    })
}
