//! Meeting others by what both see: locks, leases, signals and futexes of one file or device.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    ptr::null_mut,
    thread,
};

use super::{
    Attempt, Environment, Probe, Refusal,
    call::{call, done, holds, number, numbered},
    mounts::path,
    probe,
};

/// Where outside holds a lock: nowhere that anybody else would.
const FIRST: i64 = 7_340_021;
/// How many wait outside, each to be woken once: more than there are places.
const WAITERS: usize = 16;
/// That the content of a directory changes (`linux/fcntl.h`).
const DN_CREATE: i32 = 4;

/// What is held outside while the probes run.
pub(super) struct HeldOutside {
    _locked: Vec<File>,
    words: Words,
    waiters: Vec<thread::JoinHandle<()>>,
}

impl HeldOutside {
    /// Locks the zero device, an input and a file of the image, and waits in a page of the input.
    pub(super) fn hold(folder: &Path) -> io::Result<Self> {
        let mut locked = Vec::new();
        let given = folder.join("input/given");
        for place in [
            Path::new("/dev/zero"),
            &given,
            &folder.join("root/bin/battery"),
        ] {
            let file = File::open(place)?;
            lock(&file, libc::F_OFD_SETLK, libc::F_RDLCK).map_err(io::Error::from_raw_os_error)?;
            locked.push(file);
        }
        let words = map(&given).map_err(io::Error::from_raw_os_error)?;
        let waiters: Vec<_> = (0..WAITERS)
            .map(|_| {
                let Words(at) = words;
                thread::spawn(move || wait(at))
            })
            .collect();
        // They wait on the first word until they are led to the second, by a call that says how many
        // were waiting.
        let mut led = 0;
        while led < WAITERS as i64 {
            // SAFETY: both words are mapped, and neither is written.
            let now = unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    words.0,
                    libc::FUTEX_REQUEUE,
                    0,
                    WAITERS,
                    words.0 + 4,
                )
            };
            if now < 0 {
                return Err(io::Error::last_os_error());
            }
            led += now;
            thread::yield_now();
        }
        Ok(Self {
            _locked: locked,
            words,
            waiters,
        })
    }
}

impl Drop for HeldOutside {
    fn drop(&mut self) {
        _ = wake(self.words.0 + 4, WAITERS);
        for waiter in self.waiters.drain(..) {
            // It only waited, and has nothing to tell.
            _ = waiter.join();
        }
    }
}

/// The address of the first page of a file, mapped for good.
#[derive(Clone, Copy)]
struct Words(usize);

fn map(file: &Path) -> Result<Words, Refusal> {
    let file = numbered(File::open(file))?;
    // SAFETY: a fresh mapping, which is only read.
    let at = unsafe {
        libc::mmap(
            null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(number(&io::Error::last_os_error()));
    }
    Ok(Words(at as usize))
}

/// Waits on a word of a page that is mapped for good, until somebody wakes it.
fn wait(at: usize) {
    // SAFETY: the page is mapped, and only read.
    unsafe {
        let value = (at as *const u32).read_volatile();
        let forever = null_mut::<libc::timespec>();
        libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAIT, value, forever);
    }
}

fn wake(at: usize, most: usize) -> i64 {
    // SAFETY: the page is mapped.
    unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAKE, most) }
}

fn lock(file: &File, command: i32, kind: i32) -> Result<i32, Refusal> {
    // SAFETY: an all-zero `flock` is a valid value, and the call reads and writes it alone.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = kind as i16;
        lock.l_start = FIRST;
        lock.l_len = 1;
        if libc::fcntl(file.as_raw_fd(), command, &raw mut lock) < 0 {
            return Err(number(&io::Error::last_os_error()));
        }
        Ok(lock.l_type.into())
    }
}

/// Whether somebody else's lock would keep this process from locking a file.
fn finds_lock(place: &Path) -> Attempt {
    let file = numbered(File::open(place))?;
    holds(lock(&file, libc::F_OFD_GETLK, libc::F_WRLCK)? != libc::F_UNLCK)
}

/// Something of this process's own, in the folder that it may write.
fn own(around: &Environment) -> Result<OwnedFd, Refusal> {
    let place = path(&around.output.join(format!("leased-{}", std::process::id())));
    let flags = libc::O_RDONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    let opened = call!(SYS_openat, libc::AT_FDCWD, place.as_c_str(), flags, 0o600)?;
    call!(SYS_unlinkat, libc::AT_FDCWD, place.as_c_str(), 0)?;
    // SAFETY: it was opened just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened as i32) })
}

pub(super) fn probes() -> Vec<Probe> {
    vec![
        probe("notice a lock of the host on a device", |_| {
            finds_lock(Path::new("/dev/zero"))
        }),
        probe(
            "notice a lock of the host on a file in a read-only mount",
            |around| finds_lock(&around.input.join("given")),
        ),
        probe(
            "notice a lock of the host on a file of the image",
            |around| finds_lock(&around.programs.join("battery")),
        ),
        probe("have the host's locks listed", |_| {
            let listed = numbered(fs::read_to_string("/proc/locks"))?;
            holds(listed.contains(&format!(" {FIRST} {FIRST}")))
        }),
        probe("take a lease, for which others have to wait", |around| {
            let file = own(around)?;
            done(call!(
                SYS_fcntl,
                file.as_raw_fd(),
                libc::F_SETLEASE,
                libc::F_WRLCK
            ))
        }),
        probe(
            "be told by a signal what changes in a read-only mount",
            |around| {
                let folder = numbered(File::open(&around.input))?;
                done(call!(
                    SYS_fcntl,
                    folder.as_raw_fd(),
                    libc::F_NOTIFY,
                    DN_CREATE
                ))
            },
        ),
        probe("wake who waits outside in a page of a file", |around| {
            holds(wake(map(&around.input.join("given"))?.0 + 4, 1) > 0)
        }),
    ]
}
