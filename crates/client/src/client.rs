//! What verbs ask, by subject.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use barecount_api::{
    dataset::{DatasetRef, DatasetSummary, DatasetView, OutputSummary, Preview, ReadBy},
    ledger::LedgerEntry,
    letter::{Letter, StoredDeadLetter},
    page::{Page, PageRequest},
    records::{Records, Selection},
    run::{Log, RunRequest, RunSummary, RunView},
};
use barecount_control::governance::{Action, Verdict};
use barecount_ledger::verify::Verification;
use barecount_model::{
    approval::Approval,
    diagnostic::Diagnostic,
    digest::Digest,
    lock::Lock,
    manifest::Egress,
    pipeline::Pipeline,
    text::{Name, SecretName},
};
use barecount_secrets::{Listed, Reference, Rotation};
use serde_json::Value;

use crate::{
    details::{
        check::{Checked as CheckedRecords, RecordProblem},
        export::Exported,
    },
    embedded::{
        approving::{Answering, ApprovalRequest, AskedFor},
        change::Asked,
        datasets::{Brought, Diff},
        dry::DryRun,
        gc::Removed,
        secrets::KeyPlace,
    },
    failure::Failure,
    reporter::{Reporter, Watcher},
};

/// Everything that a verb asks of the platform. An identifier may be the beginning of one, as long
/// as it is that of one thing only; a tenant that is named is the one that has what is asked for.
pub trait Client:
    Pipelines + Approvals + Runs + Datasets + DeadLetters + Evidence + Secrets + Upkeep
{
}

impl<T> Client for T where
    T: Pipelines + Approvals + Runs + Datasets + DeadLetters + Evidence + Secrets + Upkeep
{
}

/// Pipelines, by their manifests.
pub trait Pipelines {
    /// Runs a pipeline to its end, and tells how the run ended. Before there is a second thread.
    ///
    /// Ctrl-C cancels the run in good order; the second one ends the process.
    ///
    /// # Errors
    /// If the run could not be begun or not be followed to its end; a run that fails is none.
    fn run(&self, asked: &RunRequest, watcher: &dyn Watcher) -> Result<RunView, Failure>;

    /// What would run, and why. Nothing is changed.
    ///
    /// # Errors
    /// What would keep the run from starting; a refusal is none.
    fn dry_run(&self, asked: &RunRequest, reporter: &dyn Reporter) -> Result<DryRun, Failure>;

    /// Builds everything that a pipeline runs, and pins it. Before there is a second thread.
    ///
    /// # Errors
    /// Of the build; and if governance refuses to have the lock file written.
    fn build(&self, manifest: &Path, reporter: &dyn Reporter) -> Result<Lock, Failure>;

    /// What is wrong with a manifest, held against what the state holds. Nothing is changed.
    ///
    /// # Errors
    /// If it cannot be read, or the state not be looked into.
    fn check(&self, manifest: &Path) -> Result<Checked, Failure>;

    /// Whether something may be done to a pipeline here, by which policies, and what would change
    /// the answer.
    ///
    /// # Errors
    /// If the manifest or its environment is not valid; a refusal is none.
    fn explain(
        &self,
        manifest: &Path,
        action: Action,
        reporter: &dyn Reporter,
    ) -> Result<Verdict, Failure>;
}

/// Approvals: acts on record.
pub trait Approvals {
    /// Asks for the approvals that a refused pipeline would need. What was asked for already and
    /// nobody has answered is not asked for again.
    ///
    /// # Errors
    /// If no approval would change anything, and if governance refuses to have it asked for.
    fn request_approvals(
        &self,
        request: &ApprovalRequest,
        reporter: &dyn Reporter,
    ) -> Result<AskedFor, Failure>;

    /// Approvals, newest first.
    ///
    /// # Errors
    /// If the state cannot be looked into.
    fn approvals(
        &self,
        tenant: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Approval>, Failure>;

    /// An approval.
    ///
    /// # Errors
    /// If there is none, or the state cannot be looked into.
    fn approval(&self, named: &str) -> Result<Approval, Failure>;

    /// Grants, denies or revokes an approval, and tells what has become of it.
    ///
    /// # Errors
    /// If there is none, it is answered already, or governance refuses.
    fn answer_approval(
        &self,
        named: &str,
        answer: Answering,
        reason: &str,
        reporter: &dyn Reporter,
    ) -> Result<Approval, Failure>;
}

/// What was found of a manifest.
pub struct Checked {
    /// Everything that is wrong or doubtful.
    pub found: Vec<Diagnostic>,
    /// The same for a person, with the lines that it is about.
    pub rendered: Vec<String>,
    /// The stages of other pipelines that read what it writes, by the latest version of each that
    /// was run.
    pub read_by: Vec<ReadBy>,
    /// The pipeline, if it is one.
    pub pipeline: Option<Pipeline>,
}

/// Runs.
pub trait Runs {
    /// Runs, newest first.
    ///
    /// # Errors
    /// If the state cannot be looked into.
    fn runs(&self, tenant: Option<&str>, page: &PageRequest) -> Result<Page<RunSummary>, Failure>;

    /// A run.
    ///
    /// # Errors
    /// If there is no such run, or several.
    fn show(&self, run: &str) -> Result<RunView, Failure>;

    /// What a run's attempts wrote, of one stage if one is named, in the order of tasks and
    /// attempts.
    ///
    /// # Errors
    /// If there is no such run or stage, or a log cannot be read.
    fn logs(&self, run: &str, stage: Option<&str>) -> Result<Vec<Log>, Failure>;

    /// What a run's attempts reached over the network and were refused, each held against the signed
    /// ledger.
    ///
    /// # Errors
    /// If there is no such run, stage or attempt; if a record is not the one that was signed.
    fn flows(&self, selection: &Selection, reporter: &dyn Reporter) -> Result<Records, Failure>;

    /// Which objects and secrets a run's attempts were given and refused, by name.
    ///
    /// # Errors
    /// As of [`flows`](Self::flows).
    fn accesses(&self, selection: &Selection, reporter: &dyn Reporter) -> Result<Records, Failure>;

    /// The lines of the manifest, by stage, that would allow what an audited run reached.
    ///
    /// # Errors
    /// As of [`flows`](Self::flows).
    fn egress_advice(&self, run: &str) -> Result<BTreeMap<String, Vec<Egress>>, Failure>;

    /// Ends a run in good order that nobody works on. Before there is a second thread.
    ///
    /// # Errors
    /// If a living process works on it, if it has ended, and if governance refuses.
    fn cancel(
        &self,
        run: &str,
        tenant: Option<&str>,
        reporter: &dyn Reporter,
    ) -> Result<RunView, Failure>;

    /// Ends a run whose decided outputs cannot be committed, with the reason on record. Before there
    /// is a second thread.
    ///
    /// # Errors
    /// As of [`cancel`](Self::cancel).
    fn abandon(
        &self,
        run: &str,
        tenant: Option<&str>,
        reason: &str,
        reporter: &dyn Reporter,
    ) -> Result<RunView, Failure>;
}

/// Where a dataset comes from.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Whose it is.
    pub tenant: String,
    /// What brought it, and what brought that, as `barecount/trace/v1` has it.
    pub trace: Value,
}

/// How a dataset is written out.
pub struct Export<'a> {
    /// In which format.
    pub format: ExportFormat,
    /// The file or folder, which must not exist yet; else the stream.
    pub to: Option<&'a Path>,
    /// Where it goes if it goes to no file.
    pub stream: &'a mut (dyn Write + Send),
}

/// The format of what is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// The files of a dataset of files.
    Files,
}

/// Datasets.
pub trait Datasets {
    /// The datasets that there are, each at its latest version.
    ///
    /// # Errors
    /// If the state cannot be looked into, or a dataset not be read.
    fn datasets(&self, tenant: Option<&str>) -> Result<Vec<DatasetSummary>, Failure>;

    /// A dataset at a version; at the latest one if none is named.
    ///
    /// # Errors
    /// If there is no such dataset or version, several tenants have it and none is named, or it
    /// cannot be read. So of all that follow.
    fn dataset(&self, which: &DatasetRef, version: Option<u64>) -> Result<DatasetView, Failure>;

    /// Its versions, newest first.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset).
    fn history(&self, which: &DatasetRef) -> Result<Vec<Brought>, Failure>;

    /// How two versions differ: by default the latest one from the one before it.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset).
    fn diff(&self, which: &DatasetRef, from: Option<u64>, to: Option<u64>)
    -> Result<Diff, Failure>;

    /// Changes a dataset, if `agreed` agrees to what would become of it; tells what it is now, as
    /// `barecount/change/v1`, whose version is null where it was that already. Before there is a
    /// second thread.
    ///
    /// # Errors
    /// If it cannot be done, or governance refuses; and what `agreed` fails with.
    fn change(
        &self,
        which: &DatasetRef,
        asked: &Asked,
        agreed: &dyn Fn(&str) -> Result<(), Failure>,
        reporter: &dyn Reporter,
    ) -> Result<Value, Failure>;

    /// What brought a version, and what brought that.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset). What cannot be told of an input is told in its place.
    fn trace(&self, which: &DatasetRef, version: Option<u64>) -> Result<Trace, Failure>;

    /// The datasets that runs committed, each at its latest version.
    ///
    /// # Errors
    /// As of [`datasets`](Self::datasets).
    fn outputs(
        &self,
        tenant: Option<&str>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<OutputSummary>, Failure>;

    /// A dataset with so many of its first rows.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset).
    fn preview(
        &self,
        which: &DatasetRef,
        version: Option<u64>,
        rows: u16,
    ) -> Result<Preview, Failure>;

    /// Writes a dataset out, and says what was written; nothing, where that is the stream.
    ///
    /// # Errors
    /// As of [`dataset`](Self::dataset); and if it cannot be written, of which nothing is left then.
    fn export(
        &self,
        which: &DatasetRef,
        version: Option<u64>,
        export: Export<'_>,
    ) -> Result<String, Failure>;

    /// Says whose a dataset of an older state folder is, in which datasets had no tenant.
    ///
    /// # Errors
    /// If there is none of this name that waits for it.
    fn give_to_tenant(&self, dataset: &str, tenant: &str) -> Result<(), Failure>;
}

/// Records that were set aside.
pub trait DeadLetters {
    /// Groups, newest first; of one run, if one is named.
    ///
    /// # Errors
    /// If there is no such run.
    fn letters(
        &self,
        run: Option<&str>,
        tenant: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<StoredDeadLetter>, Failure>;

    /// A group.
    ///
    /// # Errors
    /// If there is none of this number.
    fn letter(&self, id: u64) -> Result<StoredDeadLetter, Failure>;

    /// Hands every record of a group to `each`, held against the digest that was kept.
    ///
    /// # Errors
    /// If they are not those that were kept, and whatever `each` fails with.
    fn records(
        &self,
        group: &StoredDeadLetter,
        each: &mut dyn FnMut(&Letter) -> Result<(), Failure>,
    ) -> Result<(), Failure>;
}

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
}

/// What came of checking a log, and the records beside it.
#[derive(Debug)]
pub struct Findings {
    /// What came of the log.
    pub verification: Verification,
    /// What came of the records; none where they were not looked at.
    pub records: Option<CheckedRecords>,
}

impl Findings {
    /// Whether everything is as it was signed.
    pub fn are_valid(&self) -> bool {
        let records = self.records.as_ref();
        self.verification.valid && records.is_none_or(|checked| checked.problems.is_empty())
    }

    /// Whether the search stopped, so that there may be more problems.
    pub fn gave_up(&self) -> bool {
        self.verification.gave_up || self.records.as_ref().is_some_and(|checked| checked.gave_up)
    }

    /// What is wrong with the records.
    pub fn problems_of_records(&self) -> &[RecordProblem] {
        let records = self.records.as_ref();
        records.map_or(&[], |checked| checked.problems.as_slice())
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

/// Secrets.
pub trait Secrets {
    /// A tenant's secrets with their versions, and never their values.
    ///
    /// # Errors
    /// If the environment has no secrets, or the tenant's store cannot be opened.
    fn secrets(&self, tenant: &Name) -> Result<Vec<Listed>, Failure>;

    /// Whether secrets can be kept here.
    ///
    /// # Errors
    /// If the environment has none, or the state cannot be written.
    fn keeps_secrets(&self) -> Result<(), Failure>;

    /// Keeps what is read as the newest version of a secret.
    ///
    /// # Errors
    /// If it cannot be read, is no secret, or cannot be kept.
    fn set_secret(
        &self,
        name: &SecretName,
        tenant: &Name,
        value: &mut dyn Read,
        reporter: &dyn Reporter,
    ) -> Result<Reference, Failure>;

    /// Removes all versions of a secret.
    ///
    /// # Errors
    /// If there is none.
    fn remove_secret(&self, name: &SecretName, tenant: &Name) -> Result<(), Failure>;

    /// Encrypts every tenant's store under a new key: the one in `to`, or one that is made.
    ///
    /// # Errors
    /// If there is no store, or one of them or a key cannot be used.
    fn rotate_secrets(
        &self,
        to: Option<&KeyPlace>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<(Name, Rotation)>, Failure>;
}

/// Looking after what is kept.
pub trait Upkeep {
    /// Removes staging of ended attempts, artifacts that no run names, data files that fell out of
    /// their dataset's latest version longer than `retention` ago, and dead letters that no run has
    /// on record. If `agreed` agrees.
    ///
    /// # Errors
    /// If another process works on the state for longer than is waited, and if something cannot be
    /// removed; and what `agreed` fails with.
    fn collect(
        &self,
        retention: Duration,
        agreed: &dyn Fn() -> Result<(), Failure>,
        reporter: &dyn Reporter,
    ) -> Result<Removed, Failure>;
}
