//! What attempts reached over the network and were refused, as their evidence and the record beside
//! it tell.

use std::path::Path;

use barecount_agent::StagingFolders;
use barecount_model::run::{Attempt, Run, Task};
use barecount_network::record::{FlowRecord, Verdict};
use barecount_runner::launch::AttemptToken;
use serde_json::Value;

use crate::{
    failure::{Failure, Status},
    printer::Table,
};

/// The most of a record that is read. The broker bounds how many flows one has.
const MOST_BYTES: u64 = 16 << 20;

/// What JSON has of an attempt's network: what evidence has.
pub(crate) fn of_attempt(attempt: &Attempt) -> Value {
    attempt
        .detail
        .get("network")
        .cloned()
        .unwrap_or(Value::Null)
}

/// The flows of the current attempts, a line each; as many as evidence shows.
pub(crate) fn table(run: &Run) -> Option<Table> {
    let headings = [
        "task",
        "destination",
        "protocol",
        "verdict",
        "times",
        "sent",
        "received",
        "reason",
    ];
    let mut table = Table::new(&headings, "nothing was reached or refused");
    let mut any = false;
    for task in &run.tasks {
        let Some(current) = task.current() else {
            continue;
        };
        let network = of_attempt(current);
        let records = network["records"].as_array().cloned().unwrap_or_default();
        for record in records {
            // Written by this program; another version's is in evidence all the same.
            let Ok(flow) = serde_json::from_value::<FlowRecord>(record) else {
                continue;
            };
            any = true;
            table.row(row(task, &flow));
        }
    }
    any.then_some(table)
}

fn row(task: &Task, flow: &FlowRecord) -> [String; 8] {
    let verdict = match flow.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Refused => "refused",
        Verdict::Audited => "audited",
    };
    let reason = flow.reason.as_ref().map_or("-", |reason| &reason.text);
    [
        crate::view::task_name(task),
        destination(flow),
        format!("{:?}", flow.protocol).to_lowercase(),
        verdict.to_owned(),
        flow.count.to_string(),
        crate::view::bytes(flow.bytes_up),
        crate::view::bytes(flow.bytes_down),
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

/// Every flow of a run's attempts, by stage, from the records beside the ledger; each is held
/// against the digest that evidence has of it.
pub(crate) fn recorded(state: &Path, run: &Run) -> Result<Vec<(String, FlowRecord)>, Failure> {
    let folders = StagingFolders::new(state);
    let mut flows = Vec::new();
    for task in &run.tasks {
        for attempt in &task.attempts {
            let network = of_attempt(attempt);
            let Some(digest) = network["digest"].as_str() else {
                continue;
            };
            // Where there was nothing to record there is no record.
            if network["records"].as_array().is_none_or(Vec::is_empty) {
                continue;
            }
            let token = AttemptToken {
                task: task.id.clone(),
                number: attempt.number,
            };
            let lines = read(&folders.flows(&token), digest)?;
            flows.extend(lines.into_iter().map(|flow| (task.stage.clone(), flow)));
        }
    }
    Ok(flows)
}

fn read(path: &Path, digest: &str) -> Result<Vec<FlowRecord>, Failure> {
    use std::io::Read;
    let unreadable = |what: String| {
        Failure::new(Status::Unverified, what)
            .with_code("BC0904")
            .with_help(
                "The ledger still holds the sums and the first flows: `barecount runs show`.",
            )
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
        .map_err(|error| {
            unreadable(format!("the record {} cannot be read", path.display())).because(&error)
        })?;
    if barecount_model::digest::Digest::of(text.as_bytes()).to_string() != digest {
        let what = format!("the record {} is not the one in evidence", path.display());
        return Err(unreadable(what));
    }
    // The first line has the sums.
    let lines = text.lines().skip(1).map(serde_json::from_str);
    lines.collect::<Result<_, _>>().map_err(|error| {
        unreadable(format!(
            "the record {} cannot be understood",
            path.display()
        ))
        .because(&error)
    })
}
