//! `barecount runs`.

mod ending;
mod records;

use std::{fs::File, io::Read};

use barecount_client::{
    details,
    embedded::working::Worker,
    failure::{Failure, Status},
    state,
};
use barecount_control::store::reader::Reader;
use barecount_model::{
    plan::Plan,
    run::{Run, Task},
};
use clap::Subcommand;
use serde_json::{Value, json};

use self::{
    ending::{Abandon, Cancel},
    records::Selection,
};
use crate::{
    global::Global,
    printer::{Printer, Table},
    tenant::{OfTenant, several},
    view::{self, RunView},
};

/// More of one log is not printed at once.
const MAX_LOG_BYTES: u64 = 64 << 20;

/// Look at runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List runs, newest first.
    Ls {
        #[command(flatten)]
        of: OfTenant,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show a run: its tasks, outputs and evidence, and the beginning of what it reached and was
    /// given.
    Show {
        /// The run's identifier, or the beginning of it.
        run: String,
    },
    /// End a run that nobody works on, such as one whose process died: nothing new starts, what is
    /// under way is stopped and cleaned up, and what is decided for is committed.
    ///
    /// A run that a process works on is ended by Ctrl-C there.
    Cancel(Cancel),
    /// Give a run up whose outputs are decided for and cannot be committed.
    ///
    /// What can be committed still is. The rest is struck, with who did it and why in evidence; then
    /// the pipeline can run again.
    Abandon(Abandon),
    /// Print what a run's attempts wrote to standard output and standard error.
    Logs {
        /// The run's identifier, or the beginning of it.
        run: String,
        /// Only this stage.
        #[arg(long, value_name = "STAGE")]
        stage: Option<String>,
        /// Byte for byte also on a terminal, which will obey what is in it.
        #[arg(long)]
        raw: bool,
    },
    /// Print everything that a run's attempts reached over the network, and were refused.
    ///
    /// Each record is held against the digest that the signed ledger has of it; one that was
    /// changed, cut or removed since is exit status 7.
    Flows(Selection),
    /// Print which datasets, files, destinations and secrets a run's attempts were given, and were
    /// refused: by name, never what is in them.
    ///
    /// The record `identity` is what the attempt's identity was held against; the record `secrets` is
    /// what the secrets store then gave. Each is held against the signed ledger; one that was
    /// changed, cut or removed since is exit status 7.
    Accesses(Selection),
}

impl Runs {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { of, limit } => list(global, printer, &of, limit),
            Self::Show { run } => show(global, printer, &run),
            Self::Cancel(verb) => verb.execute(global, printer),
            Self::Abandon(verb) => verb.execute(global, printer),
            Self::Logs { run, stage, raw } => logs(global, printer, &run, stage.as_deref(), raw),
            Self::Flows(selection) => records::print_flows(&selection, global, printer),
            Self::Accesses(selection) => records::print_accesses(&selection, global, printer),
        }
    }
}

fn list(global: &Global, printer: &Printer, of: &OfTenant, limit: u32) -> Result<(), Failure> {
    let runs = match state::reader(&global.state)? {
        Some(reader) => reader
            .runs_of(of.name(), limit)
            .map_err(state::store_failure)?,
        None => Vec::new(),
    };
    let worker = global.client().worker()?;
    let interrupted = |run: &Run| is_interrupted(run, worker.as_ref());
    let summaries = runs.iter().map(|(run, _)| summary(run, interrupted(run)));
    let items: Vec<Value> = summaries.collect();
    printer.list("runs", &items, || {
        let mut table = Table::new(
            &["run", "tenant", "pipeline", "state", "tasks", "submitted"],
            "no runs yet; `barecount run FILE` makes one",
        );
        for (run, _) in &runs {
            table.row([
                run.id.to_string(),
                run.tenant.clone(),
                run.pipeline.clone(),
                view::state_of(run, interrupted(run)).to_owned(),
                run.tasks.len().to_string(),
                run.submitted_at.to_string(),
            ]);
        }
        match several(runs.iter().map(|(run, _)| run.tenant.as_str())) {
            true => table,
            false => table.without("tenant"),
        }
    })
}

fn is_interrupted(run: &Run, worker: Option<&Worker>) -> bool {
    !run.state.is_final() && !worker.is_some_and(|worker| worker.has(&run.id))
}

fn summary(run: &Run, interrupted: bool) -> Value {
    json!({
        "id": run.id, "token": run.token, "tenant": run.tenant, "pipeline": run.pipeline,
        "version": run.version, "state": run.state, "interrupted": interrupted,
        "window": run.window,
        "submitted_at": run.submitted_at, "ended_at": run.ended_at,
    })
}

fn show(global: &Global, printer: &Printer, text: &str) -> Result<(), Failure> {
    let (reader, run, plan) = state::find_run(&global.state, text)?;
    print(global, printer, &reader, &run, &plan)
}

fn print(
    global: &Global,
    printer: &Printer,
    reader: &Reader,
    run: &Run,
    plan: &Plan,
) -> Result<(), Failure> {
    let id = run.id.as_str();
    let outputs = reader.outputs_of(id).map_err(state::store_failure)?;
    let evidence = reader
        .ledger_entries(Some(id))
        .map_err(state::store_failure)?;
    let view = RunView {
        run,
        plan,
        outputs: &outputs,
        evidence: &evidence,
        interrupted: is_interrupted(run, global.client().worker()?.as_ref()),
    };
    printer.data(&view.json(), || view.text())
}

fn logs(
    global: &Global,
    printer: &Printer,
    text: &str,
    stage: Option<&str>,
    raw: bool,
) -> Result<(), Failure> {
    let (_, run, _) = state::find_run(&global.state, text)?;
    let stage = stage_of(&run, stage)?;
    let mut items = Vec::new();
    let mut readable = String::new();
    for task in run
        .tasks
        .iter()
        .filter(|task| stage.is_none_or(|stage| task.stage == stage))
    {
        for (number, log) in logs_of(global, task)? {
            let name = task.name();
            readable.push_str(&format!("==> {name}, attempt {number}\n{log}"));
            if !log.is_empty() && !log.ends_with('\n') {
                readable.push('\n');
            }
            items.push(json!({
                "task": task.id, "stage": task.stage, "partition": task.partition,
                "attempt": number, "log": log,
            }));
        }
    }
    let value = json!({ "schema": "barecount/logs/v1", "items": items });
    printer.foreign(&value, raw, || readable)
}

/// The stage that was asked for, which the run has.
fn stage_of<'a>(run: &Run, stage: Option<&'a str>) -> Result<Option<&'a str>, Failure> {
    match stage {
        Some(name) if run.tasks.iter().all(|task| task.stage != name) => {
            let mut names: Vec<&str> = run.tasks.iter().map(|task| task.stage.as_str()).collect();
            // A stage with partitions has many tasks.
            names.dedup();
            let what = format!("the run has no stage `{name}`");
            Err(Failure::new(Status::NotFound, what)
                .with_help(format!("Its stages are {}.", names.join(", "))))
        }
        stage => Ok(stage),
    }
}

fn logs_of(global: &Global, task: &Task) -> Result<Vec<(u32, String)>, Failure> {
    let folders = barecount_agent::StagingFolders::new(&global.state);
    let mut logs = Vec::new();
    for attempt in &task.attempts {
        let path = folders.log(&details::token(task, attempt));
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other,
        };
        let mut bytes = Vec::new();
        file.and_then(|file| file.take(MAX_LOG_BYTES).read_to_end(&mut bytes))
            .map_err(|error| {
                Failure::new(
                    Status::Unavailable,
                    format!("the log {} cannot be read", path.display()),
                )
                .because(&error)
            })?;
        logs.push((attempt.number, String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(logs)
}
