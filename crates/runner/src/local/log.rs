//! The bounded log: a pipe that is always drained, so that work never blocks on a log that is full.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

use barecount_secrets::{RedactingStream, Redactor};
use sha2::{Digest, Sha256};
use tokio::{net::unix::pipe, sync::Mutex, task::JoinHandle};

use super::records::blocking;
use crate::launch::{Launch, LogSummary, cut_notice, tail_bytes};

const CHUNK: usize = 64 * 1024;
/// The most that a pipe holds when an ordinary user made it larger (`fs.pipe-max-size`).
const PIPE_MAX: usize = 1 << 20;

/// A process's standard output and standard error on their way into a log, or, between two
/// attempts, on their way into nothing. Dropping it stops the draining.
#[derive(Debug)]
pub(crate) struct LogPipe {
    shared: Arc<Shared>,
    drain: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    pipe: pipe::Receiver,
    intake: Mutex<Intake>,
}

#[derive(Debug)]
struct Intake {
    sink: Option<Sink>,
    chunk: Vec<u8>,
}

/// Where a log is kept, how much of it, and what must not be in it.
#[derive(Debug, Clone)]
pub(crate) struct LogTarget {
    pub(crate) path: PathBuf,
    /// Bytes that are kept at most.
    pub(crate) limit: u64,
    /// Finds the attempt's secrets.
    pub(crate) redactor: Option<Redactor>,
}

impl LogTarget {
    /// The log of a launch.
    pub(crate) fn of(launch: &Launch) -> Self {
        Self {
            path: launch.log.clone(),
            limit: launch.limits.log_bytes,
            redactor: launch
                .secrets
                .as_ref()
                .map(|secrets| secrets.redactor.clone()),
        }
    }
}

#[derive(Debug)]
struct Sink {
    /// What is printed goes through it first, so that no secret ever reaches the disk.
    redaction: Option<RedactingStream>,
    file: Place,
    /// How many more bytes the beginning of the log has room for.
    room: u64,
    /// What was printed last, once the beginning is full.
    tail: Tail,
    digest: Sha256,
    /// Bytes of what was printed that are in the file.
    kept: u64,
    /// The length of the file.
    end: u64,
    dropped: u64,
}

/// The last bytes of those that were put in.
#[derive(Debug)]
struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    /// Puts bytes in; the answer is how many fell out.
    fn push(&mut self, bytes: &[u8]) -> u64 {
        let skipped = bytes.len().saturating_sub(self.limit);
        self.bytes.extend(&bytes[skipped..]);
        let over = self.bytes.len().saturating_sub(self.limit);
        self.bytes.drain(..over);
        (skipped + over) as u64
    }
}

/// Where a log is written to. Making a file takes longer than all else that a short attempt needs
/// of its log, and many print nothing.
#[derive(Debug)]
enum Place {
    /// Nothing has been printed yet, and there is no file.
    Unwritten(PathBuf),
    Open(File),
    /// Writing has failed; everything after that is dropped.
    Lost,
}

#[derive(PartialEq)]
enum Pulled {
    Bytes(usize),
    Nothing,
    End,
}

impl LogPipe {
    /// A pipe and the end to write to, which blocks as a process expects.
    pub(crate) fn open() -> io::Result<(Self, OwnedFd)> {
        let (writer, reader) = pipe::pipe()?;
        let writer = writer.into_blocking_fd()?;
        let shared = Arc::new(Shared {
            pipe: reader,
            intake: Mutex::new(Intake {
                sink: None,
                chunk: vec![0; CHUNK],
            }),
        });
        let drain = tokio::spawn(shared.clone().drain());
        Ok((Self { shared, drain }, writer))
    }

    /// From now on, what is printed goes to a new file, but for secrets. What was printed before is
    /// dropped without a trace: it belonged to nobody.
    pub(crate) async fn attach(&self, target: LogTarget) -> io::Result<()> {
        let file = Place::new(target.path)?;
        let mut intake = self.shared.intake.lock().await;
        self.shared.catch_up(&mut intake).await;
        intake.sink = Some(Sink {
            redaction: target.redactor.as_ref().map(Redactor::stream),
            file,
            room: target.limit - tail_bytes(target.limit),
            tail: Tail {
                bytes: VecDeque::new(),
                limit: usize::try_from(tail_bytes(target.limit)).unwrap_or(usize::MAX),
            },
            digest: Sha256::new(),
            kept: 0,
            end: 0,
            dropped: 0,
        });
        Ok(())
    }

    /// Takes what has been printed up to now, and closes the log.
    pub(crate) async fn detach(&self) -> LogSummary {
        let mut intake = self.shared.intake.lock().await;
        self.shared.catch_up(&mut intake).await;
        match intake.sink.take() {
            Some(sink) => sink.close().await,
            None => LogSummary::default(),
        }
    }
}

impl Place {
    /// What an earlier try of the same launch left there is emptied.
    ///
    /// Not where work may block: a look at one name takes a microsecond, going there and back many.
    fn new(path: PathBuf) -> io::Result<Self> {
        if path.try_exists()? {
            return fs_err::File::create(path).map(|file| Self::Open(file.into_file()));
        }
        Ok(Self::Unwritten(path))
    }

    /// Writes these bytes behind the `end` bytes that there are, all of them or none.
    async fn append(&mut self, bytes: Vec<u8>, end: u64) -> io::Result<()> {
        let place = std::mem::replace(self, Self::Lost);
        let file = blocking(move || {
            let mut file = match place {
                Self::Open(file) => file,
                Self::Unwritten(path) => fs_err::File::create(path)?.into_file(),
                Self::Lost => return Err(io::Error::other("writing has failed before")),
            };
            match file.write_all(&bytes) {
                Ok(()) => Ok(file),
                Err(error) => {
                    // The digest is that of what the file holds: take back what went in.
                    file.set_len(end)?;
                    Err(error)
                }
            }
        });
        *self = Self::Open(file.await?);
        Ok(())
    }
}

impl Drop for LogPipe {
    fn drop(&mut self) {
        self.drain.abort();
    }
}

impl Shared {
    async fn drain(self: Arc<Self>) {
        while self.pipe.readable().await.is_ok() {
            let mut intake = self.intake.lock().await;
            let read = |chunk: &mut [u8]| self.pipe.try_read(chunk);
            if intake.pull(read).await == Pulled::End {
                return;
            }
        }
    }

    /// Reads what is in the pipe now. Bounded, should somebody go on printing.
    async fn catch_up(&self, intake: &mut Intake) {
        // Straight from the pipe: the runtime may not have heard yet that there is something in it.
        let read = |chunk: &mut [u8]| rustix::io::read(&self.pipe, chunk).map_err(io::Error::from);
        let mut left = PIPE_MAX;
        while left > 0 {
            match intake.pull(read).await {
                Pulled::Bytes(count) => left = left.saturating_sub(count),
                Pulled::Nothing | Pulled::End => return,
            }
        }
    }
}

impl Intake {
    async fn pull(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> Pulled {
        let Self { sink, chunk } = self;
        match read(chunk) {
            Ok(0) => Pulled::End,
            Ok(count) => {
                if let Some(sink) = sink {
                    sink.take(&chunk[..count]).await;
                }
                Pulled::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Pulled::Nothing,
            Err(_) => Pulled::End,
        }
    }
}

impl Sink {
    /// Takes what was printed. What may still become part of a secret waits for what comes next.
    async fn take(&mut self, bytes: &[u8]) {
        match &mut self.redaction {
            Some(redaction) => {
                let redacted = redaction.push(bytes).into_owned();
                self.keep(&redacted).await;
            }
            None => self.keep(bytes).await,
        }
    }

    /// Keeps the beginning on disk and the end in memory, and counts what is between them.
    async fn keep(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        if !head.is_empty() {
            self.room -= head.len() as u64;
            self.write(head).await;
        }
        self.dropped = self.dropped.saturating_add(self.tail.push(rest));
    }

    /// Writes bytes that count as kept.
    async fn write(&mut self, bytes: &[u8]) {
        match self.append(bytes).await {
            Ok(()) => self.kept += bytes.len() as u64,
            Err(error) => {
                if let Some(error) = error {
                    tracing::warn!(%error, "a log could not be written; the rest of it is dropped");
                }
                self.dropped = self.dropped.saturating_add(bytes.len() as u64);
            }
        }
    }

    /// Writes bytes; an error is told once, and nothing is written after it.
    async fn append(&mut self, bytes: &[u8]) -> Result<(), Option<io::Error>> {
        if matches!(self.file, Place::Lost) {
            return Err(None);
        }
        self.file.append(bytes.to_vec(), self.end).await?;
        self.digest.update(bytes);
        self.end += bytes.len() as u64;
        Ok(())
    }

    async fn close(mut self) -> LogSummary {
        if let Some(redaction) = self.redaction.take() {
            self.keep(&redaction.finish()).await;
        }
        if self.dropped > 0
            && let Err(Some(error)) = self.append(cut_notice(self.dropped).as_bytes()).await
        {
            tracing::warn!(%error, "a log could not be told that it was cut");
        }
        let tail: Vec<u8> = std::mem::take(&mut self.tail.bytes).into();
        if !tail.is_empty() {
            self.write(&tail).await;
        }
        LogSummary {
            bytes: self.kept,
            dropped_bytes: self.dropped,
            sha256: hex::encode(self.digest.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use barecount_secrets::Secret;

    use super::*;

    fn plain(path: PathBuf, limit: u64) -> LogTarget {
        LogTarget {
            path,
            limit,
            redactor: None,
        }
    }

    #[tokio::test]
    async fn a_secret_that_is_printed_in_two_writes_is_not_in_the_log()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        let secret = Secret::new(b"canary-in-a-log");
        let (log, writer) = LogPipe::open()?;
        let mut writer = File::from(writer);
        log.attach(LogTarget {
            redactor: Some(Redactor::new([("token", &secret)])?),
            ..plain(path.clone(), 1000)
        })
        .await?;
        writer.write_all(b"it is canary-in")?;
        // Taken by now, and held back.
        log.shared
            .catch_up(&mut *log.shared.intake.lock().await)
            .await;
        assert_eq!(fs_err::read_to_string(&path)?, "it is ");
        writer.write_all(b"-a-log, and ends with cana")?;
        let summary = log.detach().await;
        let kept = fs_err::read(&path)?;
        assert_eq!(
            String::from_utf8(kept.clone())?,
            "it is [redacted:token], and ends with [redacted]"
        );
        assert_eq!(summary.sha256, hex::encode(Sha256::digest(&kept)));
        Ok(())
    }

    #[tokio::test]
    async fn of_a_gigabyte_the_beginning_and_the_end_are_kept_without_blocking_the_writer()
    -> Result<(), Box<dyn std::error::Error>> {
        const GIGABYTE: u64 = 1 << 30;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        let (log, writer) = LogPipe::open()?;
        log.attach(plain(path.clone(), 1000)).await?;
        blocking(move || {
            let mut writer = File::from(writer);
            for _ in 0..GIGABYTE / (1 << 20) {
                writer.write_all(&[b'x'; 1 << 20])?;
            }
            writer.write_all(b"the reason")?;
            Ok(())
        })
        .await?;
        let summary = log.detach().await;
        assert_eq!(summary.bytes, 1000);
        assert_eq!(summary.dropped_bytes, GIGABYTE - 990);
        let kept = fs_err::read(&path)?;
        let notice = cut_notice(GIGABYTE - 990);
        let (head, tail) = ("x".repeat(500), "x".repeat(490));
        let expected = format!("{head}{notice}{tail}the reason");
        assert_eq!(String::from_utf8(kept.clone())?, expected);
        assert_eq!(summary.sha256, hex::encode(Sha256::digest(&kept)));
        Ok(())
    }

    #[tokio::test]
    async fn what_was_printed_between_two_attempts_is_in_neither_log()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (log, writer) = LogPipe::open()?;
        let mut writer = File::from(writer);
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        log.attach(plain(one.clone(), 100)).await?;
        writer.write_all(b"one")?;
        log.detach().await;
        writer.write_all(b"between")?;
        log.attach(plain(two.clone(), 100)).await?;
        writer.write_all(b"two")?;
        log.detach().await;
        assert_eq!(fs_err::read(one)?, b"one");
        assert_eq!(fs_err::read(two)?, b"two");
        Ok(())
    }

    #[tokio::test]
    async fn a_log_on_a_full_disk_is_dropped_and_the_work_goes_on()
    -> Result<(), Box<dyn std::error::Error>> {
        let (log, writer) = LogPipe::open()?;
        log.attach(plain(PathBuf::from("/dev/full"), 100)).await?;
        let mut writer = File::from(writer);
        writer.write_all(b"one")?;
        let summary = log.detach().await;
        assert_eq!((summary.bytes, summary.dropped_bytes), (0, 3));
        Ok(())
    }

    #[tokio::test]
    async fn what_prints_nothing_has_no_file_and_not_that_of_an_earlier_try()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (log, _writer) = LogPipe::open()?;
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs_err::write(&two, "of an earlier try")?;
        for path in [&one, &two] {
            log.attach(plain(path.clone(), 100)).await?;
            let summary = log.detach().await;
            assert_eq!(summary.sha256, hex::encode(Sha256::digest(b"")));
        }
        assert!(!one.exists());
        assert_eq!(fs_err::read(two)?, b"");
        Ok(())
    }
}
