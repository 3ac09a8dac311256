//! Files on their way from staging into a table's folder.

use std::{io::Read as _, path::Path};

use sha2::{Digest as _, Sha256};

use super::CommitError;
use crate::{
    decision::{DatasetCommit, StagedFile},
    disk::Disk,
    partition::folder,
};

/// The path in the table of a file that was staged.
pub(crate) fn name(commit: &DatasetCommit, file: &StagedFile) -> String {
    let stem = file.path.rsplit('/').next().unwrap_or(&file.path);
    in_table(commit, file, stem.strip_suffix(".parquet").unwrap_or(stem))
}

/// A file's path in the table: its partition's folder, and a name that only this transaction and
/// content have, so that a present file of that name is this file.
pub(super) fn in_table(commit: &DatasetCommit, file: &StagedFile, stem: &str) -> String {
    let transaction = format!(
        "{}\0{}",
        commit.transaction.app_id, commit.transaction.version
    );
    let transaction = blake3::hash(transaction.as_bytes()).to_hex();
    let content = file.sha256.trim_start_matches("sha256:");
    let content = content.get(..16).unwrap_or(content);
    let mut parts = folder(commit.schema.partition_by(), &file.partition_values);
    parts.push(format!(
        "{stem}-{}-{content}.zstd.parquet",
        &transaction[..16]
    ));
    parts.join("/")
}

/// What tells the content of a file apart, out of the name that [`name`] made for it.
pub(crate) fn content_of(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.rsplit_once('-').map_or(name, |(_, content)| content)
}

/// The first digits of a file's SHA-256, out of the name that [`in_table`] made; none of another
/// program's file.
pub(crate) fn digits_of(name: &str) -> Option<&str> {
    let digits = content_of(name).strip_suffix(".zstd.parquet")?;
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (digits.len() == 16 && is_hex(digits)).then_some(digits)
}

pub(super) fn place(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    file: &StagedFile,
) -> Result<(), CommitError> {
    let is_there = |path: &Path| {
        path.try_exists().map_err(|source| CommitError::Write {
            path: path.to_owned(),
            source,
        })
    };
    if is_there(to)? {
        return verify(to, file);
    }
    if !is_there(from)? {
        return Err(CommitError::StagedFile {
            path: from.to_owned(),
        });
    }
    verify(from, file)?;
    match disk.link(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(CommitError::Write {
                path: to.to_owned(),
                source: error,
            })
        }
        _ => Ok(()),
    }
}

/// Reads the file once more: it was synced when it was staged, and may since have been damaged.
fn verify(path: &Path, file: &StagedFile) -> Result<(), CommitError> {
    let digest = || -> std::io::Result<String> {
        let mut content = std::fs::File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                return Ok(format!("sha256:{:x}", hasher.finalize()));
            }
            hasher.update(&buffer[..read]);
        }
    };
    let found = digest().map_err(|source| CommitError::Write {
        path: path.to_owned(),
        source,
    })?;
    if found == file.sha256 {
        Ok(())
    } else {
        Err(CommitError::StagedFile {
            path: path.to_owned(),
        })
    }
}

pub(super) fn create_folder(disk: &dyn Disk, path: &Path) -> Result<(), CommitError> {
    disk.create_dir_all(path)
        .map_err(|source| CommitError::Write {
            path: path.to_owned(),
            source,
        })
}

pub(super) fn sync(disk: &dyn Disk, path: &Path) -> Result<(), CommitError> {
    disk.sync_dir(path).map_err(|source| CommitError::Write {
        path: path.to_owned(),
        source,
    })
}
