//! What work says for itself: a function of its failure, a program at the end of its log. It may be
//! of the data, and then it goes no further than the log.

use std::{
    borrow::Cow,
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use barecount_model::{digest::Digest, manifest::Classification, plan::StagePlan};
use barecount_runner::launch::{End, LogSummary};

use crate::classify;

/// Whether what the stage's work says stays in its log. Where the plan does not know of what
/// boundary the stage is, it does.
pub(crate) fn are_kept(stage: &StagePlan) -> bool {
    let boundary = stage.boundary.as_ref();
    boundary.is_none_or(|boundary| boundary.classification > Classification::Internal)
}

/// An end as it may be told outside of the attempt's boundary. What a function said of its failure
/// goes into the attempt's log where it must not go further.
pub(crate) fn told<'e>(
    stage: &StagePlan,
    log: &Path,
    end: &'e End,
    summary: &mut LogSummary,
) -> Cow<'e, End> {
    match end {
        End::HandlerError {
            error_type,
            message,
        } if are_kept(stage) => {
            let line = format!("{}: {}\n", error_type.raw(), message.raw());
            if let Err(error) = append(log, &line, summary) {
                tracing::warn!(%error, "what a function said of its failure is lost");
            }
            Cow::Owned(classify::without_words(error_type.raw()))
        }
        end => Cow::Borrowed(end),
    }
}

/// Adds a line to a log that is complete, so that its digest is that of the whole.
fn append(log: &Path, line: &str, summary: &mut LogSummary) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(log)?;
    file.write_all(line.as_bytes())?;
    summary.bytes += line.len() as u64;
    summary.sha256 = Digest::of(&std::fs::read(log)?).hex();
    Ok(())
}

/// The end of a log, to be appended to a failure's message: mostly it says why. Empty if there is
/// none.
pub(crate) fn last(log: &Path) -> String {
    const BYTES: u64 = 4096;
    const LINES: usize = 3;
    const LENGTH: usize = 600;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let mut lines: Vec<&str> = text
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines.truncate(LINES);
    lines.reverse();
    let words = lines.join(" | ");
    if words.is_empty() {
        return words;
    }
    let from = words.ceil_char_boundary(words.len().saturating_sub(LENGTH));
    let cut = if from > 0 { "…" } else { "" };
    format!("; its last words: {cut}{}", &words[from..])
}
