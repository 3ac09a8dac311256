//! `barecount evidence`.

use std::path::{Path, PathBuf};

use barecount_client::{
    details::{
        self,
        check::{Checked, RecordProblem, in_export, in_state},
    },
    failure::{Failure, Status, chain},
    log::{Log, damaged},
    manifest::read_bounded,
    rules, state,
    words::short,
};
use barecount_ledger::{
    export,
    note::VerifierKey,
    storage::DirBlobs,
    verify::{Verification, VerifyError, verify_dir_beside, verify_log},
};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    global::Global,
    printer::{Printer, Table},
};

/// Keys and checkpoints are small; more is not even read.
const MAX_NOTE_BYTES: u64 = 64 << 10;

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
            } => Check {
                folder: folder.as_deref(),
                since: since.as_deref(),
                details: !no_details,
            }
            .execute(global, printer, &vkey),
            Self::Export { folder } => hand_out(global, printer, &folder),
        }
    }
}

fn list(global: &Global, printer: &Printer, run: Option<&str>) -> Result<(), Failure> {
    let entries = match (state::reader(&global.state)?, run) {
        (_, Some(text)) => {
            let (reader, run, _) = state::find_run(&global.state, text)?;
            reader
                .ledger_entries(Some(run.id.as_str()))
                .map_err(state::store_failure)?
        }
        (Some(reader), None) => reader.ledger_entries(None).map_err(state::store_failure)?,
        (None, None) => Vec::new(),
    };
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
    let log = Log::open(&global.client())?;
    let size = log.size();
    let not_found = || {
        Failure::new(
            Status::NotFound,
            format!("there is no entry {index} in the log of {size}"),
        )
        .with_help("`barecount evidence ls` lists them.")
    };
    let entry = log.entry(index)?.ok_or_else(not_found)?;
    let statement: Value = serde_json::from_slice(&entry).map_err(|error| damaged(&error))?;
    let mut value = json!({
        "schema": "barecount/evidence_entry/v1", "index": index, "statement": statement,
    });
    let mut text = format!("{statement:#}\n");
    if with == Some(With::Policies) {
        let rules = details::rules_of(&statement).ok_or_else(|| {
            let what = format!("entry {index} names no rules that it was decided by");
            Failure::new(Status::NotFound, what)
                .with_help("Entries of the kinds `submission` and `refusal` do.")
        })?;
        for (kind, digest) in rules.each() {
            let bytes = rules::read(&global.state, digest)?;
            let words = String::from_utf8_lossy(&bytes);
            text.push_str(&format!("\n==== {kind}  {digest}\n{words}\n"));
            value["rules"][kind] = json!({ "digest": digest, "text": words });
        }
    }
    printer.data(&value, || text)
}

/// What is to be checked.
struct Check<'a> {
    /// An exported log; this state folder's own without.
    folder: Option<&'a Path>,
    since: Option<&'a Path>,
    /// The records beside it as well.
    details: bool,
}

impl Check<'_> {
    fn execute(self, global: &Global, printer: &Printer, vkeys: &[PathBuf]) -> Result<(), Failure> {
        let trusted = vkeys.iter().map(|path| verifier_key(path));
        let mut trusted = trusted.collect::<Result<Vec<_>, _>>()?;
        let since = self.since.map(|path| small_file(path, "checkpoint"));
        let since = since.transpose()?;
        let (verification, blobs) = match self.folder {
            Some(folder) => {
                let beside = [details::export::Folder::NAME];
                let found = verify_dir_beside(folder, &trusted, since.as_deref(), &beside);
                (found, DirBlobs::new(folder))
            }
            None => {
                let log = Log::open(&global.client())?;
                if trusted.is_empty() {
                    printer.note(&format!("trusting this user's own key {}", log.key.label()));
                    trusted.push(log.key);
                }
                let found = verify_log(&log.blobs, &log.note, &trusted, since.as_deref());
                (found, log.blobs)
            }
        };
        let verification = verification.map_err(|error| cannot_verify(&error))?;
        // What a log names that is not the one that was signed proves nothing.
        let size = verification.tree_size.filter(|_| verification.valid);
        let records = match (size.filter(|_| self.details), self.folder) {
            (None, _) => None,
            (Some(size), Some(folder)) => Some(in_export(folder, &blobs, size)?),
            (Some(size), None) => Some(in_state(&global.state, &blobs, size)?),
        };
        let found = Findings {
            verification,
            records,
        };
        printer.data(&found.json(), || found.text())?;
        if found.are_valid() {
            Ok(())
        } else {
            Err(Failure::reported(Status::Unverified))
        }
    }
}

fn cannot_verify(error: &VerifyError) -> Failure {
    let status = match error {
        VerifyError::Folder { .. } => Status::NotFound,
        VerifyError::NoKeys => Status::Usage,
        VerifyError::Since(_) => Status::Unverified,
    };
    Failure::new(status, "the log could not be checked")
        .because(error)
        .with_code("BC0903")
}

/// What came of checking a log, and the records beside it.
struct Findings {
    verification: Verification,
    /// None where they were not looked at.
    records: Option<Checked>,
}

impl Findings {
    fn are_valid(&self) -> bool {
        let records = self.records.as_ref();
        self.verification.valid && records.is_none_or(|checked| checked.problems.is_empty())
    }

    fn gave_up(&self) -> bool {
        self.verification.gave_up || self.records.as_ref().is_some_and(|checked| checked.gave_up)
    }

    fn problems_of_records(&self) -> &[RecordProblem] {
        let records = self.records.as_ref();
        records.map_or(&[], |checked| checked.problems.as_slice())
    }

    /// `barecount/verification/v1`.
    fn json(&self) -> Value {
        let verification = &self.verification;
        let of_log = verification.problems.iter().map(|problem| {
            json!({
                "file": problem.file, "byte": problem.byte, "entry": problem.entry,
                "message": chain(&problem.kind),
            })
        });
        let of_records = self.problems_of_records().iter().map(|problem| {
            json!({
                "file": problem.file, "byte": null, "entry": problem.entry,
                "message": problem.message,
            })
        });
        let records = self
            .records
            .as_ref()
            .map(|checked| json!({ "proved": checked.proved, "absent": checked.absent }));
        json!({
            "schema": "barecount/verification/v1",
            "valid": self.are_valid(),
            "entries": verification.entries,
            "tree_size": verification.tree_size,
            "root": verification.root.as_ref().map(root_text),
            "details": records,
            "problems": of_log.chain(of_records).collect::<Vec<_>>(),
            "gave_up": self.gave_up(),
        })
    }

    fn text(&self) -> String {
        let verification = &self.verification;
        let entries = verification.entries;
        let root = verification.root.as_ref().map(root_text);
        let root = root.unwrap_or_else(|| "none".to_owned());
        let size = verification.tree_size.map(|size| size.to_string());
        let size = size.unwrap_or_else(|| "unknown".to_owned());
        let mut text = match (verification.valid, self.are_valid()) {
            (_, true) => format!("valid: {entries} entries, every one as it was signed\n"),
            (true, _) => format!(
                "NOT valid: {entries} entries are as they were signed, the records beside them \
                 are not\n"
            ),
            (false, _) => format!("NOT valid: {entries} entries were proved\n"),
        };
        text.push_str(&format!("tree size {size}\nroot      {root}\n"));
        text.push_str(&format!("details   {}\n", self.text_of_records()));
        for problem in &verification.problems {
            let byte = problem.byte.map(|byte| format!(", byte {byte}"));
            let what = chain(&problem.kind);
            text.push_str(&problem_line(&problem.file, byte, problem.entry, &what));
        }
        for RecordProblem {
            file,
            entry,
            message,
        } in self.problems_of_records()
        {
            text.push_str(&problem_line(file, None, *entry, message));
        }
        if self.gave_up() {
            text.push_str("problem   there may be more; the search stopped here\n");
        }
        text
    }

    fn text_of_records(&self) -> String {
        let Some(checked) = &self.records else {
            let why = match self.verification.valid {
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
}

fn problem_line(file: &str, byte: Option<String>, entry: Option<u64>, what: &str) -> String {
    let byte = byte.unwrap_or_default();
    let entry = entry.map(|entry| format!(", entry {entry}"));
    let entry = entry.unwrap_or_default();
    format!("problem   {file}{byte}{entry}: {what}\n")
}

/// A root hash as checkpoints write it: base64.
fn root_text(root: &[u8; 32]) -> String {
    BASE64.encode(root)
}

fn verifier_key(path: &Path) -> Result<VerifierKey, Failure> {
    let bytes = small_file(path, "verifier key")?;
    let invalid = |reason: String| {
        let what = format!("{} is not a verifier key: {reason}", path.display());
        Failure::new(Status::Usage, what)
            .with_code("BC0901")
            .with_help("A verifier key is the line in `key.vkey` of an export.")
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| invalid(error.to_string()))?;
    text.trim_end()
        .parse()
        .map_err(|error| invalid(chain(&error)))
}

fn small_file(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    read_bounded(path, MAX_NOTE_BYTES).map_err(|error| {
        Failure::new(
            Status::NotFound,
            format!("the {what} {} cannot be read", path.display()),
        )
        .because(&error)
    })
}

fn hand_out(global: &Global, printer: &Printer, folder: &Path) -> Result<(), Failure> {
    let log = Log::open(&global.client())?;
    export::export(&log.blobs, &log.checkpoint, folder).map_err(|error| {
        Failure::new(Status::Failed, "the log could not be exported").because(&error)
    })?;
    let checkpoint = log.checkpoint.checkpoint();
    let records = details::export::write(&global.state, &log.blobs, checkpoint.size, folder)?;
    let value = json!({
        "schema": "barecount/evidence_export/v1", "folder": folder,
        "tree_size": checkpoint.size, "root": root_text(&checkpoint.root),
        "key": log.key.to_string(),
        "details": { "written": records.written, "left_out": records.left_out },
    });
    printer.data(&value, || {
        format!(
            "{} entries written to {}, and {} records that they name\nanybody can check them:  \
             barecount evidence verify {} --vkey FILE\nwhere FILE holds the key that they trust:  \
             {}\n",
            checkpoint.size,
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
