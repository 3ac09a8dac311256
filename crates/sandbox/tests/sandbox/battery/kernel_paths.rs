//! What the kernel shows and takes in files.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::FileTypeExt},
    path::{Path, PathBuf},
};

use super::{
    Attempt, Probe, Refusal,
    call::{call, done, holds, numbered},
    probe,
};

/// Files that say what a payload need not know.
const READ: [&str; 26] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/interrupts",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/pagetypeinfo",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/self/stack",
    "/proc/self/mountinfo",
    "/proc/1/environ",
    "/proc/1/maps",
    "/proc/1/mem",
    "/proc/1/mountinfo",
    "/proc/1/stack",
    "/proc/1/syscall",
    "/sys/kernel/notes",
    "/sys/kernel/vmcoreinfo",
    "/sys/kernel/uevent_seqnum",
    "/sys/kernel/security/lsm",
];

/// Folders whose entries say what a payload need not know.
const LISTED: [&str; 16] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/proc/driver",
    "/proc/bus",
    "/proc/1/fd",
    "/proc/1/root/",
    "/proc/1/cwd/",
    "/proc/1/map_files",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/module",
    "/sys/block",
    "/sys/fs/cgroup",
];

/// Files that change the kernel, or the sandbox's place in it.
const WRITTEN: [&str; 33] = [
    "/proc/sysrq-trigger",
    "/proc/mtrr",
    "/proc/kmsg",
    "/proc/kcore",
    "/proc/timer_list",
    "/proc/irq/default_smp_affinity",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/fs/file-max",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/fs/mqueue/msg_max",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/ping_group_range",
    "/proc/sys/user/max_user_namespaces",
    "/proc/self/loginuid",
    "/proc/1/mem",
    "/proc/1/oom_score_adj",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
    "/sys/module/kernel/parameters/panic",
];

/// Entries that a search among files looks at.
const MOST_ENTRIES: usize = 60_000;
const MOST_DEPTH: usize = 12;

fn reads(path: &str) -> Attempt {
    let mut file = numbered(fs::File::open(path))?;
    // A file that is empty, as /dev/null over it is, shows nothing.
    holds(numbered(file.read(&mut [0; 64]))? > 0)
}

fn lists(path: &str) -> Attempt {
    holds(numbered(fs::read_dir(path))?.next().is_some())
}

fn opens_for_writing(path: &str) -> Attempt {
    // `access` first: opening some of them has effects.
    may_write(Path::new(path))?;
    // A file that is hidden by the null device takes everything and does nothing.
    let hidden = numbered(fs::metadata(path))?.file_type().is_char_device();
    holds(!hidden)?;
    done(numbered(OpenOptions::new().write(true).open(path)))
}

/// Whether the kernel would let this process write, by everything but the opening itself.
fn may_write(path: &Path) -> Attempt {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| 0)?;
    let flags = libc::AT_EACCESS;
    done(call!(
        SYS_faccessat2,
        libc::AT_FDCWD,
        path.as_c_str(),
        libc::W_OK,
        flags
    ))
}

/// Looks for a file beneath that can be written; the first such is enough.
fn some_file_can_be_written(top: &str) -> Attempt {
    let mut folders = vec![(PathBuf::from(top), 0)];
    let mut left = MOST_ENTRIES;
    let mut last: Refusal = numbered(fs::metadata(top)).map(|_| 0)?;
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            left = left.checked_sub(1).ok_or(libc::E2BIG)?;
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() && depth < MOST_DEPTH {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_file() {
                match may_write(&entry.path()) {
                    Ok(()) => return Ok(()),
                    Err(refusal) => last = refusal,
                }
            }
        }
    }
    Err(last)
}

pub(super) fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    probes.extend(READ.map(|path| probe(format!("read {path}"), move |_| reads(path))));
    probes.extend(LISTED.map(|path| probe(format!("list {path}"), move |_| lists(path))));
    probes.extend(
        WRITTEN.map(|path| probe(format!("write {path}"), move |_| opens_for_writing(path))),
    );
    for top in [
        "/proc/sys",
        "/proc/irq",
        "/proc/bus",
        "/proc/fs",
        "/proc/acpi",
        "/proc/scsi",
        "/sys",
        "/sys/fs/cgroup",
    ] {
        probes.push(probe(format!("write anything below {top}"), move |_| {
            some_file_can_be_written(top)
        }));
    }
    probes.extend([
        probe("write /proc/self/oom_score_adj lower", |_| {
            done(numbered(fs::write("/proc/self/oom_score_adj", "-1000")))
        }),
        probe("see where physical pages are", |_| {
            let mut words = [0_u8; 8];
            let mut file = numbered(fs::File::open("/proc/self/pagemap"))?;
            let page = &raw const words as u64 >> 12;
            numbered(std::io::Seek::seek(
                &mut file,
                std::io::SeekFrom::Start(page * 8),
            ))?;
            numbered(file.read_exact(&mut words))?;
            holds(u64::from_le_bytes(words) & ((1 << 55) - 1) != 0)
        }),
        probe("see addresses of the kernel", |_| {
            let symbols = numbered(fs::read_to_string("/proc/kallsyms"))?;
            holds(
                symbols
                    .lines()
                    .any(|line| !line.starts_with("0000000000000000 ")),
            )
        }),
        probe("make a control group", |_| make_group()),
        probe("set a release agent", |_| {
            let mut last = libc::ENOENT;
            for group in controllers()? {
                match may_write(&group.join("release_agent")) {
                    Ok(()) => return Ok(()),
                    Err(refusal) => last = refusal,
                }
            }
            Err(last)
        }),
        probe("see where its control group is on the host", |_| {
            let groups = numbered(fs::read_to_string("/proc/self/cgroup"))?;
            holds(groups.lines().any(|line| !line.ends_with(":/")))
        }),
    ]);
    probes
}

/// The hierarchies of control groups that are in sight.
fn controllers() -> Result<Vec<PathBuf>, Refusal> {
    let top = Path::new("/sys/fs/cgroup");
    let mut found = vec![top.to_owned()];
    found.extend(
        numbered(fs::read_dir(top))?
            .flatten()
            .map(|entry| entry.path()),
    );
    Ok(found)
}

fn make_group() -> Attempt {
    let mut last = libc::ENOENT;
    for controller in controllers()? {
        // The memory that holds the hierarchies together is none.
        if !controller.join("cgroup.procs").exists() {
            continue;
        }
        let group = controller.join(format!("battery-{}", std::process::id()));
        match fs::create_dir(&group) {
            Ok(()) => return done(numbered(fs::remove_dir(&group))),
            Err(error) => last = super::call::number(&error),
        }
    }
    Err(last)
}
