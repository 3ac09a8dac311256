//! The folders of an attempt. One folder per attempt, named by its token, holds all of them; what
//! is removed with that folder is everything the attempt ever wrote outside its commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use barecount_runner::launch::{AttemptToken, Places};
use barecount_tree::{Amount, Aside, Left, Linked, Measured, Stop};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files::{Files, HostFiles, Room};

/// The file in an attempt's folder that tells of its launch.
const NOTE: &str = "launch.json";
/// The file in an attempt's folder that keeps its end until that is acknowledged.
const END: &str = "outcome.json";

#[derive(Serialize, Deserialize)]
struct LaunchNote {
    boot: String,
    at: Timestamp,
}

/// Where attempts' folders are made.
#[derive(Debug, Clone)]
pub struct StagingFolders {
    root: PathBuf,
    caches: PathBuf,
    logs: PathBuf,
    aside: Aside,
    files: Arc<dyn Files>,
}

/// What came of removing attempts' folders, or caches.
#[derive(Debug, Default)]
pub struct Swept {
    /// How many were removed.
    pub removed: u64,
    /// Those that could not be. Unless told otherwise they are out of the way.
    pub left: Vec<Left>,
}

impl StagingFolders {
    /// Folders inside a state folder.
    pub fn new(state: &Path) -> Self {
        Self::on(Arc::new(HostFiles), state)
    }

    /// Folders inside a state folder of another disk.
    pub fn on(files: Arc<dyn Files>, state: &Path) -> Self {
        Self {
            root: state.join("staging"),
            caches: state.join("cache"),
            logs: state.join("logs"),
            aside: Aside::of(state),
            files,
        }
    }

    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// The folder of one attempt.
    pub fn of(&self, token: &AttemptToken) -> PathBuf {
        self.root.join(token.to_string())
    }

    /// The log of one attempt. It outlives the attempt's folder.
    pub fn log(&self, token: &AttemptToken) -> PathBuf {
        self.logs.join(format!("{token}.log"))
    }

    /// The record of which secrets an attempt asked for, by reference.
    pub fn accesses(&self, token: &AttemptToken) -> PathBuf {
        self.logs.join(format!("{token}.secrets.jsonl"))
    }

    /// The record of what an attempt reached over the network. It outlives the attempt's folder, as
    /// its log and its other records do.
    pub fn flows(&self, token: &AttemptToken) -> PathBuf {
        self.logs.join(format!("{token}.flows.jsonl"))
    }

    /// The record of which of the platform's objects an attempt was given, and which it was refused.
    pub fn objects(&self, token: &AttemptToken) -> PathBuf {
        self.logs.join(format!("{token}.objects.jsonl"))
    }

    /// The records that an attempt set aside, all of them. They outlive the attempt's folder.
    pub fn letters(&self, token: &AttemptToken) -> PathBuf {
        self.logs.join(format!("{token}.dead_letters.jsonl"))
    }

    /// Every file of records that attempts set aside, with the name of its attempt's token.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn all_letters(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let names = match self.files.names(&self.logs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let letters = names.into_iter().filter_map(|name| {
            let token = name.strip_suffix(".dead_letters.jsonl")?.to_owned();
            Some((token, self.logs.join(name)))
        });
        Ok(letters.collect())
    }

    /// Whether no attempt's folder is there.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn is_empty(&self) -> io::Result<bool> {
        match self.files.names(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            names => Ok(names?.is_empty()),
        }
    }

    /// Where they are written before they are whole.
    pub(crate) fn open_letters(&self, token: &AttemptToken) -> PathBuf {
        self.of(token).join("dead_letters.jsonl")
    }

    /// Where an attempt's outputs are made durable before the decision.
    pub fn staged(&self, token: &AttemptToken) -> PathBuf {
        self.of(token).join("staged")
    }

    /// Makes an attempt's folders anew. Whatever an earlier try of the same launch left is removed:
    /// it can hold nothing that was decided for. Their names are durable: what is staged in them, and
    /// decided for, no loss of power takes. Blocks on the disk.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn prepare(
        &self,
        token: &AttemptToken,
        cache: Option<&str>,
        drivers: BTreeMap<String, PathBuf>,
    ) -> io::Result<Places> {
        self.sweep(token)?;
        let folder = self.of(token);
        let places = Places {
            input: folder.join("input"),
            output: folder.join("output"),
            checkpoint: folder.join("checkpoint"),
            cache: cache.map(|key| self.caches.join(key)),
            drivers,
        };
        for place in [&places.input, &places.output, &places.checkpoint]
            .into_iter()
            .chain(&places.cache)
        {
            self.files.make_folder(place)?;
        }
        self.files.make_folder(&folder.join("staged"))?;
        self.files.make_folder(&self.logs)?;
        self.files.sync_folder(&folder)?;
        self.sync()?;
        Ok(places)
    }

    /// Where the end of an attempt is kept until it is acknowledged.
    pub fn kept_end(&self, token: &AttemptToken) -> PathBuf {
        self.of(token).join(END)
    }

    /// Whether an attempt's folder keeps an end that nobody has acknowledged.
    pub fn holds_end(&self, token: &AttemptToken) -> bool {
        self.files.is_file(&self.kept_end(token))
    }

    /// Makes the names of attempts' folders durable, and of what they are in.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.files.sync_folder(&self.root)?;
        let state = self.root.parent().unwrap_or(Path::new("."));
        self.files.sync_folder(state)
    }

    /// Notes that an attempt is about to be launched. A later process that finds the attempt ended
    /// believes in what it wrote only where this note is of the same start of the host: what work
    /// writes is not synchronised, and may be torn by a loss of power.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn note_launch(&self, token: &AttemptToken, at: Timestamp) -> io::Result<()> {
        let boot = self.files.boot()?;
        let note = serde_json::to_string(&LaunchNote { boot, at })?;
        let path = self.of(token).join(NOTE);
        self.files.write(&path, note.as_bytes())
    }

    /// When an attempt was launched, if that was since the host's last start.
    pub(crate) fn launched_at(&self, token: &AttemptToken) -> Option<Timestamp> {
        let text = self.files.read(&self.of(token).join(NOTE)).ok()?;
        let note: LaunchNote = serde_json::from_slice(&text).ok()?;
        (self.files.boot().ok()? == note.boot).then_some(note.at)
    }

    /// Removes an attempt's folder, or moves it aside where it cannot be removed: its name is free
    /// afterwards. Removing what is not there does nothing. Blocks, for as long as the work has made
    /// the folder large.
    ///
    /// # Errors
    /// If it could not be moved either.
    pub fn sweep(&self, token: &AttemptToken) -> io::Result<()> {
        match self.clear(&self.of(token), &barecount_tree::to_the_end) {
            Err(left) if left.now.is_none() => Err(left.why),
            Err(left) => {
                tracing::warn!(attempt = %token, "{left}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn clear(&self, folder: &Path, stop: Stop<'_>) -> Result<(), Left> {
        let removed = self.files.remove_folder(folder, stop);
        removed.map_err(|why| Left {
            was: folder.to_owned(),
            now: self.files.set_aside(folder, &self.aside).ok(),
            why,
        })
    }

    /// The room on the disk that they are on.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn room(&self) -> io::Result<Room> {
        self.files
            .room(self.root.parent().unwrap_or(Path::new(".")))
    }

    /// What an attempt has on the disk, where it was prepared and where its places were `moved` to, and
    /// how much of that is its cache; looks no further once it is more than `most`. Blocks.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn measure(
        &self,
        token: &AttemptToken,
        cache: &str,
        moved: &[PathBuf],
        most: Amount,
    ) -> io::Result<(Measured, Amount)> {
        let folder = self.of(token);
        let own =
            ["output", "checkpoint", "staged"].map(|name| (folder.join(name), Linked::Counted));
        // Inputs may be other names of committed files.
        let input = (folder.join("input"), Linked::LeftOut);
        let moved = moved.iter().map(|place| (place.clone(), Linked::Counted));
        let cache = self
            .files
            .measure(&self.caches.join(cache), Linked::Counted, most)?;
        let mut all = cache;
        for (place, linked) in own.into_iter().chain([input]).chain(moved) {
            if all.amount.exceeds(most) {
                break;
            }
            let found = self.files.measure(&place, linked, most)?;
            all.amount = all.amount.and(found.amount);
            all.whole &= found.whole;
        }
        Ok((all, cache.amount))
    }

    /// Removes every cache but those of these keys. Blocks. Nothing may be running.
    ///
    /// # Errors
    /// If it is not known what there is.
    pub fn sweep_caches(&self, keep: &BTreeSet<String>) -> io::Result<Swept> {
        let names = match self.files.names(&self.caches) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let mut swept = Swept::default();
        for name in names.into_iter().filter(|name| !keep.contains(name)) {
            match self.clear(&self.caches.join(name), &barecount_tree::to_the_end) {
                Ok(()) => swept.removed += 1,
                Err(left) => swept.left.push(left),
            }
        }
        Ok(swept)
    }

    /// Removes a cache. Blocks.
    ///
    /// # Errors
    /// What could not be removed.
    pub(crate) fn clear_cache(&self, key: &str) -> io::Result<()> {
        let cache = self.caches.join(key);
        self.files
            .remove_folder(&cache, &barecount_tree::to_the_end)
    }

    /// The names of all attempts' folders.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn names(&self) -> io::Result<Vec<String>> {
        match self.files.names(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Removes every attempt's folder but those named in `keep`: after a crash, when it is known
    /// which decisions are still to be rolled forward. What cannot be removed, or not before `stop`
    /// says to stop, is moved aside, and keeps nobody from starting. Blocks.
    ///
    /// # Errors
    /// If it is not known what there is.
    pub fn sweep_all_but(&self, keep: &[AttemptToken], stop: Stop<'_>) -> io::Result<Swept> {
        let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
        let mut swept = Swept::default();
        for name in self
            .names()?
            .into_iter()
            .filter(|name| !keep.contains(name))
        {
            match self.clear(&self.root.join(name), stop) {
                Ok(()) => swept.removed += 1,
                Err(left) => swept.left.push(left),
            }
        }
        Ok(swept)
    }
}

/// Writes a record of an attempt, whole and durable, or not at all under its name. Dying before
/// leaves a file that ends in `tmp`, which the same attempt's next write replaces and nobody reads.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn keep_record(files: &dyn Files, path: &Path, lines: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    files.make_folder(folder)?;
    let whole = path.with_extension("tmp");
    files.write_durably(&whole, lines.as_bytes())?;
    put_record(files, &whole, path)
}

/// Gives a record that is whole and durable its name beside the ledger.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn put_record(files: &dyn Files, whole: &Path, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    files.make_folder(folder)?;
    files.rename(whole, path)?;
    // The evidence that names it is durable from its own commit on: then its name has to be, too.
    files.sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use barecount_model::id::TaskId;

    use super::*;

    fn token(task: u8, number: u32) -> AttemptToken {
        AttemptToken {
            task: TaskId::from_bytes([task; 16]),
            number,
        }
    }

    fn prepare(folders: &StagingFolders, token: &AttemptToken) -> io::Result<Places> {
        folders.prepare(token, Some("key"), BTreeMap::new())
    }

    #[test]
    fn every_place_exists_and_is_empty_when_an_attempt_is_prepared() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let folders = StagingFolders::new(state.path());
        let drivers = BTreeMap::from([("sqlite".to_owned(), PathBuf::from("/bundle"))]);
        let token = token(1, 1);
        let places = folders.prepare(&token, Some("key"), drivers.clone())?;
        let cache = places.cache.clone().ok_or(io::ErrorKind::NotFound)?;
        for place in [&places.input, &places.output, &places.checkpoint, &cache] {
            assert_eq!(std::fs::read_dir(place)?.count(), 0, "{}", place.display());
        }
        assert!(folders.staged(&token).is_dir());
        assert!(folders.log(&token).parent().is_some_and(Path::is_dir));
        assert_eq!(places.drivers, drivers);
        Ok(())
    }

    #[test]
    fn an_attempt_without_a_cache_gets_none() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let folders = StagingFolders::new(state.path());
        let places = folders.prepare(&token(1, 1), None, BTreeMap::new())?;
        assert_eq!(places.cache, None);
        assert!(!state.path().join("cache").exists());
        Ok(())
    }

    #[test]
    fn preparing_again_removes_what_an_earlier_launch_left_but_not_the_cache() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let folders = StagingFolders::new(state.path());
        let token = token(1, 1);
        let places = prepare(&folders, &token)?;
        let cache = places.cache.ok_or(io::ErrorKind::NotFound)?;
        std::fs::create_dir(places.output.join("rates"))?;
        std::fs::write(places.output.join("rates/part-0.csv"), "1")?;
        std::fs::write(folders.staged(&token).join("half"), "1")?;
        std::fs::write(cache.join("model"), "1")?;
        let again = prepare(&folders, &token)?;
        assert_eq!(std::fs::read_dir(&again.output)?.count(), 0);
        assert_eq!(std::fs::read_dir(folders.staged(&token))?.count(), 0);
        assert!(cache.join("model").exists());
        Ok(())
    }

    #[test]
    fn attempts_of_one_task_share_no_place_but_the_cache_of_an_equal_key() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let folders = StagingFolders::new(state.path());
        let first = prepare(&folders, &token(1, 1))?;
        let second = prepare(&folders, &token(1, 2))?;
        let other = folders.prepare(&token(1, 3), Some("other"), BTreeMap::new())?;
        assert_ne!(first.input, second.input);
        assert_ne!(first.output, second.output);
        assert_ne!(first.checkpoint, second.checkpoint);
        assert_eq!(first.cache, second.cache);
        assert_ne!(first.cache, other.cache);
        Ok(())
    }

    #[test]
    fn a_swept_attempt_leaves_its_log_and_sweeping_twice_does_nothing() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let folders = StagingFolders::new(state.path());
        let token = token(1, 1);
        let places = prepare(&folders, &token)?;
        std::fs::write(places.output.join("row"), "1")?;
        std::fs::write(folders.log(&token), "line")?;
        folders.sweep(&token)?;
        folders.sweep(&token)?;
        assert!(!folders.of(&token).exists());
        assert_eq!(std::fs::read_to_string(folders.log(&token))?, "line");
        Ok(())
    }

    #[test]
    fn a_link_left_in_an_output_is_removed_and_not_followed() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let elsewhere = tempfile::tempdir()?;
        std::fs::write(elsewhere.path().join("precious"), "1")?;
        let folders = StagingFolders::new(state.path());
        let token = token(1, 1);
        let places = prepare(&folders, &token)?;
        std::os::unix::fs::symlink(elsewhere.path(), places.output.join("rates"))?;
        folders.sweep(&token)?;
        assert!(elsewhere.path().join("precious").exists());
        assert!(!folders.of(&token).exists());
        Ok(())
    }

    #[test]
    fn after_a_crash_all_attempts_go_but_those_still_to_be_rolled_forward() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let folders = StagingFolders::new(state.path());
        let all = || folders.sweep_all_but(&[], &barecount_tree::to_the_end);
        assert_eq!(all()?.removed, 0, "before the first attempt");
        for token in [token(1, 1), token(1, 2), token(2, 1)] {
            prepare(&folders, &token)?;
        }
        let keep = [token(1, 2), token(9, 9)];
        let swept = folders.sweep_all_but(&keep, &barecount_tree::to_the_end)?;
        assert_eq!((swept.removed, swept.left.len()), (2, 0));
        assert_eq!(folders.names()?, [token(1, 2).to_string()]);
        Ok(())
    }

    #[test]
    fn what_cannot_be_removed_in_time_is_aside_and_in_nobodys_way() -> io::Result<()> {
        let state = tempfile::tempdir()?;
        let folders = StagingFolders::new(state.path());
        let (large, small) = (token(1, 1), token(2, 1));
        prepare(&folders, &small)?;
        let places = prepare(&folders, &large)?;
        for number in 0..1_000 {
            std::fs::create_dir(places.output.join(number.to_string()))?;
        }
        let swept = folders.sweep_all_but(&[], &|| true)?;
        assert_eq!((swept.removed, swept.left.len()), (1, 1));
        let now = swept.left[0].now.clone().ok_or(io::ErrorKind::NotFound)?;
        assert!(now.starts_with(state.path().join("aside")) && now.is_dir());
        assert!(folders.is_empty()?);
        // Its name is free for whoever has it next.
        let places = prepare(&folders, &large)?;
        assert_eq!(std::fs::read_dir(places.output)?.count(), 0);
        Ok(())
    }
}
