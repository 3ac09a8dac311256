//! Where the poll stands, page by page, so that another attempt goes on and takes nothing twice.
//!
//! The platform keeps what an accepted attempt saved for the next poll, and hands what an attempt
//! saved that asks to be tried again (`EX_TEMPFAIL`) to the next attempt of the same task. What an
//! attempt wrote to its outputs is swept unless it is accepted: so until then the rows of its pages
//! are in the checkpoint, beside the cursor. Three files:
//!
//! - `state.json`: the cursor, and how many bytes of the other two it covers; replaced as a whole;
//! - `orders.csv`, `dead_letters.jsonl`: what came before the cursor, appended to.
//!
//! The appended bytes come first, then the state that covers them. Dying in between leaves bytes
//! that no state covers, which the next attempt cuts off.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    schema::COLUMNS,
    status::{Failure, Status},
};

const STATE: &str = "state.json";
const ROWS: &str = "orders.csv";
const LETTERS: &str = "dead_letters.jsonl";
const DATASET: &str = "raw.erp_orders";
/// Bytes of rows and dead letters, and pages, after which one poll is enough; the next poll takes the
/// rest. With a page more it is still below what the platform takes for a checkpoint (16 MiB).
const MOST_BYTES: u64 = 8 << 20;
const MOST_PAGES: u64 = 10_000;
/// Bytes that are kept of a record that is set aside: enough to find it in its source.
const MOST_RECORD: usize = 4096;
/// Bytes of a state.
const MOST_STATE: u64 = 64 << 10;

/// Where the poll stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Orders up to here were taken; none yet if absent.
    pub(crate) cursor: Option<String>,
    /// Of this poll, what the spool has.
    #[serde(default)]
    pub(crate) spooled: Spooled,
}

/// What the spool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spooled {
    pub(crate) pages: u64,
    pub(crate) rows: u64,
    pub(crate) letters: u64,
    row_bytes: u64,
    letter_bytes: u64,
}

/// Why the checkpoint cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// A file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    File { path: PathBuf, source: io::Error },
    /// A row cannot be written as CSV.
    #[error("a row cannot be written")]
    Row(#[source] csv::Error),
    /// The state is not one of ours.
    #[error("{} is no state of this program", path.display())]
    State {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// The spool is not what the state says.
    #[error("{} is shorter than the state says", path.display())]
    Short { path: PathBuf },
}

impl Failure for CheckpointError {
    fn status(&self) -> Status {
        match self {
            Self::File { .. } | Self::Row(_) => Status::IoErr,
            Self::State { .. } | Self::Short { .. } => Status::DataErr,
        }
    }
}

/// A record that is set aside.
#[derive(Debug, Serialize)]
pub(crate) struct DeadLetter {
    record: String,
    error: String,
    schema_hash: String,
}

impl DeadLetter {
    /// The beginning of a record, with what is wrong with it by the schema of this digest.
    pub(crate) fn new(record: &serde_json::Value, error: String, schema_hash: &str) -> Self {
        let mut record = record.to_string();
        record.truncate(record.floor_char_boundary(MOST_RECORD));
        Self {
            record,
            error,
            schema_hash: schema_hash.to_owned(),
        }
    }
}

/// What a page brought.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) letters: Vec<DeadLetter>,
}

/// The checkpoint of an attempt.
pub(crate) struct Checkpoint {
    folder: PathBuf,
    state: State,
    rows: File,
    letters: File,
}

impl Checkpoint {
    /// Takes up what was saved before, if anything was.
    pub(crate) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(STATE);
        let state = match read(&path, MOST_STATE) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| CheckpointError::State { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(source) => return Err(CheckpointError::File { path, source }),
        };
        let spooled = state.spooled;
        Ok(Self {
            rows: spool(&folder.join(ROWS), spooled.row_bytes)?,
            letters: spool(&folder.join(LETTERS), spooled.letter_bytes)?,
            folder: folder.to_owned(),
            state,
        })
    }

    /// Where the poll stands.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Whether this poll has taken as much as it may.
    pub(crate) fn is_full(&self) -> bool {
        let spooled = self.state.spooled;
        spooled.row_bytes + spooled.letter_bytes >= MOST_BYTES || spooled.pages >= MOST_PAGES
    }

    /// Saves a page, and that the poll now stands at `cursor`.
    pub(crate) fn save(&mut self, taken: &Taken, cursor: String) -> Result<(), CheckpointError> {
        let (rows, letters) = (taken.rows_as_csv()?, taken.letters_as_json_lines());
        append(&mut self.rows, &rows, &self.folder.join(ROWS))?;
        append(&mut self.letters, &letters, &self.folder.join(LETTERS))?;
        let spooled = &mut self.state.spooled;
        spooled.pages += 1;
        spooled.rows += taken.rows.len() as u64;
        spooled.letters += taken.letters.len() as u64;
        spooled.row_bytes += rows.len() as u64;
        spooled.letter_bytes += letters.len() as u64;
        self.state.cursor = Some(cursor);
        self.replace_state()
    }

    /// Hands everything over as the attempt's outputs, and leaves the cursor for the next poll. If
    /// the attempt is not accepted after all, both are gone, and the poll stands where it stood.
    pub(crate) fn hand_over(mut self, output: &Path) -> Result<Spooled, CheckpointError> {
        let handed = self.state.spooled;
        let dataset = output.join(DATASET);
        let rows = read(&self.folder.join(ROWS), u64::MAX);
        let mut csv = header()?;
        csv.extend(rows.map_err(at(&self.folder.join(ROWS)))?);
        fs::create_dir_all(&dataset).map_err(at(&dataset))?;
        let path = dataset.join("part-0.csv");
        fs::write(&path, csv).map_err(at(&path))?;
        if handed.letters > 0 {
            let folder = output.join("_dead_letters");
            let path = folder.join(format!("{DATASET}.jsonl"));
            fs::create_dir_all(&folder)
                .and_then(|()| fs::copy(self.folder.join(LETTERS), &path))
                .map_err(at(&path))?;
        }
        self.state.spooled = Spooled::default();
        self.replace_state()?;
        for name in [ROWS, LETTERS] {
            let path = self.folder.join(name);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(handed)
    }

    /// The platform makes the folder durable when the attempt has ended, so nothing is synced here.
    fn replace_state(&self) -> Result<(), CheckpointError> {
        let (path, new) = (self.folder.join(STATE), self.folder.join("state.json.new"));
        let text = serde_json::to_vec(&self.state).map_err(io::Error::from);
        text.and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(at(&path))
    }
}

impl Taken {
    fn rows_as_csv(&self) -> Result<Vec<u8>, CheckpointError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in &self.rows {
            writer.write_record(row).map_err(CheckpointError::Row)?;
        }
        writer
            .into_inner()
            .map_err(|error| CheckpointError::Row(error.into_error().into()))
    }

    fn letters_as_json_lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for letter in &self.letters {
            // Three texts can always be written.
            lines.extend(serde_json::to_vec(letter).unwrap_or_default());
            lines.push(b'\n');
        }
        lines
    }
}

fn header() -> Result<Vec<u8>, CheckpointError> {
    let columns = COLUMNS.map(str::to_owned).to_vec();
    let header = Taken {
        rows: vec![columns],
        letters: Vec::new(),
    };
    header.rows_as_csv()
}

/// A file to append to, cut to what the state covers.
fn spool(path: &Path, covered: u64) -> Result<File, CheckpointError> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(at(path))?;
    if file.metadata().map_err(at(path))?.len() < covered {
        return Err(CheckpointError::Short {
            path: path.to_owned(),
        });
    }
    file.set_len(covered)
        .and_then(|()| file.seek(SeekFrom::End(0)))
        .map_err(at(path))?;
    Ok(file)
}

fn append(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), CheckpointError> {
    file.write_all(bytes).map_err(at(path))
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}

fn at(path: &Path) -> impl Fn(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
