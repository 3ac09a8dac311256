//! Records that an attempt's work or its staging set aside: all of them in a file, and in memory
//! what they are grouped by.
//!
//! The file is written in the attempt's own folder and moved beside its log once it is whole and
//! durable, before the attempt's end is told. So it is there when a group of its records is on
//! record; a process that dies before leaves nothing under its name, or the file of an attempt that
//! is carried out again and replaces it.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use barecount_api::{assignment::SetAside, letter::Letter};
use barecount_model::{
    digest::{Digest, Digesting},
    untrusted::{Label, Reason, Untrusted},
};
use barecount_secrets::Redactor;

use crate::{files::HostFiles, places};

/// Groups that are told apart; what comes after them is grouped by dataset alone.
const MAX_GROUPS: usize = 1_000;
/// What those are told to have in common.
const OTHER_REASONS: &str = "other reasons";

/// More was set aside than there is room for.
#[derive(Debug, thiserror::Error)]
#[error("they take more than the {limit} bytes of the stage's own disk")]
pub struct LettersFull {
    /// The room, in bytes.
    pub limit: u64,
}

/// What of an attempt's letters is told with its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeptLetters {
    /// What they are grouped by, in the order of the first of each.
    pub(crate) groups: Vec<SetAside>,
    /// How many there are.
    pub(crate) count: u64,
    /// The size of the file in bytes.
    pub(crate) bytes: u64,
    /// Its digest; none where nothing was set aside.
    pub(crate) digest: Option<Digest>,
}

/// Takes the letters of one attempt. Cheap to clone; clones write into the same file.
#[derive(Clone)]
pub struct Letters(Arc<Mutex<Writer>>);

struct Writer {
    path: PathBuf,
    limit: u64,
    redactor: Option<Redactor>,
    /// Made with the first letter.
    file: Option<BufWriter<File>>,
    digesting: Digesting,
    kept: KeptLetters,
    places: HashMap<(Option<Label>, Reason), usize>,
}

impl Letters {
    /// Letters are written to `path`, of at most `limit` bytes together, without what `redactor`
    /// finds in them.
    pub(crate) fn new(path: PathBuf, limit: u64, redactor: Option<Redactor>) -> Self {
        Self(Arc::new(Mutex::new(Writer {
            path,
            limit,
            redactor,
            file: None,
            digesting: Digesting::default(),
            kept: KeptLetters::default(),
            places: HashMap::new(),
        })))
    }

    /// Letters that are written to `path`, for tests of whoever sets records aside.
    pub fn in_file(path: PathBuf, limit: u64) -> Self {
        Self::new(path, limit, None)
    }

    /// Keeps a letter. Blocks on the disk.
    ///
    /// # Errors
    /// [`LettersFull`], inside of an [`io::Error`], if there is no more room, and any error of the
    /// file system. What was kept until then stays kept.
    pub fn keep(&self, letter: Letter) -> io::Result<()> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.keep(letter)
    }

    /// How many of the letters so far are meant for a dataset.
    pub fn count_for(&self, dataset: &str) -> u64 {
        let writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = writer.kept.groups.iter();
        let of_dataset =
            groups.filter(|group| group.dataset.as_ref().map(Label::raw) == Some(dataset));
        of_dataset.map(|group| group.count).sum()
    }

    /// How many groups there are so far.
    pub fn group_count(&self) -> usize {
        let writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.kept.groups.len()
    }

    /// Makes the file whole and durable under its name `record`. Blocks on the disk.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn finish(self, record: &Path) -> io::Result<KeptLetters> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = std::mem::take(&mut writer.kept);
        let Some(file) = writer.file.take() else {
            return Ok(kept);
        };
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        places::put_record(&HostFiles, &writer.path, record)?;
        let digest = std::mem::take(&mut writer.digesting).finish();
        kept.digest = Some(digest);
        for group in &mut kept.groups {
            group.digest = Some(digest.to_string());
        }
        Ok(kept)
    }
}

impl Writer {
    fn keep(&mut self, mut letter: Letter) -> io::Result<()> {
        if let Some(redactor) = &self.redactor {
            redact(redactor, &mut letter);
        }
        let group = (letter.dataset.clone(), letter.reason.clone());
        if self.kept.groups.len() >= MAX_GROUPS && !self.places.contains_key(&group) {
            letter.reason = OTHER_REASONS.into();
        }
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        let bytes = self.kept.bytes + line.len() as u64;
        if bytes > self.limit {
            let limit = self.limit;
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                LettersFull { limit },
            ));
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(BufWriter::new(File::create(&self.path)?)),
        };
        file.write_all(&line)?;
        self.digesting.update(&line);
        self.kept.bytes = bytes;
        self.kept.count += 1;
        self.group(letter);
        Ok(())
    }

    fn group(&mut self, letter: Letter) {
        let key = (letter.dataset.clone(), letter.reason.clone());
        let groups = &mut self.kept.groups;
        match self.places.get(&key) {
            Some(place) => groups[*place].count += 1,
            None => {
                groups.push(SetAside {
                    dataset: letter.dataset,
                    reason: letter.reason,
                    record: letter.record,
                    error: letter.error,
                    schema_hash: letter.schema_hash,
                    count: 1,
                    digest: None,
                });
                self.places.insert(key, groups.len() - 1);
            }
        }
    }
}

fn redact(redactor: &Redactor, letter: &mut Letter) {
    fn hide<const MAX: usize>(redactor: &Redactor, text: &mut Untrusted<MAX>) {
        *text = redactor.redact_excerpt(text.raw()).into();
    }
    let Letter {
        dataset,
        reason,
        error,
        record,
        schema_hash,
    } = letter;
    hide(redactor, reason);
    hide(redactor, error);
    hide(redactor, record);
    for name in [dataset, schema_hash].into_iter().flatten() {
        hide(redactor, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(number: u32, reason: &str) -> Letter {
        Letter {
            dataset: Some("raw.rows".into()),
            reason: reason.into(),
            error: format!("{reason}, found {number}").into(),
            record: number.to_string().into(),
            schema_hash: None,
        }
    }

    #[test]
    fn every_letter_is_in_the_file_and_a_group_has_the_first_of_its_reason() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let letters = Letters::in_file(folder.path().join("open"), 1 << 20);
        for number in 0..3_000 {
            let reason = if number % 3 == 0 { "three" } else { "any" };
            letters.keep(letter(number, reason))?;
        }
        assert_eq!(letters.count_for("raw.rows"), 3_000);
        let record = folder.path().join("kept");
        let kept = letters.finish(&record)?;
        let text = std::fs::read(&record)?;
        assert_eq!(kept.digest, Some(Digest::of(&text)));
        assert_eq!(kept.bytes, text.len() as u64);
        let lines = text.split(|byte| *byte == b'\n');
        assert_eq!(lines.filter(|line| !line.is_empty()).count(), 3_000);
        let told: Vec<_> = kept
            .groups
            .iter()
            .map(|group| (group.reason.raw(), group.count, group.record.raw()))
            .collect();
        assert_eq!(told, [("three", 1_000, "0"), ("any", 2_000, "1")]);
        Ok(())
    }

    #[test]
    fn reasons_beyond_those_told_apart_are_counted_together() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let letters = Letters::in_file(folder.path().join("open"), 1 << 20);
        for number in 0..1_500 {
            letters.keep(letter(number, &format!("reason {number}")))?;
        }
        let kept = letters.finish(&folder.path().join("kept"))?;
        assert_eq!(kept.groups.len(), MAX_GROUPS + 1);
        let last = kept
            .groups
            .last()
            .map(|group| (group.reason.raw(), group.count));
        assert_eq!(last, Some((OTHER_REASONS, 500)));
        Ok(())
    }

    #[test]
    fn what_does_not_fit_on_the_disk_is_an_error_and_nothing_is_dropped() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let letters = Letters::in_file(folder.path().join("open"), 200);
        letters.keep(letter(1, "any"))?;
        letters.keep(letter(2, "any"))?;
        let error = letters.keep(letter(3, "any")).map_err(|error| {
            let full = error
                .get_ref()
                .is_some_and(|inner| inner.is::<LettersFull>());
            (full, error.kind())
        });
        assert_eq!(error, Err((true, io::ErrorKind::StorageFull)));
        assert_eq!(letters.finish(&folder.path().join("kept"))?.count, 2);
        Ok(())
    }
}
