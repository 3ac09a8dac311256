//! Records of an attempt that are too long for its entry in the ledger: the entry has their digest,
//! they lie beside it. Read here, each is held against its entry; [`check`] does it for a whole log,
//! [`export`] hands them out.
//!
//! What lies beside the ledger may have been changed by anybody who could write there: it is read
//! within bounds, and believed once its digest is the one that was signed.

pub mod attempt;
pub mod check;
pub(crate) mod data;
pub mod export;
pub(crate) mod logs;
pub(crate) mod run;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use barecount_agent::StagingFolders;
use barecount_control::store::reader::Reader;
use barecount_model::{
    digest::{Digest, Digesting},
    evidence::EvidenceKind,
    id::{RunId, TaskId},
    run::{Attempt, Run, Task},
};
use barecount_runner::launch::AttemptToken;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    failure::{Failure, Status},
    log::{self, Log},
    manifest::read_bounded,
    rules::Rules,
    state,
};

/// Larger than any record that is written: the broker bounds how many kinds of flow an attempt has,
/// its stage how many secrets.
const MAX_BYTES: u64 = 16 << 20;

/// What the entry of an attempt says of records beside the ledger, and of accesses.
#[derive(Debug, Deserialize)]
struct Predicate {
    run: RunFacts,
    task: TaskFacts,
    attempt: u32,
    /// Null of an attempt whose process ended under it.
    detail: Option<Detail>,
}

#[derive(Debug, Deserialize)]
struct RunFacts {
    id: RunId,
}

#[derive(Debug, Deserialize)]
struct TaskFacts {
    id: TaskId,
    stage: String,
    partition: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Detail {
    network: Option<Network>,
    secrets: Option<Secrets>,
    identity: Option<Identity>,
    dead_letters: Option<DeadLetters>,
    log: Option<logs::Facts>,
}

/// What an entry has of the records that its attempt set aside.
#[derive(Debug, Deserialize)]
struct DeadLetters {
    digest: Digest,
}

/// What an entry shows of a record. Of an entry that would have been too long it makes way for its
/// digest (see [`barecount_model::evidence::OMITTED`]).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Shown {
    /// The first, or all.
    Records(Vec<Value>),
    /// None, though there were some.
    Omitted {
        /// What stands in for them.
        #[serde(rename = "omitted")]
        _stand_in: Value,
    },
}

impl Default for Shown {
    fn default() -> Self {
        Self::Records(Vec::new())
    }
}

impl Shown {
    /// Those that are there.
    pub fn records(&self) -> &[Value] {
        match self {
            Self::Records(records) => records,
            Self::Omitted { .. } => &[],
        }
    }

    fn any(&self) -> bool {
        matches!(self, Self::Omitted { .. }) || !self.records().is_empty()
    }
}

/// What an entry has of an attempt's flows.
#[derive(Debug, Deserialize)]
pub struct Network {
    /// The digest of the record beside the ledger.
    digest: Digest,
    /// Sums over every flow.
    pub totals: Value,
    /// Kinds of flow that are in the record only.
    #[serde(default)]
    left_out: u64,
    #[serde(default)]
    records: Shown,
}

/// What an entry has of an attempt's secrets.
#[derive(Debug, Deserialize)]
pub struct Secrets {
    /// The digest of the record beside the ledger; none if that could not be read at the time.
    digest: Option<Digest>,
    /// Every access.
    pub records: Shown,
}

#[derive(Debug, Deserialize)]
struct Identity {
    accesses: Accesses,
}

/// What an attempt's identity opened, or was refused.
#[derive(Debug, Deserialize)]
pub struct Accesses {
    /// How many were allowed.
    pub allowed: u64,
    /// How many were refused.
    pub refused: u64,
    /// The digest of the record beside the ledger; none where the entry has every access, and in
    /// entries that are older than such records.
    digest: Option<Digest>,
    /// Accesses that the entry does not show.
    left_out: u64,
    /// Accesses that the record does not have either.
    #[serde(default)]
    unlisted: u64,
    /// Those that the entry shows.
    pub records: Shown,
}

impl Accesses {
    /// How many are counted only.
    pub fn unlisted(&self) -> u64 {
        match self.digest {
            Some(_) => self.unlisted,
            None if matches!(self.records, Shown::Omitted { .. }) => self.allowed + self.refused,
            None => self.left_out,
        }
    }
}

/// The entry of one attempt.
#[derive(Debug)]
pub struct AttemptEntry {
    /// Its index in the ledger.
    pub index: u64,
    /// The stage of its task.
    pub stage: String,
    /// The partition of its task.
    pub partition: Option<String>,
    run: RunId,
    token: AttemptToken,
    detail: Detail,
}

/// A record beside the ledger that an entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The entry.
    pub entry: u64,
    /// What the record has to be.
    pub digest: Digest,
    kind: Kind,
    token: AttemptToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flows,
    Secrets,
    Objects,
}

/// Why a record beside the ledger is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("there is no file {}, which has to be {expected}", path.display())]
    Missing { path: PathBuf, expected: Digest },
    #[error("{} has to be {expected}, and cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        expected: Digest,
        source: io::Error,
    },
    #[error(
        "{} has to be {expected}, and is larger than any record: more than {MAX_BYTES} bytes",
        path.display()
    )]
    TooLarge { path: PathBuf, expected: Digest },
    #[error("{} has to be {expected}, and is longer than its {most} bytes", path.display())]
    Longer {
        path: PathBuf,
        expected: Digest,
        most: u64,
    },
    #[error("{} has to be {expected}, and is {found}", path.display())]
    Changed {
        path: PathBuf,
        expected: Digest,
        found: Digest,
    },
}

impl AttemptEntry {
    /// An entry of the ledger, if it is an attempt's.
    ///
    /// # Errors
    /// If an attempt's entry is not as this program writes them.
    fn parse(index: u64, entry: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let statement: Value = serde_json::from_slice(entry)?;
        if statement["predicateType"] != EvidenceKind::Attempt.predicate_type() {
            return Ok(None);
        }
        let Predicate {
            run,
            task,
            attempt,
            detail,
        } = Predicate::deserialize(&statement["predicate"])?;
        Ok(Some(Self {
            index,
            stage: task.stage,
            partition: task.partition,
            run: run.id,
            token: AttemptToken {
                task: task.id,
                number: attempt,
            },
            detail: detail.unwrap_or_default(),
        }))
    }

    /// The task that was tried.
    pub fn task(&self) -> &TaskId {
        &self.token.task
    }

    /// What tables call its task.
    pub fn name(&self) -> String {
        match &self.partition {
            Some(partition) => format!("{}/{partition}", self.stage),
            None => self.stage.clone(),
        }
    }

    /// Which try it was, from 1.
    pub fn number(&self) -> u32 {
        self.token.number
    }

    /// What it has of the network.
    pub fn network(&self) -> Option<&Network> {
        self.detail.network.as_ref()
    }

    /// What it has of secrets.
    pub fn secrets(&self) -> Option<&Secrets> {
        self.detail.secrets.as_ref()
    }

    /// What it has of accesses to the platform's objects.
    pub fn accesses(&self) -> Option<&Accesses> {
        Some(&self.detail.identity.as_ref()?.accesses)
    }

    /// The record of flows that it names. Where there was nothing to record there is none.
    pub fn flows_record(&self) -> Option<Named> {
        let network = self.network()?;
        let any = network.left_out > 0 || network.records.any();
        any.then(|| self.named(Kind::Flows, network.digest))
    }

    /// The record of accesses to secrets that it names.
    pub fn secrets_record(&self) -> Option<Named> {
        Some(self.named(Kind::Secrets, self.secrets()?.digest?))
    }

    /// The record of accesses to the platform's objects that it names, if it has not all itself.
    pub fn objects_record(&self) -> Option<Named> {
        Some(self.named(Kind::Objects, self.accesses()?.digest?))
    }

    /// The file of the records that it set aside, and its digest, if there were any. They are data,
    /// and not handed out with evidence.
    fn letters(&self, state: &Path) -> Option<(PathBuf, Digest)> {
        let letters = self.detail.dead_letters.as_ref()?;
        let path = StagingFolders::new(state).letters(&self.token);
        Some((path, letters.digest))
    }

    /// Every record that it names.
    fn records(&self) -> impl Iterator<Item = Named> {
        let records = [
            self.flows_record(),
            self.secrets_record(),
            self.objects_record(),
        ];
        records.into_iter().flatten()
    }

    fn named(&self, kind: Kind, digest: Digest) -> Named {
        Named {
            entry: self.index,
            digest,
            kind,
            token: self.token.clone(),
        }
    }
}

/// The rules that a statement's decision was made by, if it names any.
pub(crate) fn rules_of(statement: &Value) -> Option<Rules> {
    let predicate = &statement["predicate"];
    let named = [&predicate["rules"], &predicate["decision"]["rules"]];
    named
        .into_iter()
        .find_map(|rules| Rules::deserialize(rules).ok())
}

/// The digests of the rules that an entry names.
fn rules_named(entry: &[u8]) -> Vec<Digest> {
    let statement: Value = serde_json::from_slice(entry).unwrap_or_default();
    let rules = rules_of(&statement);
    let digests = rules.iter().flat_map(Rules::each);
    digests.map(|(_, digest)| digest).collect()
}

impl Named {
    /// Where it lies in a state folder.
    pub fn path(&self, state: &Path) -> PathBuf {
        let folders = StagingFolders::new(state);
        match self.kind {
            Kind::Flows => folders.flows(&self.token),
            Kind::Secrets => folders.accesses(&self.token),
            Kind::Objects => folders.objects(&self.token),
        }
    }

    /// Reads it from a state folder.
    ///
    /// # Errors
    /// If it is not there, or not the one that its entry names.
    fn read(&self, state: &Path) -> Result<Vec<u8>, RecordError> {
        read_record(&self.path(state), self.digest)
    }

    /// Reads it, line by line.
    ///
    /// # Errors
    /// If it is not the one that its entry names: nothing is told of it then.
    pub fn lines<T>(&self, state: &Path) -> Result<Vec<T>, Failure>
    where
        T: for<'line> Deserialize<'line>,
    {
        let bytes = self.read(state).map_err(|error| {
            let what = format!("{} is not the one in evidence", self.title());
            self.failure(what).because(&error)
        })?;
        let lines = bytes.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        // The sums over an attempt's flows, which its entry has as well.
        let sums = usize::from(self.kind == Kind::Flows);
        let lines = lines.skip(sums).map(serde_json::from_slice);
        lines.collect::<Result<_, _>>().map_err(|error| {
            let path = self.path(state);
            let what = format!("{} cannot be understood: {}", self.title(), path.display());
            self.failure(what).because(&error)
        })
    }

    fn title(&self) -> String {
        let of = match self.kind {
            Kind::Flows => "flows",
            Kind::Secrets => "accesses to secrets",
            Kind::Objects => "accesses",
        };
        let AttemptToken { task, number } = &self.token;
        format!("the record of {of} of attempt {number} of {task}")
    }

    fn failure(&self, what: String) -> Failure {
        Failure::new(Status::Unverified, what)
            .with_code("BC0904")
            .with_help(format!(
                "Put the record back from a copy. What the ledger itself has of it still stands: \
                 `barecount evidence show {}`.",
                self.entry
            ))
    }
}

fn unreadable(path: PathBuf, expected: Digest, source: io::Error) -> RecordError {
    match source.kind() {
        io::ErrorKind::NotFound => RecordError::Missing { path, expected },
        _ => RecordError::Unreadable {
            path,
            expected,
            source,
        },
    }
}

/// Holds a file of any size against its digest.
///
/// # Errors
/// If it is not there, or another.
pub(crate) fn check_file(path: &Path, expected: Digest) -> Result<(), RecordError> {
    let path = || path.to_owned();
    let mut digesting = Digesting::default();
    let read = barecount_tree::open_regular(&path()).and_then(|mut file| {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(()),
                read => digesting.update(&buffer[..read]),
            }
        }
    });
    read.map_err(|source| unreadable(path(), expected, source))?;
    match digesting.finish() {
        found if found == expected => Ok(()),
        found => Err(RecordError::Changed {
            path: path(),
            expected,
            found,
        }),
    }
}

fn read_record(path: &Path, expected: Digest) -> Result<Vec<u8>, RecordError> {
    let path = || path.to_owned();
    let bytes =
        read_bounded(&path(), MAX_BYTES).map_err(|source| unreadable(path(), expected, source))?;
    if bytes.len() as u64 > MAX_BYTES {
        let path = path();
        return Err(RecordError::TooLarge { path, expected });
    }
    let found = Digest::of(&bytes);
    if found != expected {
        return Err(RecordError::Changed {
            path: path(),
            expected,
            found,
        });
    }
    Ok(bytes)
}

/// The entries of a run's attempts that have ended, each proved to be in the signed ledger, in the
/// order of tasks and attempts.
///
/// # Errors
/// If the ledger has no entry of one of them, or does not verify.
pub(crate) fn of_run(log: &Log, reader: &Reader, run: &Run) -> Result<Vec<AttemptEntry>, Failure> {
    let mut signed = Signed::of_run(log, reader, run)?;
    let tasks = run.tasks.iter();
    let ended = tasks.flat_map(|task| {
        let attempts = task.attempts.iter().map(move |attempt| (task, attempt));
        attempts.filter(|(_, attempt)| !attempt.state.is_open())
    });
    ended
        .map(|(task, attempt)| signed.take(task, attempt))
        .collect()
}

/// What is signed of a run's attempts.
pub(crate) struct Signed {
    found: HashMap<AttemptToken, AttemptEntry>,
    /// An entry that is queued still.
    unsigned: Option<u64>,
}

impl Signed {
    /// Looks the entries of a run's attempts up, each proved to be in the signed ledger.
    ///
    /// # Errors
    /// If the ledger does not verify.
    pub(crate) fn of_run(log: &Log, reader: &Reader, run: &Run) -> Result<Self, Failure> {
        let mut signed = Self {
            found: HashMap::new(),
            unsigned: None,
        };
        let listed = reader.ledger_entries(Some(&*run.id.printed()));
        let listed = listed.map_err(state::store_failure)?;
        let attempts = listed.iter().filter(|entry| {
            // What the list says of an entry is only where to look.
            entry.kind == EvidenceKind::Attempt.as_str()
        });
        for listed in attempts {
            let Some(bytes) = log.entry(listed.index)? else {
                signed.unsigned.get_or_insert(listed.index);
                continue;
            };
            if let Some(entry) = understood(listed.index, &bytes)?
                && entry.run == run.id
            {
                signed.found.insert(entry.token.clone(), entry);
            }
        }
        Ok(signed)
    }

    /// The entry of an attempt that has ended.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn take(&mut self, task: &Task, attempt: &Attempt) -> Result<AttemptEntry, Failure> {
        self.found
            .remove(&token(task, attempt))
            .ok_or_else(|| without_entry(task, attempt, self.unsigned))
    }
}

/// The entry of an attempt, if this entry is one.
fn understood(index: u64, bytes: &[u8]) -> Result<Option<AttemptEntry>, Failure> {
    AttemptEntry::parse(index, bytes).map_err(|error| {
        Failure::new(
            Status::Unverified,
            format!("entry {index} of the ledger cannot be understood"),
        )
        .because(&error)
        .with_code("BC0904")
        .with_help(format!(
            "A newer program may have written it. It can be looked at all the same: `barecount \
             evidence show {index}`."
        ))
    })
}

fn without_entry(task: &Task, attempt: &Attempt, unsigned: Option<u64>) -> Failure {
    let (name, number) = (task.name(), attempt.number);
    match unsigned {
        // It is queued in the store, and its process ended before it could sign.
        Some(index) => Failure::new(
            Status::Unavailable,
            format!("entry {index}, of attempt {number} of {name}, is not signed yet"),
        )
        .with_code("BC0902")
        .with_help("Nothing is lost: the next `barecount run` in this state folder signs it."),
        None => log::invalid(format!(
            "the ledger has no entry of attempt {number} of {name}"
        )),
    }
}

/// What an attempt's records are called by.
pub fn token(task: &Task, attempt: &Attempt) -> AttemptToken {
    AttemptToken {
        task: task.id.clone(),
        number: attempt.number,
    }
}

/// The attempt whose file has a group's records.
pub fn letters_token(task: &str, number: u32) -> Option<AttemptToken> {
    let task = task.parse().ok()?;
    Some(AttemptToken { task, number })
}
