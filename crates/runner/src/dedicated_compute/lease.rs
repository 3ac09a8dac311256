//! The exclusive lease of processors: one file lock each, so that it holds between processes and
//! dies with the one that holds it.

use std::{
    fs::{File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barecount_model::untrusted::Label;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{clock::Clock, local::records::blocking};

/// How often a lease that another process holds is asked for: a file lock that is waited for cannot
/// be given up, and leases last seconds to hours.
const RETRY: Duration = Duration::from_millis(50);
/// The longest holder read, in bytes: anybody who leases may write there.
const HOLDER_MAX: u64 = 128;

/// The processors that are leased together.
#[derive(Debug)]
pub(super) struct CpuLeases {
    folder: Result<PathBuf, NoFolder>,
    /// In ascending order, each once.
    cpus: Vec<u32>,
    clock: Arc<dyn Clock>,
    /// Within this process, whoever asks first is served first.
    turn: Arc<Mutex<()>>,
}

/// Why there is no folder that processors could be leased in. It is told to whoever asks for a lease,
/// and keeps no other work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no folder for leases of processors: {reason}")]
pub struct NoFolder {
    /// What kind of error that is.
    pub kind: io::ErrorKind,
    /// What was tried, and what the system says.
    pub reason: String,
}

/// The processors are ours until this is dropped, or this process dies.
#[derive(Debug)]
pub(super) struct CpuLease {
    _locks: Vec<File>,
    _turn: OwnedMutexGuard<()>,
}

/// A processor that somebody else has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("processor {cpu} is leased{}", by(holder.as_ref()))]
pub(super) struct Taken {
    /// Which.
    pub(super) cpu: u32,
    /// Who says to have it, if it has been written down already.
    pub(super) holder: Option<Label>,
}

fn by(holder: Option<&Label>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

impl CpuLeases {
    pub(super) fn of(
        folder: Result<PathBuf, NoFolder>,
        cpus: &[u32],
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut cpus = cpus.to_vec();
        cpus.sort_unstable();
        cpus.dedup();
        Self {
            folder,
            cpus,
            clock,
            turn: Arc::default(),
        }
    }

    /// Waits for its turn, and takes the processors in the name of `holder`. Tells `waits` for whom,
    /// once, if it has to wait. Cancel-safe: who gives up holds nothing.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) async fn acquire(
        &self,
        holder: &str,
        waits: impl Fn(String) + Send,
    ) -> io::Result<CpuLease> {
        let mut told = false;
        let turn = if let Ok(turn) = self.turn.clone().try_lock_owned() {
            turn
        } else {
            // By whom is not looked up: whoever looks at the locks has them for that moment.
            waits("its processors, which another attempt of this agent has".to_owned());
            told = true;
            self.turn.clone().lock_owned().await
        };
        loop {
            match self.attempt(Some(holder.to_owned())).await? {
                Ok(locks) => {
                    return Ok(CpuLease {
                        _locks: locks,
                        _turn: turn,
                    });
                }
                Err(taken) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(holder, %taken, "an attempt waits for its processors");
                        waits(taken.to_string());
                    }
                    self.clock.sleep(RETRY).await;
                }
            }
        }
    }

    /// The first processor that is taken, if one is.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) async fn taken(&self) -> io::Result<Option<Taken>> {
        Ok(self.attempt(None).await?.err())
    }

    async fn attempt(&self, holder: Option<String>) -> io::Result<Result<Vec<File>, Taken>> {
        let folder = self.folder.clone();
        let folder = folder.map_err(|none| io::Error::new(none.kind, none))?;
        let cpus = self.cpus.clone();
        blocking(move || try_all(&folder, &cpus, holder.as_deref())).await
    }
}

/// All locks or none: who holds some while waiting for others could wait forever. A holder is
/// written down for those who wait; it means something only while the lock is held, so that a crash
/// leaves nothing to clear.
fn try_all(
    folder: &Path,
    cpus: &[u32],
    holder: Option<&str>,
) -> io::Result<Result<Vec<File>, Taken>> {
    fs_err::create_dir_all(folder)?;
    let mut locks = Vec::with_capacity(cpus.len());
    for cpu in cpus {
        let path = folder.join(format!("cpu-{cpu}.lock"));
        let mut file = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?
            .into_file();
        match file.try_lock() {
            Ok(()) => locks.push(file),
            Err(TryLockError::WouldBlock) => {
                return Ok(Err(Taken {
                    cpu: *cpu,
                    holder: written(&mut file)?,
                }));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    if let Some(holder) = holder {
        for file in &mut locks {
            file.set_len(0)?;
            write!(file, "{holder} (process {})", std::process::id())?;
        }
    }
    Ok(Ok(locks))
}

/// What a holder wrote.
fn written(file: &mut File) -> io::Result<Option<Label>> {
    let mut bytes = Vec::new();
    file.take(HOLDER_MAX).read_to_end(&mut bytes)?;
    Ok((!bytes.is_empty()).then(|| Label::of_bytes(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;

    fn leases(folder: &Path, cpus: &[u32]) -> CpuLeases {
        CpuLeases::of(Ok(folder.to_owned()), cpus, Arc::new(VirtualClock::at(0)))
    }

    async fn polled_once<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn a_lease_of_overlapping_processors_is_not_given_twice() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        // Two of them stand for two processes: locks belong to open files, not to processes.
        let first = leases(folder.path(), &[1, 0]);
        let second = leases(folder.path(), &[2, 1]);
        let held = first.acquire("task-1", drop).await?;
        assert!(try_all(folder.path(), &second.cpus, None)?.is_err());
        assert!(
            try_all(folder.path(), &[2], None)?.is_ok(),
            "a try that failed holds nothing"
        );
        drop(held);
        second.acquire("task-2", drop).await?;
        Ok(())
    }

    #[tokio::test]
    async fn without_a_folder_it_is_told_when_a_lease_is_asked_for() {
        let none = NoFolder {
            kind: io::ErrorKind::ReadOnlyFilesystem,
            reason: "/tmp/leases: read-only file system".to_owned(),
        };
        let leases = CpuLeases::of(Err(none), &[0], Arc::new(VirtualClock::at(0)));
        let error = leases.acquire("task", drop).await.expect_err("no folder");
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let told =
            "there is no folder for leases of processors: /tmp/leases: read-only file system";
        assert_eq!(error.to_string(), told);
        assert!(leases.taken().await.is_err());
    }

    #[tokio::test]
    async fn who_asks_first_is_served_first() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let leases = leases(folder.path(), &[0]);
        let held = leases.acquire("first", drop).await?;
        let mut second = Box::pin(leases.acquire("second", drop));
        let mut third = Box::pin(leases.acquire("third", drop));
        assert!(polled_once(&mut second).await.is_none());
        assert!(polled_once(&mut third).await.is_none());
        drop(held);
        let held = second.await?;
        assert!(polled_once(&mut third).await.is_none());
        drop(held);
        third.await?;
        Ok(())
    }

    #[tokio::test]
    async fn who_waits_can_ask_which_processor_is_taken_and_by_whom() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (first, second) = (leases(folder.path(), &[3]), leases(folder.path(), &[2, 3]));
        assert_eq!(second.taken().await?, None);
        let held = first.acquire("task-1", drop).await?;
        let taken = second.taken().await?;
        let process = std::process::id();
        assert_eq!(
            taken.map(|taken| taken.to_string()),
            Some(format!(
                "processor 3 is leased by task-1 (process {process})"
            ))
        );
        drop(held);
        assert_eq!(second.taken().await?, None, "what is written says nothing");
        Ok(())
    }
}
