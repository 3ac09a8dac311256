//! System calls by their number, as somebody would make them who goes past every library.

use std::ffi::CStr;

use super::{Attempt, Refusal};

/// An argument of a system call.
pub(super) enum Word<'a> {
    Number(i64),
    Text(&'a CStr),
    Buffer(&'a mut [u64]),
}

macro_rules! from_number {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Word<'_> {
            fn from(number: $kind) -> Self {
                Self::Number(i64::from(number))
            }
        })*
    };
}

from_number!(i32, u32, i64);

impl<'a> From<&'a CStr> for Word<'a> {
    fn from(text: &'a CStr) -> Self {
        Self::Text(text)
    }
}

impl<'a, const N: usize> From<&'a mut [u64; N]> for Word<'a> {
    fn from(buffer: &'a mut [u64; N]) -> Self {
        Self::Buffer(buffer)
    }
}

/// A system call by its name, with up to six arguments: numbers, texts, and buffers of words.
macro_rules! call {
    ($name:ident $(, $argument:expr)* $(,)?) => {
        $crate::battery::call::system_call(
            libc::$name,
            &mut [$($crate::battery::call::Word::from($argument)),*],
        )
    };
}
pub(super) use call;

/// The result of a system call, or the number of its error.
pub(super) fn system_call(
    number: libc::c_long,
    arguments: &mut [Word<'_>],
) -> Result<i64, Refusal> {
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Word::Number(number) => *number,
            Word::Text(text) => text.as_ptr() as i64,
            Word::Buffer(buffer) => buffer.as_mut_ptr() as i64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: pointers are to live texts and to buffers that are larger than what the calls of the
    // probes read or write; what a call does to this process beyond that, it does to one that was
    // forked for it and ends after it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    Ok(result)
}

/// Success as such.
pub(super) fn done<T>(result: Result<T, Refusal>) -> Attempt {
    result.map(drop)
}

/// Counts as success these errors, too, which come only from behind the permission.
pub(super) fn beyond<T>(result: Result<T, Refusal>, errors: &[i32]) -> Attempt {
    match result {
        Err(error) if errors.contains(&error) => Ok(()),
        other => done(other),
    }
}

/// The number of an error of the standard library.
pub(super) fn number(error: &std::io::Error) -> Refusal {
    error.raw_os_error().unwrap_or(0)
}

/// The same for a whole result.
pub(super) fn numbered<T>(result: std::io::Result<T>) -> Result<T, Refusal> {
    result.map_err(|error| number(&error))
}

/// Possible if it is so.
pub(super) fn holds(so: bool) -> Attempt {
    if so { Ok(()) } else { Err(0) }
}

/// A child that waits to be looked at, and ends with this handle.
pub(super) struct Child(pub(super) i32);

impl Child {
    pub(super) fn start() -> Result<Self, Refusal> {
        // SAFETY: this process has one thread; the child only waits for a signal.
        match unsafe { libc::fork() } {
            -1 => Err(number(&std::io::Error::last_os_error())),
            0 => loop {
                // SAFETY: integers; then it waits, and ends with us.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::prctl(libc::PR_SET_DUMPABLE, 1);
                    libc::pause();
                }
            },
            pid => Ok(Self(pid)),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Starts a child by `clone` or `clone3`, which ends at once.
pub(super) fn start_and_end(
    number: libc::c_long,
    arguments: &mut [Word<'_>],
) -> Result<(), Refusal> {
    match system_call(number, arguments)? {
        // SAFETY: we are the child, and end.
        0 => unsafe { libc::_exit(0) },
        pid => {
            // SAFETY: our own child.
            unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
            Ok(())
        }
    }
}
