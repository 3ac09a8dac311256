//! What tasks and attempts are called where people read of them.

use barecount_api::run::TaskView;
use serde_json::Value;

/// A task's stage, with its partition if it has one.
pub(crate) fn task(task: &TaskView) -> String {
    name(&task.stage, &task.partition)
}

/// The task and the number of the attempt that a record is of.
pub(crate) fn attempt_cells(record: &Value) -> Vec<String> {
    let partition = record["partition"].as_str().map(str::to_owned);
    let task = name(record["stage"].as_str().unwrap_or("-"), &partition);
    vec![task, record["attempt"].to_string()]
}

/// A stage, with a partition of it if there is one.
pub(crate) fn name(stage: &str, partition: &Option<String>) -> String {
    match partition {
        Some(partition) => format!("{stage}/{partition}"),
        None => stage.to_owned(),
    }
}
