//! `barecount evidence`.

use std::path::{Path, PathBuf};

use barecount_ledger::{
    checkpoint::SignedCheckpoint,
    export,
    note::VerifierKey,
    storage::{Blobs, CheckpointStore, DirBlobs, DirCheckpoint},
    tile::{TileKind, TilePath, split_bundle},
    verify::{self, Problem, Verification, VerifyError},
};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    embedded::ledger,
    failure::{Failure, Status, chain},
    manifest::read_bounded,
    printer::{Printer, Table},
    state,
    view::short,
};

/// Keys and checkpoints are small; more is not even read.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// Entries in a bundle of the log.
const BUNDLE: u64 = 256;

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
    },
    /// Check every entry, tile and signature of an exported log, or of this state folder's own.
    ///
    /// Trusts the given keys and nothing else. Needs neither network nor server.
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
    },
    /// Write the log as C2SP tlog-tiles lays it out, with the verifier key beside it.
    Export {
        /// The folder, which does not exist yet or is empty.
        folder: PathBuf,
    },
}

impl Evidence {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Ls { run } => list(global, printer, run.as_deref()),
            Self::Show { index } => show(global, printer, index),
            Self::Verify {
                folder,
                vkey,
                since,
            } => check(global, printer, folder.as_deref(), &vkey, since.as_deref()),
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

fn show(global: &Global, printer: &Printer, index: u64) -> Result<(), Failure> {
    let log = Log::open(&global.state)?;
    let size = log.checkpoint.checkpoint().size;
    let not_found = || {
        Failure::new(
            Status::NotFound,
            format!("there is no entry {index} in the log of {size}"),
        )
        .with_help("`barecount evidence ls` lists them.")
    };
    if index >= size {
        return Err(not_found());
    }
    let path = TilePath::in_tree(TileKind::Entries, index / BUNDLE, size).ok_or_else(not_found)?;
    let bundle = log.blobs.get(path);
    let bundle = bundle
        .map_err(|error| damaged(&error))?
        .ok_or_else(not_found)?;
    let position = usize::try_from(index % BUNDLE).unwrap_or(usize::MAX);
    let entries = split_bundle(&bundle, path.width()).entries;
    let range = entries.get(position).cloned().ok_or_else(not_found)?;
    let statement: Value =
        serde_json::from_slice(&bundle[range]).map_err(|error| damaged(&error))?;
    let value = json!({
        "schema": "barecount/evidence_entry/v1", "index": index, "statement": statement,
    });
    printer.data(&value, || format!("{statement:#}\n"))
}

/// The log of a state folder, as far as its checkpoint reaches.
struct Log {
    blobs: DirBlobs,
    note: Vec<u8>,
    checkpoint: SignedCheckpoint,
    key: VerifierKey,
}

impl Log {
    /// Opens the log with the key that signs it here.
    fn open(folder: &Path) -> Result<Self, Failure> {
        let empty = || {
            Failure::new(
                Status::NotFound,
                format!("there is no ledger in {}", folder.display()),
            )
            .with_help("`barecount run` makes one; `--state` names another state folder.")
        };
        let path = folder.join("ledger");
        let note = DirCheckpoint::new(&path).load();
        let note = note.map_err(|error| damaged(&error))?.ok_or_else(empty)?;
        let key = ledger::verifier_key(folder)?;
        let checkpoint = SignedCheckpoint::open(&note, std::slice::from_ref(&key));
        let checkpoint = checkpoint.map_err(|error| damaged(&error))?;
        Ok(Self {
            blobs: DirBlobs::new(path),
            note,
            checkpoint,
            key,
        })
    }
}

fn damaged(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Status::Unverified, "the ledger does not verify")
        .because(error)
        .with_code("BC0903")
}

fn check(
    global: &Global,
    printer: &Printer,
    folder: Option<&Path>,
    vkeys: &[PathBuf],
    since: Option<&Path>,
) -> Result<(), Failure> {
    let mut trusted = vkeys
        .iter()
        .map(|path| verifier_key(path))
        .collect::<Result<Vec<_>, _>>()?;
    let since = since
        .map(|path| small_file(path, "checkpoint"))
        .transpose()?;
    let verification = match folder {
        Some(folder) => verify::verify_dir(folder, &trusted, since.as_deref()),
        None => {
            let log = Log::open(&global.state)?;
            if trusted.is_empty() {
                printer.note(&format!("trusting this user's own key {}", log.key.label()));
                trusted.push(log.key);
            }
            verify::verify_log(&log.blobs, &log.note, &trusted, since.as_deref())
        }
    };
    let verification = verification.map_err(|error| cannot_verify(&error))?;
    printer.data(&verification_json(&verification), || {
        verification_text(&verification)
    })?;
    if verification.valid {
        Ok(())
    } else {
        Err(Failure::reported(Status::Unverified))
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

fn verification_json(verification: &Verification) -> Value {
    let problem = |problem: &Problem| {
        json!({
            "file": problem.file, "byte": problem.byte, "entry": problem.entry,
            "message": chain(&problem.kind),
        })
    };
    json!({
        "schema": "barecount/verification/v1",
        "valid": verification.valid,
        "entries": verification.entries,
        "tree_size": verification.tree_size,
        "root": verification.root.as_ref().map(root_text),
        "problems": verification.problems.iter().map(problem).collect::<Vec<_>>(),
        "gave_up": verification.gave_up,
    })
}

fn verification_text(verification: &Verification) -> String {
    let root = verification
        .root
        .as_ref()
        .map_or("none".to_owned(), root_text);
    let size = verification
        .tree_size
        .map_or("unknown".to_owned(), |size| size.to_string());
    let mut text = if verification.valid {
        format!(
            "valid: {} entries, every one as it was signed\n",
            verification.entries
        )
    } else {
        format!("NOT valid: {} entries were proved\n", verification.entries)
    };
    text.push_str(&format!("tree size {size}\nroot      {root}\n"));
    for problem in &verification.problems {
        let byte = problem
            .byte
            .map_or(String::new(), |byte| format!(", byte {byte}"));
        let entry = problem
            .entry
            .map_or(String::new(), |entry| format!(", entry {entry}"));
        let what = chain(&problem.kind);
        text.push_str(&format!(
            "problem   {}{byte}{entry}: {what}\n",
            problem.file
        ));
    }
    if verification.gave_up {
        text.push_str("problem   there may be more; the search stopped here\n");
    }
    text
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
    let log = Log::open(&global.state)?;
    export::export(&log.blobs, &log.checkpoint, folder).map_err(|error| {
        Failure::new(Status::Failed, "the log could not be exported").because(&error)
    })?;
    let checkpoint = log.checkpoint.checkpoint();
    let value = json!({
        "schema": "barecount/evidence_export/v1", "folder": folder,
        "tree_size": checkpoint.size, "root": root_text(&checkpoint.root),
        "key": log.key.to_string(),
    });
    printer.data(&value, || {
        format!(
            "{} entries written to {}\nanybody can check them:  barecount evidence verify {} \
             --vkey FILE\nwhere FILE holds the key that they trust:  {}\n",
            checkpoint.size,
            folder.display(),
            folder.display(),
            log.key
        )
    })
}
