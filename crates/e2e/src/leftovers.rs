//! What the binary may leave behind: processes, mounts, control groups, staging.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, getpid};
use sha2::{Digest, Sha256};

use crate::{
    mounts,
    process::wait_until,
    tree::{all_processes, command_line},
};

/// What is ending when the binary has ended is gone after so long.
const GRACE: Duration = Duration::from_secs(10);

/// Asserts that nothing is left of what ran in `place`, with the state folder `state`.
///
/// # Panics
/// With what is left, if there still is something after a grace period.
#[track_caller]
pub fn none(place: &Path, state: &Path) {
    vanishes(|| {
        let mut left = running(place);
        left.extend(control_groups(state));
        left.extend(staging(state));
        left
    });
}

/// Asserts that nothing runs any more of what ran in `place`, and nothing is mounted. Control groups
/// and staging of what was killed stay for the next run to remove.
///
/// # Panics
/// With what is left, if there still is something after a grace period.
#[track_caller]
pub fn nothing_runs(place: &Path) {
    vanishes(|| running(place));
}

#[track_caller]
fn vanishes(found: impl Fn() -> Vec<String>) {
    let mut left = Vec::new();
    let deadline = Instant::now() + GRACE;
    wait_until(deadline + GRACE, "what is left is counted", || {
        left = found();
        left.is_empty() || Instant::now() > deadline
    });
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

fn running(place: &Path) -> Vec<String> {
    let mut left: Vec<String> = processes(place)
        .into_iter()
        .map(|pid| format!("process {} {}", pid.as_raw_nonzero(), command_line(pid)))
        .collect();
    left.extend(mounted(place));
    left
}

/// The name that all tests' own folders have in every mount namespace, whatever it is mounted on.
fn mark(place: &Path) -> String {
    place
        .file_name()
        .unwrap_or(place.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// Processes that have anything to do with `place`: they were started there, are told of it, or see
/// it in their mounts, as every sandbox of it does.
pub fn processes(place: &Path) -> Vec<Pid> {
    let mark = mark(place);
    let own = getpid();
    all_processes()
        .into_iter()
        .filter(|pid| *pid != own && concerns(*pid, &mark))
        .collect()
}

fn concerns(pid: Pid, mark: &str) -> bool {
    let folder = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let holds = |name: &str| {
        // A process that has ended meanwhile has nothing to do with anything.
        let content = std::fs::read(folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&content).contains(mark)
    };
    let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
    if String::from_utf8_lossy(&environment).contains(mounts::HOLDER) {
        return false;
    }
    let in_it = std::fs::read_link(folder.join("cwd"))
        .is_ok_and(|cwd| cwd.to_string_lossy().contains(mark));
    in_it || ["cmdline", "environ", "mountinfo"].into_iter().any(holds)
}

fn mounted(place: &Path) -> Vec<String> {
    let mark = mark(place);
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").expect("a process sees its mounts");
    mounts
        .lines()
        .filter(|line| line.contains(&mark))
        .map(|line| format!("mount {line}"))
        .collect()
}

/// What begins the names of what belongs to a state folder outside of it.
///
/// # Panics
/// If there is no such folder.
pub fn host_name(state: &Path) -> String {
    let found = fs_err::metadata(state).expect("the state folder is there");
    let digest = Sha256::new()
        .chain_update(found.dev().to_le_bytes())
        .chain_update(found.ino().to_le_bytes())
        .finalize();
    format!("barecount-{}", &hex::encode(digest)[..16])
}

/// Control groups of a state folder, in every hierarchy of every version.
fn control_groups(state: &Path) -> Vec<String> {
    if !state.exists() {
        return Vec::new();
    }
    let name = host_name(state);
    let mut left = Vec::new();
    let mut folders = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(folder) = folders.pop() {
        // Groups come and go while this looks.
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(&name) {
                left.push(format!("control group {}", entry.path().display()));
            }
            folders.push(entry.path());
        }
    }
    left
}

fn staging(state: &Path) -> Vec<String> {
    let entries = match fs_err::read_dir(state.join("staging")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        entries => entries.expect("staging can be listed"),
    };
    entries
        .flatten()
        .map(|entry| format!("staging {}", entry.path().display()))
        .collect()
}
