//! Leaving for another namespace, which brings capabilities in it.

use std::os::fd::AsRawFd;

use super::{
    Probe,
    call::{Word, call, done, numbered, start_and_end},
    probe,
};

const NAMESPACES: [(&str, &str, i32); 8] = [
    ("mount", "mnt", libc::CLONE_NEWNS),
    ("UTS", "uts", libc::CLONE_NEWUTS),
    ("IPC", "ipc", libc::CLONE_NEWIPC),
    ("user", "user", libc::CLONE_NEWUSER),
    ("process", "pid", libc::CLONE_NEWPID),
    ("network", "net", libc::CLONE_NEWNET),
    ("control group", "cgroup", libc::CLONE_NEWCGROUP),
    ("time", "time", 0x80),
];

pub(super) fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (name, file, flag) in NAMESPACES {
        probes.push(probe(format!("unshare the {name} namespace"), move |_| {
            done(call!(SYS_unshare, flag))
        }));
        if flag != 0x80 {
            // Bits 0 to 7 of the flags of clone are a signal.
            probes.push(probe(
                format!("clone into a new {name} namespace"),
                move |_| {
                    let flags = Word::from(flag | libc::SIGCHLD);
                    start_and_end(libc::SYS_clone, &mut [flags])
                },
            ));
        }
        probes.push(probe(
            format!("clone3 into a new {name} namespace"),
            move |_| {
                let mut arguments = [0_u64; 11];
                arguments[0] = flag as u64;
                arguments[4] = libc::SIGCHLD as u64;
                let size = Word::Number(88);
                start_and_end(libc::SYS_clone3, &mut [Word::from(&mut arguments), size])
            },
        ));
        // Every process may name its own user namespace, and none may join it again.
        if flag != libc::CLONE_NEWUSER {
            probes.push(probe(
                format!("join the {name} namespace of its own"),
                move |_| {
                    let own = numbered(std::fs::File::open(format!("/proc/self/ns/{file}")))?;
                    done(call!(SYS_setns, own.as_raw_fd(), flag))
                },
            ));
        }
        probes.push(probe(
            format!("open the {name} namespace of process 1"),
            move |_| done(numbered(std::fs::File::open(format!("/proc/1/ns/{file}")))),
        ));
    }
    probes.push(probe("mount in a user namespace of its own", |_| {
        call!(SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
        done(call!(SYS_mount, c"x", c"/tmp", c"tmpfs", 0, 0))
    }));
    probes.push(probe("add a device in a user namespace of its own", |_| {
        call!(SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
        super::network::add_device()
    }));
    probes.push(probe(
        "map all users in a user namespace of its own",
        |_| {
            call!(SYS_unshare, libc::CLONE_NEWUSER)?;
            done(numbered(std::fs::write("/proc/self/uid_map", "0 0 65536")))
        },
    ));
    probes
}
