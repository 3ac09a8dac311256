//! `barecount runs flows` and `barecount runs accesses`.

use barecount_api::records::{Records, Selection};
use barecount_client::{client::Runs as _, failure::Failure};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    accesses, flows,
    global::Global,
    names,
    printer::{Printer, Table},
};

/// Which records of a run are printed.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The run's identifier, or the beginning of it.
    run: String,
    /// Only this stage.
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Only attempts of this number, from 1.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// Only what was refused, or could not be had.
    #[arg(long)]
    refused: bool,
}

impl Which {
    fn selection(self) -> Selection {
        Selection {
            run: self.run,
            stage: self.stage,
            attempt: self.attempt,
            refused: self.refused,
        }
    }
}

/// Prints what the attempts reached over the network and were refused.
pub(super) fn print_flows(which: Which, global: &Global, printer: &Printer) -> Result<(), Failure> {
    let table = flows::whole_table(match which.refused {
        true => "nothing was refused",
        false => "nothing was reached or refused",
    });
    let records = global.client().flows(&which.selection(), printer)?;
    print("flows", &records, table, flows::line, printer)
}

/// Prints which objects and secrets the attempts were given and refused.
pub(super) fn print_accesses(
    which: Which,
    global: &Global,
    printer: &Printer,
) -> Result<(), Failure> {
    let table = accesses::whole_table(match which.refused {
        true => "nothing was refused",
        false => "nothing was asked for",
    });
    let records = global.client().accesses(&which.selection(), printer)?;
    print("accesses", &records, table, accesses::line, printer)
}

fn print(
    what: &str,
    records: &Records,
    mut table: Table,
    line: fn(&Value) -> Vec<String>,
    printer: &Printer,
) -> Result<(), Failure> {
    let value = json!({
        "schema": format!("barecount/{what}/v1"),
        "items": records.items, "attempts": records.attempts,
    });
    printer.data(&value, || {
        for item in &records.items {
            table.row(line(item));
        }
        table.render() + &counted_only(what, records)
    })?;
    let attempts = match records.attempts.len() {
        1 => "1 attempt".to_owned(),
        count => format!("{count} attempts"),
    };
    printer.note(&format!("{attempts}, as the signed ledger has them"));
    Ok(())
}

/// Of which attempts there is more than their records list.
fn counted_only(what: &str, records: &Records) -> String {
    let mut text = String::new();
    for attempt in &records.attempts {
        let more = attempt["totals"]["unlisted"].as_u64().unwrap_or(0);
        if more > 0 {
            text.push_str(&format!(
                "… and {more} more {what} of {}, which were counted only: there were too many to \
                 list\n",
                names::attempt_cells(attempt).join(", attempt ")
            ));
        }
    }
    text
}
