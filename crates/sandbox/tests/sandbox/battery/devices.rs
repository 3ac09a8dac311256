//! Devices: those that there are, and those that somebody makes.

use std::fs::OpenOptions;

use super::{
    Attempt, Environment, Probe,
    call::{call, done, numbered},
    mounts::path,
    probe,
};

/// Devices of the host that give more than a payload may have.
const DEVICES: [&str; 26] = [
    "mem",
    "port",
    "kmsg",
    "kvm",
    "fuse",
    "net/tun",
    "vhost-net",
    "vhost-vsock",
    "vsock",
    "loop-control",
    "loop0",
    "mapper/control",
    "btrfs-control",
    "cuse",
    "autofs",
    "hpet",
    "nvram",
    "rtc0",
    "cpu_dma_latency",
    "uinput",
    "console",
    "tty0",
    "tty1",
    "hwrng",
    "vda",
    "sda",
];

/// Makes a device and opens it.
fn make(around: &Environment, kind: u32, device: u64, folder: &std::path::Path) -> Attempt {
    let place = path(&folder.join(format!("device-{}-{device}", around.pid)));
    call!(
        SYS_mknodat,
        libc::AT_FDCWD,
        place.as_c_str(),
        kind | 0o666,
        device as i64
    )?;
    let opened = call!(SYS_openat, libc::AT_FDCWD, place.as_c_str(), libc::O_RDONLY);
    call!(SYS_unlinkat, libc::AT_FDCWD, place.as_c_str(), 0)?;
    done(opened)
}

pub(super) fn probes() -> Vec<Probe> {
    let mut probes: Vec<Probe> = DEVICES
        .map(|name| {
            probe(format!("open /dev/{name}"), move |_| {
                let place = path(format!("/dev/{name}").as_ref());
                // Not reading: a terminal that is not there for us would wait.
                let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
                done(call!(SYS_openat, libc::AT_FDCWD, place.as_c_str(), flags))
            })
        })
        .into();
    probes.extend([
        probe("make the memory device", |around| {
            make(around, libc::S_IFCHR, libc::makedev(1, 1), &around.output)
        }),
        probe("make the zero device", |around| {
            make(around, libc::S_IFCHR, libc::makedev(1, 5), &around.output)
        }),
        probe("make the zero device in /dev/shm", |around| {
            let folder = std::path::Path::new("/dev/shm");
            make(around, libc::S_IFCHR, libc::makedev(1, 5), folder)
        }),
        probe("make the host's disk", |around| {
            make(around, libc::S_IFBLK, around.disk, &around.output)
        }),
        probe("make a tunnel device", |around| {
            make(
                around,
                libc::S_IFCHR,
                libc::makedev(10, 200),
                &around.output,
            )
        }),
        probe("write to another's pseudo-terminal", |_| {
            let other = OpenOptions::new().write(true).open("/dev/pts/0");
            done(numbered(other))
        })
        .sparing_host(),
    ]);
    probes
}
