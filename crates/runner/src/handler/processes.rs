//! What a function's process looks like at rest: the processes of its sandbox, and its scratch.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

/// More processes than this are not looked at; the sandbox has a limit of its own.
const PROCESSES: usize = 1024;

/// What was there when the function first waited for an event. A launcher script, or what a client
/// unpacks when it starts, belongs to it; everything else belongs to an attempt.
#[derive(Debug)]
pub(super) struct Rest {
    processes: BTreeSet<i32>,
    scratch: BTreeSet<OsString>,
}

impl Rest {
    /// Looks at the sandbox whose first process is `init`. Blocking.
    pub(super) fn of(init: i32) -> io::Result<Self> {
        let processes = below(init)?;
        let scratch = match scratch_of(&processes) {
            Some(scratch) => names(&scratch)?,
            None => BTreeSet::new(),
        };
        Ok(Self { processes, scratch })
    }

    /// Removes what an attempt left in the scratch folder. `false`: processes have come or gone, so
    /// that the sandbox is not what it was. Blocking.
    pub(super) fn restore(&self, init: i32) -> io::Result<bool> {
        if below(init)? != self.processes {
            return Ok(false);
        }
        let Some(scratch) = scratch_of(&self.processes) else {
            return Ok(false);
        };
        for name in names(&scratch)?.difference(&self.scratch) {
            let path = scratch.join(name);
            // Neither follows links: what is removed is below the sandbox's own scratch folder.
            if fs_err::symlink_metadata(&path)?.is_dir() {
                fs_err::remove_dir_all(path)?;
            } else {
                fs_err::remove_file(path)?;
            }
        }
        Ok(true)
    }
}

/// The scratch folder as seen from outside. It is a mount of the sandbox on its read-only root, so
/// that its name cannot be made to lead elsewhere.
fn scratch_of(processes: &BTreeSet<i32>) -> Option<PathBuf> {
    let process = processes.first()?;
    Some(PathBuf::from(format!("/proc/{process}/root/tmp")))
}

fn names(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    fs_err::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

/// All processes below one, itself left out.
fn below(init: i32) -> io::Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    let mut open = vec![init];
    while let Some(process) = open.pop() {
        for thread in fs_err::read_dir(format!("/proc/{process}/task"))? {
            let children = fs_err::read_to_string(thread?.path().join("children"))?;
            for child in children.split_ascii_whitespace() {
                let child = child.parse().map_err(io::Error::other)?;
                if found.insert(child) {
                    open.push(child);
                }
            }
        }
        if found.len() > PROCESSES {
            return Err(io::Error::other("too many processes"));
        }
    }
    Ok(found)
}
