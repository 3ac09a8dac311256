//! Whether what a task wrote still stands.

use std::collections::{BTreeMap, BTreeSet};

/// Partition values by column, as a dataset's log has them.
pub type Partition = BTreeMap<String, Option<String>>;

/// What a task wrote into one dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrote {
    /// The dataset.
    pub dataset: String,
    /// The part that it replaced, empty for all of the dataset; none where it appended.
    pub replaced: Option<Partition>,
    /// The names of its files in the dataset; no other commit has the same.
    pub files: BTreeSet<String>,
}

/// A file that a dataset has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFile {
    /// The name that its rows were committed under.
    pub name: String,
    /// The partition that its rows are in.
    pub partition: Partition,
}

/// What became of something that does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallen {
    /// The dataset is not there.
    Gone,
    /// Something else has been written since, or an earlier version was restored.
    Superseded,
    /// What was appended is not in it any more.
    Removed,
}

impl std::fmt::Display for Fallen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gone => "is gone",
            Self::Superseded => "is no longer what stands there",
            Self::Removed => "is no longer in it",
        })
    }
}

/// Whether what a task wrote stands in the dataset as it is now, of which `live` are the files;
/// none if there is no such dataset.
///
/// What was overwritten stands if the part holds these files and no others. What was appended
/// stands if all its files are there, whoever has appended since.
///
/// # Errors
/// What became of it.
pub fn stands(wrote: &Wrote, live: Option<&[LiveFile]>) -> Result<(), Fallen> {
    let live = live.ok_or(Fallen::Gone)?;
    let Some(part) = &wrote.replaced else {
        let names: BTreeSet<&str> = live.iter().map(|file| file.name.as_str()).collect();
        let all = wrote.files.iter().all(|file| names.contains(file.as_str()));
        return if all { Ok(()) } else { Err(Fallen::Removed) };
    };
    let in_part = |file: &&LiveFile| {
        part.iter()
            .all(|(column, value)| file.partition.get(column) == Some(value))
    };
    let mut found = BTreeSet::new();
    for file in live.iter().filter(in_part) {
        if !wrote.files.contains(&file.name) {
            return Err(Fallen::Superseded);
        }
        // Rows that were written anew may be in several files.
        found.insert(&file.name);
    }
    if found.len() == wrote.files.len() {
        Ok(())
    } else {
        Err(Fallen::Superseded)
    }
}
