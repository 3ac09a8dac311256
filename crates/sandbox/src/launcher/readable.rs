//! Forks of the launcher, whose files in `/proc` it must write.
//!
//! The launcher itself is marked as not dumpable: specifications that pass through it may have
//! secrets in variables, and who can trace it has its control groups. A child inherits the mark with
//! the memory, and the files in `/proc` of a process with the mark are root's: a launcher of an
//! ordinary user could not map the identities of its child. So the mark is taken off for the fork.
//! The child keeps its memory readable until it has changed its identity; its payload's program is
//! its own.

use std::os::fd::BorrowedFd;

use rustix::io::Result;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::sys::{self, Forked};

/// Marks this process: nobody but root reads or traces it, and its memory is not dumped.
pub(super) fn hide() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// [`sys::fork_into`], with a child that is not marked.
pub(super) fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let forked = sys::fork_into(flags, cgroup);
    if !matches!(forked, Ok(Forked::Child)) {
        hide()?;
    }
    forked
}
