//! Holding privileges, and getting them.
#![expect(
    clippy::print_stdout,
    reason = "the program that it runs speaks by its output"
)]

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use super::{
    Attempt, Environment, Probe, Refusal,
    call::{call, done, holds, numbered},
    probe,
};

/// By their numbers: capability.h of Linux.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The one that is tried to be got, CAP_NET_RAW, as a bit.
pub(super) const RAISED: u64 = 1 << 13;

/// A user that is nobody's.
const OTHER: u32 = 54_322;

/// The set of capabilities by this name, of this process.
fn set(name: &str) -> Result<u64, Refusal> {
    let word = status(name)?;
    u64::from_str_radix(&word, 16).map_err(|_| 0)
}

fn status(name: &str) -> Result<String, Refusal> {
    let text = numbered(std::fs::read_to_string("/proc/self/status"))?;
    let line = text.lines().find(|line| line.starts_with(name)).ok_or(0)?;
    line.split_whitespace().nth(1).map(str::to_owned).ok_or(0)
}

/// Prints who runs it, and the capabilities that it has.
pub(crate) fn tell_identity() -> ExitCode {
    // SAFETY: no arguments, an integer out.
    let user = unsafe { libc::geteuid() };
    println!("{user} {}", set("CapPrm").unwrap_or(0));
    ExitCode::SUCCESS
}

/// What a program sees of itself when an ordinary user runs it.
fn identity_under(program: &Path) -> Result<(u32, u64), Refusal> {
    // Where that may be done; elsewhere it is what it is.
    _ = call!(SYS_setresuid, OTHER, OTHER, OTHER);
    let output = numbered(Command::new(program).arg("--identity").output())?;
    let text = String::from_utf8(output.stdout).map_err(|_| 0)?;
    let (user, capabilities) = text.trim().split_once(' ').ok_or(0)?;
    let user = user.parse().map_err(|_| 0)?;
    Ok((user, capabilities.parse().map_err(|_| 0)?))
}

fn gains_user(environment: &Environment) -> Attempt {
    let (user, _) = identity_under(&environment.programs.join("as-another-user"))?;
    // SAFETY: no arguments, an integer out.
    holds(user != unsafe { libc::geteuid() })
}

fn gains_capabilities(environment: &Environment) -> Attempt {
    let before = set("CapPrm")?;
    let (_, after) = identity_under(&environment.programs.join("with-capabilities"))?;
    let before = if environment.on_host { 0 } else { before };
    holds(after & !before != 0)
}

/// Whether user 0 here is user 0 of the host.
fn root_of_host() -> Attempt {
    // SAFETY: no arguments, an integer out.
    if unsafe { libc::geteuid() } != 0 {
        call!(SYS_setresuid, 0, 0, 0)?;
    }
    let map = numbered(std::fs::read_to_string("/proc/self/uid_map"))?;
    let mut words = map.split_whitespace();
    holds((words.next(), words.next()) == (Some("0"), Some("0")))
}

pub(super) fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (number, name) in CAPABILITIES.into_iter().enumerate() {
        probes.push(probe(format!("hold CAP_{name}"), move |_| {
            let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
            let mut held = 0;
            for name in sets {
                held |= set(name)?;
            }
            holds(held & (1 << number) != 0)
        }));
    }
    probes.extend([
        probe("hold a capability that has no name yet", |_| {
            holds(set("CapBnd")? >> CAPABILITIES.len() != 0)
        }),
        probe("raise a capability", |_| {
            let mut header = [0x2008_0522];
            // Effective and permitted, then the rest.
            let mut sets = [RAISED | (RAISED << 32), 0, 0];
            done(call!(SYS_capset, &mut header, &mut sets))
        }),
        probe("run without no_new_privs", |_| {
            holds(status("NoNewPrivs")? == "0")
        }),
        probe("run without a system call filter", |_| {
            holds(status("Seccomp:")? == "0")
        }),
        probe("gain a user by a set-user-id program", gains_user),
        probe("gain capabilities by a program's", gains_capabilities),
        probe("be root of the host", |_| root_of_host()),
        probe("become another user", |_| {
            done(call!(SYS_setresuid, OTHER, OTHER, OTHER))
        }),
        probe("become another group", |_| {
            done(call!(SYS_setresgid, OTHER, OTHER, OTHER))
        }),
        probe("join another group", |_| {
            let mut groups = [u64::from(OTHER)];
            done(call!(SYS_setgroups, 1, &mut groups))
        }),
        probe("set secure bits", |_| {
            done(call!(SYS_prctl, libc::PR_SET_SECUREBITS, 1, 0, 0, 0))
        }),
        probe("drop from the bounding set", |_| {
            done(call!(SYS_prctl, libc::PR_CAPBSET_DROP, 0, 0, 0, 0))
        }),
        probe("change the map of its own memory", |_| {
            // PR_SET_MM_START_CODE; the address comes after the capability.
            let changed = call!(SYS_prctl, libc::PR_SET_MM, 1, 0x10_000, 0, 0);
            super::call::beyond(changed, &[libc::EINVAL])
        }),
    ]);
    probes
}
