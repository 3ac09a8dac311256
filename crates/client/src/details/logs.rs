//! Logs of attempts, held against what their entries have of them.
//!
//! A log is one more record beside the ledger. It is shown whatever it is: that it is not the one that
//! was signed is told beside it. Like dead letters it is of the data, and not handed out with evidence.

use std::{
    io::{self, Read},
    path::Path,
};

use barecount_model::digest::{Digest, Digesting};
use barecount_runner::launch::cut_notice;
use serde::{Deserialize, Deserializer, de};

use super::{AttemptEntry, RecordError, unreadable};
use barecount_tree::open_regular;

/// What an entry has of its attempt's log.
#[derive(Debug, Deserialize)]
pub(super) struct Facts {
    /// The digest of the file; none where no log was kept.
    #[serde(rename = "sha256", deserialize_with = "of_digits")]
    digest: Option<Digest>,
    /// Bytes printed and kept.
    bytes: u64,
    /// Bytes dropped, of which a notice in the file tells.
    dropped_bytes: u64,
}

/// What a log has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    digest: Digest,
    /// It is not longer than so many bytes.
    most: u64,
}

/// A log as it lies there.
#[derive(Debug)]
pub(crate) struct LogFile {
    /// Its beginning, or all of it.
    pub(crate) bytes: Vec<u8>,
    /// Why it is not the one that was signed, if it is not.
    pub(crate) problem: Option<RecordError>,
}

impl AttemptEntry {
    /// What the attempt's log has to be, if one was kept.
    pub(crate) fn log(&self) -> Option<Expected> {
        let facts = self.detail.log.as_ref()?;
        let notice = match facts.dropped_bytes {
            0 => 0,
            dropped => cut_notice(dropped).len() as u64,
        };
        Some(Expected {
            digest: facts.digest?,
            most: facts.bytes.saturating_add(notice),
        })
    }
}

/// Reads a log, `limit` bytes of it at most, and holds all of it against what it has to be if that is
/// known. None where there is no file and none has to be: work that printed nothing has none.
///
/// # Errors
/// If it cannot be read, and nothing is known of it.
pub(crate) fn read(
    path: &Path,
    limit: u64,
    expected: Option<Expected>,
) -> io::Result<Option<LogFile>> {
    let mut bytes = Vec::new();
    let opened = open_regular(path).and_then(|mut file| {
        file.by_ref().take(limit).read_to_end(&mut bytes)?;
        Ok(file)
    });
    let Some(Expected { digest, most }) = expected else {
        return match opened {
            Ok(_) => Ok(Some(LogFile {
                bytes,
                problem: None,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
    };
    let whole = opened.and_then(|rest| digest_of(&bytes, rest, most));
    let path = || path.to_owned();
    let problem = match whole {
        Err(error) if error.kind() == io::ErrorKind::NotFound && digest == Digest::of(b"") => {
            return Ok(None);
        }
        Err(error) => Some(unreadable(path(), digest, error)),
        Ok(Some(found)) if found == digest => None,
        Ok(Some(found)) => Some(RecordError::Changed {
            path: path(),
            expected: digest,
            found,
        }),
        Ok(None) => Some(RecordError::Longer {
            path: path(),
            expected: digest,
            most,
        }),
    };
    Ok(Some(LogFile { bytes, problem }))
}

/// The digest of a file whose beginning was read; none if it is longer than `most` bytes, which are
/// all that is read of it.
fn digest_of(beginning: &[u8], rest: impl Read, most: u64) -> io::Result<Option<Digest>> {
    let mut digesting = Digesting::default();
    digesting.update(beginning);
    let mut length = beginning.len() as u64;
    let mut rest = rest.take(most.saturating_add(1).saturating_sub(length));
    let mut buffer = vec![0; 64 << 10];
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok((length <= most).then(|| digesting.finish())),
            read => {
                digesting.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}

/// A digest as entries have that of a log: hexadecimal digits, or nothing.
fn of_digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
    let digits = String::deserialize(deserializer)?;
    if digits.is_empty() {
        return Ok(None);
    }
    let digest = format!("sha256:{digits}").parse();
    digest.map(Some).map_err(de::Error::custom)
}
