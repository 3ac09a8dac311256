//! `barecount runs`.

mod ending;
mod records;

use barecount_api::{page::PageRequest, run::Log};
use barecount_client::{
    client::Runs as _,
    failure::{Failure, Status},
};
use barecount_model::codes;
use clap::Subcommand;
use serde_json::{Value, json};

use self::{
    ending::{Abandon, Cancel},
    records::Which,
};
use crate::{
    global::Global,
    names,
    printer::{Printer, Table},
    tenant::{OfTenant, several},
    view,
};

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
    ///
    /// Each log of an attempt that has ended is held against the digest that the signed ledger has of
    /// it; one that was changed, cut or removed since is printed as it is, and is exit status 7.
    Logs {
        /// The run's identifier, or the beginning of it.
        run: String,
        /// Only this stage.
        #[arg(long, value_name = "STAGE")]
        stage: Option<String>,
        /// Character for character: a terminal obeys what is in it. Without, everything that it
        /// would obey is escaped, wherever the output goes.
        #[arg(long)]
        raw: bool,
    },
    /// Print everything that a run's attempts reached over the network, and were refused.
    ///
    /// Each record is held against the digest that the signed ledger has of it; one that was
    /// changed, cut or removed since is exit status 7.
    Flows(Which),
    /// Print which datasets, files, destinations and secrets a run's attempts were given, and were
    /// refused: by name, never what is in them.
    ///
    /// The record `identity` is what the attempt's identity was held against; the record `secrets` is
    /// what the secrets store then gave. Each is held against the signed ledger; one that was
    /// changed, cut or removed since is exit status 7.
    Accesses(Which),
}

impl Runs {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { of, limit } => list(global, printer, &of, limit),
            Self::Show { run } => show(global, printer, &run),
            Self::Cancel(verb) => verb.execute(global, printer),
            Self::Abandon(verb) => verb.execute(global, printer),
            Self::Logs { run, stage, raw } => logs(global, printer, &run, stage.as_deref(), raw),
            Self::Flows(which) => records::print_flows(which, global, printer),
            Self::Accesses(which) => records::print_accesses(which, global, printer),
        }
    }
}

fn show(global: &Global, printer: &Printer, run: &str) -> Result<(), Failure> {
    let run = global.client().show(run)?;
    view::print(&run, printer)?;
    if run.differences.is_empty() {
        return Ok(());
    }
    let what = format!("run {} is not what was signed of it", run.id);
    Err(Failure::new(Status::Unverified, what)
        .with_code(codes::RUN_ALTERED.id)
        .with_help(
            "What was signed stands: `barecount evidence show ENTRY` prints it. Put back the newest \
             copy of the state folder.",
        ))
}

fn list(global: &Global, printer: &Printer, of: &OfTenant, limit: u32) -> Result<(), Failure> {
    let page = PageRequest::first(limit);
    let runs = global.client().runs(of.name(), &page)?.items;
    let items: Vec<Value> = runs.iter().map(|run| json!(run)).collect();
    printer.list("runs", &items, || {
        let mut table = Table::new(
            &["run", "tenant", "pipeline", "state", "tasks", "submitted"],
            "no runs yet; `barecount run FILE` makes one",
        );
        for run in &runs {
            table.row([
                run.id.to_string(),
                run.tenant.clone(),
                run.pipeline.clone(),
                view::state_of(run.state, run.interrupted).to_owned(),
                run.task_count.to_string(),
                run.submitted_at.to_string(),
            ]);
        }
        match several(runs.iter().map(|run| run.tenant.as_str())) {
            true => table,
            false => table.without("tenant"),
        }
    })
}

fn logs(
    global: &Global,
    printer: &Printer,
    run: &str,
    stage: Option<&str>,
    raw: bool,
) -> Result<(), Failure> {
    let logs = global.client().logs(run, stage)?;
    let value = json!({ "schema": "barecount/logs/v1", "items": logs });
    let print = match raw {
        true => Printer::raw,
        false => Printer::data,
    };
    print(printer, &value, &|| {
        let mut text = String::new();
        for Log {
            stage,
            partition,
            attempt,
            log,
            problem,
            unchecked,
            ..
        } in &logs
        {
            let name = names::name(stage, partition);
            text.push_str(&format!("==> {name}, attempt {attempt}"));
            if let Some(why) = problem {
                text.push_str(&format!("; this is not what was signed: {why}"));
            }
            if let Some(why) = unchecked {
                text.push_str(&format!("; not held against the ledger: {why}"));
            }
            text.push_str(&format!("\n{}", log.raw()));
            if !log.is_empty() && !log.raw().ends_with('\n') {
                text.push('\n');
            }
        }
        text
    })?;
    held(&logs)
}

/// Whether each log is the one that was signed, as far as that is known.
fn held(logs: &[Log]) -> Result<(), Failure> {
    let mut altered = logs.iter().filter(|log| log.problem.is_some());
    let Some(first) = altered.next() else {
        return Ok(());
    };
    let name = names::name(&first.stage, &first.partition);
    let more = match altered.count() {
        0 => String::new(),
        count => format!(", nor are those of {count} more attempts"),
    };
    let attempt = first.attempt;
    let what =
        format!("the log of attempt {attempt} of {name} is not the one that was signed{more}");
    Err(Failure::new(Status::Unverified, what)
        .with_code("BC0904")
        .with_help("Put it back from a copy; what is printed may be anybody's words."))
}
