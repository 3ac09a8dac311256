//! Job files of managed ETL: pinned as they are, byte by byte.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::store::{Blob, StoreError};
use crate::{Digest, Limits, Store};

/// A job file that could not be taken or given.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// It cannot be read.
    #[error("cannot read the job {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A job is text.
    #[error("the job {name} is not UTF-8")]
    NotUtf8 {
        /// Its path, or its digest.
        name: String,
    },
    /// It cannot be stored, or is not what the lock says.
    #[error("the job cannot be taken from or into the store")]
    Store(#[from] StoreError),
}

/// Stores a job file, if it is not there yet; its digest is what the lock pins. It is durable once
/// [`Store::sync`] has returned.
///
/// # Errors
/// See [`JobError`].
pub fn put(store: &Store, path: &Path, limits: &Limits) -> Result<Blob, JobError> {
    Ok(store.keep_bytes(&read(path, limits)?)?)
}

/// What a job file would be called, if the store has it already.
///
/// # Errors
/// See [`JobError`].
pub fn find(store: &Store, path: &Path, limits: &Limits) -> Result<Option<Blob>, JobError> {
    let content = read(path, limits)?;
    let (digest, size) = (Digest::of(&content), content.len() as u64);
    Ok(store.has(&digest)?.then_some(Blob { digest, size }))
}

fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, JobError> {
    let read = |source| JobError::Read {
        path: path.to_owned(),
        source,
    };
    let limit = limits.document_bytes;
    let mut content = Vec::new();
    barecount_tree::open_regular(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut content))
        .map_err(read)?;
    if content.len() as u64 > limit {
        return Err(StoreError::TooLarge { limit }.into());
    }
    if std::str::from_utf8(&content).is_err() {
        return Err(JobError::NotUtf8 {
            name: path.display().to_string(),
        });
    }
    Ok(content)
}

/// The text of a pinned job, verified.
///
/// # Errors
/// See [`JobError`].
pub fn text(store: &Store, digest: &Digest, limits: &Limits) -> Result<String, JobError> {
    let content = store.blobs().read(digest, None, limits.document_bytes)?;
    String::from_utf8(content).map_err(|_| JobError::NotUtf8 {
        name: digest.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_pinned_byte_by_byte() -> Result<(), Box<dyn std::error::Error>> {
        let state = tempfile::tempdir()?;
        let store = Store::open(state.path())?;
        let file = state.path().join("job.sql");
        std::fs::write(&file, "SELECT 1;\r\n")?;
        assert_eq!(find(&store, &file, &Limits::default())?, None);
        let blob = put(&store, &file, &Limits::default())?;
        assert_eq!(find(&store, &file, &Limits::default())?, Some(blob));
        assert_eq!(blob.digest, Digest::of(b"SELECT 1;\r\n"));
        assert_eq!(
            text(&store, &blob.digest, &Limits::default())?,
            "SELECT 1;\r\n"
        );
        std::fs::write(&file, b"\xff")?;
        assert!(matches!(
            put(&store, &file, &Limits::default()),
            Err(JobError::NotUtf8 { .. })
        ));
        Ok(())
    }
}
