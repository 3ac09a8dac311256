//! What runs inside: tries one thing and prints `ok` or the number of the error.
#![expect(clippy::print_stdout, reason = "it speaks to the test by its output")]

use std::ffi::CString;
use std::process::ExitCode;

pub(crate) fn main(words: &[String]) -> ExitCode {
    match words.first().map(String::as_str) {
        Some("try") => {
            for what in &words[1..] {
                let result = attempt(what);
                let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
                let told = if result >= 0 {
                    "ok".to_owned()
                } else {
                    error.to_string()
                };
                println!("{what} {told}");
            }
        }
        Some("eat-memory") => eat_memory(),
        Some("fork-until-refused") => fork_until_refused(),
        Some("connect-abstract") => connect_abstract(&words[1]),
        Some("meet") => crate::meeting::main(),
        Some("take") => take(&words[1]),
        Some("spin") => spin(),
        Some("hold-tree") => hold_tree(&words[1]),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// Makes one system call that a sandbox must refuse; the result is that of the call.
fn attempt(what: &str) -> libc::c_long {
    let nothing = std::ptr::null::<libc::c_void>();
    let buffer = [0_u64; 64];
    let path = CString::new("/tmp").expect("it has no NUL");
    let some = buffer.as_ptr();
    let at = path.as_ptr();
    // SAFETY: every pointer is null or to a live buffer larger than what the call reads or writes;
    // a call that should be refused and is not changes this throw-away process alone.
    unsafe {
        match what {
            "mount" => libc::syscall(libc::SYS_mount, at, at, c"tmpfs".as_ptr(), 0, nothing),
            "umount" => libc::syscall(libc::SYS_umount2, c"/proc".as_ptr(), 0),
            "fsopen" => libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0),
            "open_tree" => libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, at, 1),
            "pivot_root" => libc::syscall(libc::SYS_pivot_root, at, at),
            "chroot" => libc::syscall(libc::SYS_chroot, at),
            "unshare-user" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
            "unshare-mount" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNS),
            "unshare-net" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNET),
            "clone-user" => namespace_clone(libc::CLONE_NEWUSER),
            "clone-net" => namespace_clone(libc::CLONE_NEWNET),
            "clone3" => libc::syscall(libc::SYS_clone3, some, 64),
            "setns" => libc::syscall(libc::SYS_setns, 0, 0),
            "ptrace" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, 1, 0, 0),
            "ptrace-me" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0),
            "read-memory" => libc::syscall(libc::SYS_process_vm_readv, 1, some, 1, some, 1, 0),
            "bpf" => libc::syscall(libc::SYS_bpf, 0, some, 64),
            "keyctl" => libc::syscall(libc::SYS_keyctl, 0, -3, 1),
            "add-key" => libc::syscall(libc::SYS_add_key, at, at, at, 1, -3),
            "perf" => libc::syscall(libc::SYS_perf_event_open, some, 0, -1, -1, 0),
            "userfaultfd" => libc::syscall(libc::SYS_userfaultfd, 0),
            "io_uring" => libc::syscall(libc::SYS_io_uring_setup, 8, some),
            "open-by-handle" => libc::syscall(libc::SYS_open_by_handle_at, 3, some, 0),
            "kexec" => libc::syscall(libc::SYS_kexec_load, 0, 0, nothing, 0),
            "module" => libc::syscall(libc::SYS_init_module, some, 8, at),
            "reboot" => libc::syscall(libc::SYS_reboot, 0xfee1_dead_u32, 672_274_793, 0, nothing),
            "settime" => libc::syscall(libc::SYS_clock_settime, 0, some),
            "syslog" => libc::syscall(libc::SYS_syslog, 3, some, 8),
            "swapon" => libc::syscall(libc::SYS_swapon, at, 0),
            "sethostname" => libc::syscall(libc::SYS_sethostname, at, 4),
            "setuid-root" => libc::syscall(libc::SYS_setuid, 0),
            "mknod-disk" => libc::syscall(
                libc::SYS_mknodat,
                libc::AT_FDCWD,
                c"/tmp/disk".as_ptr(),
                0o60_644,
                0x800,
            ),
            "socket-packet" => socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
            "socket-raw" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
            "socket-vsock" => socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
            "socket-alg" => socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            "socket-audit" => socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
            "socket-route" => socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
            "socket-unix" => socket(libc::AF_UNIX, libc::SOCK_STREAM, 0),
            "socket-inet6" => socket(libc::AF_INET6, libc::SOCK_STREAM, 0),
            "type-on-terminal" => libc::syscall(libc::SYS_ioctl, 0, libc::TIOCSTI, at),
            "oom-shield" => oom_shield(),
            _ => panic!("no such attempt: {what}"),
        }
    }
}

/// In the child, were there one, it ends at once.
///
/// # Safety
/// As for `clone` without a stack: a plain fork.
unsafe fn namespace_clone(flag: libc::c_int) -> libc::c_long {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: without CLONE_VM this is a fork, and the child does nothing but end.
    unsafe {
        let pid = libc::syscall(
            libc::SYS_clone,
            flag | libc::SIGCHLD,
            nothing,
            nothing,
            nothing,
            0,
        );
        if pid == 0 {
            libc::_exit(0);
        }
        pid
    }
}

fn socket(family: i32, kind: i32, protocol: i32) -> libc::c_long {
    // SAFETY: three integers.
    unsafe { libc::syscall(libc::SYS_socket, family, kind, protocol) }
}

/// Asks to be spared by the kernel when memory runs out.
fn oom_shield() -> libc::c_long {
    match std::fs::write("/proc/self/oom_score_adj", "-1000") {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

fn eat_memory() {
    let mut eaten = Vec::new();
    loop {
        // Every page is written, or the kernel would not give it.
        eaten.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&eaten);
    }
}

/// Forks children that wait for ever, and prints how many there could be.
fn fork_until_refused() {
    let mut count = 0;
    while count < 10_000 {
        // SAFETY: this process has one thread, and the child only waits for a signal.
        match unsafe { libc::fork() } {
            -1 => break,
            0 => loop {
                // SAFETY: waits, allocates nothing.
                unsafe { libc::pause() };
            },
            _ => count += 1,
        }
    }
    println!("{count}");
}

/// Leaves a file wherever it may, and waits in a tree of processes that all have the same command
/// line.
fn hold_tree(name: &str) {
    for folder in ["/tmp", "/dev/shm"] {
        std::fs::write(format!("{folder}/{name}"), name).expect("it may be written");
    }
    let socket = format!("/tmp/{name}.socket");
    let _listening = std::os::unix::net::UnixListener::bind(socket).expect("it is free");
    for _ in 0..2 {
        // SAFETY: this process has one thread, and each of the four then waits for a signal.
        unsafe { libc::fork() };
    }
    loop {
        // SAFETY: waits, allocates nothing.
        unsafe { libc::pause() };
    }
}

fn connect_abstract(name: &str) {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("it is a name");
    let told = match std::os::unix::net::UnixStream::connect_addr(&address) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.raw_os_error().unwrap_or(0).to_string(),
    };
    println!("{told}");
}

/// Takes as much of something as it gets, says how much, and keeps it until its input ends.
fn take(what: &str) {
    let another: fn() -> i32 = match what {
        // SAFETY: an integer.
        "watches" => || unsafe { libc::inotify_init1(0) },
        "signals" => queue_signal,
        "pipes" => large_pipe,
        "descriptors" => send_descriptors,
        // SAFETY: an integer.
        "terminals" => || unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) },
        _ => panic!("there is no taking {what}"),
    };
    // SAFETY: a set of signals is a plain array; it is filled before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    let mut count = 0;
    while another() >= 0 {
        count += 1;
    }
    println!("{count}");
    std::io::stdin().lines().for_each(drop);
}

/// Queues a signal for this process, which lets it wait; -1 where that is refused.
fn queue_signal() -> i32 {
    // SAFETY: an all-zero value is a valid one, and the signal is for this process.
    unsafe { libc::sigqueue(libc::getpid(), libc::SIGRTMIN(), std::mem::zeroed()) }
}

/// Opens a pipe of a megabyte; -1 where that is refused.
fn large_pipe() -> i32 {
    let mut ends = [0; 2];
    // SAFETY: it fills both; then integers.
    unsafe {
        if libc::pipe(ends.as_mut_ptr()) < 0 {
            return -1;
        }
        libc::fcntl(ends[0], libc::F_SETPIPE_SZ, 1 << 20)
    }
}

/// Has a hundred descriptors on their way through a socket; -1 where that is refused.
fn send_descriptors() -> i32 {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let Ok((ours, theirs)) = std::os::unix::net::UnixDatagram::pair() else {
        return -1;
    };
    let many = [std::os::fd::AsFd::as_fd(&theirs); 100];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(
        beside.push(SendAncillaryMessage::ScmRights(&many)),
        "there is room"
    );
    let text = [std::io::IoSlice::new(b"x")];
    let sent = rustix::net::sendmsg(&ours, &text, &mut beside, SendFlags::empty());
    // What is on its way stays so while somebody could receive it.
    std::mem::forget((ours, theirs));
    if sent.is_ok() { 0 } else { -1 }
}

/// Uses 60 milliseconds of processor time, however long that takes.
fn spin() {
    let mut used = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    while used.tv_sec == 0 && used.tv_nsec < 60_000_000 {
        // SAFETY: it fills the struct.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut used) };
    }
}
