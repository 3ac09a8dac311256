//! A run as other programs and people see it: `barecount/run/v1`, and its text form.

use barecount_client::{
    details::attempt,
    harmless::{Harmless, SetOff},
    words::{bytes, short},
};
use barecount_control::{
    governance::{Explanation, Refusal, Verdict, explain},
    store::{LedgerEntry, OutputVersion},
};
use barecount_dataset::read::FirstRows;
use barecount_model::{
    cost::{self, Money},
    plan::Plan,
    run::{Attempt, AttemptState, Held, Run, RunState, Task, TaskState, outcome::Staged},
};
use serde_json::{Value, json};

use crate::{accesses, flows, printer::Table};

/// Everything that is shown of a run.
pub(crate) struct RunView<'a> {
    pub(crate) run: &'a Run,
    pub(crate) plan: &'a Plan,
    pub(crate) outputs: &'a [OutputVersion],
    pub(crate) evidence: &'a [LedgerEntry],
    /// Whether it has not ended, and nobody works on it.
    pub(crate) interrupted: bool,
}

/// The state of a run as people are told it: one that has not ended and that nobody works on was
/// interrupted.
pub(crate) fn state_of(run: &Run, interrupted: bool) -> &'static str {
    match interrupted {
        true => "interrupted",
        false => run.state.as_str(),
    }
}

impl RunView<'_> {
    /// `barecount/run/v1`.
    pub(crate) fn json(&self) -> Value {
        let run = self.run;
        json!({
            "schema": "barecount/run/v1",
            "id": run.id,
            "token": run.token,
            "tenant": run.tenant,
            "pipeline": run.pipeline,
            "version": run.version,
            "environment": run.environment,
            "window": run.window,
            "state": run.state,
            "interrupted": self.interrupted,
            "waiting_reason": self.waiting_reason(),
            "refusal": refusal(run, self.plan),
            "submitted_at": run.submitted_at,
            "ended_at": run.ended_at,
            "tasks": run.tasks.iter().map(|task| self.task(task)).collect::<Vec<_>>(),
            "outputs": self.outputs.iter().map(output).collect::<Vec<_>>(),
            "dead_letters": dead_letters(run),
            "undeclared": decided(run)
                .flat_map(|(task, staged)| {
                    let names = staged.undeclared.iter();
                    names.map(|name| json!({ "stage": task.stage, "name": name }))
                })
                .collect::<Vec<_>>(),
            "cost": cost::of_run(run, self.plan),
            "evidence": self.evidence.iter().map(entry).collect::<Vec<_>>(),
            "tree_size": self.evidence.iter().map(|entry| entry.index + 1).max(),
        })
    }

    fn task(&self, task: &Task) -> Value {
        let stage = self.plan.stage(&task.stage);
        let digest = stage.map(|stage| stage.work.artifact().digest.as_str());
        json!({
            "id": task.id,
            "stage": task.stage,
            "partition": task.partition,
            "class": task.class,
            "size": task.size,
            "network_profile": task.network_profile,
            "backend": stage.map(|stage| stage.backend.as_str()),
            "state": task.state,
            "held": task.held,
            "work": task.work.as_ref().map(|work| work.key),
            "answered_by": task.answered,
            "attempts": task.attempts.iter().map(|tried| attempt_json(tried, digest)).collect::<Vec<_>>(),
        })
    }

    /// What it waits for, if nothing of it is under way.
    fn waiting_reason(&self) -> Option<String> {
        let run = self.run;
        if self.interrupted {
            return Some(way_on(run));
        }
        let active = |task: &Task| matches!(task.state, TaskState::Active | TaskState::Committing);
        if run.state.is_final() || run.tasks.iter().any(active) {
            return None;
        }
        if let Some(held) = run.tasks.iter().find_map(|task| task.held.as_ref()) {
            let Held {
                reason,
                since,
                times,
            } = held;
            return Some(format!("{reason} (looked {times} times since {since})"));
        }
        let due = run.next_due()?;
        Some(format!("a retry is due at {due}"))
    }

    /// The run for a person.
    pub(crate) fn text(&self) -> String {
        let run = self.run;
        let mut text = format!(
            "run       {}\npipeline  {} ({})\nstate     {}\nsubmitted {}\n",
            run.id,
            run.pipeline,
            short(&run.version),
            state_of(run, self.interrupted),
            run.submitted_at
        );
        if let Some(reason) = self.waiting_reason() {
            text.push_str(&format!("waiting   {reason}\n"));
        }
        text.push('\n');
        if let Some(explanation) = refusal(run, self.plan) {
            text.push_str(&explain(&Verdict::Refused(Refusal { explanation })));
            text.push('\n');
        }
        text.push_str(&task_table(run).render());
        for task in &run.tasks {
            if let Some(failure) = task.current().and_then(|attempt| attempt.failure.as_ref()) {
                let name = task.name();
                text.push_str(&format!(
                    "\n{name}: [{}] {}\n",
                    failure.code,
                    Harmless(&failure.message)
                ));
            }
        }
        for task in &run.tasks {
            if let Some(answered) = &task.answered {
                let name = task.name();
                text.push_str(&format!(
                    "\n{name}: unchanged; answered by run {}\n",
                    answered.run
                ));
            }
        }
        text.push_str(&records_text(run));
        if !self.outputs.is_empty() {
            text.push('\n');
            text.push_str(&output_table(self.outputs).render());
        }
        text.push('\n');
        text.push_str(&left_text(run));
        text.push_str(&format!(
            "cost          {} {} at the list prices of the cloud services behind the classes\n",
            cost::of_run(run, self.plan),
            Money::CURRENCY
        ));
        if let Some(last) = self.evidence.iter().map(|entry| entry.index).max() {
            text.push_str(&format!(
                "evidence      {} entries in the ledger, up to entry {last} \
                 (`barecount evidence verify`)\n",
                self.evidence.len()
            ));
        }
        text
    }
}

/// Why a run was refused, if it was.
fn refusal(run: &Run, plan: &Plan) -> Option<Explanation> {
    let refused = run.state == RunState::Refused;
    refused
        .then(|| serde_json::from_value(plan.decision.clone()).ok())
        .flatten()
}

/// How a run goes on, or ends, that nobody works on.
fn way_on(run: &Run) -> String {
    let id = &run.id;
    let decided = run
        .tasks
        .iter()
        .filter(|task| task.state == TaskState::Committing);
    let mut text = format!(
        "no process works on it; `barecount run` of the manifest of pipeline `{}` takes it up, \
         `barecount runs cancel {id}` ends it",
        run.pipeline
    );
    if decided.count() > 0 {
        text.push_str(&format!(
            "; its outputs are decided for: if they cannot be committed, \
             `barecount runs abandon {id} --reason TEXT` gives them up"
        ));
    }
    text
}

/// What of the work's rows and files is in no dataset.
fn left_text(run: &Run) -> String {
    let mut text = String::new();
    let letters = dead_letters(run);
    if letters > 0 {
        text.push_str(&format!(
            "dead letters  {letters} (`barecount dlq ls --run {}`)\n",
            run.id
        ));
    }
    for (task, staged) in decided(run) {
        if !staged.undeclared.is_empty() {
            text.push_str(&format!(
                "not taken     {}, which {} wrote and declares no output for\n",
                undeclared(staged),
                task.name()
            ));
        }
    }
    text
}

/// What the current attempts were given, reached and were refused, and where the rest is told.
fn records_text(run: &Run) -> String {
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
pub(crate) fn task_table(run: &Run) -> Table {
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
    for task in &run.tasks {
        let current = task.current();
        let seconds = current
            .and_then(seconds)
            .map_or("-".to_owned(), |s| format!("{s:.2}"));
        let platform = current
            .and_then(Attempt::platform_time)
            .map_or("-".to_owned(), |time| format!("{:.2}", time.as_secs_f64()));
        let memory = current.and_then(|attempt| attempt.metrics.memory_peak_bytes);
        table.row([
            task.name(),
            task.class.to_string(),
            task.size.to_string(),
            match &task.answered {
                Some(_) => "unchanged".to_owned(),
                None => state_text(task.state).to_owned(),
            },
            task.attempts.len().to_string(),
            seconds,
            platform,
            memory.map_or("-".to_owned(), bytes),
        ]);
    }
    table
}

/// Datasets that a run made visible.
pub(crate) fn output_table(outputs: &[OutputVersion]) -> Table {
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

/// The first rows of a dataset, cells cut to what a terminal can show.
pub(crate) fn first_rows(rows: &FirstRows) -> String {
    const COLUMNS: usize = 8;
    const WIDTH: usize = 24;
    let cut = |text: &str| {
        let plain = Harmless(text).to_string();
        match plain.char_indices().nth(WIDTH) {
            Some((at, _)) => format!("{}…", &plain[..at]),
            None => plain,
        }
    };
    let mut lines = vec![
        rows.columns
            .iter()
            .take(COLUMNS)
            .map(|name| cut(name))
            .collect::<Vec<_>>(),
    ];
    for row in &rows.rows {
        let cells = row.iter().take(COLUMNS);
        lines.push(
            cells
                .map(|cell| cell.as_deref().map_or("null".to_owned(), cut))
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

/// What each task's decided attempt handed over.
fn decided(run: &Run) -> impl Iterator<Item = (&Task, &Staged)> {
    run.tasks.iter().filter_map(|task| {
        let mut attempts = task.attempts.iter();
        let decided = attempts.find(|attempt| attempt.state == AttemptState::Succeeded)?;
        Some((task, decided.staged.as_ref()?))
    })
}

fn dead_letters(run: &Run) -> u64 {
    decided(run).map(|(_, staged)| staged.dead_letters).sum()
}

/// What work wrote beside its outputs, by name.
pub(crate) fn undeclared(staged: &Staged) -> String {
    let names = staged.undeclared.iter();
    let mut text = names
        .map(|name| format!("`{}`", SetOff(name)))
        .collect::<Vec<_>>()
        .join(", ");
    if staged.undeclared_left_out > 0 {
        text.push_str(&format!(" and {} more", staged.undeclared_left_out));
    }
    text
}

fn attempt_json(tried: &Attempt, digest: Option<&str>) -> Value {
    json!({
        "number": tried.number,
        "runner": tried.runner,
        "digest": digest,
        "state": tried.state,
        "exit_code": tried.exit_code,
        "failure": tried.failure,
        "intended_at": tried.intended_at,
        "started_at": tried.started_at,
        "work_ended_at": tried.work_ended_at,
        "staged_at": tried.staged_at,
        "ended_at": tried.ended_at,
        "committed_at": tried.committed_at,
        "work_seconds": tried.work_time().map(|time| time.as_secs_f64()),
        "platform_seconds": tried.platform_time().map(|time| time.as_secs_f64()),
        "metrics": tried.metrics,
        "network": attempt::network(tried),
        "secrets": attempt::secrets(tried),
    })
}

fn output(output: &OutputVersion) -> Value {
    json!({
        "dataset": output.dataset,
        "partition": output.partition,
        "uri": output.uri,
        "version": output.version,
        "rows": output.rows,
        "bytes": output.bytes,
        "digest": output.digest,
    })
}

fn entry(entry: &LedgerEntry) -> Value {
    json!({ "index": entry.index, "kind": entry.kind, "leaf_hash": entry.leaf_hash })
}
