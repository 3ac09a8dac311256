//! What a host may have too little of, wherever that is met.

use std::{error::Error, io};

/// Errors of Linux that no kind of [`io::Error`] stands for: `EIO`, `ENFILE` and `EMFILE` of errno(3).
const OF_HOST: [i32; 3] = [5, 23, 24];

/// Whether an error, or what brought it about, is the host's: no descriptors, memory or room on the
/// disk, a disk that fails or takes nothing. Whatever met it, the work and its data are not at fault.
pub fn is_of_host(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        error.downcast_ref::<io::Error>().is_some_and(|error| {
            let known = error.raw_os_error().is_some_and(|it| OF_HOST.contains(&it));
            let kinds = [
                io::ErrorKind::OutOfMemory,
                io::ErrorKind::QuotaExceeded,
                io::ErrorKind::ReadOnlyFilesystem,
                io::ErrorKind::StorageFull,
            ];
            known || kinds.contains(&error.kind())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("something else")]
    struct Around(#[source] io::Error);

    #[test]
    fn a_lack_is_found_however_deep_it_is() {
        // EIO, ENOMEM, ENFILE, EMFILE, ENOSPC, EROFS, EDQUOT.
        for number in [5, 12, 23, 24, 28, 30, 122] {
            let error = io::Error::from_raw_os_error(number);
            assert!(is_of_host(&error), "{error}");
            let around = Around(io::Error::other(Around(error)));
            assert!(is_of_host(&around), "{around:?}");
        }
        // ENOENT, EACCES, ELOOP, ENAMETOOLONG.
        for number in [2, 13, 40, 36] {
            let error = Around(io::Error::from_raw_os_error(number));
            assert!(!is_of_host(&error), "{error:?}");
        }
    }
}
