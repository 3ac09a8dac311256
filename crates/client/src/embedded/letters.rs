//! Records that do not fit: those that staging refuses, and those that work set aside itself.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read},
    ops::ControlFlow,
    path::Path,
};

use barecount_agent::{DataError, Letters, LettersFull, StagingWatch};
use barecount_api::letter::Letter;
use barecount_dataset::{
    dead_letter::BadRecord,
    input::InputFolder,
    stage::{Limits, StageError, StageObserver},
};
use barecount_model::{
    codes,
    pipeline::Output,
    untrusted::{Label, Reason},
};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::chain;

/// One line of an attempt's own dead letters.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Watches the staging of one output: tells the agent how far it is, ends it when the agent says so,
/// and keeps what it refuses.
pub(super) struct Watched {
    dataset: Label,
    watch: StagingWatch,
    letters: Letters,
}

impl Watched {
    pub(super) fn new(output: &Output, watch: &StagingWatch, letters: &Letters) -> Self {
        Self {
            dataset: output.dataset.as_str().into(),
            watch: watch.clone(),
            letters: letters.clone(),
        }
    }
}

impl StageObserver for Watched {
    fn advanced(&self, rows: u64, bytes: u64) -> ControlFlow<()> {
        self.watch.advanced(rows, bytes);
        if self.watch.is_stopped() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn set_aside(&self, record: BadRecord) -> io::Result<()> {
        let BadRecord {
            record,
            reason,
            error,
            schema_hash,
            file,
            line,
        } = record;
        self.letters.keep(Letter {
            dataset: Some(self.dataset.clone()),
            reason: reason.into(),
            error: format!("{error} ({file}, line {line})").into(),
            record,
            schema_hash: Some(schema_hash.into()),
        })
    }
}

/// Holds the letters that are meant for an output against the limits that it declares.
pub(super) fn hold(output: &Output, letters: &Letters, good: u64) -> Result<(), DataError> {
    let bad = letters.count_for(output.dataset.as_str());
    let held = output.dead_letters.hold(bad, good);
    held.map_err(|error| DataError::Data {
        code: codes::TOO_MANY_DEAD_LETTERS.id,
        message: format!("output {}: {error}", output.dataset),
    })
}

/// What a failed staging is: the data's fault or this host's.
pub(super) fn stage_error(output: &Output, error: &StageError) -> DataError {
    if let StageError::Unkept { source } = error {
        return unkept(source);
    }
    let message = format!("output {}: {}", output.dataset, chain(error));
    if error.is_data_fault() {
        DataError::Data {
            code: codes::OUTPUT_NOT_AS_DECLARED.id,
            message,
        }
    } else {
        DataError::Host {
            code: codes::STAGING_FAILED.id,
            message,
        }
    }
}

/// Why a letter cannot be kept: there are too many for the stage's disk, or ours has failed.
fn unkept(error: &io::Error) -> DataError {
    match error.get_ref().filter(|inner| inner.is::<LettersFull>()) {
        Some(full) => DataError::Data {
            code: codes::TOO_MANY_DEAD_LETTERS.id,
            message: format!("not all records that do not fit can be kept: {full}"),
        },
        None => DataError::Host {
            code: codes::STAGING_FAILED.id,
            message: format!("records that do not fit cannot be kept: {error}"),
        },
    }
}

/// A record that an attempt set aside itself, by the task contract.
#[derive(Deserialize)]
struct OwnLetter {
    record: Value,
    error: Reason,
    #[serde(default)]
    dataset: Option<Label>,
    #[serde(default)]
    schema_hash: Option<Label>,
}

/// Keeps all records that an attempt set aside itself in a folder, which need not be there, by the
/// datasets that its stage has `declared`. Blocks.
pub(super) fn take_own(
    folder: &Path,
    declared: &BTreeSet<String>,
    letters: &Letters,
) -> Result<(), DataError> {
    if !folder.is_dir() {
        return Ok(());
    }
    let bad = |message: String| DataError::Work {
        code: codes::DEAD_LETTERS_UNREADABLE.id,
        message,
    };
    let unreadable = |error: &(dyn std::error::Error + 'static)| {
        bad(format!("the dead letters cannot be read: {}", chain(error))).unless_of_host(error)
    };
    let limits = Limits {
        max_files: 1_000,
        ..Limits::default()
    };
    let opened = InputFolder::open(folder).map_err(|error| unreadable(&error))?;
    for file in opened.files(&limits).map_err(|error| unreadable(&error))? {
        let content = opened
            .open_file(&file)
            .map_err(|error| unreadable(&error))?;
        let mut lines = BufReader::new(content);
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            let read = lines
                .by_ref()
                .take(MAX_LINE_BYTES + 1)
                .read_until(b'\n', &mut line);
            if read.map_err(|error| unreadable(&error))? == 0 {
                break;
            }
            number += 1;
            if line.strip_suffix(b"\n").unwrap_or(&line).len() as u64 > MAX_LINE_BYTES {
                return Err(bad(format!(
                    "dead letter {number} in {} is longer than {} MiB, which is the most that is read \
                     of one",
                    file.path,
                    MAX_LINE_BYTES >> 20
                )));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let letter: OwnLetter = serde_json::from_slice(&line)
                .map_err(|error| bad(format!("dead letter {number} in {}: {error}", file.path)))?;
            letters
                .keep(own_letter(letter, declared))
                .map_err(|error| unkept(&error))?;
        }
    }
    Ok(())
}

fn own_letter(letter: OwnLetter, declared: &BTreeSet<String>) -> Letter {
    let record = match letter.record {
        Value::String(text) => text,
        other => other.to_string(),
    };
    // Names of the work's own making are words: by dataset, there are no more groups than outputs.
    let (dataset, error) = match letter.dataset {
        Some(name) if !declared.contains(name.raw()) => {
            let error = format!("{} (meant for `{}`)", letter.error.raw(), name.raw());
            (None, error.into())
        }
        dataset => (dataset, letter.error.clone()),
    };
    Letter {
        dataset,
        reason: letter.error,
        record: record.into(),
        error,
        schema_hash: letter.schema_hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_is_too_long_is_told_as_that() -> Result<(), Box<dyn std::error::Error>> {
        let place = tempfile::tempdir()?;
        let folder = place.path().join("own");
        std::fs::create_dir(&folder)?;
        let letters = Letters::in_file(place.path().join("open"), 64 << 20);
        let around = r#"{"record":"","error":"bad"}"#.len();
        // The longest that is taken, and one byte more; the last line need not be ended.
        let longest = 1 << 20;
        for (bytes, end, is_taken) in [
            (longest, "", true),
            (longest, "\n", true),
            (longest + 1, "", false),
            (longest + 1, "\n", false),
        ] {
            let record = "x".repeat(bytes - around);
            let lines = format!("\n\n{{\"record\":\"{record}\",\"error\":\"bad\"}}{end}");
            std::fs::write(folder.join("own.jsonl"), lines)?;
            match take_own(&folder, &BTreeSet::new(), &letters) {
                Ok(()) => assert!(is_taken, "{bytes} bytes"),
                Err(DataError::Work { message, .. }) => {
                    assert!(!is_taken, "{bytes} bytes: {message}");
                    let told = "dead letter 3 in own.jsonl is longer than 1 MiB";
                    assert!(message.starts_with(told), "{message}");
                }
                Err(other) => return Err(format!("{other:?}").into()),
            }
        }
        Ok(())
    }

    #[test]
    fn work_makes_no_group_for_each_name_that_it_thinks_of()
    -> Result<(), Box<dyn std::error::Error>> {
        let place = tempfile::tempdir()?;
        let folder = place.path().join("own");
        std::fs::create_dir(&folder)?;
        let lines: String = (0..5_000)
            .map(|n| {
                format!("{{\"record\":\"{n}\",\"error\":\"bad {n}\",\"dataset\":\"raw.n{n}\"}}\n")
            })
            .collect();
        let declared = "{\"record\":1,\"error\":\"bad\",\"dataset\":\"raw.rows\"}\n";
        std::fs::write(folder.join("own.jsonl"), lines + declared)?;
        let letters = Letters::in_file(place.path().join("open"), 64 << 20);
        take_own(&folder, &BTreeSet::from(["raw.rows".to_owned()]), &letters)?;
        assert_eq!(letters.count_for("raw.rows"), 1);
        // A thousand reasons are told apart, then those of no dataset and of the declared one.
        assert_eq!(letters.group_count(), 1_002);
        Ok(())
    }
}
