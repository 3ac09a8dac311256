//! What attempts reached over the network and were refused, as their evidence and the record beside
//! it tell.

use std::path::Path;

use barecount_client::{
    details::{AttemptEntry, attempt},
    failure::Failure,
    words::bytes,
};
use barecount_model::run::{Attempt, Run, Task};
use barecount_network::record::{FlowRecord, Verdict};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::printer::Table;

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
pub(crate) fn table(run: &Run) -> Option<Table> {
    let headings = [&["task"], &HEADINGS[..]].concat();
    let mut table = Table::new(&headings, "nothing was reached or refused");
    let mut any = false;
    for task in &run.tasks {
        let Some(current) = task.current() else {
            continue;
        };
        let network = attempt::network(current);
        let records = network["records"].as_array().cloned().unwrap_or_default();
        for record in records {
            // Written by this program; another version's is in evidence all the same.
            let Ok(flow) = serde_json::from_value::<FlowRecord>(record) else {
                continue;
            };
            any = true;
            let name = std::iter::once(task.name());
            table.row(name.chain(cells_of(&flow)));
        }
    }
    any.then_some(table)
}

/// What a table says of a flow.
fn cells_of(flow: &FlowRecord) -> [String; 7] {
    let verdict = match flow.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Refused => "refused",
        Verdict::Audited => "audited",
    };
    let reason = flow.reason.as_ref().map_or("-", |reason| &reason.text);
    [
        destination(flow),
        format!("{:?}", flow.protocol).to_lowercase(),
        verdict.to_owned(),
        flow.count.to_string(),
        bytes(flow.bytes_up),
        bytes(flow.bytes_down),
        reason.to_owned(),
    ]
}

/// `name (address):port`, as far as there is each.
fn destination(flow: &FlowRecord) -> String {
    let address = flow.address.map(|address| address.to_string());
    let host = match (&flow.name, address) {
        (Some(name), Some(address)) => format!("{name} ({address})"),
        (Some(name), None) => name.clone(),
        (None, Some(address)) => address,
        (None, None) => "?".to_owned(),
    };
    format!("{host}:{}", flow.port)
}

/// The table of all flows of attempts, whose lines are [`line()`]s.
pub(crate) fn whole_table(empty: &'static str) -> Table {
    Table::new(&[&["task", "attempt"], &HEADINGS[..]].concat(), empty)
}

/// How many kinds of flow of a run its current attempts' evidence does not show, and its earlier
/// attempts have.
pub(crate) fn not_shown(run: &Run) -> u64 {
    let kinds = |attempt: &Attempt| {
        let network = attempt::network(attempt);
        let shown = network["records"].as_array().map_or(0, Vec::len) as u64;
        (shown, network["left_out"].as_u64().unwrap_or(0))
    };
    let of_task = |task: &Task| {
        let all: u64 = task
            .attempts
            .iter()
            .map(|tried| kinds(tried).0 + kinds(tried).1)
            .sum();
        all - task.current().map_or(0, |current| kinds(current).0)
    };
    run.tasks.iter().map(of_task).sum()
}

/// Every flow of an attempt, from the record beside the ledger, which is held against its entry.
pub(crate) fn recorded(state: &Path, entry: &AttemptEntry) -> Result<Vec<FlowRecord>, Failure> {
    match entry.flows_record() {
        Some(record) => record.lines(state),
        None => Ok(Vec::new()),
    }
}

/// A flow as `barecount/flows/v1` has it, of an attempt.
pub(crate) fn item(entry: &AttemptEntry, flow: &FlowRecord) -> Value {
    json!({
        "task": entry.task(), "stage": entry.stage, "partition": entry.partition,
        "attempt": entry.number(), "entry": entry.index,
        "name": flow.name, "address": flow.address, "port": flow.port,
        "protocol": flow.protocol, "network_profile": flow.profile, "path": flow.path,
        "verdict": flow.verdict, "reason": flow.reason, "count": flow.count,
        "bytes_up": flow.bytes_up, "bytes_down": flow.bytes_down,
        "first_at": moment(flow.first_at), "last_at": moment(flow.last_at),
    })
}

/// A moment in milliseconds since 1970, as JSON has moments.
fn moment(milliseconds: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()
}

/// A line of the table of all flows of attempts.
pub(crate) fn line(entry: &AttemptEntry, flow: &FlowRecord) -> Vec<String> {
    let mut cells = vec![entry.name(), entry.number().to_string()];
    cells.extend(cells_of(flow));
    cells
}
