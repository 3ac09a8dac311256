//! How attempts ended, in one journal, for the process after this one.
//!
//! A record must not outlive what it vouches for. Outputs are synced only when they are committed,
//! so after a crash of the *host* a record could tell of a success whose files are cut short.
//! Therefore a record names the boot it was written in and counts for nothing in another, and for
//! the same reason needs no sync of its own: within one boot the kernel keeps both.
//!
//! A journal and not a file each: a record is on the way of every invocation, and one write costs
//! a tenth of making, filling and renaming a file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    Handle,
    launch::{AttemptToken, Ended},
};

/// Beyond this many bytes the journal is written anew with what still counts.
const LONG: u64 = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct Records {
    boot: Arc<str>,
    journal: Arc<Mutex<Journal>>,
}

#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// As long as it may get before it is written anew.
    limit: u64,
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
struct Line<E> {
    boot: String,
    token: AttemptToken,
    /// Absent once the attempt has been destroyed.
    end: Option<E>,
}

#[derive(Serialize)]
struct Written<'a> {
    native: &'a str,
    ended: &'a Ended,
}

#[derive(Serialize, Deserialize)]
struct Found {
    native: String,
    ended: Ended,
}

type Ends = BTreeMap<AttemptToken, Found>;

impl Records {
    /// Opens the journal below `state` and reads what is in it. What is not of this boot, or
    /// belongs to attempts that were destroyed, is left out from now on.
    pub(super) fn open(state: &Path) -> io::Result<(Self, Vec<(Handle, Ended)>)> {
        fs_err::create_dir_all(state)?;
        let path = state.join("ends.jsonl");
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot: Arc<str> = boot.trim().into();
        let ends = read(&path, &boot)?;
        let journal = Journal::begin(path, &boot, &ends)?;
        let records = Self {
            boot,
            journal: Arc::new(Mutex::new(journal)),
        };
        let ended = ends.into_iter().map(|(token, Found { native, ended })| {
            let handle = Handle { token, native };
            (handle, ended)
        });
        Ok((records, ended.collect()))
    }

    /// Writes a record. A host that cannot (a full disk) loses the knowledge, not the attempt:
    /// whoever waits hears of the end, a later process finds it gone.
    ///
    /// Written in place, as is removing it: some microseconds, less than it takes to have it done
    /// where work may block.
    pub(super) fn write(&self, token: &AttemptToken, native: &str, ended: &Ended) {
        if let Err(error) = self.append(token, Some(Written { native, ended })) {
            tracing::warn!(%token, %error, "the end of an attempt could not be recorded");
        }
    }

    /// Takes the record back, if there is one.
    pub(super) fn remove(&self, token: &AttemptToken) {
        if let Err(error) = self.append(token, None) {
            tracing::warn!(%token, %error, "the record of an attempt could not be removed");
        }
    }

    fn append(&self, token: &AttemptToken, end: Option<Written<'_>>) -> io::Result<()> {
        let line = line(&self.boot, token, end)?;
        // Whoever panicked wrote a line or did not.
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.append(&line)?;
        if journal.bytes > journal.limit {
            let ends = read(&journal.path, &self.boot)?;
            *journal = Journal::begin(journal.path.clone(), &self.boot, &ends)?;
        }
        Ok(())
    }
}

impl Journal {
    /// A journal of these ends. A reader sees it whole, or the one before: it appears by a rename.
    fn begin(path: PathBuf, boot: &str, ends: &Ends) -> io::Result<Self> {
        let draft = path.with_extension("draft");
        let mut bytes = Vec::new();
        for (token, end) in ends {
            bytes.extend(line(boot, token, Some(end))?);
        }
        let mut file = fs_err::File::create(&draft)?.into_file();
        file.write_all(&bytes)?;
        fs_err::rename(&draft, &path)?;
        let bytes = bytes.len() as u64;
        Ok(Self {
            path,
            file,
            bytes,
            limit: LONG.max(2 * bytes),
        })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        match self.file.write_all(line) {
            Ok(()) => {
                self.bytes += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line would spoil the next one.
                self.file.set_len(self.bytes)?;
                io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.bytes))?;
                Err(error)
            }
        }
    }
}

fn line<E: Serialize>(boot: &str, token: &AttemptToken, end: Option<E>) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line {
        boot: boot.to_owned(),
        token: token.clone(),
        end,
    })?;
    line.push(b'\n');
    Ok(line)
}

/// The ends in a journal that count. A line that is none was being written when its process died:
/// nobody has heard of that end.
fn read(path: &Path, boot: &str) -> io::Result<Ends> {
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ends::new()),
        Err(error) => return Err(error),
    };
    let mut ends = Ends::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(Line::<Found> {
            boot: written,
            token,
            end,
        }) = serde_json::from_slice(line)
        else {
            continue;
        };
        match end {
            Some(end) if written == boot => ends.insert(token, end),
            _ => ends.remove(&token),
        };
    }
    Ok(ends)
}

/// Runs file system work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use barecount_model::id::TaskId;

    use super::*;
    use crate::local::never_begun;

    fn token(number: u32) -> AttemptToken {
        AttemptToken {
            task: TaskId::from_bytes([1; 16]),
            number,
        }
    }

    fn found(state: &Path) -> io::Result<Vec<u32>> {
        let (_, ended) = Records::open(state)?;
        Ok(ended
            .iter()
            .map(|(handle, _)| handle.token.number)
            .collect())
    }

    #[test]
    fn what_was_recorded_and_not_taken_back_is_found_and_half_a_line_is_not() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (records, _) = Records::open(folder.path())?;
        for number in 1..=3 {
            records.write(&token(number), "native", &never_begun());
        }
        records.remove(&token(2));
        assert_eq!(found(folder.path())?, [1, 3]);
        let path = folder.path().join("ends.jsonl");
        let whole = fs_err::read(&path)?;
        fs_err::write(&path, &whole[..whole.len() - 7])?;
        assert_eq!(found(folder.path())?, [1]);
        Ok(())
    }

    #[test]
    fn what_another_boot_recorded_counts_for_nothing() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let line = line(
            "another",
            &token(1),
            Some(Written {
                native: "native",
                ended: &never_begun(),
            }),
        )?;
        fs_err::write(folder.path().join("ends.jsonl"), line)?;
        assert!(found(folder.path())?.is_empty());
        Ok(())
    }

    #[test]
    fn a_long_journal_is_written_anew_with_what_still_counts() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (records, _) = Records::open(folder.path())?;
        records.write(&token(1), "native", &never_begun());
        let mut ended = never_begun();
        ended.enforcement = serde_json::Value::String("x".repeat(1 << 20));
        for number in 2..2 + 2 * (LONG >> 20) as u32 {
            records.write(&token(number), "native", &ended);
            records.remove(&token(number));
        }
        let length = fs_err::metadata(folder.path().join("ends.jsonl"))?.len();
        assert!(length <= LONG + (2 << 20), "{length}");
        assert_eq!(found(folder.path())?, [1]);
        Ok(())
    }
}
