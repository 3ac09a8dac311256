//! Keeping the process's memory to itself.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Marks this process: it is never dumped, and no other process of its user reads or traces it. For
/// a program with secrets, before it has any; the mark lasts until another program is run.
///
/// Its files in `/proc` are root's from then on, but can still be read by the process itself.
///
/// # Errors
/// Those of prctl(2): a filter of system calls may forbid it.
pub fn forbid_dumps() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)
}
