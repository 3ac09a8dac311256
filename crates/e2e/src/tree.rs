//! Killing a process with everything that it started.

use std::{collections::HashMap, os::fd::OwnedFd, path::Path};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process and all its descendants, each held by a descriptor, so that no number can come to name
/// another process.
#[derive(Debug)]
pub struct Tree {
    members: Vec<(Pid, OwnedFd)>,
}

impl Tree {
    /// The tree below `root`, as it is at this moment.
    pub fn of(root: Pid) -> Self {
        let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
        for pid in all_processes() {
            if let Some(parent) = parent(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let (mut members, mut pending) = (Vec::new(), vec![root]);
        while let Some(pid) = pending.pop() {
            if let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) {
                members.push((pid, descriptor));
            }
            pending.extend(children.remove(&pid).unwrap_or_default());
        }
        Self { members }
    }

    /// How many processes it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no process in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The first of them that `wanted` accepts.
    pub fn find(&self, wanted: impl Fn(Pid) -> bool) -> Option<Pid> {
        let members = self.members.iter().map(|(pid, _)| *pid);
        members.into_iter().find(|pid| wanted(*pid))
    }

    /// Kills all of them, none of which gets to do anything about it.
    pub fn kill(&self) {
        for (_, descriptor) in &self.members {
            // It may have ended by itself, or with another one.
            let _ = pidfd_send_signal(descriptor, Signal::KILL);
        }
    }
}

/// Every process of this host.
pub fn all_processes() -> Vec<Pid> {
    // Without it nothing that is left running would ever be found.
    let entries = fs_err::read_dir("/proc").expect("processes can be listed");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(Pid::from_raw)
        .collect()
}

/// How a process was started; empty if it has ended.
pub fn command_line(pid: Pid) -> String {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn parent(pid: Pid) -> Option<Pid> {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(Path::new(&path)).ok()?;
    // The name, in parentheses, may hold anything; what follows the last one does not.
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_whitespace().nth(1)?.parse().ok()?)
}
