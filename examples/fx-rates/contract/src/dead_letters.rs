//! Where records go that are wrong, so that the good ones can go on.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::digest;
use crate::status::{Failure, Status};

/// How much of a bad record is kept, in bytes: enough to find it in its source.
const MAX_RECORD: usize = 4096;

/// A dead letter could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct DeadLetterError {
    path: PathBuf,
    source: io::Error,
}

impl Failure for DeadLetterError {
    fn status(&self) -> Status {
        Status::IoErr
    }
}

#[derive(Serialize)]
struct DeadLetter<'a> {
    record: &'a str,
    error: &'a str,
    schema_hash: &'a str,
}

/// The dead letters of one attempt, in JSON Lines; the file appears with the first of them.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    schema_hash: String,
    file: Option<BufWriter<File>>,
    count: u64,
}

impl DeadLetters {
    /// Dead letters of `dataset`, whose records were held against `schema`, a text of any form.
    #[must_use]
    pub fn new(output_dir: &Path, dataset: &str, schema: &str) -> Self {
        Self {
            path: output_dir
                .join("_dead_letters")
                .join(format!("{dataset}.jsonl")),
            schema_hash: digest::of_text(schema),
            file: None,
            count: 0,
        }
    }

    /// Puts a record aside, cut to its first 4096 bytes, with what is wrong with it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(&mut self, record: &str, error: &str) -> Result<(), DeadLetterError> {
        let record = &record[..record.floor_char_boundary(MAX_RECORD)];
        let letter = DeadLetter {
            record,
            error,
            schema_hash: &self.schema_hash,
        };
        serde_json::to_vec(&letter)
            .map_err(io::Error::from)
            .and_then(|line| self.append(line))
            .map_err(|source| DeadLetterError {
                path: self.path.clone(),
                source,
            })?;
        self.count += 1;
        Ok(())
    }

    fn append(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        match &mut self.file {
            Some(file) => file.write_all(&line),
            None => {
                if let Some(folder) = self.path.parent() {
                    fs::create_dir_all(folder)?;
                }
                let file = self.file.insert(BufWriter::new(File::create(&self.path)?));
                file.write_all(&line)
            }
        }
    }

    /// Writes what is still in memory and answers with the number of dead letters.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self) -> Result<u64, DeadLetterError> {
        let Self {
            path, file, count, ..
        } = self;
        if let Some(mut file) = file {
            file.flush()
                .map_err(|source| DeadLetterError { path, source })?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_long_record_is_cut_between_characters_and_no_letter_means_no_file()
    -> Result<(), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        assert_eq!(DeadLetters::new(folder.path(), "none", "").finish()?, 0);
        assert!(!folder.path().join("_dead_letters").exists());

        let mut letters = DeadLetters::new(folder.path(), "some", "a,b");
        letters.put(&"€".repeat(MAX_RECORD), "too long")?;
        assert_eq!(letters.finish()?, 1);
        let text = fs::read_to_string(folder.path().join("_dead_letters/some.jsonl"))?;
        let letter: serde_json::Value = serde_json::from_str(&text)?;
        assert_eq!(
            letter["record"].as_str().map(str::len),
            Some(MAX_RECORD / 3 * 3)
        );
        assert_eq!(letter["error"], "too long");
        assert_eq!(letter["schema_hash"], digest::of_text("a,b"));
        Ok(())
    }
}
