//! An agent whose runner and whose disk fail, and answer when they are asked again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use barecount_model::id::TaskId;
use barecount_runner::{
    Capabilities, Handle, Health, RunnerError,
    launch::{Ended, Launch},
};
use barecount_tree::{Amount, Aside, Linked, Measured, Stop};

use super::*;
use crate::{
    files::{Files, HostFiles, Room},
    outbox::Outbox,
};

/// A fake whose ends cannot be waited for, and which ends nothing the first times that it is told to.
struct Stubborn {
    cloud: Fake,
    refuses: AtomicU32,
}

fn refused() -> RunnerError {
    RunnerError::Backend {
        backend: "stubborn".to_owned(),
        operation: "answer",
        source: "it does not".into(),
    }
}

#[async_trait]
impl Runner for Stubborn {
    fn capabilities(&self) -> Capabilities {
        self.cloud.capabilities()
    }

    async fn probe(&self) -> Health {
        self.cloud.probe().await
    }

    async fn launch(&self, launch: &Launch) -> Result<Handle, RunnerError> {
        self.cloud.launch(launch).await
    }

    async fn wait(&self, _: &Handle) -> Result<Ended, RunnerError> {
        Err(refused())
    }

    async fn stop(&self, _: &Handle, _: Duration) -> Result<(), RunnerError> {
        Err(refused())
    }

    async fn destroy(&self, token: &AttemptToken) -> Result<(), RunnerError> {
        if fails(&self.refuses) {
            return Err(refused());
        }
        self.cloud.destroy(token).await
    }

    async fn recover(&self, token: &AttemptToken) -> Result<Recovered, RunnerError> {
        self.cloud.recover(token).await
    }
}

/// The host's files: what is synchronised is noted, and the first readings fail.
#[derive(Debug, Default)]
pub(super) struct Noted {
    synced: Mutex<Vec<PathBuf>>,
    unread: AtomicU32,
    /// So many ends cannot be written down.
    unkept: AtomicU32,
    /// So many folders of ends that were written down cannot be synchronised.
    unsynced: AtomicU32,
    /// What is said of the disk, and of all that an attempt has on it, in place of what there is.
    pub(super) told: Mutex<Option<(Room, Measured)>>,
}

impl Noted {
    fn told(&self) -> Option<(Room, Measured)> {
        *self.told.lock().unwrap_or_else(|error| error.into_inner())
    }
}

/// Whether one of so many failures is left, and takes it.
fn fails(left: &AtomicU32) -> bool {
    let less = |left: u32| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

impl Files for Noted {
    fn boot(&self) -> io::Result<String> {
        HostFiles.boot()
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        HostFiles.make_folder(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if fails(&self.unread) {
            return Err(io::Error::other("the disk does not answer"));
        }
        HostFiles.read(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        HostFiles.write(path, bytes)
    }

    fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        HostFiles.write_durably(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to.ends_with("outcome.json") && fails(&self.unkept) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        HostFiles.rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        if path.join("outcome.json").exists() && fails(&self.unsynced) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut synced = self
            .synced
            .lock()
            .unwrap_or_else(|error| error.into_inner());
        synced.push(path.to_owned());
        HostFiles.sync_folder(path)
    }

    fn is_file(&self, path: &Path) -> bool {
        HostFiles.is_file(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        HostFiles.remove_file(path)
    }

    fn remove_folder(&self, path: &Path, stop: Stop<'_>) -> io::Result<()> {
        HostFiles.remove_folder(path, stop)
    }

    fn set_aside(&self, path: &Path, aside: &Aside) -> io::Result<PathBuf> {
        HostFiles.set_aside(path, aside)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        HostFiles.names(path)
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        match self.told() {
            Some((room, _)) => Ok(room),
            None => HostFiles.room(path),
        }
    }

    fn measure(&self, path: &Path, linked: Linked, most: Amount) -> io::Result<Measured> {
        match self.told() {
            Some((_, measured)) if path.ends_with("output") => Ok(measured),
            _ => HostFiles.measure(path, linked, most),
        }
    }
}

#[test]
fn an_end_that_a_runner_cannot_tell_is_told_once_nothing_runs_any_more() -> TestResult {
    let world = World::new(Script::hangs())?;
    let runner = Arc::new(Stubborn {
        cloud: world.cloud.restarted(),
        refuses: 3.into(),
    });
    let mut life = world.begin_with(Arc::clone(&runner) as _, world.folders())?;
    life.order(launch(1));
    life.started();
    life.idle_as_time_goes_on(&world.clock)?;
    let Some(AttemptResult::Failed(failure)) = result(life.end_of()) else {
        return Err("it did not fail".into());
    };
    assert_eq!(failure.kind, FailureKind::Infrastructure);
    assert_eq!(runner.refuses.load(Ordering::Relaxed), 0, "it was asked on");
    assert_eq!(world.cloud.held(), Vec::<AttemptToken>::new());
    Ok(())
}

#[test]
fn an_end_that_was_kept_is_told_though_the_disk_does_not_answer_at_once() -> TestResult {
    let world = World::new(Script::default())?;
    let mut life = world.begin()?;
    life.order(launch(1));
    let first = result(life.end_of());
    assert!(matches!(first, Some(AttemptResult::Done(_))));
    drop(life);
    let files = Noted::default();
    files.unread.store(2, Ordering::Relaxed);
    let folders = StagingFolders::on(Arc::new(files), world.state.path());
    let mut life = world.begin_with(Arc::new(world.cloud.restarted()), folders)?;
    life.order(recover(1));
    life.idle_as_time_goes_on(&world.clock)?;
    assert_eq!(result(life.end_of()), first, "the work is not done again");
    Ok(())
}

/// How an attempt ends on such files, and what the next process, on files that work, finds of it.
fn end_and_next(files: Noted) -> Result<(AttemptResult, Event), Box<dyn std::error::Error>> {
    let world = World::new(Script::default())?;
    let folders = StagingFolders::on(Arc::new(files), world.state.path());
    let mut life = world.begin_with(Arc::new(world.cloud.restarted()), folders)?;
    life.order(launch(1));
    life.idle_as_time_goes_on(&world.clock)?;
    let told = result(life.end_of()).ok_or("its end was not told")?;
    drop(life);
    let mut life = world.begin()?;
    life.order(recover(1));
    life.idle_as_time_goes_on(&world.clock)?;
    Ok((told, life.end_of().ok_or("it has no end")?))
}

#[test]
fn a_success_is_told_once_it_is_kept() -> TestResult {
    let (told, next) = end_and_next(Noted {
        unkept: 2.into(),
        ..Noted::default()
    })?;
    assert!(matches!(told, AttemptResult::Done(_)));
    assert_eq!(result(Some(next)), Some(told));
    Ok(())
}

#[test]
fn a_success_that_cannot_be_kept_is_none_for_the_next_process_either() -> TestResult {
    let never_written = Noted {
        unkept: u32::MAX.into(),
        ..Noted::default()
    };
    let never_durable = Noted {
        unsynced: u32::MAX.into(),
        ..Noted::default()
    };
    for files in [never_written, never_durable] {
        let (told, next) = end_and_next(files)?;
        let AttemptResult::Failed(failure) = told else {
            return Err("it was told as done, and the next process would not know".into());
        };
        assert_eq!(failure.kind, FailureKind::Infrastructure);
        assert_eq!(failure.code, "BC0612");
        let message = failure.message;
        assert!(message.raw().contains("free space"), "{message}");
        // Two ends of one attempt might meet on their way.
        assert!(matches!(next, Event::Lost { .. }), "{next:?}");
    }
    Ok(())
}

#[test]
fn an_end_is_found_only_once_it_is_durable() -> TestResult {
    let world = World::new(Script::default())?;
    let mut life = world.begin()?;
    life.order(launch(1));
    life.end_of();
    drop(life);
    let files = Arc::new(Noted::default());
    let folders = StagingFolders::on(Arc::clone(&files) as _, world.state.path());
    let attempt = assignment(1).attempt;
    assert!(Outbox::new(folders.clone()).find(&attempt)?.is_some());
    let synced = files
        .synced
        .lock()
        .unwrap_or_else(|error| error.into_inner());
    // Who kept it may have died between writing it and making its name durable.
    let folder = folders.of(&attempt.token());
    assert!(synced.contains(&folder), "{synced:?}");
    Ok(())
}

#[test]
fn where_an_attempt_stages_is_durable_before_it_is_launched() -> TestResult {
    let state = tempfile::tempdir()?;
    let files = Arc::new(Noted::default());
    let folders = StagingFolders::on(Arc::clone(&files) as _, state.path());
    let task = TaskId::from_bytes([1; 16]);
    let token = AttemptToken { task, number: 1 };
    folders.prepare(&token, None, BTreeMap::new())?;
    let synced = files
        .synced
        .lock()
        .unwrap_or_else(|error| error.into_inner());
    let staging = state.path().join("staging");
    for folder in [folders.of(&token), staging, state.path().to_owned()] {
        assert!(synced.contains(&folder), "{} is not", folder.display());
    }
    Ok(())
}
