//! Reading the files of a store on a file system that takes no writes.

use std::{os::unix::ffi::OsStrExt, path::Path};

use rusqlite::{Connection, ErrorCode, OpenFlags, backup::Backup};
use rustix::fs::{StatVfsMountFlags, statvfs};

/// Whether a folder's file system takes no writes. Where that cannot be told, opening it says why.
pub(super) fn is_closed(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Opens a file for reading.
///
/// Readers of a file that has a log share a third file, which SQLite cannot make where nothing can be
/// written. Where there is no log, nobody writes, and the file can be read as it is.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let read = connection.query_row("PRAGMA schema_version", [], |_| Ok(()));
    let closed = read.as_ref().is_err_and(|error| {
        let code = error.sqlite_error_code();
        matches!(code, Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
    });
    if closed && !has_log(path) {
        return Connection::open_with_flags(unchanging(path), flags | OpenFlags::SQLITE_OPEN_URI);
    }
    read.map(|()| connection)
}

/// A copy of a database in memory.
pub(super) fn in_memory(source: &Connection) -> rusqlite::Result<Connection> {
    let mut copy = Connection::open_in_memory()?;
    Backup::new(source, &mut copy)?.run_to_completion(PAGES, std::time::Duration::ZERO, None)?;
    Ok(copy)
}

/// Pages that are copied in one step.
const PAGES: i32 = 1 << 14;

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    Path::new(&log)
        .metadata()
        .is_ok_and(|found| found.len() > 0)
}

/// The file's name as a URI that says that nobody writes it.
fn unchanging(path: &Path) -> String {
    let escaped = path.as_os_str().as_bytes().iter().map(|&byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    format!("file:{}?immutable=1", escaped.collect::<String>())
}
