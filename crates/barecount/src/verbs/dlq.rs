//! `barecount dlq`.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

use barecount_agent::{Letter, StagingFolders};
use barecount_control::store::StoredDeadLetter;
use barecount_model::digest::Digest;
use barecount_runner::launch::AttemptToken;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    details,
    failure::{Failure, Status},
    harmless::SetOff,
    printer::{Printer, Table},
    state,
    tenant::{OfTenant, several},
};

/// Look at records that were set aside, and why.
#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// List records that were set aside, grouped by attempt and reason, newest first.
    Ls {
        /// Only those of this run.
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        #[command(flatten)]
        of: OfTenant,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show a group of them, with the first record.
    Show {
        /// Its number in the list.
        id: u64,
        /// Print all records of the group instead, a JSON object a line.
        #[arg(long)]
        records: bool,
    },
}

impl Dlq {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { run, of, limit } => list(global, printer, run.as_deref(), &of, limit),
            Self::Show { id, records } => show(global, printer, id, records),
        }
    }
}

fn list(
    global: &Global,
    printer: &Printer,
    run: Option<&str>,
    of: &OfTenant,
    limit: u32,
) -> Result<(), Failure> {
    let run = run
        .map(|text| state::find_run(&global.state, text))
        .transpose()?;
    let run = run.as_ref().map(|(_, run, _)| run.id.as_str());
    let letters = match state::reader(&global.state)? {
        Some(reader) => reader
            .dead_letters(of.name(), run, limit)
            .map_err(state::store_failure)?,
        None => Vec::new(),
    };
    let items: Vec<Value> = letters.iter().map(|letter| json!(letter)).collect();
    printer.list("dead_letters", &items, || {
        let mut table = Table::new(
            &[
                "id", "tenant", "run", "stage", "dataset", "records", "reason",
            ],
            "no dead letters",
        );
        for stored in &letters {
            let dataset = stored.letter.dataset.as_deref().unwrap_or("-");
            let run = stored.run.get(..12).unwrap_or(&stored.run);
            table.row([
                &stored.id.to_string(),
                stored.tenant.as_str(),
                run,
                &stored.stage,
                dataset,
                &stored.letter.count.to_string(),
                reason(stored),
            ]);
        }
        match several(letters.iter().map(|stored| stored.tenant.as_str())) {
            true => table,
            false => table.without("tenant"),
        }
    })
}

/// What a group has in common: of one record, all there is to say.
fn reason(stored: &StoredDeadLetter) -> &str {
    let letter = &stored.letter;
    match letter.count {
        1 => &letter.error,
        _ => &letter.reason,
    }
}

fn show(global: &Global, printer: &Printer, id: u64, records: bool) -> Result<(), Failure> {
    let found = match state::reader(&global.state)? {
        Some(reader) => reader.dead_letter(id).map_err(state::store_failure)?,
        None => None,
    };
    let stored = found.ok_or_else(|| {
        Failure::new(Status::NotFound, format!("there is no dead letter {id}"))
            .with_help("`barecount dlq ls` lists them.")
    })?;
    if records {
        return stream(global, printer, &stored);
    }
    let mut value = json!(stored);
    value["schema"] = json!("barecount/dead_letter/v1");
    printer.data(&value, || {
        format!(
            "dead letters {}\n  tenant   {}\n  run      {}\n  stage    {}\n  attempt  {}\n  dataset  {}\n  records  {}\n  reason   {}\n  error    {}\n  at       {}\n\n{}\n{}",
            stored.id,
            stored.tenant,
            stored.run,
            stored.stage,
            stored.attempt,
            stored.letter.dataset.as_deref().unwrap_or("-"),
            stored.letter.count,
            SetOff(reason(&stored)),
            SetOff(&stored.letter.error),
            stored.at,
            stored.letter.record,
            more(&stored),
        )
    })
}

/// Where the rest of a group is.
fn more(stored: &StoredDeadLetter) -> String {
    match stored.letter.count {
        1 => String::new(),
        count => format!(
            "… and {} more: `barecount dlq show {} --records`\n",
            count - 1,
            stored.id
        ),
    }
}

/// Prints the records of a group from the file that has all of the attempt's, which is believed with
/// its digest alone.
fn stream(global: &Global, printer: &Printer, stored: &StoredDeadLetter) -> Result<(), Failure> {
    let letter = &stored.letter;
    let Some(digest) = &letter.digest else {
        let only = Letter {
            dataset: letter.dataset.clone(),
            reason: reason(stored).to_owned(),
            error: letter.error.clone(),
            record: letter.record.clone(),
            schema_hash: letter.schema_hash.clone(),
        };
        return printer.line(&json!(only));
    };
    let unproved = |error: &(dyn std::error::Error + 'static)| {
        let what = format!("the records of dead letters {} cannot be shown", stored.id);
        Failure::new(Status::Unverified, what)
            .with_code("BC0904")
            .because(error)
            .with_help("Put the file back from a copy. `barecount dlq show` has the first record.")
    };
    let folder = state::folder(&global.state)?;
    let token = letters_token(&stored.task, stored.attempt)
        .ok_or_else(|| Failure::new(Status::Failed, "its task has no valid name"))?;
    let path = StagingFolders::new(&folder).letters(&token);
    let digest: Digest = digest.parse().map_err(|error| unproved(&error))?;
    details::check_file(&path, digest).map_err(|error| unproved(&error))?;
    let file = File::open(&path).map_err(|error| unproved(&error))?;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| unproved(&error))?;
        let one: Letter = serde_json::from_str(&line).map_err(|error| unproved(&error))?;
        if one.dataset == letter.dataset && one.reason == letter.reason {
            printer.line(&json!(one))?;
        }
    }
    Ok(())
}

/// The attempt whose file has a group's records.
pub(super) fn letters_token(task: &str, number: u32) -> Option<AttemptToken> {
    let task = task.parse().ok()?;
    Some(AttemptToken { task, number })
}
