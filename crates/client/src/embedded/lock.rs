//! The lock file beside the manifest.

use std::{fs::Permissions, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use barecount_model::{
    diagnostic,
    lock::{FILE_NAME, Lock},
    pipeline::Pipeline,
};

use crate::failure::{Failure, Status};

/// No lock file needs to be larger; more is not even read.
const MAX_BYTES: u64 = 4 << 20;

/// Reads the lock file in a pipeline's folder; `None` if there is none.
pub(crate) fn read(folder: &Path) -> Result<Option<Lock>, Failure> {
    let path = folder.join(FILE_NAME);
    let unreadable = |error: std::io::Error| {
        Failure::new(
            Status::Usage,
            format!("the lock file {} cannot be read", path.display()),
        )
        .because(&error)
        .with_code("BC0501")
    };
    let bytes = match crate::manifest::read_bounded(&path, MAX_BYTES) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(unreadable)?,
    };
    Lock::parse(&path.display().to_string(), &bytes)
        .map(Some)
        .map_err(|diagnostics| {
            let text = diagnostic::render(&diagnostics, &String::from_utf8_lossy(&bytes));
            Failure::new(Status::Usage, format!("the lock file is not valid\n{text}"))
                .with_code("BC0501")
                .with_help("Run `barecount build` to write it anew.")
        })
}

/// Whether the lock file in a pipeline's folder is this lock, however it is written.
pub(crate) fn is(folder: &Path, lock: &Lock) -> bool {
    let bytes = crate::manifest::read_bounded(&folder.join(FILE_NAME), MAX_BYTES);
    let as_written = bytes.is_ok_and(|bytes| bytes == lock.to_json().as_bytes());
    as_written || read(folder).ok().flatten().as_ref() == Some(lock)
}

/// Refuses a lock that does not pin everything that a pipeline names.
pub(crate) fn complete(lock: &Lock, pipeline: &Pipeline) -> Result<(), Failure> {
    let missing = lock.missing(pipeline);
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let more = match missing.len() {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    let what = format!(
        "the lock file does not pin {} `{}` of stage `{}`{more}",
        first.kind.as_str(),
        first.name,
        first.stage
    );
    Err(Failure::new(Status::Usage, what)
        .with_code("BC0502")
        .with_help("Run `barecount build` on the manifest, and keep the lock file beside it."))
}

/// Writes the lock file if it would change, whole or not at all. True if it did.
pub(crate) fn write(folder: &Path, lock: &Lock) -> Result<bool, Failure> {
    let path = folder.join(FILE_NAME);
    let text = lock.to_json();
    let found = crate::manifest::read_bounded(&path, MAX_BYTES);
    if found.is_ok_and(|found| found == text.as_bytes()) {
        return Ok(false);
    }
    // The folder may be one that others write to as well: the name is nobody's to foresee, and nothing
    // that is there already is followed or opened.
    let written = tempfile::Builder::new()
        .prefix(&format!(".{FILE_NAME}."))
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .and_then(|mut temporary| {
            temporary.write_all(text.as_bytes())?;
            temporary.persist(&path).map_err(|error| error.error)
        });
    written.map(|_| true).map_err(|error| {
        let what = format!("the lock file {} cannot be written", path.display());
        Failure::new(Status::Usage, what)
            .because(&error)
            .with_code("BC0501")
            .with_help("Make the manifest's folder writable, or build where it is.")
    })
}
