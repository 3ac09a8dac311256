//! What the binary may leave behind: processes, mounts, control groups, staging.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, getpid};
use sha2::{Digest, Sha256};

use crate::process::wait_until;

/// What is ending when the binary has ended is gone after so long.
const GRACE: Duration = Duration::from_secs(10);

/// Asserts that nothing is left of what ran in `place`, with the state folder `state`.
///
/// # Panics
/// With what is left, if there still is something after a grace period.
#[track_caller]
pub fn none(place: &Path, state: &Path) {
    let mut left = Vec::new();
    let deadline = Instant::now() + GRACE;
    wait_until(deadline + GRACE, "what is left is counted", || {
        left = found(place, state);
        left.is_empty() || Instant::now() > deadline
    });
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

fn found(place: &Path, state: &Path) -> Vec<String> {
    let mut left: Vec<String> = processes(place)
        .into_iter()
        .map(|pid| format!("process {} {}", pid.as_raw_nonzero(), command_line(pid)))
        .collect();
    left.extend(mounts(place));
    left.extend(control_groups(state));
    left.extend(staging(state));
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

/// Every process of this host.
pub fn all_processes() -> Vec<Pid> {
    let Ok(entries) = fs_err::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(Pid::from_raw)
        .collect()
}

fn concerns(pid: Pid, mark: &str) -> bool {
    let folder = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let holds = |name: &str| {
        // A process that has ended meanwhile has nothing to do with anything.
        let content = std::fs::read(folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&content).contains(mark)
    };
    let in_it = std::fs::read_link(folder.join("cwd"))
        .is_ok_and(|cwd| cwd.to_string_lossy().contains(mark));
    in_it || ["cmdline", "environ", "mountinfo"].into_iter().any(holds)
}

/// How a process was started.
pub fn command_line(pid: Pid) -> String {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn mounts(place: &Path) -> Vec<String> {
    let mark = mark(place);
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter(|line| line.contains(&mark))
        .map(|line| format!("mount {line}"))
        .collect()
}

/// Control groups of a state folder, in every hierarchy of every version.
fn control_groups(state: &Path) -> Vec<String> {
    let state = state.canonicalize().unwrap_or_else(|_| state.to_owned());
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    let name = format!("barecount-{}", &hex::encode(digest)[..16]);
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
    let Ok(entries) = std::fs::read_dir(state.join("staging")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| format!("staging {}", entry.path().display()))
        .collect()
}
