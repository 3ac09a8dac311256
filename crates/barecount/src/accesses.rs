//! Which secrets attempts were given and refused, by reference, and what their identities opened:
//! as their evidence and the record beside it tell.

use barecount_api::run::{AttemptView, RunView};
use serde_json::Value;

use crate::{names, printer::Table};

/// The accesses of the current attempts, a line each.
pub(crate) fn table(run: &RunView) -> Option<Table> {
    let headings = ["task", "secret", "reference", "verdict", "at", "reason"];
    let mut table = Table::new(&headings, "no secrets were asked for");
    let mut any = false;
    for task in &run.tasks {
        let Some(current) = task.attempts.last() else {
            continue;
        };
        let secrets = &current.secrets;
        for record in secrets["records"].as_array().into_iter().flatten() {
            any = true;
            let cells = ["name", "reference", "verdict", "at", "reason"];
            let name = std::iter::once(names::task(task));
            table.row(name.chain(cells.map(|key| text(record, key))));
        }
    }
    any.then_some(table)
}

/// How many accesses to secrets the attempts before the current ones made.
pub(crate) fn not_shown(run: &RunView) -> u64 {
    let count = |attempt: &AttemptView| {
        let secrets = &attempt.secrets;
        secrets["records"].as_array().map_or(0, Vec::len) as u64
    };
    let tasks = run.tasks.iter();
    tasks
        .map(|task| {
            let all: u64 = task.attempts.iter().map(count).sum();
            all - task.attempts.last().map_or(0, count)
        })
        .sum()
}

/// The table of all accesses of attempts, whose lines are [`line()`]s.
pub(crate) fn whole_table(empty: &'static str) -> Table {
    let headings = [
        "task", "attempt", "record", "action", "object", "verdict", "at", "reason",
    ];
    Table::new(&headings, empty)
}

/// A line of that table.
pub(crate) fn line(item: &Value) -> Vec<String> {
    let mut cells = names::attempt_cells(item);
    let keys = ["record", "action", "object", "verdict", "at", "reason"];
    cells.extend(keys.map(|key| text(item, key)));
    cells
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or("-").to_owned()
}
