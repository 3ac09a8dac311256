//! What runs inside when two sandboxes try to meet: one prepares something by a path, the other
//! acts on the path of the same name, and either may notice the other.
#![expect(clippy::print_stdout, reason = "it speaks to the test by its output")]

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::null_mut;

/// Ways to be noticed. `Lease` and `Directory` need calls that the filter refuses.
pub(crate) const KINDS: [&str; 7] = [
    "flock",
    "record",
    "open-description",
    "lease",
    "watch",
    "directory",
    "futex",
];

/// That a file in a directory was read (`linux/fcntl.h`).
const DN_ACCESS: i32 = 1;

/// The number of an error.
type Refusal = i32;

/// What is held from one word to the next.
enum Prepared {
    Nothing,
    /// A lock or a lease.
    Open {
        _file: OwnedFd,
    },
    /// An inotify instance.
    Watch(OwnedFd),
    /// A directory, changes in which are told by a signal.
    Directory {
        _folder: OwnedFd,
    },
    /// A child that waits on a futex in a mapped file.
    Waiter(libc::pid_t),
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Self::Waiter(pid) = *self {
            // SAFETY: our own child, not yet waited for.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, null_mut(), 0);
            }
        }
    }
}

/// Answers lines, `prepare KIND PATH`, `act KIND PATH` and `tell`, each with one.
pub(crate) fn main() {
    block_told();
    let mut prepared = Prepared::Nothing;
    for line in std::io::stdin().lines() {
        let line = line.expect("it is text");
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["prepare", kind, path] => {
                // What was held before goes first: a lock ends with any descriptor of its file.
                prepared = Prepared::Nothing;
                prepare(kind, path).map(|now| {
                    prepared = now;
                    false
                })
            }
            ["act", kind, path] => act(kind, path),
            ["tell"] => Ok(told(&prepared)),
            _ => panic!("no such order: {line}"),
        };
        match answer {
            Ok(true) => println!("met"),
            Ok(false) => println!("alone"),
            Err(refusal) => println!("refused {}", std::io::Error::from_raw_os_error(refusal)),
        }
    }
}

/// Has what tells of changes in a directory, and of a lease that is to end, wait to be asked for.
fn block_told() {
    // SAFETY: a set of signals is a plain array; it is filled before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGIO);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, null_mut());
    }
}

fn checked(result: i64) -> Result<i64, Refusal> {
    if result < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    Ok(result)
}

fn open(path: &str) -> Result<OwnedFd, Refusal> {
    let path = CString::new(path).map_err(|_| libc::EINVAL)?;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: a live text, and a descriptor that nobody else has.
    unsafe {
        let opened = checked(libc::open(path.as_ptr(), flags).into())?;
        Ok(OwnedFd::from_raw_fd(opened as i32))
    }
}

fn lock(file: &OwnedFd, command: i32, kind: i32) -> Result<i32, Refusal> {
    // SAFETY: an all-zero `flock` is a valid value, and the call reads and writes it alone.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = kind as i16;
        lock.l_start = 40;
        lock.l_len = 2;
        checked(libc::fcntl(file.as_raw_fd(), command, &raw mut lock).into())?;
        Ok(lock.l_type.into())
    }
}

fn control(file: &OwnedFd, command: i32, argument: i32) -> Result<(), Refusal> {
    // SAFETY: integers.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), command, argument) }.into()).map(drop)
}

fn prepare(kind: &str, path: &str) -> Result<Prepared, Refusal> {
    let file = open(path)?;
    match kind {
        // SAFETY: integers.
        "flock" => checked(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }.into())
            .map(|_| Prepared::Open { _file: file }),
        "record" => {
            lock(&file, libc::F_SETLK, libc::F_RDLCK).map(|_| Prepared::Open { _file: file })
        }
        "open-description" => {
            lock(&file, libc::F_OFD_SETLK, libc::F_RDLCK).map(|_| Prepared::Open { _file: file })
        }
        "lease" => {
            control(&file, libc::F_SETLEASE, libc::F_WRLCK).map(|()| Prepared::Open { _file: file })
        }
        "watch" => {
            // Its closing is not to be noticed.
            drop(file);
            watch(path).map(Prepared::Watch)
        }
        "directory" => {
            let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
            let folder = open(folder.to_str().ok_or(libc::EINVAL)?)?;
            control(&folder, libc::F_NOTIFY, DN_ACCESS)?;
            Ok(Prepared::Directory { _folder: folder })
        }
        "futex" => wait_on(&map(&file)?).map(Prepared::Waiter),
        _ => panic!("no such kind: {kind}"),
    }
}

fn act(kind: &str, path: &str) -> Result<bool, Refusal> {
    let file = match (kind, open(path)) {
        ("lease", Err(libc::EWOULDBLOCK)) => return Ok(true),
        (_, opened) => opened?,
    };
    match kind {
        "flock" => {
            let flags = libc::LOCK_EX | libc::LOCK_NB;
            // SAFETY: integers.
            match checked(unsafe { libc::flock(file.as_raw_fd(), flags) }.into()) {
                Err(libc::EWOULDBLOCK) => Ok(true),
                other => other.map(|_| false),
            }
        }
        "record" => Ok(lock(&file, libc::F_GETLK, libc::F_WRLCK)? != libc::F_UNLCK),
        "open-description" => Ok(lock(&file, libc::F_OFD_GETLK, libc::F_WRLCK)? != libc::F_UNLCK),
        // A wait that a signal has interrupted goes on at the first word, where it began.
        "futex" => {
            let words = map(&file)?;
            Ok(wake(&words, 1) > 0 || wake(&words, 0) > 0)
        }
        // That it was opened, and is read, is what is noticed; of a directory nothing is.
        _ => {
            // SAFETY: one byte of a live buffer.
            unsafe { libc::read(file.as_raw_fd(), [0_u8].as_mut_ptr().cast(), 1) };
            Ok(false)
        }
    }
}

fn told(prepared: &Prepared) -> bool {
    match prepared {
        Prepared::Watch(watch) => {
            let mut events = [0_u64; 64];
            // SAFETY: as many bytes as the buffer has.
            let read = unsafe {
                libc::read(
                    watch.as_raw_fd(),
                    events.as_mut_ptr().cast(),
                    size_of_val(&events),
                )
            };
            read > 0
        }
        Prepared::Directory { .. } | Prepared::Open { .. } => {
            let at_once = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: a set of signals is a plain array, filled before it is used; what is written
            // of a signal is not asked for.
            unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, libc::SIGIO);
                libc::sigtimedwait(&raw const set, null_mut(), &raw const at_once) > 0
            }
        }
        Prepared::Nothing | Prepared::Waiter(_) => false,
    }
}

fn watch(path: &str) -> Result<OwnedFd, Refusal> {
    let path = CString::new(path).map_err(|_| libc::EINVAL)?;
    let what = libc::IN_OPEN | libc::IN_ACCESS | libc::IN_CLOSE;
    // SAFETY: a live text, and a descriptor that nobody else has.
    unsafe {
        let made = checked(libc::inotify_init1(libc::IN_NONBLOCK).into())?;
        let watch = OwnedFd::from_raw_fd(made as i32);
        checked(libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), what).into())?;
        Ok(watch)
    }
}

/// Two words in the first page of a file, shared with whoever maps it. Stays mapped.
struct Words(*const u32);

impl Words {
    fn at(&self, index: usize) -> *const u32 {
        self.0.wrapping_add(index)
    }
}

fn map(file: &OwnedFd) -> Result<Words, Refusal> {
    // SAFETY: a fresh mapping, which is only read; a file that is empty is found out first.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        checked(libc::fstat(file.as_raw_fd(), &raw mut found).into())?;
        let regular = found.st_mode & libc::S_IFMT == libc::S_IFREG;
        if regular && found.st_size < 8 {
            return Err(libc::ENODATA);
        }
        let at = libc::mmap(
            null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        Ok(Words(at.cast()))
    }
}

/// A child that waits on the second word, which is certain when this returns: it is led there from
/// the first one by the call that says whether it was waiting.
fn wait_on(words: &Words) -> Result<libc::pid_t, Refusal> {
    // SAFETY: this process has one thread, and the child only waits; both words are mapped.
    unsafe {
        let pid = checked(libc::fork().into())? as libc::pid_t;
        if pid == 0 {
            let value = words.at(0).read_volatile();
            loop {
                libc::syscall(
                    libc::SYS_futex,
                    words.at(0),
                    libc::FUTEX_WAIT,
                    value,
                    null_mut::<libc::timespec>(),
                );
            }
        }
        loop {
            let led = libc::syscall(
                libc::SYS_futex,
                words.at(0),
                libc::FUTEX_REQUEUE,
                0,
                1_usize,
                words.at(1),
            );
            match checked(led) {
                Ok(0) => {
                    libc::sched_yield();
                }
                Ok(_) => return Ok(pid),
                Err(refusal) => {
                    drop(Prepared::Waiter(pid));
                    return Err(refusal);
                }
            }
        }
    }
}

/// Wakes who waits on the word; how many that were.
fn wake(words: &Words, index: usize) -> i64 {
    // SAFETY: the word is mapped.
    unsafe { libc::syscall(libc::SYS_futex, words.at(index), libc::FUTEX_WAKE, 1) }
}
