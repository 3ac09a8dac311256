//! Holding the rows of datasets against the commits that were signed: read and hashed anew, with
//! nothing of what the tables' own logs say of them believed.

use std::collections::{BTreeMap, BTreeSet};

use barecount_dataset::{
    name::Tenant,
    read::ReadError,
    table::{Snapshot, Standing, StateTables, TableError, Tables},
};
use barecount_ledger::storage::DirBlobs;
use barecount_model::{evidence::EvidenceKind, run::outcome::CommittedDataset, text::DatasetName};
use serde::Deserialize;
use serde_json::Value;

use super::check::Checked;
use crate::{
    failure::{Failure, chain},
    log::each_entry,
    runtime::runtime,
};

/// What the entry of a commit says.
#[derive(Deserialize)]
struct Commit {
    outputs: Vec<CommittedDataset>,
    run: CommitRun,
}

#[derive(Deserialize)]
struct CommitRun {
    tenant: String,
}

/// One dataset that a commit brought rows to.
struct Signed {
    entry: u64,
    output: CommittedDataset,
}

/// Checks the rows of every commit that a log has on record, as far as they are still kept: those
/// that fell out of their dataset may have been collected.
///
/// # Errors
/// If the log cannot be read any more, or the runtime not be started.
pub(crate) fn in_state(all: &StateTables, blobs: &DirBlobs, size: u64) -> Result<Checked, Failure> {
    let mut checked = Checked::default();
    let mut signed: BTreeMap<(String, String), Vec<Signed>> = BTreeMap::new();
    each_entry(blobs, size, |entry, bytes| {
        let statement: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if statement["predicateType"] != EvidenceKind::Commit.predicate_type() {
            return Ok(());
        }
        match Commit::deserialize(&statement["predicate"]) {
            Ok(commit) => {
                for output in commit.outputs {
                    let of = (commit.run.tenant.clone(), output.dataset.clone());
                    signed.entry(of).or_default().push(Signed { entry, output });
                }
            }
            Err(error) => {
                let what =
                    format!("the entry cannot be understood, nor what it committed: {error}");
                checked.add("entries", Some(entry), what);
            }
        }
        Ok(())
    })?;
    for ((tenant, dataset), commits) in &signed {
        let (Ok(tenant), Ok(name)) = (tenant.parse::<Tenant>(), dataset.parse::<DatasetName>())
        else {
            checked.add(dataset.clone(), None, "this is no name of a dataset");
            continue;
        };
        let of = OfDataset {
            tables: all.of(&tenant),
            name,
            file: format!("datasets of {tenant}: {dataset}"),
        };
        of.check(commits, &mut checked)?;
    }
    Ok(checked)
}

/// A dataset whose commits are checked.
struct OfDataset {
    tables: Tables,
    name: DatasetName,
    /// What it is called where something is wrong with it.
    file: String,
}

impl OfDataset {
    fn check(&self, commits: &[Signed], checked: &mut Checked) -> Result<(), Failure> {
        let runtime = runtime()?;
        let now = match runtime.block_on(self.tables.snapshot(&self.name, None)) {
            Ok(snapshot) => snapshot.files.into_iter().map(|file| file.name).collect(),
            // Dropped, or gone altogether: then nothing of it has to be there.
            Err(TableError::NotFound { .. }) => BTreeSet::new(),
            Err(error) => {
                checked.add(self.file.clone(), None, chain(&error));
                return Ok(());
            }
        };
        for signed in commits {
            if checked.gave_up {
                break;
            }
            let version = signed.output.version;
            let entry = Some(signed.entry);
            match runtime.block_on(self.tables.brought(&self.name, version)) {
                Err(error) => checked.add(self.file.clone(), entry, chain(&error)),
                Ok(brought) => match recounted(&brought, signed, &now) {
                    Ok(true) => checked.proved += 1,
                    Ok(false) => checked.absent += 1,
                    Err(what) => checked.add(self.file.clone(), entry, what),
                },
            }
        }
        Ok(())
    }
}

/// Whether the rows that a commit brought are those that were signed; `false` if they are no longer
/// kept.
fn recounted(brought: &Snapshot, signed: &Signed, now: &BTreeSet<String>) -> Result<bool, String> {
    let version = brought.version;
    // The rows alone tell, whatever the log says of them; and then that it says something else.
    let mut counted = brought.clone();
    let mut unproved = None;
    for file in &mut counted.files {
        if std::mem::replace(&mut file.standing, Standing::Told) == Standing::Altered {
            let path = file.path.clone();
            unproved.get_or_insert(ReadError::Unproved { path });
        }
    }
    match counted.recount() {
        Ok((_, digest)) if digest == signed.output.digest => match unproved {
            Some(error) => Err(format!("version {version}: {error}")),
            None => Ok(true),
        },
        Ok((rows, digest)) => Err(format!(
            "version {version} was signed as {} rows of {}, and what is there is {rows} rows of \
             {digest}",
            signed.output.rows, signed.output.digest
        )),
        Err(ReadError::Open { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound
                && !brought.files.iter().any(|file| now.contains(&file.name)) =>
        {
            Ok(false)
        }
        Err(error) => Err(format!("version {version}: {}", chain(&error))),
    }
}
