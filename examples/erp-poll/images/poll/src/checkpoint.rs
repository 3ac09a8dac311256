//! Where the poll stands, page by page, so that another attempt goes on and takes nothing twice.
//!
//! The platform keeps what an accepted attempt saved for the next poll, and hands what an attempt
//! saved that asks to be tried again (`EX_TEMPFAIL`) to the next attempt of the same task. What an
//! attempt wrote to its outputs is swept unless it is accepted: so until then the rows of its pages
//! are in the checkpoint, beside the cursor. Three files:
//!
//! - `state.json`: the cursor, the task, and how many bytes of the other two files the state covers;
//!   replaced as a whole;
//! - `orders.csv`, `dead_letters.jsonl`, the *spool*: what that task took before the cursor, appended
//!   to.
//!
//! The appended bytes come first, then the state that covers them. Dying in between leaves bytes
//! that no state covers, which the next attempt cuts off.
//!
//! Handing over changes nothing here, because whether the outputs are accepted is decided later: an
//! attempt may be stopped between the last byte of them and its answer. Who finds the checkpoint
//! tells what became of it. Another attempt of the same task: the outputs were swept, and the spool
//! has to be handed over again. Another task: they were accepted, and the spool is done with.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    bounded,
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
    /// Whose the spool is; absent in states from before this was noted, which had a spool only when
    /// they were handed on within a task.
    #[serde(default)]
    task: Option<String>,
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
    /// Takes up what was saved before for an attempt of this task, if anything was.
    pub(crate) fn open(folder: &Path, task: &str) -> Result<Self, CheckpointError> {
        let path = folder.join(STATE);
        let mut state: State = match bounded::read(&path, MOST_STATE) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| CheckpointError::State { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(source) => return Err(CheckpointError::File { path, source }),
        };
        let before = state.task.replace(task.to_owned());
        if before.is_some_and(|before| before != task) {
            // Accepted. Dying after this leaves the cursor, and bytes that the state does not cover.
            state.spooled = Spooled::default();
            replace(folder, &state)?;
        }
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
        replace(&self.folder, &self.state)
    }

    /// Hands everything over as the attempt's outputs, and keeps it: if the attempt is not accepted
    /// after all, the next one of its task finds it here, and hands it over again.
    pub(crate) fn hand_over(self, output: &Path) -> Result<Spooled, CheckpointError> {
        let handed = self.state.spooled;
        let (rows, letters) = (self.folder.join(ROWS), self.folder.join(LETTERS));
        let table = output.join(DATASET).join("part-0.csv");
        hand(&rows, handed.row_bytes, &table, &header()?)?;
        if handed.letters > 0 {
            let aside = output
                .join("_dead_letters")
                .join(format!("{DATASET}.jsonl"));
            hand(&letters, handed.letter_bytes, &aside, b"")?;
        }
        Ok(handed)
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

/// Writes a file of the outputs: its beginning, and what the state covers of a spool.
fn hand(spool: &Path, covered: u64, to: &Path, beginning: &[u8]) -> Result<(), CheckpointError> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let from = File::open(spool).map_err(at(spool))?;
    let mut file = File::create(to).map_err(at(to))?;
    file.write_all(beginning).map_err(at(to))?;
    let handed = io::copy(&mut from.take(covered), &mut file).map_err(at(to))?;
    if handed < covered {
        let path = spool.to_owned();
        return Err(CheckpointError::Short { path });
    }
    Ok(())
}

/// Replaces the state in a folder. Dying before the end leaves the one that was there. The platform
/// makes the folder durable when the attempt has ended, so nothing is synced here.
fn replace(folder: &Path, state: &State) -> Result<(), CheckpointError> {
    let (path, new) = (folder.join(STATE), folder.join("state.json.new"));
    let text = serde_json::to_vec(state).map_err(io::Error::from);
    text.and_then(|text| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(at(&path))
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
