//! System calls that change or look into the kernel, or widen what of it can be attacked.

use std::os::fd::AsRawFd;

use super::{
    Attempt, Probe, Refusal,
    call::{Child, beyond, call, done, holds, number, numbered, start_and_end, system_call},
    probe,
};

pub(super) fn probes() -> Vec<Probe> {
    [
        looking(),
        steering(),
        tracing(),
        changing(),
        changing_hardware(),
        widening(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Reading and steering other processes.
fn looking() -> Vec<Probe> {
    vec![
        probe("trace another process", |_| {
            let child = Child::start()?;
            done(call!(SYS_ptrace, libc::PTRACE_SEIZE, child.0, 0, 0))
        }),
        probe("trace process 1", |_| {
            done(call!(SYS_ptrace, libc::PTRACE_SEIZE, 1, 0, 0))
        })
        .sparing_host(),
        probe("be traced", |_| {
            done(call!(SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0))
        }),
        probe("read another process's memory", |_| {
            let child = Child::start()?;
            copy_memory(libc::SYS_process_vm_readv, child.0)
        }),
        probe("write another process's memory", |_| {
            let child = Child::start()?;
            copy_memory(libc::SYS_process_vm_writev, child.0)
        }),
        probe("read process 1's memory", |_| {
            copy_memory(libc::SYS_process_vm_readv, 1)
        })
        .sparing_host(),
        probe("compare kernel objects of processes", |_| {
            let child = Child::start()?;
            done(call!(SYS_kcmp, child.0, child.0, 1, 0, 0))
        }),
    ]
}

/// Taking part in another process.
fn steering() -> Vec<Probe> {
    vec![
        probe("take a descriptor of another process", |_| {
            let child = Child::start()?;
            let handle = call!(SYS_pidfd_open, child.0, 0)?;
            done(call!(SYS_pidfd_getfd, handle, 0, 0))
        }),
        probe("advise another process's memory", |_| {
            let child = Child::start()?;
            let handle = call!(SYS_pidfd_open, child.0, 0)?;
            let mut page = [0];
            let mut part = [page.as_mut_ptr() as u64 & !0xfff, 4096];
            // MADV_COLD.
            done(call!(SYS_process_madvise, handle, &mut part, 1, 20, 0))
        }),
        probe("move another process's pages", |_| {
            let child = Child::start()?;
            let mut page = [0];
            let mut pages = [page.as_mut_ptr() as u64];
            let (mut nodes, mut told) = ([0], [0]);
            done(call!(
                SYS_move_pages,
                child.0,
                1,
                &mut pages,
                &mut nodes,
                &mut told,
                0
            ))
        }),
        probe("ask for the memory policy", |_| {
            done(call!(SYS_get_mempolicy, 0, 0, 0, 0, 0))
        }),
        probe("set the memory policy", |_| {
            done(call!(SYS_set_mempolicy, 0, 0, 0))
        }),
    ]
}

/// Copies a word of a child's memory, which lies where ours does, being a copy of it.
fn copy_memory(way: libc::c_long, pid: i32) -> Attempt {
    let mut word = [7_u64];
    let mut other = [7_u64];
    let mut here = [word.as_mut_ptr() as u64, 8];
    let mut there = [other.as_mut_ptr() as u64, 8];
    done(system_call(
        way,
        &mut [
            pid.into(),
            (&mut here).into(),
            1.into(),
            (&mut there).into(),
            1.into(),
            0.into(),
        ],
    ))
}

/// Programs in the kernel, and its events.
fn tracing() -> Vec<Probe> {
    vec![
        probe("make a bpf map", |_| {
            // An array of one entry: kind, key size, value size, entries.
            let mut map = [0; 16];
            map[0] = (4 << 32) | 2;
            map[1] = (1 << 32) | 4;
            done(call!(SYS_bpf, 0, &mut map, 72))
        }),
        probe("load a bpf program", |_| {
            // `return 0`, as a socket filter.
            let mut code = [0xb7, 0x95];
            let mut licence = [0x004c_5047];
            let mut program = [0; 16];
            program[0] = (2 << 32) | 1;
            program[1] = code.as_mut_ptr() as u64;
            program[2] = licence.as_mut_ptr() as u64;
            done(call!(SYS_bpf, 5, &mut program, 72))
        }),
        probe("count events of its own", |_| perf(0, -1)),
        probe("count events of a processor", |_| perf(-1, 0)),
        probe("handle page faults in user space", |_| {
            done(call!(SYS_userfaultfd, 0))
        }),
        probe("handle its own page faults in user space", |_| {
            done(call!(SYS_userfaultfd, 1))
        }),
        probe("watch a file system by fanotify", |_| {
            done(call!(SYS_fanotify_init, 0, 0))
        }),
        probe("read the kernel's log", |_| {
            let mut buffer = [0; 64];
            done(call!(SYS_syslog, 3, &mut buffer, 512))
        }),
        probe("ask for the length of the kernel's log", |_| {
            done(call!(SYS_syslog, 10, 0, 0))
        }),
        probe("ask for the session's keyring", |_| {
            done(call!(SYS_keyctl, 0, -3, 0))
        }),
        probe("add a key", |_| {
            done(call!(SYS_add_key, c"user", c"battery", c"x", 1, -2))
        }),
        probe("request a key", |_| {
            let asked = call!(SYS_request_key, c"user", c"battery", 0, -2);
            beyond(asked, &[libc::ENOKEY])
        }),
        probe("set up io_uring", |_| {
            let mut parameters = [0; 32];
            done(call!(SYS_io_uring_setup, 4, &mut parameters))
        }),
        probe("register with io_uring", |_| {
            let registered = call!(SYS_io_uring_register, -1, 0, 0, 0);
            beyond(registered, &[libc::EBADF, libc::EINVAL])
        }),
        probe("set up kernel asynchronous I/O", |_| {
            let mut context = [0];
            done(call!(SYS_io_setup, 4, &mut context))
        }),
    ]
}

/// A software clock, so that it needs no hardware.
fn perf(pid: i32, cpu: i32) -> Attempt {
    let mut attributes = [0_u64; 16];
    attributes[0] = 1 | (128 << 32);
    // Without the kernel's own part, which has a setting of its own.
    attributes[5] = if cpu < 0 { 1 << 5 } else { 0 };
    done(call!(SYS_perf_event_open, &mut attributes, pid, cpu, -1, 0))
}

/// What concerns the whole machine. Arguments are wrong where right ones would be felt: the
/// permission comes first.
fn changing() -> Vec<Probe> {
    let no_such = &[libc::ENOENT, libc::EINVAL, libc::ENODEV, libc::ENOTBLK];
    vec![
        probe("load a module from memory", |_| {
            let mut image = [0; 4];
            let loaded = call!(SYS_init_module, &mut image, 32, c"");
            beyond(loaded, &[libc::ENOEXEC, libc::EINVAL])
        }),
        probe("load a module from a file", |_| {
            let loaded = call!(SYS_finit_module, -1, c"", 0);
            beyond(loaded, &[libc::EBADF])
        }),
        probe("unload a module", |_| {
            let unloaded = call!(SYS_delete_module, c"no-such-module", libc::O_NONBLOCK);
            beyond(unloaded, &[libc::ENOENT])
        }),
        probe("load another kernel", |_| {
            // More segments than there may be.
            let loaded = call!(SYS_kexec_load, 0, 0, 0, 0x7fff_0000);
            beyond(loaded, &[libc::EINVAL])
        }),
        probe("reboot", |_| {
            beyond(call!(SYS_reboot, 0, 0, 0, 0), &[libc::EINVAL])
        }),
        probe("swap to a file", move |_| {
            beyond(call!(SYS_swapon, c"/no-such-file", 0), no_such)
        }),
        probe("stop swapping to a file", move |_| {
            beyond(call!(SYS_swapoff, c"/no-such-file"), no_such)
        }),
        probe("set the time", |_| {
            let mut now = [0, 0];
            call!(SYS_clock_gettime, 0, &mut now)?;
            done(call!(SYS_clock_settime, 0, &mut now))
        })
        .sparing_host(),
        probe("set the time zone", |_| {
            let mut zone = [0];
            done(call!(SYS_settimeofday, 0, &mut zone))
        })
        .sparing_host(),
        probe("adjust the clock", |_| {
            // The frequency to what it is.
            let mut adjustment = [0; 32];
            call!(SYS_adjtimex, &mut adjustment)?;
            adjustment[0] = 2;
            done(call!(SYS_adjtimex, &mut adjustment))
        })
        .sparing_host(),
        probe("ask for the clock's adjustment", |_| {
            let mut adjustment = [0; 32];
            done(call!(SYS_adjtimex, &mut adjustment))
        }),
    ]
}

/// The same of what is nearer to the hardware, and of names.
fn changing_hardware() -> Vec<Probe> {
    vec![
        #[cfg(target_arch = "x86_64")]
        probe("raise the I/O privilege", |_| done(call!(SYS_iopl, 3))),
        #[cfg(target_arch = "x86_64")]
        probe("use an I/O port", |_| done(call!(SYS_ioperm, 0x80, 1, 1))),
        probe("account for processes", |_| {
            beyond(call!(SYS_acct, c"/no-such-file"), &[libc::ENOENT])
        }),
        probe("set a quota", |_| {
            // Q_SYNC of a user's quotas of a device that is not there.
            let set = call!(SYS_quotactl, 0x80_0002 << 8, c"/no-such-device", 0, 0);
            beyond(set, &[libc::ENOENT, libc::ENODEV, libc::ESRCH])
        }),
        probe("set the host name", |_| {
            done(call!(SYS_sethostname, c"battery", 7))
        }),
        probe("set the domain name", |_| {
            done(call!(SYS_setdomainname, c"battery", 7))
        }),
        probe("hang the terminal up", |_| done(call!(SYS_vhangup))).sparing_host(),
    ]
}

/// Old and rare parts of the kernel that are reached without any privilege.
fn widening() -> Vec<Probe> {
    let mut probes = vec![
        probe("have memory readable where it is executable", |_| {
            done(call!(SYS_personality, 0x0040_0000))
        }),
        probe("have its memory at fixed places", |_| {
            done(call!(SYS_personality, 0x0004_0000))
        }),
        probe("be told that it is a 32-bit machine", |_| {
            done(call!(SYS_personality, 8))
        }),
        probe("type into its own terminal", |_| {
            let terminal = terminal()?;
            done(call!(SYS_ioctl, terminal, libc::TIOCSTI as i64, c"x"))
        }),
        probe("paste on a virtual terminal", |_| {
            let terminal = terminal()?;
            let pasted = call!(SYS_ioctl, terminal, libc::TIOCLINUX as i64, c"\x03");
            beyond(pasted, &[libc::ENOTTY])
        }),
        probe("make secret memory", |_| done(call!(SYS_memfd_secret, 0))),
        probe("name a file by its handle", |_| {
            let mut handle = [8; 20];
            let mut mount = [0];
            done(call!(
                SYS_name_to_handle_at,
                libc::AT_FDCWD,
                c"/",
                &mut handle,
                &mut mount,
                0
            ))
        }),
        probe("open a file by its handle", |_| {
            let mut handle = [8; 20];
            handle[0] = 8 | (1 << 32);
            let root = numbered(std::fs::File::open("/"))?;
            let opened = call!(SYS_open_by_handle_at, root.as_raw_fd(), &mut handle, 0);
            beyond(opened, &[libc::ESTALE, libc::EINVAL, libc::EOPNOTSUPP])
        }),
        probe("look up a cached path", |_| {
            let mut buffer = [0; 8];
            beyond(
                call!(SYS_lookup_dcookie, 0, &mut buffer, 8),
                &[libc::EINVAL],
            )
        }),
        probe("clone3 without a namespace", |_| {
            let mut arguments = [0_u64; 11];
            arguments[4] = libc::SIGCHLD as u64;
            start_and_end(libc::SYS_clone3, &mut [(&mut arguments).into(), 88.into()])
        }),
    ];
    probes.extend(of_architecture());
    probes
}

#[cfg(target_arch = "x86_64")]
fn of_architecture() -> Vec<Probe> {
    vec![
        probe("make a 32-bit system call", |_| {
            let mut result: i64 = 20;
            // SAFETY: getpid of the 32-bit table: no arguments, and the kernel keeps what it does not
            // answer in.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("rax") result,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
            holds(result == i64::from(std::process::id()))
        }),
        probe("make an x32 system call", |_| {
            done(system_call(0x4000_0000 | libc::SYS_getpid, &mut []))
        }),
        probe("change the table of segments", |_| {
            let mut buffer = [0; 2];
            done(call!(SYS_modify_ldt, 0, &mut buffer, 16))
        }),
        probe("ask for a file system's number", |_| {
            done(call!(SYS_sysfs, 3))
        }),
        probe("ask for a file system's state by device", |_| {
            let mut buffer = [0; 8];
            beyond(call!(SYS_ustat, 0, &mut buffer), &[libc::EINVAL])
        }),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn of_architecture() -> Vec<Probe> {
    Vec::new()
}

/// A pseudo-terminal that is the controlling one of this process.
fn terminal() -> Result<i32, Refusal> {
    let (mut main, mut other) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: two integers of ours are filled; name and settings are not asked for.
    let opened = unsafe {
        libc::openpty(
            &raw mut main,
            &raw mut other,
            null,
            null.cast(),
            null.cast(),
        )
    };
    if opened < 0 {
        return Err(number(&std::io::Error::last_os_error()));
    }
    call!(SYS_setsid)?;
    call!(SYS_ioctl, other, libc::TIOCSCTTY as i64, 0)?;
    Ok(other)
}
