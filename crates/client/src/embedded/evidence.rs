//! The ledger as it is listed, shown, checked and handed out.

use std::path::Path;

use barecount_api::{
    ledger::LedgerEntry,
    page::{Page, PageRequest},
};
use barecount_ledger::{
    export,
    note::VerifierKey,
    storage::DirBlobs,
    verify::{VerifyError, verify_dir_beside, verify_log},
};
use barecount_model::{codes, digest::Digest};
use serde_json::Value;

use super::{Embedded, high_water::HighWater};
use crate::{
    client::{Check, Entry, EntryRules, Evidence, ExportedLog, Findings},
    details::{
        self,
        check::{in_export, in_state},
    },
    failure::{Failure, Status, chain},
    log::{Log, damaged},
    manifest::read_bounded,
    reporter::Reporter,
    rules, state,
};

/// Keys and checkpoints are small; more is not even read.
const MAX_NOTE_BYTES: u64 = 64 << 10;

impl Evidence for Embedded {
    fn entries(&self, run: Option<&str>, page: &PageRequest) -> Result<Page<LedgerEntry>, Failure> {
        let (after, limit) = (page.after.as_ref(), page.limit);
        let (after, one_more) = (
            after.map(state::number).transpose()?,
            limit.saturating_add(1),
        );
        let found = match (state::reader(&self.state)?, run) {
            (_, Some(text)) => {
                let (reader, run, _) = state::find_run(&self.state, text)?;
                reader.ledger_entries_after(Some(&*run.id.printed()), after, one_more)
            }
            (Some(reader), None) => reader.ledger_entries_after(None, after, one_more),
            (None, None) => return Ok(Page::empty()),
        };
        let found = found.map_err(state::store_failure)?;
        Ok(Page::cut(found, limit, |last| last.index.to_string()))
    }

    fn entry(&self, index: u64, with_rules: bool) -> Result<Entry, Failure> {
        let log = Log::open(self)?;
        let size = log.size();
        let not_found = || {
            let what = format!("there is no entry {index} in the log of {size}");
            Failure::new(Status::NotFound, what).with_help("`barecount evidence ls` lists them.")
        };
        let entry = log.entry(index)?.ok_or_else(not_found)?;
        let statement: Value = serde_json::from_slice(&entry).map_err(|error| damaged(&error))?;
        let mut texts = Vec::new();
        if with_rules {
            let rules = details::rules_of(&statement).ok_or_else(|| {
                let what = format!("entry {index} names no rules that it was decided by");
                Failure::new(Status::NotFound, what)
                    .with_help("Entries of the kinds `submission` and `refusal` do.")
            })?;
            for (kind, digest) in rules.each() {
                texts.push(self.rules(kind, digest)?);
            }
        }
        Ok(Entry {
            statement,
            rules: texts,
        })
    }

    fn verify(&self, check: &Check<'_>, reporter: &dyn Reporter) -> Result<Findings, Failure> {
        let trusted = check.vkeys.iter().map(|path| verifier_key(path));
        let mut trusted = trusted.collect::<Result<Vec<_>, _>>()?;
        let since = check.since.map(|path| small_file(path, "checkpoint"));
        let since = since.transpose()?;
        let (verification, blobs) = match check.folder {
            Some(folder) => {
                let beside = [details::export::Folder::NAME];
                let found = verify_dir_beside(folder, &trusted, since.as_deref(), &beside);
                (found, DirBlobs::new(folder))
            }
            None => {
                let log = Log::open(self)?;
                let mut since = since;
                if trusted.is_empty() {
                    since = match since {
                        None => self.seen()?,
                        since => since,
                    };
                    reporter.note(&format!("trusting this user's own key {}", log.key.label()));
                    trusted.push(log.key);
                }
                let found = verify_log(&log.blobs, &log.note, &trusted, since.as_deref());
                (found, log.blobs)
            }
        };
        let verification = verification.map_err(|error| cannot_verify(&error))?;
        // What a log names that is not the one that was signed proves nothing.
        let size = verification.tree_size.filter(|_| verification.valid);
        let records = match (size.filter(|_| check.details), check.folder) {
            (None, _) => None,
            (Some(size), Some(folder)) => Some(in_export(folder, &blobs, size)?),
            (Some(size), None) => Some(in_state(&self.state, &blobs, size)?),
        };
        let data = match size.filter(|_| check.data) {
            Some(size) => Some(details::data::in_state(
                &self.tables_of(state::folder(&self.state)?),
                &blobs,
                size,
            )?),
            None => None,
        };
        Ok(Findings {
            verification,
            records,
            data,
        })
    }

    fn hand_out(&self, folder: &Path) -> Result<ExportedLog, Failure> {
        let log = Log::open(self)?;
        export::export(&log.blobs, &log.checkpoint, folder).map_err(|error| {
            Failure::new(Status::Failed, "the log could not be exported").because(&error)
        })?;
        let checkpoint = log.checkpoint.checkpoint();
        let records = details::export::write(&self.state, &log.blobs, checkpoint.size, folder)?;
        Ok(ExportedLog {
            size: checkpoint.size,
            root: checkpoint.root,
            key: log.key.to_string(),
            records,
        })
    }
}

impl Embedded {
    /// The checkpoint up to which this user has seen the ledger signed, if one was kept.
    fn seen(&self) -> Result<Option<Vec<u8>>, Failure> {
        let folder = state::folder(&self.state)?;
        let seen = HighWater::of(&folder).map(|mark| mark.note());
        let seen = seen.transpose().map_err(|error| {
            Failure::from_error(Status::Unavailable, &error).with_code(codes::LEDGER_OLDER.id)
        })?;
        Ok(seen.flatten())
    }

    fn rules(&self, kind: &'static str, digest: Digest) -> Result<EntryRules, Failure> {
        let bytes = rules::read(&self.state, digest)?;
        Ok(EntryRules {
            kind,
            digest,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
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
