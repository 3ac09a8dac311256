//! What attempts reached over the network and were refused, as their evidence and the record beside
//! it tell.

use barecount_api::run::{AttemptView, RunView, TaskView};
use barecount_client::words::bytes;
use serde_json::Value;

use crate::{names, printer::Table};

/// What a table says of a flow.
const HEADINGS: [&str; 7] = [
    "destination",
    "protocol",
    "verdict",
    "times",
    "sent",
    "received",
    "reason",
];

/// The flows of the current attempts, a line each; as many as evidence shows.
pub(crate) fn table(run: &RunView) -> Option<Table> {
    let headings = [&["task"], &HEADINGS[..]].concat();
    let mut table = Table::new(&headings, "nothing was reached or refused");
    let mut any = false;
    for task in &run.tasks {
        let Some(current) = task.attempts.last() else {
            continue;
        };
        let network = &current.network;
        for flow in network["records"].as_array().into_iter().flatten() {
            any = true;
            let name = std::iter::once(names::task(task));
            table.row(name.chain(cells_of(flow)));
        }
    }
    any.then_some(table)
}

/// What a table says of a flow.
fn cells_of(flow: &Value) -> [String; 7] {
    let text = |key: &str| flow[key].as_str().unwrap_or("-").to_owned();
    let number = |key: &str| flow[key].as_u64().unwrap_or(0);
    [
        destination(flow),
        text("protocol"),
        text("verdict"),
        number("count").to_string(),
        bytes(number("bytes_up")),
        bytes(number("bytes_down")),
        flow["reason"]["text"].as_str().unwrap_or("-").to_owned(),
    ]
}

/// `name (address):port`, as far as there is each.
fn destination(flow: &Value) -> String {
    let host = match (flow["name"].as_str(), flow["address"].as_str()) {
        (Some(name), Some(address)) => format!("{name} ({address})"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "?".to_owned(),
    };
    format!("{host}:{}", flow["port"])
}

/// The table of all flows of attempts, whose lines are [`line()`]s.
pub(crate) fn whole_table(empty: &'static str) -> Table {
    Table::new(&[&["task", "attempt"], &HEADINGS[..]].concat(), empty)
}

/// How many kinds of flow of a run its current attempts' evidence does not show, and its earlier
/// attempts have.
pub(crate) fn not_shown(run: &RunView) -> u64 {
    let kinds = |attempt: &AttemptView| {
        let network = &attempt.network;
        let shown = network["records"].as_array().map_or(0, Vec::len) as u64;
        (shown, network["left_out"].as_u64().unwrap_or(0))
    };
    let of_task = |task: &TaskView| {
        let all: u64 = task
            .attempts
            .iter()
            .map(|tried| kinds(tried).0 + kinds(tried).1)
            .sum();
        all - task.attempts.last().map_or(0, |current| kinds(current).0)
    };
    run.tasks.iter().map(of_task).sum()
}

/// A line of the table of all flows of attempts.
pub(crate) fn line(item: &Value) -> Vec<String> {
    let mut cells = names::attempt_cells(item);
    cells.extend(cells_of(item));
    cells
}
