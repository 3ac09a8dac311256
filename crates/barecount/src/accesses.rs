//! Which secrets attempts were given and refused, by reference, and what their identities opened:
//! as their evidence and the record beside it tell.

use std::path::Path;

use barecount_client::{
    details::{AttemptEntry, attempt},
    failure::Failure,
};
use barecount_model::run::{Attempt, Run};
use barecount_secrets::Access;
use serde_json::{Value, json};

use crate::printer::Table;

/// The accesses of the current attempts, a line each.
pub(crate) fn table(run: &Run) -> Option<Table> {
    let headings = ["task", "secret", "reference", "verdict", "at", "reason"];
    let mut table = Table::new(&headings, "no secrets were asked for");
    let mut any = false;
    for task in &run.tasks {
        let Some(current) = task.current() else {
            continue;
        };
        let secrets = attempt::secrets(current);
        for record in secrets["records"].as_array().into_iter().flatten() {
            any = true;
            let cells = ["name", "reference", "verdict", "at", "reason"];
            let name = std::iter::once(task.name());
            table.row(name.chain(cells.map(|key| text(record, key))));
        }
    }
    any.then_some(table)
}

/// How many accesses to secrets the attempts before the current ones made.
pub(crate) fn not_shown(run: &Run) -> u64 {
    let count = |attempt: &Attempt| {
        let secrets = attempt::secrets(attempt);
        secrets["records"].as_array().map_or(0, Vec::len) as u64
    };
    let tasks = run.tasks.iter();
    tasks
        .map(|task| {
            let all: u64 = task.attempts.iter().map(count).sum();
            all - task.current().map_or(0, count)
        })
        .sum()
}

/// Every access of an attempt, as `barecount/accesses/v1` has them: to the platform's objects, then
/// to secrets; from records beside the ledger, which are held against the entry.
pub(crate) fn recorded(state: &Path, entry: &AttemptEntry) -> Result<Vec<Value>, Failure> {
    let objects = match entry.objects_record() {
        Some(record) => record.lines(state)?,
        None => {
            let accesses = entry.accesses();
            accesses.map_or_else(Vec::new, |accesses| accesses.records.records().to_vec())
        }
    };
    let objects = objects.iter().map(|record| {
        item(
            entry,
            "identity",
            [
                &record["action"],
                &record["object"],
                &record["verdict"],
                &record["at"],
                &Value::Null,
            ],
        )
    });
    let mut items: Vec<Value> = objects.collect();
    for access in secrets(state, entry)? {
        let object = json!(format!("secret {}", text(&access, "reference")));
        let fields = [
            &json!("fetch"),
            &object,
            &access["verdict"],
            &access["at"],
            &access["reason"],
        ];
        items.push(item(entry, "secrets", fields));
    }
    Ok(items)
}

/// The accesses of an attempt to secrets.
fn secrets(state: &Path, entry: &AttemptEntry) -> Result<Vec<Value>, Failure> {
    let Some(record) = entry.secrets_record() else {
        // Nothing to hold a record against; the entry itself has every access.
        let records = entry
            .secrets()
            .map(|secrets| secrets.records.records().to_vec());
        return Ok(records.unwrap_or_default());
    };
    let accesses: Vec<Access> = record.lines(state)?;
    Ok(accesses.iter().map(|access| json!(access)).collect())
}

/// An access: `record` says in which of the two records it stands.
fn item(entry: &AttemptEntry, record: &str, fields: [&Value; 5]) -> Value {
    let [action, object, verdict, at, reason] = fields;
    json!({
        "task": entry.task(), "stage": entry.stage, "partition": entry.partition,
        "attempt": entry.number(), "entry": entry.index, "record": record,
        "action": action, "object": object, "verdict": verdict, "at": at, "reason": reason,
    })
}

/// Whether an access was not allowed.
pub(crate) fn was_refused(item: &Value) -> bool {
    item["verdict"] != "allowed"
}

/// The table of all accesses of attempts, whose lines are [`line()`]s.
pub(crate) fn whole_table(empty: &'static str) -> Table {
    let headings = [
        "task", "attempt", "record", "action", "object", "verdict", "at", "reason",
    ];
    Table::new(&headings, empty)
}

/// A line of that table.
pub(crate) fn line(entry: &AttemptEntry, item: &Value) -> Vec<String> {
    let mut cells = vec![entry.name(), entry.number().to_string()];
    let keys = ["record", "action", "object", "verdict", "at", "reason"];
    cells.extend(keys.map(|key| text(item, key)));
    cells
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or("-").to_owned()
}
