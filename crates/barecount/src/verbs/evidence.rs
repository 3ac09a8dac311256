//! `barecount evidence`.

use std::path::{Path, PathBuf};

use barecount_api::page::PageRequest;
use barecount_client::{
    client::{Check, Evidence as _, Findings},
    details::check::{Checked, RecordProblem},
    failure::{Failure, Status, chain},
    words::short,
};
use barecount_model::untrusted;
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    global::Global,
    printer::{Printer, Table},
};

/// Look at the ledger, check it, hand it out.
#[derive(Debug, Subcommand)]
pub(crate) enum Evidence {
    /// List what the ledger holds, oldest first.
    Ls {
        /// Only what is about this run.
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
    },
    /// Show one entry: the in-toto statement, word for word.
    Show {
        /// Its index in the log, from 0.
        index: u64,
        /// With the texts that its decision was made by, word by word, each held against the digest
        /// that the signed entry has of it.
        #[arg(long, value_enum, value_name = "WHAT")]
        with: Option<With>,
    },
    /// Check every entry, tile and signature of an exported log, or of this state folder's own;
    /// then the records beside it, whose digests its entries have.
    ///
    /// Trusts the given keys and nothing else. Needs neither network nor server. In a state folder
    /// every record has to be there; an export may have been handed on without them.
    Verify {
        /// The folder of an exported log.
        #[arg(requires = "vkey")]
        folder: Option<PathBuf>,
        /// A file with the verifier key to trust; may be given several times.
        #[arg(long, value_name = "FILE")]
        vkey: Vec<PathBuf>,
        /// A checkpoint kept from before: what it covers must still be there, unchanged.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
        /// Check the log alone, not the records of flows and accesses beside it.
        #[arg(long)]
        no_details: bool,
        /// Also read the rows of every dataset, hash them anew, and hold them against the commits that
        /// were signed.
        #[arg(long, conflicts_with = "folder")]
        data: bool,
    },
    /// Write the log as C2SP tlog-tiles lays it out, with the verifier key beside it, and in
    /// `details/` the records whose digests its entries have.
    Export {
        /// The folder, which does not exist yet or is empty.
        folder: PathBuf,
    },
}

/// What an entry is shown with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum With {
    /// The environment, the question with its matrix and approvals, and the policies.
    Policies,
}

impl Evidence {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { run } => list(global, printer, run.as_deref()),
            Self::Show { index, with } => show(global, printer, index, with),
            Self::Verify {
                folder,
                vkey,
                since,
                no_details,
                data,
            } => {
                let check = Check {
                    folder: folder.as_deref(),
                    vkeys: &vkey,
                    since: since.as_deref(),
                    details: !no_details,
                    data,
                };
                verify(global, printer, &check)
            }
            Self::Export { folder } => hand_out(global, printer, &folder),
        }
    }
}

fn list(global: &Global, printer: &Printer, run: Option<&str>) -> Result<(), Failure> {
    let all = PageRequest::first(u32::MAX);
    let entries = global.client().entries(run, &all)?.items;
    let items: Vec<Value> = entries.iter().map(|entry| json!(entry)).collect();
    printer.list("evidence", &items, || {
        let mut table = Table::new(
            &["index", "kind", "run", "pipeline", "at", "leaf hash"],
            "the ledger is empty",
        );
        for entry in &entries {
            table.row([
                entry.index.to_string(),
                entry.kind.clone(),
                entry
                    .run
                    .as_deref()
                    .map_or("-", |run| run.get(..12).unwrap_or(run))
                    .to_owned(),
                entry.pipeline.clone().unwrap_or_else(|| "-".to_owned()),
                entry.at.clone(),
                short(&entry.leaf_hash),
            ]);
        }
        table
    })
}

fn show(global: &Global, printer: &Printer, index: u64, with: Option<With>) -> Result<(), Failure> {
    let entry = global.client().entry(index, with == Some(With::Policies))?;
    let mut value = json!({
        "schema": "barecount/evidence_entry/v1", "index": index, "statement": entry.statement,
    });
    for rules in &entry.rules {
        value["rules"][rules.kind] = json!({ "digest": rules.digest, "text": rules.text });
    }
    printer.data(&value, || {
        let mut text = format!("{:#}\n", entry.statement);
        for rules in &entry.rules {
            text.push_str(&format!(
                "\n==== {}  {}\n{}\n",
                rules.kind, rules.digest, rules.text
            ));
        }
        text
    })
}

fn verify(global: &Global, printer: &Printer, check: &Check<'_>) -> Result<(), Failure> {
    let found = global.client().verify(check, printer)?;
    printer.data(&json(&found), || text(&found))?;
    if found.are_valid() {
        Ok(())
    } else {
        Err(Failure::reported(Status::Unverified))
    }
}

/// `barecount/verification/v1`.
fn json(found: &Findings) -> Value {
    let verification = &found.verification;
    let of_log = verification.problems.iter().map(|problem| {
        json!({
            "file": problem.file, "byte": problem.byte, "entry": problem.entry,
            "message": chain(&problem.kind),
        })
    });
    let of_records = found.problems_beside().map(|problem| {
        json!({
            "file": problem.file, "byte": null, "entry": problem.entry,
            "message": problem.message,
        })
    });
    let counts = |checked: &Checked| json!({ "proved": checked.proved, "absent": checked.absent });
    let records = found.records.as_ref().map(counts);
    json!({
        "schema": "barecount/verification/v1",
        "valid": found.are_valid(),
        "entries": verification.entries,
        "tree_size": verification.tree_size,
        "root": verification.root.as_ref().map(root_text),
        "details": records,
        "data": found.data.as_ref().map(counts),
        "problems": of_log.chain(of_records).collect::<Vec<_>>(),
        "gave_up": found.gave_up(),
    })
}

fn text(found: &Findings) -> String {
    let verification = &found.verification;
    let entries = verification.entries;
    let root = verification.root.as_ref().map(root_text);
    let root = root.unwrap_or_else(|| "none".to_owned());
    let size = verification.tree_size.map(|size| size.to_string());
    let size = size.unwrap_or_else(|| "unknown".to_owned());
    let mut text = match (verification.valid, found.are_valid()) {
        (_, true) => format!("valid: {entries} entries, every one as it was signed\n"),
        (true, _) => format!(
            "NOT valid: {entries} entries are as they were signed, what lies beside them is \
             not\n"
        ),
        (false, _) => format!("NOT valid: {entries} entries were proved\n"),
    };
    text.push_str(&format!("tree size {size}\nroot      {root}\n"));
    text.push_str(&format!("details   {}\n", text_of_records(found)));
    text.extend(
        found
            .data
            .iter()
            .map(|data| format!("data      {}\n", text_of_data(data))),
    );
    for problem in &verification.problems {
        let byte = problem.byte.map(|byte| format!(", byte {byte}"));
        let what = chain(&problem.kind);
        text.push_str(&problem_line(&problem.file, byte, problem.entry, &what));
    }
    for RecordProblem {
        file,
        entry,
        message,
    } in found.problems_beside()
    {
        text.push_str(&problem_line(file, None, *entry, message));
    }
    if found.gave_up() {
        text.push_str("problem   there may be more; the search stopped here\n");
    }
    text
}

fn text_of_records(found: &Findings) -> String {
    let Some(checked) = &found.records else {
        let why = match found.verification.valid {
            true => "",
            false => ", for the log that names them is not valid",
        };
        return format!("not checked{why}");
    };
    let mut text = match checked.proved {
        0 if checked.problems.is_empty() && checked.absent == 0 => {
            return "none: no entry names a record beside the log".to_owned();
        }
        1 => "1 record beside the log, as its entry names it".to_owned(),
        count => format!("{count} records beside the log, each as its entry names it"),
    };
    if checked.absent > 0 {
        text.push_str(&format!("; {} more are not in this export", checked.absent));
    }
    text
}

fn text_of_data(checked: &Checked) -> String {
    let proved = match checked.proved {
        1 => "the rows of 1 commit are those that were signed".to_owned(),
        count => format!("the rows of {count} commits are those that were signed"),
    };
    match checked.absent {
        0 => proved,
        1 => proved + "; those of 1 more are no longer kept",
        count => format!("{proved}; those of {count} more are no longer kept"),
    }
}

fn problem_line(file: &str, byte: Option<String>, entry: Option<u64>, what: &str) -> String {
    let byte = byte.unwrap_or_default();
    let entry = entry.map(|entry| format!(", entry {entry}"));
    let entry = entry.unwrap_or_default();
    // Whoever made the log chose names in it.
    let (file, what) = (untrusted::line(file), untrusted::line(what));
    format!("problem   {file}{byte}{entry}: {what}\n")
}

/// A root hash as checkpoints write it: base64.
fn root_text(root: &[u8; 32]) -> String {
    BASE64.encode(root)
}

fn hand_out(global: &Global, printer: &Printer, folder: &Path) -> Result<(), Failure> {
    let log = global.client().hand_out(folder)?;
    let records = &log.records;
    let value = json!({
        "schema": "barecount/evidence_export/v1", "folder": folder,
        "tree_size": log.size, "root": root_text(&log.root),
        "key": log.key,
        "details": { "written": records.written, "left_out": records.left_out },
    });
    printer.data(&value, || {
        format!(
            "{} entries written to {}, and {} records that they name\nanybody can check them:  \
             barecount evidence verify {} --vkey FILE\nwhere FILE holds the key that they trust:  \
             {}\n",
            log.size,
            folder.display(),
            records.written,
            folder.display(),
            log.key
        )
    })?;
    if records.left_out.is_empty() {
        return Ok(());
    }
    for record in &records.left_out {
        printer.warn(&format!("left out: {record}"));
    }
    let what = format!(
        "{} records that the ledger names are not the ones in the state folder, and were left out",
        records.left_out.len()
    );
    Err(Failure::new(Status::Unverified, what)
        .with_code("BC0904")
        .with_help("The log itself is exported whole. Put the records back from a copy, and export again for both."))
}
