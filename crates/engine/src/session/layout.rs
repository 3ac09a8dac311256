//! How an input's Parquet files lie in its folder.
//!
//! A reader of partition folders passes over files that lie elsewhere without a word, and with
//! them their rows; so all files are looked at first.

use std::fs;
use std::io;
use std::path::Path;

/// The name of the folder that stands for a null partition value, as Hive has it.
pub(super) const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";
/// The most files and folders that are looked at.
const MAX_ENTRIES: usize = 200_000;

/// Where the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Anywhere below the folder, with all columns in them.
    Flat,
    /// In folders `column=value`, one level a partition column, without those columns.
    Folders,
}

/// What is wrong with a folder.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is not laid out as an input is.
    Layout(String),
    /// A file was cut off.
    Broken(String),
}

/// Finds out how files lie.
pub(super) fn find(root: &Path, partition_by: &[String]) -> Result<Layout, Problem> {
    let (mut entries, mut flat, mut in_folders) = (0, None, false);
    let mut pending = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, relative, depth)) = pending.pop() {
        for entry in
            list(&folder).map_err(|error| Problem::Layout(format!("`{relative}`: {error}")))?
        {
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(Problem::Layout(format!(
                    "it has more than {MAX_ENTRIES} files and folders"
                )));
            }
            let (name, file_bytes) = entry;
            let path = format!("{relative}/{name}");
            if name.starts_with(['.', '_']) {
                continue;
            }
            let Some(bytes) = file_bytes else {
                let column = partition_by.get(depth);
                let is_partition = column
                    .is_some_and(|c| name.strip_prefix(c).is_some_and(|v| v.starts_with('=')));
                // Below any other folder, no depth is that of a partition.
                let depth = if is_partition { depth + 1 } else { usize::MAX };
                pending.push((folder.join(&name), path, depth));
                continue;
            };
            if !name.ends_with(".parquet") {
                continue;
            }
            // The reader would take an empty file for one without rows.
            if bytes == 0 {
                let file = path.trim_start_matches('/');
                return Err(Problem::Broken(format!("`{file}` is empty")));
            }
            if depth == partition_by.len() {
                in_folders = true;
            } else {
                flat.get_or_insert(path);
            }
        }
    }
    if partition_by.is_empty() {
        return Ok(Layout::Flat);
    }
    match flat {
        Some(file) if in_folders => Err(Problem::Layout(format!(
            "`{}` is not in a folder of its partition, as other files are",
            file.trim_start_matches('/')
        ))),
        Some(_) => Ok(Layout::Flat),
        None => Ok(Layout::Folders),
    }
}

/// The names in a folder, and the size of each that is not a folder itself.
fn list(folder: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            let path = folder.display();
            return Err(io::Error::other(format!("a name in {path} is not UTF-8")));
        };
        let metadata = fs::metadata(entry.path())?;
        names.push((name, (!metadata.is_dir()).then_some(metadata.len())));
    }
    Ok(names)
}
