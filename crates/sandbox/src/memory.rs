//! Memory for secrets: it is not dumped, not swapped, not given to a fork, and overwritten with zeros
//! at its end.
//!
//! Here and not beside the secrets, since it takes unsafe code. `memfd_secret(2)` would also take the
//! pages out of the kernel's own mapping, but is off by default before Linux 6.5, and keeps the
//! host from hibernating for as long as there is such memory.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use zeroize::Zeroize;

/// How many bytes of secrets are in memory now that could not be locked.
static UNLOCKED: AtomicU64 = AtomicU64::new(0);

/// How many bytes of secrets are in memory that the host may swap, since locking them would take
/// more than `RLIMIT_MEMLOCK` allows; 0 as long as all are locked.
pub fn unlocked_bytes() -> u64 {
    UNLOCKED.load(Ordering::Relaxed)
}

/// Whole pages of ours, or of a file.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
    locked: bool,
}

// SAFETY: the mapping belongs to this value alone, and to no thread; it is not changed but through
// `&mut`.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `bytes` bytes, more than none, and locks them if the host allows it.
    fn map(bytes: usize, file: Option<&File>) -> Result<Self, Errno> {
        let (protection, flags) = match file {
            None => (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            ),
            Some(_) => (libc::PROT_READ, libc::MAP_SHARED),
        };
        let descriptor = file.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: a mapping at an address that the kernel chooses, so that nothing is replaced.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                flags,
                descriptor,
                0,
            )
        };
        let start = match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => start,
            _ => return Err(last_error()),
        };
        let mut pages = Self {
            start,
            bytes,
            locked: false,
        };
        // SAFETY: our own mapping, of this length; locking changes no byte of it.
        pages.locked = unsafe { libc::mlock(pages.start.as_ptr().cast(), bytes) } == 0;
        if !pages.locked {
            UNLOCKED.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(pages)
    }

    fn advise(&self, advice: libc::c_int) -> Result<(), Errno> {
        // SAFETY: our own mapping, of this length; the two that are given change what dumps and
        // forks get of it, and nothing for us.
        let done = unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, advice) };
        if done == 0 { Ok(()) } else { Err(last_error()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if !self.locked {
            UNLOCKED.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        }
        // SAFETY: our own mapping, which nobody refers to any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Bytes that are not dumped, not swapped unless the host forbids locking ([`unlocked_bytes`]), zeros
/// in a fork, and overwritten with zeros when they are dropped. Takes whole pages.
#[derive(Debug)]
pub struct LockedBytes {
    /// `None` where there is no byte.
    pages: Option<Pages>,
    length: usize,
}

impl LockedBytes {
    /// Takes `length` bytes of zero.
    ///
    /// # Panics
    /// If the process can have no more memory, as every allocation does.
    pub fn zeroed(length: usize) -> Self {
        let pages = (length > 0).then(|| {
            let pages = Pages::map(length, None).expect("there is memory for a secret");
            // Both have been in Linux since 4.14, and fail for no mapping like this one.
            pages
                .advise(libc::MADV_DONTDUMP)
                .and_then(|()| pages.advise(libc::MADV_WIPEONFORK))
                .expect("private memory can be kept from dumps and forks");
            pages
        });
        Self { pages, length }
    }

    /// Takes a copy of `bytes`; the caller overwrites the original.
    ///
    /// # Panics
    /// As [`Self::zeroed`].
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.pages {
            None => &[],
            // SAFETY: the mapping has `length` readable bytes and lives as long as `self`; who
            // writes them has `&mut self`.
            Some(pages) => unsafe { std::slice::from_raw_parts(pages.start.as_ptr(), self.length) },
        }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.pages {
            None => &mut [],
            // SAFETY: as in `as_slice`, and the mapping is writable; `&mut self` is the only way to it.
            Some(pages) => unsafe {
                std::slice::from_raw_parts_mut(pages.start.as_ptr(), self.length)
            },
        }
    }
}

impl Clone for LockedBytes {
    fn clone(&self) -> Self {
        Self::copy_of(self.as_slice())
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.as_mut_slice().zeroize();
    }
}

/// Keeps the pages of a file in memory from being swapped, for as long as this lives and the host
/// allows it ([`unlocked_bytes`]).
#[derive(Debug)]
pub struct PinnedFile {
    _pages: Option<Pages>,
}

impl PinnedFile {
    /// Pins the first `bytes` bytes of a file that is open for reading.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(file: &File, bytes: usize) -> std::io::Result<Self> {
        let pages = (bytes > 0).then(|| Pages::map(bytes, Some(file)));
        Ok(Self {
            _pages: pages.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping at `address` (proc_pid_smaps(5)).
    fn flags(address: *const u8) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("a process sees its maps");
        let wanted = address as usize;
        let mut here = false;
        for line in maps.lines() {
            let range = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'));
            let number = |text| usize::from_str_radix(text, 16);
            if let Some((start, end)) = range
                && let (Ok(start), Ok(end)) = (number(start), number(end))
            {
                here = (start..end).contains(&wanted);
            }
            if let (true, Some(flags)) = (here, line.strip_prefix("VmFlags:")) {
                return flags.to_owned();
            }
        }
        panic!("no mapping at {wanted:x}");
    }

    fn has(flags: &str, flag: &str) -> bool {
        flags.split_whitespace().any(|one| one == flag)
    }

    #[test]
    fn a_secret_is_neither_dumped_nor_swapped_nor_given_to_a_fork() {
        let secret = LockedBytes::copy_of(b"canary");
        assert_eq!(secret.as_slice(), b"canary");
        let flags = flags(secret.as_slice().as_ptr());
        for (flag, what) in [
            ("lo", "locked"),
            ("dd", "not dumped"),
            ("wf", "wiped on fork"),
        ] {
            assert!(has(&flags, flag), "{what}: {flags}");
        }
        let copy = secret.clone();
        drop(secret);
        assert_eq!(copy.as_slice(), b"canary");
        assert!(LockedBytes::copy_of(b"").as_slice().is_empty());
    }

    #[test]
    fn the_pages_of_a_file_are_locked_for_as_long_as_it_is_pinned() -> std::io::Result<()> {
        let mut file = tempfile::tempfile_in("/dev/shm")?;
        std::io::Write::write_all(&mut file, b"canary")?;
        let pinned = PinnedFile::new(&file, 6)?;
        let start = pinned._pages.as_ref().map(|pages| pages.start.as_ptr());
        let start = start.ok_or(std::io::ErrorKind::NotFound)?;
        assert!(has(&flags(start), "lo"));
        file.set_len(0)?;
        drop(pinned);
        Ok(())
    }
}
