//! The ledger: looked at, checked, and handed out.

use std::path::{Path, PathBuf};

use barecount_api::{
    ledger::LedgerEntry,
    page::{Page, PageRequest},
};
use barecount_ledger::verify::Verification;
use barecount_model::digest::Digest;
use serde_json::Value;

use crate::{
    details::{
        check::{Checked as CheckedRecords, RecordProblem},
        export::Exported,
    },
    failure::Failure,
    reporter::Reporter,
};

/// An entry of the ledger.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The in-toto statement.
    pub statement: Value,
    /// The texts that its decision was made by, where these are asked for.
    pub rules: Vec<EntryRules>,
}

/// A text that a decision was made by.
#[derive(Debug, Clone)]
pub struct EntryRules {
    /// What it is of.
    pub kind: &'static str,
    /// Its digest, as the entry has it.
    pub digest: Digest,
    /// The text.
    pub text: String,
}

/// What is to be checked.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// An exported log; the state's own without.
    pub folder: Option<&'a Path>,
    /// Files with the verifier keys to trust.
    pub vkeys: &'a [PathBuf],
    /// A checkpoint kept from before.
    pub since: Option<&'a Path>,
    /// The records beside it as well.
    pub details: bool,
    /// The rows of the state's datasets as well, each commit's hashed anew.
    pub data: bool,
}

/// What came of checking a log, and the records beside it.
#[derive(Debug)]
pub struct Findings {
    /// What came of the log.
    pub verification: Verification,
    /// What came of the records; none where they were not looked at.
    pub records: Option<CheckedRecords>,
    /// What came of the datasets' rows; none where they were not looked at.
    pub data: Option<CheckedRecords>,
}

impl Findings {
    /// Whether everything is as it was signed.
    pub fn are_valid(&self) -> bool {
        self.verification.valid && self.problems_beside().next().is_none()
    }

    /// Whether the search stopped, so that there may be more problems.
    pub fn gave_up(&self) -> bool {
        self.verification.gave_up || self.beside().any(|checked| checked.gave_up)
    }

    /// What is wrong with the records, and then with the rows.
    pub fn problems_beside(&self) -> impl Iterator<Item = &RecordProblem> {
        self.beside().flat_map(|checked| &checked.problems)
    }

    fn beside(&self) -> impl Iterator<Item = &CheckedRecords> {
        self.records.iter().chain(&self.data)
    }
}

/// A log that was handed out.
#[derive(Debug)]
pub struct ExportedLog {
    /// How many entries it has.
    pub size: u64,
    /// Its root hash.
    pub root: [u8; 32],
    /// The key that verifies it.
    pub key: String,
    /// The records beside it.
    pub records: Exported,
}

/// The ledger.
pub trait Evidence {
    /// What the ledger holds, oldest first; of one run, if one is named.
    ///
    /// # Errors
    /// If the state cannot be looked into, or there is no such run.
    fn entries(&self, run: Option<&str>, page: &PageRequest) -> Result<Page<LedgerEntry>, Failure>;

    /// An entry, proved to be in the signed tree; with the texts that its decision was made by, each
    /// held against the digest that the entry has of it.
    ///
    /// # Errors
    /// If there is no such entry, it is not the one that was signed, or it names no such texts.
    fn entry(&self, index: u64, with_rules: bool) -> Result<Entry, Failure>;

    /// Checks every entry, tile and signature of a log, then the records beside it.
    ///
    /// # Errors
    /// If it cannot be checked; what is wrong with it is in the findings.
    fn verify(&self, check: &Check<'_>, reporter: &dyn Reporter) -> Result<Findings, Failure>;

    /// Writes the log as C2SP tlog-tiles lays it out into a folder that does not exist or is empty,
    /// and the records whose digests its entries have.
    ///
    /// # Errors
    /// If the log does not verify, or cannot be written.
    fn hand_out(&self, folder: &Path) -> Result<ExportedLog, Failure>;
}
