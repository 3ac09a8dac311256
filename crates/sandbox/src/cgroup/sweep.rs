//! Clearing up after launchers that died.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{open_directory, read, write};

/// How often the processes of a group are listed and killed before it is given up.
pub(super) const ROUNDS: u32 = 50;

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

/// Removes a launcher's directory with all groups in it, whatever is in those.
pub(super) fn remove_tree(path: &Path, removed: &mut u32, left: &mut Vec<String>) {
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
        match std::fs::remove_dir(path) {
            Ok(()) => {
                *removed += 1;
                return;
            }
            // Its launcher was about to end, and removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => {}
        }
        // The last process may be dead but not gone; there is nothing to wait on but time.
        pause();
    }
    left.push(path.display().to_string());
}

/// A hundredth of a second.
pub(super) fn pause() {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    _ = rustix::event::poll(&mut [], Some(&pause));
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{TryRecvError, channel};

    use super::super::locked_directory;
    use super::*;

    /// Between its making and its lock, nothing tells it from one whose launcher died.
    #[test]
    fn a_directory_that_is_being_made_is_not_swept_away() -> Result<(), Box<dyn std::error::Error>>
    {
        let folder = tempfile::tempdir()?;
        let (parent, sweeps) = (folder.path(), &AtomicU32::new(0));
        let (made, until) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while until.try_recv() == Err(TryRecvError::Empty) {
                    sweep(parent, "barecount", &mut 0, &mut Vec::new());
                    sweeps.fetch_add(1, Ordering::Relaxed);
                }
            });
            let made = made;
            for number in 0..2_000_u32 {
                let path = parent.join(format!("barecount.{number:08x}"));
                let held = locked_directory(&path)?;
                // One may have begun before, and ends; another one passes by.
                let before = sweeps.load(Ordering::Relaxed);
                while sweeps.load(Ordering::Relaxed).wrapping_sub(before) < 2 {
                    std::thread::yield_now();
                }
                std::fs::remove_dir(&path)
                    .map_err(|error| format!("directory {number} was swept away: {error}"))?;
                drop(held);
            }
            drop(made);
            Ok(())
        })
    }
}
