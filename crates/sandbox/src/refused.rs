//! What helps where a host refuses what sandboxes are made of.

use std::path::Path;

/// How a system call is refused for good, by a filter, a security module or a kernel without it.
pub(crate) const NUMBERS: [i32; 4] = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EAFNOSUPPORT];

/// What to do about a system call that was refused with this number; `None` where nothing is known.
pub(crate) fn remedy(errno: i32) -> Option<String> {
    match errno {
        libc::EPERM | libc::ENOSYS | libc::EAFNOSUPPORT if is_filtered() => Some(
            "This process is under a system call filter (Seccomp: 2 in /proc/self/status): run it \
             under one that allows what sandboxes are made of (docker run --security-opt \
             seccomp=unconfined; seccompProfile: { type: Unconfined } in a pod; no \
             SystemCallFilter= or RestrictNamespaces= in its unit)."
                .to_owned(),
        ),
        libc::EPERM | libc::EACCES => Some(
            "Let the agent do it: outside of a chroot, and by an AppArmor or SELinux profile that \
             allows it (docker run --security-opt apparmor=unconfined; the kernel's log says what was \
             refused)."
                .to_owned(),
        ),
        libc::ENOSYS | libc::EAFNOSUPPORT => {
            Some("Use Linux 5.14 or newer, with namespaces and system call filters.".to_owned())
        }
        libc::EAGAIN => Some(more_processes()),
        _ => None,
    }
}

/// Whether somebody has put this process under a system call filter (proc_pid_status(5)).
pub(crate) fn is_filtered() -> bool {
    status("/proc/self/status", "Seccomp:").as_deref() == Some("2")
}

fn status(file: impl AsRef<Path>, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().to_owned())
}

/// What to do where the host makes no further process or thread, with the limit and how many there
/// are: a whole sentence.
pub fn more_processes() -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nproc).current;
    let user = rustix::process::geteuid();
    // Root is not held to its own.
    let Some(limit) = limit.filter(|_| !user.is_root()) else {
        return "A limit of processes and threads is reached, of this process's control group or of \
                the machine: raise it (TasksMax= in its unit, docker run --pids-limit, \
                kernel.threads-max), or end some."
            .to_owned();
    };
    let user = user.as_raw();
    format!(
        "User {user} may have {limit} processes and threads, and has {}: raise the limit (ulimit -u; \
         LimitNPROC= and TasksMax= in the unit; /etc/security/limits.conf), or end some.",
        threads_of(user)
    )
}

/// The processes and threads of a user, as far as they can be looked at.
fn threads_of(user: u32) -> u64 {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let count = |entry: std::fs::DirEntry| {
        let file = entry.path().join("status");
        let uids = status(&file, "Uid:")?;
        let real: u32 = uids.split_ascii_whitespace().next()?.parse().ok()?;
        let threads: u64 = status(&file, "Threads:")?.parse().ok()?;
        (real == user).then_some(threads)
    };
    entries.filter_map(count).sum()
}
