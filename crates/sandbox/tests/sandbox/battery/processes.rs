//! Other processes, and a larger share of the machine.

use std::fs;

use super::{
    Probe, Refusal,
    call::{call, done, holds, numbered},
    probe,
};

/// Class and level of ioprio_set(2): real time, the highest.
const IO_REAL_TIME: i32 = 1 << 13;

pub(super) fn probes() -> Vec<Probe> {
    [others(), shares(), priorities()]
        .into_iter()
        .flatten()
        .collect()
}

fn others() -> Vec<Probe> {
    vec![
        probe("see a process outside", |around| {
            let name = numbered(fs::read_to_string(format!("/proc/{}/comm", around.pid)))?;
            holds(name.trim() == "sleep")
        }),
        probe("signal a process outside", |around| {
            done(call!(SYS_kill, around.pid, 0))
        }),
        probe("open a handle of a process outside", |around| {
            done(call!(SYS_pidfd_open, around.pid, 0))
        }),
        probe("see the program of process 1", |_| {
            done(numbered(fs::read_link("/proc/1/exe")))
        }),
        probe("stop process 1", |_| {
            call!(SYS_kill, 1, libc::SIGSTOP)?;
            let stat = numbered(fs::read_to_string("/proc/1/stat"))?;
            holds(stat.contains(") T "))
        })
        .sparing_host(),
        probe("ask process 1 for the host's mounts", |_| {
            let theirs = numbered(fs::read_to_string("/proc/1/mountinfo"))?;
            let ours = numbered(fs::read_to_string("/proc/self/mountinfo"))?;
            holds(theirs.lines().count() != ours.lines().count())
        }),
    ]
}

fn shares() -> Vec<Probe> {
    vec![
        probe("raise the limit of open files", |_| {
            let mut limit = [1 << 19, 1 << 19];
            done(call!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &mut limit, 0))
        }),
        probe("raise the limit of locked memory", |_| {
            let mut limit = [u64::MAX, u64::MAX];
            done(call!(SYS_prlimit64, 0, libc::RLIMIT_MEMLOCK, &mut limit, 0))
        }),
        probe("raise the limit of queued messages", |_| {
            let mut limit = [u64::MAX, u64::MAX];
            done(call!(
                SYS_prlimit64,
                0,
                libc::RLIMIT_MSGQUEUE,
                &mut limit,
                0
            ))
        }),
        probe("allow itself real-time priorities", |_| {
            let mut limit = [50, 50];
            done(call!(SYS_prlimit64, 0, libc::RLIMIT_RTPRIO, &mut limit, 0))
        }),
        probe("leave a dump of its memory", |_| {
            holds(limit_of_dumps(u64::MAX)? > 1)
        }),
        // At 1 the kernel takes the program that `core_pattern` names for what is being dumped.
        probe("have its memory piped to a program of the host", |_| {
            holds(limit_of_dumps(0)? == 0)
        }),
    ]
}

/// The limit of dumps after it was set, or said to be.
fn limit_of_dumps(wanted: u64) -> Result<u64, Refusal> {
    let mut limit = [wanted, wanted];
    call!(SYS_prlimit64, 0, libc::RLIMIT_CORE, &mut limit, 0)?;
    call!(SYS_prlimit64, 0, libc::RLIMIT_CORE, 0, &mut limit)?;
    Ok(limit[0])
}

/// Going first, and holding what others wait for.
fn priorities() -> Vec<Probe> {
    vec![
        probe("run in real time", |_| {
            let mut parameters = [1];
            done(call!(
                SYS_sched_setscheduler,
                0,
                libc::SCHED_FIFO,
                &mut parameters
            ))
        }),
        probe("run by deadlines", |_| {
            // Ten of a hundred milliseconds: size and policy, nice and priority, three times.
            let mut attributes = [(6 << 32) | 48, 0, 0, 10_000_000, 100_000_000, 100_000_000];
            done(call!(SYS_sched_setattr, 0, &mut attributes, 0))
        }),
        probe("run before others", |_| {
            done(call!(SYS_setpriority, 0, 0, -20))
        }),
        probe("read and write before others", |_| {
            done(call!(SYS_ioprio_set, 1, 0, IO_REAL_TIME))
        }),
        probe("lock 16 MiB of memory", |_| {
            const BYTES: i64 = 16 << 20;
            // Private and anonymous.
            let place = call!(
                SYS_mmap,
                0,
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                0x22,
                -1,
                0
            )?;
            done(call!(SYS_mlock, place, BYTES))
        }),
        probe("lock all its memory, now and later", |_| {
            done(call!(SYS_mlockall, 3))
        }),
        probe("use large pages of System V shared memory", |_| {
            // SHM_HUGETLB, 2 MiB.
            let flags = 0o4000 | libc::IPC_CREAT | 0o600;
            let made = call!(SYS_shmget, libc::IPC_PRIVATE, 2 << 20, flags);
            let segment = match made {
                // There are no such pages just now; it might have had one.
                Err(libc::ENOMEM) => return Ok(()),
                other => other?,
            };
            done(call!(SYS_shmctl, segment, libc::IPC_RMID, 0))
        }),
        probe(
            "open a file of another without telling when it was read",
            |_| {
                let flags = libc::O_NOATIME;
                done(call!(SYS_openat, libc::AT_FDCWD, c"/dev/null", flags))
            },
        ),
    ]
}
