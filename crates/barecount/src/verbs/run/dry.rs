//! `barecount run --dry-run`, as it is printed.

use barecount_client::{
    client::{DryRun, Fate},
    failure::{Failure, Status},
};
use barecount_control::governance::explain;
use barecount_model::run::RunState;
use serde_json::{Value, json};

use crate::printer::{Printer, Table};

/// Tells what would run, and why.
///
/// # Errors
/// If it would be refused, after the reasons were told.
pub(super) fn print(dry: &DryRun, printer: &Printer) -> Result<(), Failure> {
    printer.data(&json(dry), || text(dry))?;
    if dry.decision.is_permitted() {
        return Ok(());
    }
    printer.warn(&explain(&dry.decision));
    Err(Failure::new(Status::Refused, "the run would be refused")
        .with_code("BC0401")
        .with_help("The conditions above say what is not met, and what would change that."))
}

/// `barecount/dry_run/v1`.
fn json(dry: &DryRun) -> Value {
    let run = &dry.run;
    let tasks: Vec<Value> = run
        .tasks
        .iter()
        .zip(&dry.fates)
        .map(|(task, fate)| {
            let answered_by = match fate {
                Fate::Unchanged(by) => Some(by),
                _ => None,
            };
            json!({
                "stage": task.stage, "partition": task.partition, "class": task.class,
                "size": task.size, "network_profile": task.network_profile,
                "does": fate.does(), "why": fate.why(), "answered_by": answered_by,
            })
        })
        .collect();
    let existing = dry.existing.as_ref();
    let reads = dry.reads.iter();
    let reads: Vec<_> = reads
        .map(|(dataset, pinned)| {
            json!({ "dataset": dataset, "pipeline": pinned.pipeline, "version": pinned.version })
        })
        .collect();
    json!({
        "schema": "barecount/dry_run/v1", "pipeline": run.pipeline, "tenant": run.tenant,
        "version": run.version, "environment": run.environment, "window": run.window,
        "permitted": dry.decision.is_permitted(), "decision": dry.decision,
        "run": existing.map(|run| json!({ "id": run.id, "state": run.state })),
        "reads_from": reads, "tasks": tasks,
    })
}

fn text(dry: &DryRun) -> String {
    let mut table = Table::new(&["task", "class", "size", "does", "why"], "no tasks");
    for (task, fate) in dry.run.tasks.iter().zip(&dry.fates) {
        table.row([
            task.name(),
            task.class.to_string(),
            task.size.to_string(),
            fate.does().to_owned(),
            fate.why(),
        ]);
    }
    let head = match &dry.existing {
        Some(existing) if existing.state == RunState::Succeeded => {
            format!("nothing would run: run {} answers\n\n", existing.id)
        }
        Some(existing) => format!("run {} would be taken up\n\n", existing.id),
        None => "a new run would be made\n\n".to_owned(),
    };
    let reads = dry.reads.iter();
    let reads: String = reads
        .map(|(dataset, pinned)| {
            let (pipeline, version) = (&pinned.pipeline, pinned.version);
            format!("it would read {dataset}@{version} of pipeline {pipeline}\n\n")
        })
        .collect();
    head + &reads + &table.render()
}
