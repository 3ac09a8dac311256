//! `barecount runs flows` and `barecount runs accesses`.

use barecount_client::{
    details::{self, Accesses, AttemptEntry},
    failure::{Failure, Status},
    log::Log,
    state,
};
use barecount_model::run::AttemptState;
use barecount_network::record::Verdict;
use clap::Args;
use serde_json::{Value, json};

use super::stage_of;
use crate::{
    accesses, flows,
    global::Global,
    printer::{Printer, Table},
};

/// Which records of a run are printed.
#[derive(Debug, Args)]
pub(crate) struct Selection {
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

/// What the selected attempts have of one kind of record.
struct Records {
    schema: &'static str,
    items: Vec<Value>,
    /// A line for each attempt: its sums, and what is counted only.
    attempts: Vec<Value>,
    table: Table,
    /// What is counted only, for a person.
    uncounted: String,
}

/// Prints what the attempts reached over the network and were refused.
pub(super) fn print_flows(
    selection: &Selection,
    global: &Global,
    printer: &Printer,
) -> Result<(), Failure> {
    let entries = selection.entries(global, printer)?;
    let mut records = Records {
        schema: "flows",
        items: Vec::new(),
        attempts: Vec::new(),
        table: flows::whole_table(match selection.refused {
            true => "nothing was refused",
            false => "nothing was reached or refused",
        }),
        uncounted: String::new(),
    };
    for entry in &entries {
        for flow in flows::recorded(&global.state, entry)? {
            if selection.refused && flow.verdict != Verdict::Refused {
                continue;
            }
            records.items.push(flows::item(entry, &flow));
            records.table.row(flows::line(entry, &flow));
        }
        let totals = entry.network().map(|network| &network.totals);
        let unlisted = totals.and_then(|totals| totals["unlisted"].as_u64());
        records.count_only(entry, unlisted.unwrap_or(0), "flows");
        records
            .attempts
            .push(of_attempt(entry, json!({ "totals": totals })));
    }
    records.print(&entries, printer)
}

/// Prints which objects and secrets the attempts were given and refused.
pub(super) fn print_accesses(
    selection: &Selection,
    global: &Global,
    printer: &Printer,
) -> Result<(), Failure> {
    let entries = selection.entries(global, printer)?;
    let mut records = Records {
        schema: "accesses",
        items: Vec::new(),
        attempts: Vec::new(),
        table: accesses::whole_table(match selection.refused {
            true => "nothing was refused",
            false => "nothing was asked for",
        }),
        uncounted: String::new(),
    };
    for entry in &entries {
        for item in accesses::recorded(&global.state, entry)? {
            if selection.refused && !accesses::was_refused(&item) {
                continue;
            }
            records.table.row(accesses::line(entry, &item));
            records.items.push(item);
        }
        let counted = entry.accesses();
        let unlisted = counted.map_or(0, Accesses::unlisted);
        records.count_only(entry, unlisted, "accesses");
        let totals = counted.map(|counted| {
            json!({
                "allowed": counted.allowed, "refused": counted.refused, "unlisted": unlisted,
            })
        });
        records
            .attempts
            .push(of_attempt(entry, json!({ "totals": totals })));
    }
    records.print(&entries, printer)
}

fn of_attempt(entry: &AttemptEntry, mut of_it: Value) -> Value {
    of_it["task"] = json!(entry.task());
    of_it["stage"] = json!(entry.stage);
    of_it["partition"] = json!(entry.partition);
    of_it["attempt"] = json!(entry.number());
    of_it["entry"] = json!(entry.index);
    of_it
}

impl Records {
    /// Notes that an attempt has more than its records list.
    fn count_only(&mut self, entry: &AttemptEntry, more: u64, what: &str) {
        if more > 0 {
            self.uncounted.push_str(&format!(
                "… and {more} more {what} of {}, attempt {}, which were counted only: there were \
                 too many to list\n",
                entry.name(),
                entry.number()
            ));
        }
    }

    fn print(self, entries: &[AttemptEntry], printer: &Printer) -> Result<(), Failure> {
        let value = json!({
            "schema": format!("barecount/{}/v1", self.schema),
            "items": self.items, "attempts": self.attempts,
        });
        printer.data(&value, || self.table.render() + &self.uncounted)?;
        let attempts = match entries.len() {
            1 => "1 attempt".to_owned(),
            count => format!("{count} attempts"),
        };
        printer.note(&format!("{attempts}, as the signed ledger has them"));
        Ok(())
    }
}

impl Selection {
    /// The entries of the selected attempts.
    fn entries(&self, global: &Global, printer: &Printer) -> Result<Vec<AttemptEntry>, Failure> {
        let (reader, run, _) = state::find_run(&global.state, &self.run)?;
        let stage = stage_of(&run, self.stage.as_deref())?;
        let mut entries = details::of_run(&Log::open(&global.client())?, &reader, &run)?;
        entries.retain(|entry| {
            stage.is_none_or(|stage| entry.stage == stage)
                && self.attempt.is_none_or(|number| entry.number() == number)
        });
        let tasks = run.tasks.iter();
        let selected = tasks.filter(|task| stage.is_none_or(|stage| task.stage == stage));
        let attempts =
            selected.flat_map(|task| task.attempts.iter().map(move |tried| (task, tried)));
        let attempts = attempts.filter(|(_, attempt)| {
            let number = attempt.number;
            self.attempt.is_none_or(|wanted| wanted == number)
        });
        let mut none = true;
        for (task, attempt) in attempts {
            none = false;
            let (name, number) = (task.name(), attempt.number);
            if attempt.state.is_open() {
                printer.note(&format!("{name}, attempt {number}, is still under way"));
            } else if attempt.state == AttemptState::Lost {
                printer.note(&format!(
                    "{name}, attempt {number}, was interrupted: the ledger has no record of what \
                     it did"
                ));
            }
        }
        if let (true, Some(number)) = (none, self.attempt) {
            let what = format!("there is no attempt {number} in what was asked for");
            return Err(Failure::new(Status::NotFound, what).with_help(format!(
                "`barecount runs show {}` has how many attempts each task took.",
                run.id
            )));
        }
        Ok(entries)
    }
}
