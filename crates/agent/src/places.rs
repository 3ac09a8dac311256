//! The folders of an attempt. One folder per attempt, named by its token, holds all of them; what
//! is removed with that folder is everything the attempt ever wrote outside its commit.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use barecount_runner::launch::{AttemptToken, Places};

/// Where attempts' folders are made.
#[derive(Debug, Clone)]
pub struct StagingFolders {
    root: PathBuf,
    caches: PathBuf,
    logs: PathBuf,
}

impl StagingFolders {
    /// Folders inside a state folder.
    pub fn new(state: &Path) -> Self {
        Self {
            root: state.join("staging"),
            caches: state.join("cache"),
            logs: state.join("logs"),
        }
    }

    /// The folder of one attempt.
    pub fn of(&self, token: &AttemptToken) -> PathBuf {
        self.root.join(token.to_string())
    }

    /// The log of one attempt. It outlives the attempt's folder.
    pub fn log(&self, token: &AttemptToken) -> PathBuf {
        self.logs.join(format!("{token}.log"))
    }

    /// Where an attempt's outputs are made durable before the decision.
    pub fn staged(&self, token: &AttemptToken) -> PathBuf {
        self.of(token).join("staged")
    }

    /// Makes an attempt's folders anew. Whatever an earlier try of the same launch left is removed:
    /// it can hold nothing that was decided for.
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
            std::fs::create_dir_all(place)?;
        }
        std::fs::create_dir_all(folder.join("staged"))?;
        std::fs::create_dir_all(&self.logs)?;
        Ok(places)
    }

    /// Removes an attempt's folder. Removing what is not there does nothing.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn sweep(&self, token: &AttemptToken) -> io::Result<()> {
        match std::fs::remove_dir_all(self.of(token)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The names of all attempts' folders.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// Removes every attempt's folder but those named in `keep`: after a crash, when it is known
    /// which decisions are still to be rolled forward.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn sweep_all_but(&self, keep: &[AttemptToken]) -> io::Result<u64> {
        let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
        let mut removed = 0;
        for name in self
            .names()?
            .into_iter()
            .filter(|name| !keep.contains(name))
        {
            std::fs::remove_dir_all(self.root.join(name))?;
            removed += 1;
        }
        Ok(removed)
    }
}
