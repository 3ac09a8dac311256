//! Clearing up after launchers that died.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{open_directory, read, write};

/// How often the processes of a group are listed and killed before it is given up.
const ROUNDS: u32 = 50;

/// Removes directories of our prefix in `parent` whose lock nobody holds.
pub(super) fn sweep(parent: &Path, prefix: &str, removed: &mut u32, left: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.strip_prefix('.'))
        else {
            continue;
        };
        if id.len() != 8 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        let path = parent.join(&name);
        let Ok(directory) = open_directory(&path) else {
            continue;
        };
        if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        remove_tree(&path, removed, left);
    }
}

fn remove_tree(path: &Path, removed: &mut u32, left: &mut Vec<String>) {
    let children = std::fs::read_dir(path).into_iter().flatten().flatten();
    for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_one(&child.path(), removed, left);
    }
    remove_one(path, removed, left);
}

fn remove_one(path: &Path, removed: &mut u32, left: &mut Vec<String>) {
    if let Ok(directory) = open_directory(path)
        && write(&directory, "cgroup.kill", "1").is_err()
    {
        kill_all(&directory);
    }
    for _ in 0..ROUNDS {
        if std::fs::remove_dir(path).is_ok() {
            *removed += 1;
            return;
        }
        // The last process may be dead but not gone; there is nothing to wait on but time.
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        _ = rustix::event::poll(&mut [], Some(&pause));
    }
    left.push(path.display().to_string());
}

/// Kills every process that a version 1 group lists, until it lists none.
pub(super) fn kill_all(directory: &OwnedFd) {
    for _ in 0..ROUNDS {
        let Ok(text) = read(directory, "cgroup.procs") else {
            return;
        };
        let pids = text
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?));
        // A handle is taken before the kill, so that the wait is for that very process.
        let handles: Vec<OwnedFd> = pids
            .filter_map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
            .collect();
        if handles.is_empty() {
            return;
        }
        for handle in &handles {
            _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
        }
        for handle in &handles {
            let mut waiting = [PollFd::new(handle, PollFlags::IN)];
            let patience = Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            _ = rustix::event::poll(&mut waiting, Some(&patience));
        }
    }
}
