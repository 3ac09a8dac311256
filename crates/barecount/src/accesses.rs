//! Which secrets attempts were given and refused, by reference, as their evidence tells.

use barecount_model::run::{Attempt, Run};
use serde_json::Value;

use crate::{printer::Table, view};

/// What JSON has of an attempt's secrets: what evidence has.
pub(crate) fn of_attempt(attempt: &Attempt) -> Value {
    attempt
        .detail
        .get("secrets")
        .cloned()
        .unwrap_or(Value::Null)
}

/// The accesses of the current attempts, a line each.
pub(crate) fn table(run: &Run) -> Option<Table> {
    let headings = ["task", "secret", "reference", "verdict", "at", "reason"];
    let mut table = Table::new(&headings, "no secrets were asked for");
    let mut any = false;
    for task in &run.tasks {
        let Some(current) = task.current() else {
            continue;
        };
        let secrets = of_attempt(current);
        for record in secrets["records"].as_array().into_iter().flatten() {
            any = true;
            let text = |key: &str| record[key].as_str().unwrap_or("-").to_owned();
            table.row([
                view::task_name(task),
                text("name"),
                text("reference"),
                text("verdict"),
                text("at"),
                text("reason"),
            ]);
        }
    }
    any.then_some(table)
}
