//! Lands the published file: every good row as it is, every bad one in the dead letters.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use fx_contract::dead_letters::{DeadLetterError, DeadLetters};
use fx_contract::digest;
use fx_contract::invocation::Attempt;
use fx_contract::status::{Failure, Status};
use fx_contract::table::{self, TableError};
use serde::{Deserialize, Serialize};
use zip::ZipArchive;
use zip::result::ZipError;

use crate::schema::{self, RowError};

/// The most that the file may weigh packed and unpacked, in bytes; today it is 0.6 and 1.9 million.
const MAX_PACKED: u64 = 16 << 20;
const MAX_UNPACKED: u64 = 64 << 20;

const DATASET: &str = "raw.fx_rates";

/// The event that starts this function.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A file arrived, and lies where `path` says, below the inputs.
    FileArrival { path: PathBuf, digest: String },
}

/// The function's answer: what became of the rows.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Landed {
    pub(crate) dataset: &'static str,
    pub(crate) rows: u64,
    pub(crate) dead_letters: u64,
}

/// The file could not be landed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LandingError {
    #[error("this stage is started by the arrival of a file, and the invocation names none")]
    NoEvent,
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the file has the digest {found}, the event names {announced}")]
    Digest { found: String, announced: String },
    #[error("the file is {bytes} bytes, more than the {MAX_PACKED} that are taken")]
    TooLarge { bytes: u64 },
    #[error("the file is not a readable zip archive")]
    Archive(#[source] ZipError),
    #[error("the archive holds {count} files where one is expected")]
    Entries { count: usize },
    #[error("the archive unpacks to more than the {MAX_UNPACKED} bytes that are taken")]
    Bomb,
    #[error("the file's header is not the schema's: expected Date and {} currencies", schema::CURRENCIES.len())]
    Header,
    #[error("the archive breaks off")]
    Unpack(#[source] csv::Error),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
}

impl Failure for LandingError {
    fn status(&self) -> Status {
        match self {
            Self::NoEvent => Status::Config,
            Self::Read { .. } => Status::IoErr,
            Self::Table(error) => error.status(),
            Self::DeadLetter(error) => error.status(),
            _ => Status::DataErr,
        }
    }
}

/// Lands the file that the event names, in the attempt's output folder.
///
/// The file is held against the event's digest first: what is landed is what arrived.
pub(crate) fn land(attempt: &Attempt, event: Option<&Event>) -> Result<Landed, LandingError> {
    let Some(Event::FileArrival { path, digest }) = event else {
        return Err(LandingError::NoEvent);
    };
    let file = verified(&attempt.input_dir.join(path), digest)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(LandingError::Archive)?;
    if archive.len() != 1 {
        return Err(LandingError::Entries {
            count: archive.len(),
        });
    }
    let entry = archive.by_index(0).map_err(LandingError::Archive)?;
    let (rows, dead_letters) = land_rows(entry, &attempt.output_dir)?;
    Ok(Landed {
        dataset: DATASET,
        rows,
        dead_letters,
    })
}

fn verified(path: &Path, announced: &str) -> Result<File, LandingError> {
    let failed = |source| LandingError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > MAX_PACKED {
        return Err(LandingError::TooLarge { bytes });
    }
    let found = digest::of_reader(&file).map_err(failed)?;
    if found != announced {
        return Err(LandingError::Digest {
            found,
            announced: announced.to_owned(),
        });
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

fn land_rows(entry: impl Read, output_dir: &Path) -> Result<(u64, u64), LandingError> {
    // One byte more than is taken, so that reaching it tells a bomb from a file that just fits.
    let bounded = entry.take(MAX_UNPACKED + 1);
    // The publisher quotes nothing. With quoting on, one stray quote would swallow the lines after it.
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .quoting(false)
        .from_reader(bounded);
    if !schema::is_header(reader.byte_headers().map_err(LandingError::Unpack)?) {
        return Err(LandingError::Header);
    }
    let header: Vec<&str> = std::iter::once("date").chain(schema::CURRENCIES).collect();
    let mut landed = table::create(output_dir, DATASET, &header)?;
    let mut dead = DeadLetters::new(output_dir, DATASET, &schema::description());
    let mut dates = HashSet::new();
    let mut row = csv::ByteRecord::new();
    while reader
        .read_byte_record(&mut row)
        .map_err(LandingError::Unpack)?
    {
        let checked = schema::check(&row).and_then(|fields| {
            let fresh = dates.insert(fields[0].to_owned());
            fresh.then_some(fields).ok_or_else(|| RowError::Repeated {
                text: String::from_utf8_lossy(&row[0]).into_owned(),
            })
        });
        match checked {
            Ok(fields) => landed.write(fields)?,
            Err(reason) => dead.put(&line(&row), &reason.to_string())?,
        }
    }
    if reader.get_ref().limit() == 0 {
        return Err(LandingError::Bomb);
    }
    Ok((landed.finish()?, dead.finish()?))
}

/// The row as a line of the file, with a mark in place of bytes that are not UTF-8.
fn line(row: &csv::ByteRecord) -> String {
    let fields: Vec<_> = row.iter().map(String::from_utf8_lossy).collect();
    fields.join(",")
}

#[cfg(test)]
mod tests;
