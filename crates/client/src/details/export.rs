//! The records beside an exported log, each in a file that is called by its digest.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use barecount_dataset::disk::{Disk, LocalDisk};
use barecount_ledger::storage::DirBlobs;
use barecount_model::digest::Digest;

use super::{AttemptEntry, read_record, rules_named};
use crate::{
    failure::{Failure, Status, chain},
    log::each_entry,
    rules,
};

/// What records are in, beside a log.
pub struct Folder;

impl Folder {
    /// What it is called.
    pub const NAME: &str = "details";
    /// What its files end in: they hold a JSON object a line.
    const ENDING: &str = ".json";

    /// What the record of a digest is called.
    fn file(digest: Digest) -> String {
        format!("{}{}", digest.hex(), Self::ENDING)
    }

    /// The digest that a record is called by, if it is one.
    pub(super) fn digest(name: &str) -> Option<Digest> {
        let digits = name.strip_suffix(Self::ENDING)?;
        format!("sha256:{digits}").parse().ok()
    }

    /// What is in that folder of an export, if the export has one.
    pub(super) fn list(
        export: &Path,
    ) -> io::Result<impl Iterator<Item = io::Result<(String, PathBuf)>>> {
        let entries = match fs::read_dir(export.join(Self::NAME)) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let named = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.path())
        };
        Ok(entries
            .into_iter()
            .flatten()
            .map(move |entry| entry.map(named)))
    }
}

/// What was handed out.
#[derive(Debug, Default)]
pub struct Exported {
    /// Records written.
    pub written: u64,
    /// Why records that entries name were not: they are not the ones that were signed.
    pub left_out: Vec<String>,
}

/// Writes every record that the entries of a log of this size name, and that is the one they name,
/// beside the log that was exported to `export`.
///
/// # Errors
/// If the log cannot be read, or the records not be written; the log stays as it is exported.
pub fn write(
    state: &Path,
    blobs: &DirBlobs,
    size: u64,
    export: &Path,
) -> Result<Exported, Failure> {
    let failed = |error: io::Error| {
        let what = "the records beside the ledger could not be exported";
        Failure::new(Status::Failed, what)
            .because(&error)
            .with_help("The ledger itself is exported; remove it and export again for both.")
    };
    let mut exported = Exported::default();
    // Beside the export, where dying leaves a folder that begins with a dot and can be deleted; the
    // export then lacks its records and verifies, as one without them.
    let name = export.file_name().unwrap_or_default().to_string_lossy();
    let above = match export.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let making = tempfile::Builder::new()
        .prefix(&format!(".{name}.{}.", Folder::NAME))
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir_in(above)
        .map_err(failed)?;
    let disk = LocalDisk::default();
    each_entry(blobs, size, |index, bytes| {
        let entry = AttemptEntry::parse(index, bytes).unwrap_or_else(|error| {
            let what = format!("entry {index} cannot be understood: {error}");
            exported.left_out.push(what);
            None
        });
        let records = entry.iter().flat_map(AttemptEntry::records);
        let records = records.map(|named| (named.digest, named.path(state)));
        let rules = rules_named(bytes).into_iter();
        let rules = rules.map(|digest| (digest, rules::path(state, digest)));
        for (digest, path) in records.chain(rules) {
            let to = making.path().join(Folder::file(digest));
            match read_record(&path, digest) {
                // Two attempts may have left the same record.
                Ok(_) if to.exists() => {}
                Ok(record) => {
                    disk.replace(&to, &record).map_err(failed)?;
                    exported.written += 1;
                }
                Err(error) => exported
                    .left_out
                    .push(format!("entry {index}: {}", chain(&error))),
            }
        }
        Ok(())
    })?;
    if exported.written > 0 {
        fs::rename(making.path(), export.join(Folder::NAME))
            .and_then(|()| disk.sync_dir(export))
            .map_err(failed)?;
        // Renamed away: there is nothing left for the guard to delete.
        drop(making.keep());
    }
    Ok(exported)
}
