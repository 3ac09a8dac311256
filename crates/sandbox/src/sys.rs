//! The system calls that have no safe wrapper elsewhere. All unsafe code of the workspace is here,
//! but for the two places that must know what a child does.

use std::ffi::{CStr, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};
use rustix::process::Pid;

fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Bit 33, which the constant of `libc` cannot hold.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork we are on.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with a handle of the new.
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// A fork into new namespaces, and into a control group of version 2: by `clone3`, or where a filter
/// does not let it through, whose arguments no filter can look at, by `clone` (as C libraries do).
///
/// The caller has one thread, so the child may do anything, allocation included.
pub(crate) fn fork_into(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    match clone3(flags, cgroup) {
        // Whatever else forbids it forbids the other, too, and says so.
        Err(Errno::NOSYS | Errno::PERM) => {}
        result => return result,
    }
    let forked = clone(flags)?;
    if let (Forked::Parent { pid, pidfd }, Some(cgroup)) = (&forked, cgroup)
        && let Err(errno) = enter(cgroup, *pid)
    {
        // It has done nothing yet: it waits to be told to go.
        _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        _ = rustix::process::waitpid(Some(*pid), rustix::process::WaitOptions::empty());
        return Err(errno);
    }
    Ok(forked)
}

/// Moves a process into a control group of version 2.
fn enter(cgroup: BorrowedFd<'_>, pid: Pid) -> Result<()> {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let procs = rustix::fs::openat(cgroup, "cgroup.procs", flags, rustix::fs::Mode::empty())?;
    rustix::io::write(procs, pid.as_raw_nonzero().to_string().as_bytes()).map(drop)
}

fn clone(flags: u64) -> Result<Forked> {
    let mut pidfd: RawFd = -1;
    let flags = flags as libc::c_ulong | (libc::CLONE_PIDFD | libc::SIGCHLD) as libc::c_ulong;
    let none: libc::c_ulong = 0;
    // SAFETY: without CLONE_VM and with no stack, the child runs on its own copy of this one, as after
    // fork; the third argument is where the kernel puts the descriptor, and the others are not read
    // without their flags, wherever an architecture has them.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, none) })?;
    Ok(forked(pid, pidfd))
}

fn forked(pid: libc::c_long, pidfd: RawFd) -> Forked {
    match Pid::from_raw(pid as i32) {
        None => Forked::Child,
        Some(pid) => {
            // SAFETY: the kernel has just put a fresh descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Forked::Parent { pid, pidfd }
        }
    }
}

fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero `clone_args` is a valid value of this plain struct of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is initialised and outlives the call; neither CLONE_VM nor a stack is given,
    // so the child runs on its own copy of this stack, as after fork.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    })?;
    Ok(forked(pid, pidfd))
}

/// Runs `body` in a child that borrows our memory, and waits until it has run a program or ended.
///
/// `body` never returns: it must end in `execve` or `_exit`.
///
/// # Safety
/// While the child lives it is the only one that runs on this memory; what it writes we see. It
/// must not unwind, nor leave anything half changed when it runs the program.
pub(crate) unsafe fn spawn_sharing_memory<T>(
    body: extern "C" fn(*mut c_void) -> c_int,
    argument: &mut T,
) -> Result<Pid> {
    const STACK_BYTES: usize = 256 * 1024;
    // SAFETY: a fresh anonymous private mapping, checked below.
    let stack = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            STACK_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if stack == libc::MAP_FAILED {
        return Err(Errno::NOMEM);
    }
    // SAFETY: the address is one past the end of the mapping, page aligned.
    let top = unsafe { stack.add(STACK_BYTES) };
    // SAFETY: CLONE_VFORK holds us back until the child no longer uses the memory, so the stack and
    // `argument` outlive it, and nothing runs on them at the same time.
    let pid = unsafe {
        libc::clone(
            body,
            top,
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            std::ptr::from_mut(argument).cast(),
        )
    };
    let pid = check(libc::c_long::from(pid));
    // SAFETY: the mapping is ours, and the child is done with it.
    unsafe { libc::munmap(stack, STACK_BYTES) };
    Pid::from_raw(pid? as i32).ok_or(Errno::INVAL)
}

/// Attributes of mounts, as `mount_setattr(2)` takes them.
pub(crate) mod attr {
    pub(crate) const READ_ONLY: u64 = 1;
    pub(crate) const NO_SUID: u64 = 2;
    pub(crate) const NO_DEV: u64 = 4;
    pub(crate) const NO_EXEC: u64 = 8;
}

/// Sets attributes of the mount `fd`, of all below it too when `recursive`.
pub(crate) fn mount_setattr(fd: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr {
        set,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and attributes are valid for the call, and the size is that of the struct.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Closes every descriptor from `first` on to `last`, both included.
pub(crate) fn close_range(first: RawFd, last: u32) {
    // SAFETY: descriptors of this process alone; callers own, or have given up, what they name.
    // It cannot fail for a sensible range.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Closes every descriptor above 2 but those named.
pub(crate) fn close_all_but(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut next: RawFd = 3;
    for &fd in keep.iter().filter(|fd| **fd >= 3) {
        if fd > next {
            close_range(next, (fd - 1) as u32);
        }
        next = next.max(fd + 1);
    }
    close_range(next, u32::MAX);
}

/// Gives every signal its default action.
pub(crate) fn default_signal_actions() {
    for signal in 1..=64 {
        // SAFETY: default actions run no code of ours. It fails for SIGKILL, SIGSTOP and the two
        // of the C library, which need nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Has a write beyond this process's limit of a file's size (`RLIMIT_FSIZE`) fail by `EFBIG`, which can
/// be told, in place of ending the process without a word. What a sandbox runs has the default action.
pub fn fail_beyond_file_size() {
    // SAFETY: to ignore a signal runs no code of ours. It cannot fail for this one.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Blocks all signals, or none.
pub(crate) fn block_all_signals(block: bool) {
    // SAFETY: a set of signals is a plain array; it is filled before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        if block {
            libc::sigfillset(&raw mut set);
        } else {
            libc::sigemptyset(&raw mut set);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// A descriptor that becomes readable when one of the (blocked) signals is pending.
pub(crate) fn signal_fd(signals: &[c_int]) -> Result<OwnedFd> {
    // SAFETY: a set of signals is a plain array; it is filled before it is used, and the new
    // descriptor is owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(libc::c_long::from(fd)).map(|fd| OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// One instruction of classic BPF.
pub(crate) type Instruction = libc::sock_filter;

/// Installs a system call filter on this thread, for good.
pub(crate) fn install_seccomp(program: &[Instruction]) -> Result<()> {
    const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which is valid for its length, and does not write.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    })
    .map(drop)
}

/// Puts this thread under a Landlock ruleset, for good.
pub(crate) fn landlock_restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}

/// Version of the Landlock interface; 0 where there is none.
pub(crate) fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the kernel takes no ruleset and returns the version.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<c_void>(),
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}

/// Brings up the loopback device of this network namespace.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: an all-zero `ifreq` is a valid value; name and flags are set before the call.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        let result = libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request);
        check(libc::c_long::from(result)).map(drop)
    }
}

/// Makes of an open `/dev/net/tun` the TUN device of a name in this network namespace: whole IP
/// packets, nothing before them.
pub(crate) fn make_tun(device: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: an all-zero `ifreq` is a valid value; the name is shorter than its field, so that it
    // ends in a zero, and the kernel writes within the struct alone.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name[..room].iter_mut().zip(name.to_bytes()) {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        let result = libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request);
        check(libc::c_long::from(result)).map(drop)
    }
}

/// Replaces this process; returns only the reason why not.
///
/// Both lists are of pointers to NUL-ended strings and end in a null pointer.
pub(crate) fn execute(program: &CStr, argv: &StringList, env: &StringList) -> Errno {
    // SAFETY: program and lists are NUL-ended and live until the call returns, if it does.
    unsafe {
        libc::execve(
            program.as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
        )
    };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Strings in the form that `execve` takes.
pub(crate) struct StringList {
    /// Kept for the pointers.
    _strings: Vec<std::ffi::CString>,
    pointers: Vec<*const libc::c_char>,
}

impl StringList {
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Self {
            _strings: strings,
            pointers,
        }
    }
}

/// Resources that the waited-for descendants of this process have used.
pub(crate) fn usage_of_children() -> libc::rusage {
    // SAFETY: an all-zero `rusage` is a valid value, which the call fills.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    }
}

/// Ends this process at once, without running anything at exit.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Kills every process that this one may, but itself: inside a process namespace, its whole tree.
pub(crate) fn kill_all_others() {
    // SAFETY: two integers. That there is nobody left is not an error to us.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Reaps a child that has ended: its wait status, and what it and its descendants have used.
pub(crate) fn reap(pid: Pid) -> Result<(c_int, libc::rusage)> {
    // SAFETY: an all-zero `rusage` is a valid value; both are filled by the call.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut status = 0;
        let pid = pid.as_raw_nonzero().get();
        let reaped = libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage);
        match check(libc::c_long::from(reaped))? {
            0 => Err(Errno::AGAIN),
            _ => Ok((status, usage)),
        }
    }
}
