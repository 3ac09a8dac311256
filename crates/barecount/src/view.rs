//! A run as people see it.

use barecount_api::{
    dataset::{ColumnView, Rows},
    run::{OutputView, RunView, Undeclared},
};
use barecount_client::{
    failure::Failure,
    words::{bytes, short},
};
use barecount_control::governance::{Explanation, explain};
use barecount_model::{
    run::{Attempt, RunState, TaskState, outcome::Staged},
    untrusted::Reason,
};
use serde_json::json;

use crate::{
    accesses, flows, names,
    printer::{Printer, Table},
};

/// The state of a run as people are told it: one that has not ended and that nobody works on was
/// interrupted.
pub(crate) fn state_of(state: RunState, interrupted: bool) -> &'static str {
    match interrupted {
        true => "interrupted",
        false => state.as_str(),
    }
}

/// Prints a run.
pub(crate) fn print(run: &RunView, printer: &Printer) -> Result<(), Failure> {
    printer.data(&json!(run), || text(run))
}

fn text(run: &RunView) -> String {
    let mut text = format!(
        "run       {}\npipeline  {} ({})\nstate     {}\nsubmitted {}\n",
        run.id,
        run.pipeline,
        short(&run.version),
        state_of(run.state, run.interrupted),
        run.submitted_at
    );
    if let Some(reason) = &run.waiting_reason {
        text.push_str(&format!("waiting   {reason}\n"));
    }
    text.push('\n');
    if let Some(explanation) = refusal(run) {
        text.push_str(&explain(&explanation));
        text.push('\n');
    }
    text.push_str(&task_table(run).render());
    text.push_str(&tasks_text(run));
    text.push_str(&records_text(run));
    if !run.outputs.is_empty() {
        text.push('\n');
        text.push_str(&output_table(&run.outputs).render());
    }
    text.push('\n');
    text.push_str(&left_text(run));
    text.push_str(&format!(
        "cost          {} {} at the list prices of the cloud services behind the classes\n",
        run.cost.amount, run.cost.currency
    ));
    if let Some(last) = run.evidence.iter().map(|entry| entry.index).max() {
        text.push_str(&format!(
            "evidence      {} entries in the ledger, up to entry {last} \
             (`barecount evidence verify`)\n",
            run.evidence.len()
        ));
    }
    if let Some(reason) = &run.unchecked {
        text.push_str(&format!("not checked   against the ledger: {reason}\n"));
    }
    text.push_str(&differences_text(run));
    text
}

/// Where a run is not what was signed of it.
fn differences_text(run: &RunView) -> String {
    let mut text = String::new();
    for difference in &run.differences {
        let of = |side: &Option<Reason>| match side {
            Some(side) => side.to_string(),
            None => "nothing".to_owned(),
        };
        let entry = match difference.entry {
            Some(entry) => format!("entry {entry}"),
            None => "no entry".to_owned(),
        };
        text.push_str(&format!(
            "NOT AS SIGNED {entry}, {}: signed {}, the store has {}\n",
            difference.what,
            of(&difference.signed),
            of(&difference.stored)
        ));
    }
    text
}

/// Why a run was refused, if it was.
fn refusal(run: &RunView) -> Option<Explanation> {
    serde_json::from_value(run.refusal.clone()?).ok()
}

/// Why tasks failed, and what answers others.
fn tasks_text(run: &RunView) -> String {
    let mut text = String::new();
    for task in &run.tasks {
        let last = task.attempts.last();
        if let Some(failure) = last.and_then(|attempt| attempt.failure.as_ref()) {
            let name = names::task(task);
            text.push_str(&format!(
                "\n{name}: [{}] {}\n",
                failure.code, failure.message
            ));
        }
    }
    for task in &run.tasks {
        if let Some(answered) = &task.answered_by {
            text.push_str(&format!(
                "\n{}: unchanged; answered by run {}\n",
                names::task(task),
                answered.run
            ));
        }
    }
    text
}

/// What of the work's rows and files is in no dataset.
fn left_text(run: &RunView) -> String {
    let mut text = String::new();
    if run.dead_letters > 0 {
        text.push_str(&format!(
            "dead letters  {} (`barecount dlq ls --run {}`)\n",
            run.dead_letters, run.id
        ));
    }
    let of_one = |one: &Undeclared, other: &Undeclared| {
        (&one.stage, &one.partition) == (&other.stage, &other.partition)
    };
    for left in run.undeclared.chunk_by(of_one) {
        let names: Vec<String> = left.iter().map(|left| format!("`{}`", left.name)).collect();
        let of = left
            .first()
            .map(|left| names::name(&left.stage, &left.partition));
        text.push_str(&format!(
            "not taken     {}, which {} wrote and declares no output for\n",
            names.join(", "),
            of.unwrap_or_default()
        ));
    }
    if run.undeclared_left_out > 0 {
        text.push_str(&format!(
            "not taken     {} more of the kind\n",
            run.undeclared_left_out
        ));
    }
    text
}

/// What the current attempts were given, reached and were refused, and where the rest is told.
fn records_text(run: &RunView) -> String {
    let (secrets, more_secrets) = (accesses::table(run), accesses::not_shown(run));
    let (flows, more_flows) = (flows::table(run), flows::not_shown(run));
    let mut text = String::new();
    for (table, more, verb, what) in [
        (secrets, more_secrets, "accesses", "accesses to secrets"),
        (flows, more_flows, "flows", "kinds of flow"),
    ] {
        if let Some(table) = &table {
            text.push('\n');
            text.push_str(&table.render());
        }
        if more > 0 {
            let id = &run.id;
            text.push_str(&format!(
                "… and {more} more {what}: `barecount runs {verb} {id}`\n"
            ));
        }
    }
    text
}

/// The tasks of a run, a line each.
fn task_table(run: &RunView) -> Table {
    let headings = [
        "task",
        "class",
        "size",
        "state",
        "attempts",
        "seconds",
        "platform",
        "peak memory",
    ];
    let mut table = Table::new(&headings, "no tasks");
    let seconds = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |s| format!("{s:.2}"));
    for task in &run.tasks {
        let current = task.attempts.last();
        let memory = current.and_then(|attempt| attempt.metrics.memory_peak_bytes);
        table.row([
            names::task(task),
            task.class.to_string(),
            task.size.to_string(),
            match &task.answered_by {
                Some(_) => "unchanged".to_owned(),
                None => state_text(task.state).to_owned(),
            },
            task.attempts.len().to_string(),
            seconds(current.and_then(|attempt| attempt.work_seconds)),
            seconds(current.and_then(|attempt| attempt.platform_seconds)),
            memory.map_or("-".to_owned(), bytes),
        ]);
    }
    table
}

/// Datasets that a run made visible.
fn output_table(outputs: &[OutputView]) -> Table {
    let mut table = Table::new(
        &["dataset", "partition", "version", "rows", "size", "digest"],
        "nothing was committed",
    );
    for output in outputs {
        table.row([
            output.dataset.clone(),
            output.partition.clone().unwrap_or_else(|| "-".to_owned()),
            output.version.to_string(),
            output.rows.to_string(),
            bytes(output.bytes),
            short(&output.digest),
        ]);
    }
    table
}

/// The columns of a dataset, a line each.
pub(crate) fn columns(columns: &[ColumnView], partition_by: &[String]) -> Table {
    let mut table = Table::new(&["column", "type", "null", "partition"], "no columns");
    for column in columns {
        table.row([
            column.name.to_string(),
            column.column_type.to_string(),
            if column.nullable { "yes" } else { "no" }.to_owned(),
            if partition_by.iter().any(|name| name == column.name.raw()) {
                "yes"
            } else {
                "-"
            }
            .to_owned(),
        ]);
    }
    table
}

/// The first rows of a dataset, cells cut to what a terminal can show.
pub(crate) fn first_rows(rows: &Rows) -> String {
    const COLUMNS: usize = 8;
    const WIDTH: usize = 24;
    let cut = |text: String| match text.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    };
    let mut lines = vec![
        rows.columns
            .iter()
            .take(COLUMNS)
            .map(|name| cut(name.to_string()))
            .collect::<Vec<_>>(),
    ];
    for row in &rows.rows {
        let cells = row.iter().take(COLUMNS);
        lines.push(
            cells
                .map(|cell| {
                    cell.as_ref()
                        .map_or("null".to_owned(), |cell| cut(cell.to_string()))
                })
                .collect(),
        );
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    if rows.columns.len() > COLUMNS {
        text.push_str(&format!(
            "({} more columns)\n",
            rows.columns.len() - COLUMNS
        ));
    }
    text
}

/// How long the work of an attempt took, in seconds.
pub(crate) fn seconds(attempt: &Attempt) -> Option<f64> {
    attempt.work_time().map(|time| time.as_secs_f64())
}

fn state_text(state: TaskState) -> &'static str {
    match state {
        TaskState::Waiting => "waiting",
        TaskState::Ready => "ready",
        TaskState::Active => "running",
        TaskState::Committing => "committing",
        TaskState::Succeeded => "succeeded",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::Skipped => "skipped",
    }
}

/// What work wrote beside its outputs, by name.
pub(crate) fn undeclared(staged: &Staged) -> String {
    let names = staged.undeclared.iter();
    let mut text = names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if staged.undeclared_left_out > 0 {
        text.push_str(&format!(" and {} more", staged.undeclared_left_out));
    }
    text
}
