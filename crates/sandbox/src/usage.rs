//! Figures from the resource usage that the kernel keeps for waited-for processes.

use crate::report::{Source, Usage};

/// Turns what `getrusage` or `wait4` says into our figures.
pub(crate) fn from_rusage(usage: &libc::rusage) -> Usage {
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Usage {
        cpu_micros: Some(micros(usage.ru_utime) + micros(usage.ru_stime)),
        cpu_source: Some(Source::WaitedFor),
        // In kibibytes.
        memory_peak_bytes: Some(usage.ru_maxrss as u64 * 1024),
        memory_source: Some(Source::WaitedFor),
        // In sectors of 512 bytes, whatever the device has.
        io_read_bytes: Some(usage.ru_inblock as u64 * 512),
        io_write_bytes: Some(usage.ru_oublock as u64 * 512),
        io_source: Some(Source::WaitedFor),
        pids_peak: None,
        cpu_throttled_periods: None,
    }
}
