//! Holding every record beside a log against the entries of the log, which has been verified.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use barecount_agent::StagingFolders;
use barecount_ledger::storage::DirBlobs;
use barecount_model::{approval::History, digest::Digest};
use serde_json::Value;

use super::{AttemptEntry, check_file, export::Folder, logs, read_record, rules_named};
use crate::{
    approvals::agrees,
    failure::{Failure, chain},
    log::each_entry,
    rules, state,
};

/// Problems after which the search stops.
const MAX_PROBLEMS: usize = 1_000;

/// What came of it.
#[derive(Debug, Default)]
pub struct Checked {
    /// Records that are as their entries name them.
    pub proved: u64,
    /// Records that entries name and that an export does not have.
    pub absent: u64,
    /// What is wrong, in the order of the log; then what no entry names.
    pub problems: Vec<RecordProblem>,
    /// Whether the search stopped, so that there may be more.
    pub gave_up: bool,
}

/// One record that is not to be believed.
#[derive(Debug)]
pub struct RecordProblem {
    /// The file, from the folder that was checked.
    pub file: String,
    /// The entry that names it, if one does.
    pub entry: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl Checked {
    pub(super) fn add(
        &mut self,
        file: impl Into<String>,
        entry: Option<u64>,
        message: impl Into<String>,
    ) {
        if self.problems.len() == MAX_PROBLEMS {
            self.gave_up = true;
            return;
        }
        self.problems.push(RecordProblem {
            file: file.into(),
            entry,
            message: message.into(),
        });
    }
}

/// Checks the records in a state folder: each has to be there.
///
/// # Errors
/// If the log cannot be read any more.
pub fn in_state(state: &Path, blobs: &DirBlobs, size: u64) -> Result<Checked, Failure> {
    let mut checked = Checked::default();
    let mut history = History::default();
    each_entry(blobs, size, |index, bytes| {
        retrace(&mut history, index, bytes, &mut checked);
        for digest in rules_named(bytes) {
            let path = rules::path(state, digest);
            match read_record(&path, digest) {
                Ok(_) => checked.proved += 1,
                Err(error) => {
                    let file = path.strip_prefix(state).unwrap_or(&path);
                    checked.add(file.display().to_string(), Some(index), chain(&error));
                }
            }
        }
        let Some(entry) = parsed(index, bytes, &mut checked) else {
            return Ok(());
        };
        if let Some((path, digest)) = entry.letters(state) {
            match check_file(&path, digest) {
                Ok(()) => checked.proved += 1,
                Err(error) => {
                    let file = path.strip_prefix(state).unwrap_or(&path);
                    checked.add(file.display().to_string(), Some(index), chain(&error));
                }
            }
        }
        check_log(state, &entry, &mut checked);
        for named in entry.records() {
            match named.read(state) {
                Ok(_) => checked.proved += 1,
                Err(error) => {
                    let path = named.path(state);
                    let file = path.strip_prefix(state).unwrap_or(&path);
                    let file = file.display().to_string();
                    checked.add(file, Some(index), chain(&error));
                }
            }
        }
        Ok(())
    })?;
    check_approvals(state, &history, &mut checked)?;
    Ok(checked)
}

/// Holds the log of an attempt against its entry, if that has its digest.
fn check_log(state: &Path, entry: &AttemptEntry, checked: &mut Checked) {
    let path = StagingFolders::new(state).log(&entry.token);
    let problem = match entry.log().map(|digest| logs::read(&path, 0, Some(digest))) {
        None | Some(Ok(None)) => return,
        Some(Ok(Some(log))) => log.problem.map(|problem| chain(&problem)),
        Some(Err(error)) => Some(error.to_string()),
    };
    match problem {
        None => checked.proved += 1,
        Some(problem) => {
            let file = path.strip_prefix(state).unwrap_or(&path);
            checked.add(file.display().to_string(), Some(entry.index), problem);
        }
    }
}

/// Holds what a state folder has of approvals against what their entries make them.
fn check_approvals(state: &Path, history: &History, checked: &mut Checked) -> Result<(), Failure> {
    let Some(reader) = state::reader(state)? else {
        return Ok(());
    };
    let kept = reader.approvals(None, None, None, u32::MAX);
    let kept = kept.map_err(state::store_failure)?;
    let table = "control.sqlite";
    for approval in &kept {
        let entry = approval.ended.as_ref().or(approval.granted.as_ref());
        let entry = entry.unwrap_or(&approval.requested).entry;
        if let Err(what) = agrees(history, approval) {
            let message = format!("approval {}: {what}", approval.id);
            checked.add(table, Some(entry), message);
        }
    }
    for signed in history.approvals() {
        if !kept.iter().any(|approval| approval.id == signed.id) {
            let message = format!("approval {} is not kept", signed.id);
            checked.add(table, Some(signed.requested.entry), message);
        }
    }
    Ok(())
}

/// Follows what was done to approvals, and which runs were permitted by them.
fn retrace(history: &mut History, index: u64, bytes: &[u8], checked: &mut Checked) {
    let Ok(statement) = serde_json::from_slice::<Value>(bytes) else {
        // Whoever looks for records says that of it.
        return;
    };
    if let Err(irregular) = history.take(index, &statement) {
        checked.add("entries", Some(index), chain(&irregular));
    }
}

/// Checks the records beside an exported log. Those that are not there were not handed out.
///
/// # Errors
/// If the log cannot be read any more.
pub fn in_export(folder: &Path, blobs: &DirBlobs, size: u64) -> Result<Checked, Failure> {
    let mut checked = Checked::default();
    let mut named: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut history = History::default();
    each_entry(blobs, size, |index, bytes| {
        retrace(&mut history, index, bytes, &mut checked);
        let entry = parsed(index, bytes, &mut checked);
        for record in entry.iter().flat_map(AttemptEntry::records) {
            named.entry(record.digest).or_insert(index);
        }
        for digest in rules_named(bytes) {
            named.entry(digest).or_insert(index);
        }
        Ok(())
    })?;
    let records = match Folder::list(folder) {
        Ok(records) => records,
        Err(error) => {
            checked.add(Folder::NAME, None, error.to_string());
            return Ok(checked);
        }
    };
    let mut there = BTreeSet::new();
    for record in records {
        if checked.gave_up {
            return Ok(checked);
        }
        let (name, path) = match record {
            Ok(record) => record,
            Err(error) => {
                checked.add(Folder::NAME, None, error.to_string());
                continue;
            }
        };
        let file = format!("{}/{name}", Folder::NAME);
        let digest = Folder::digest(&name);
        let Some((digest, entry)) = digest.and_then(|digest| Some((digest, named.get(&digest)?)))
        else {
            checked.add(file, None, "no entry of the log names it");
            continue;
        };
        there.insert(digest);
        match read_record(&path, digest) {
            Ok(_) => checked.proved += 1,
            Err(error) => checked.add(file, Some(*entry), chain(&error)),
        }
    }
    checked.absent = (named.len() - there.len()) as u64;
    Ok(checked)
}

/// An attempt's entry; one that cannot be understood is a problem, for it may name records.
fn parsed(index: u64, bytes: &[u8], checked: &mut Checked) -> Option<AttemptEntry> {
    match AttemptEntry::parse(index, bytes) {
        Ok(entry) => entry,
        Err(error) => {
            let message =
                format!("the entry cannot be understood, nor which records it names: {error}");
            checked.add("entries", Some(index), message);
            None
        }
    }
}
