//! The exclusive lease of processors: one file lock each, so that it holds between processes and
//! dies with the one that holds it.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{clock::Clock, local::records::blocking};

/// How often a lease that another process holds is asked for: a file lock that is waited for cannot
/// be given up, and leases last seconds to hours.
const RETRY: Duration = Duration::from_millis(50);

/// The processors that are leased together.
#[derive(Debug)]
pub(super) struct CpuLeases {
    folder: PathBuf,
    /// In ascending order, each once.
    cpus: Vec<u32>,
    clock: Arc<dyn Clock>,
    /// Within this process, whoever asks first is served first.
    turn: Arc<Mutex<()>>,
}

/// The processors are ours until this is dropped, or this process dies.
#[derive(Debug)]
pub(super) struct CpuLease {
    _locks: Vec<File>,
    _turn: OwnedMutexGuard<()>,
}

impl CpuLeases {
    pub(super) fn of(folder: PathBuf, cpus: &[u32], clock: Arc<dyn Clock>) -> Self {
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

    /// Waits for its turn. Cancel-safe: who gives up holds nothing.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) async fn acquire(&self) -> io::Result<CpuLease> {
        let turn = self.turn.clone().lock_owned().await;
        loop {
            let (folder, cpus) = (self.folder.clone(), self.cpus.clone());
            if let Some(locks) = blocking(move || try_all(&folder, &cpus)).await? {
                return Ok(CpuLease {
                    _locks: locks,
                    _turn: turn,
                });
            }
            self.clock.sleep(RETRY).await;
        }
    }
}

/// All locks or none: who holds some while waiting for others could wait forever.
fn try_all(folder: &Path, cpus: &[u32]) -> io::Result<Option<Vec<File>>> {
    fs_err::create_dir_all(folder)?;
    let mut locks = Vec::with_capacity(cpus.len());
    for cpu in cpus {
        let path = folder.join(format!("cpu-{cpu}.lock"));
        let file = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?
            .into_file();
        match file.try_lock() {
            Ok(()) => locks.push(file),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(Some(locks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;

    fn leases(folder: &Path, cpus: &[u32]) -> CpuLeases {
        CpuLeases::of(folder.to_owned(), cpus, Arc::new(VirtualClock::at(0)))
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
        let held = first.acquire().await?;
        assert!(try_all(folder.path(), &second.cpus)?.is_none());
        assert!(
            try_all(folder.path(), &[2])?.is_some(),
            "a try that failed holds nothing"
        );
        drop(held);
        second.acquire().await?;
        Ok(())
    }

    #[tokio::test]
    async fn who_asks_first_is_served_first() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let leases = leases(folder.path(), &[0]);
        let held = leases.acquire().await?;
        let mut second = Box::pin(leases.acquire());
        let mut third = Box::pin(leases.acquire());
        assert!(polled_once(&mut second).await.is_none());
        assert!(polled_once(&mut third).await.is_none());
        drop(held);
        let held = second.await?;
        assert!(polled_once(&mut third).await.is_none());
        drop(held);
        third.await?;
        Ok(())
    }
}
