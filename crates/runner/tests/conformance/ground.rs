//! A test's own folders, and what is left behind of it on this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use barecount_model::{class::Size, id::TaskId};
use barecount_runner::{
    conformance::{INPUT_CONTENTS, INPUT_FILE},
    launch::{AttemptToken, Isolation, Launch, Limits, Places, Work},
};
use tempfile::TempDir;

use crate::shared::{Shared, open_to_all};

/// Begins the names of this binary's control groups.
pub(crate) const CGROUP_PREFIX: &str = "barecount-runner-test";

/// The folders of one subject, and a task id that nothing else has.
pub(crate) struct Ground {
    pub(crate) folder: PathBuf,
    pub(crate) task: TaskId,
    _temporary: Option<TempDir>,
}

impl Ground {
    pub(crate) fn new(shared: &Shared) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        open_to_all(folder.path())?;
        let number = shared.number();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        Ok(Self {
            folder: folder.path().to_owned(),
            task: TaskId::from_bytes(bytes),
            _temporary: Some(folder),
        })
    }

    /// The ground of another process.
    pub(crate) fn of(folder: PathBuf, task: TaskId) -> Self {
        Self {
            folder,
            task,
            _temporary: None,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub(crate) fn launch(&self, number: u32, work: Work) -> Launch {
        let attempt = self.folder.join(number.to_string());
        let place = |name: &str| attempt.join(name);
        let made = || {
            for name in ["input/rates", "output", "checkpoint"] {
                fs_err::create_dir_all(place(name))?;
            }
            fs_err::write(place("input").join(INPUT_FILE), INPUT_CONTENTS)
        };
        made().expect("the temporary folder can be written");
        let stage = ("BARECOUNT_STAGE".to_owned(), "under-test".to_owned());
        let mark = ("SUBJECT_UNDER_TEST".to_owned(), self.task.to_string());
        Launch {
            token: AttemptToken {
                task: self.task.clone(),
                number,
            },
            size: Size::Small,
            work,
            limits: Limits {
                memory_bytes: 96 << 20,
                cpu_millis: 1000,
                pids: 32,
                open_files: 256,
                scratch_bytes: 16 << 20,
                file_bytes: None,
                log_bytes: 1 << 20,
            },
            places: Places {
                input: place("input"),
                output: place("output"),
                checkpoint: place("checkpoint"),
                cache: None,
                drivers: BTreeMap::new(),
            },
            env: BTreeMap::from([stage, mark]),
            isolation: Isolation::Sandbox,
            reuse: None,
            secrets: None,
            network: None,
            timeout: Duration::from_secs(60),
            log: place("log"),
        }
    }

    /// Records, folders, processes and mounts of this subject's attempts. What is ended is given a
    /// moment to be gone.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let mut tries = tokio::time::interval(Duration::from_millis(20));
        let mut left = Vec::new();
        for _ in 0..250 {
            left = self
                .left_now()
                .unwrap_or_else(|error| vec![error.to_string()]);
            if left.is_empty() {
                break;
            }
            tries.tick().await;
        }
        left
    }

    /// The attempts whose recorded ends were not taken back.
    fn ends(&self) -> io::Result<BTreeSet<String>> {
        let mut ends = BTreeSet::new();
        let journal = self.state().join("ends.jsonl");
        if !journal.exists() {
            return Ok(ends);
        }
        for line in fs_err::read_to_string(journal)?.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let token = line["token"].to_string();
            if line["end"].is_null() {
                ends.remove(&token);
            } else {
                ends.insert(token);
            }
        }
        Ok(ends)
    }

    fn left_now(&self) -> io::Result<Vec<String>> {
        let mut left = Vec::new();
        let workers = self.state().join("workers");
        if workers.exists() {
            for entry in fs_err::read_dir(workers)? {
                left.push(entry?.path().display().to_string());
            }
        }
        left.extend(
            self.ends()?
                .into_iter()
                .map(|token| format!("the end of {token}")),
        );
        for process in self.processes()? {
            left.push(format!("process {process}"));
        }
        let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
        let ours = self.folder.to_string_lossy();
        left.extend(
            mounts
                .lines()
                .filter(|mount| mount.contains(&*ours))
                .map(|mount| format!("mount {mount}")),
        );
        Ok(left)
    }

    /// The processes of this subject's attempts.
    pub(crate) fn processes(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs_err::read_dir("/proc")? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(|c: char| c.is_ascii_digit()) {
                continue;
            }
            // A process may be gone by now, which is what we hope for.
            let environment = fs_err::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(&*self.task.printed()) {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// The control groups, as folders, that the launcher made for this subject's attempts.
    pub(crate) fn control_groups(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for process in self.processes()? {
            let groups = fs_err::read_to_string(format!("/proc/{process}/cgroup"));
            for line in groups.unwrap_or_default().lines() {
                let mut fields = line.splitn(3, ':');
                let (_, controllers, path) = (fields.next(), fields.next(), fields.next());
                let (Some(controllers), Some(path)) = (controllers, path) else {
                    continue;
                };
                if path.contains(CGROUP_PREFIX) {
                    found.extend(mounted(controllers)?.map(|root| below(&root, path)));
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Where the hierarchy of these controllers is mounted; none of them: version 2.
fn mounted(controllers: &str) -> io::Result<Option<PathBuf>> {
    let mounts = fs_err::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind, options) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let named = |option: &str| controllers.split(',').any(|name| name == option);
        let this = match kind {
            "cgroup" => options.split(',').any(named),
            "cgroup2" => controllers.is_empty(),
            _ => false,
        };
        this.then(|| PathBuf::from(place))
    });
    Ok(found)
}

/// Those of these folders that are still there after a moment.
pub(crate) async fn remaining(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    let mut left = folders.to_vec();
    for _ in 0..250 {
        left.retain(|folder| folder.exists());
        if left.is_empty() {
            break;
        }
        tries.tick().await;
    }
    left
}
