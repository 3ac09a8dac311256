//! A process of its own, since the mark is the whole process's.

use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::process::{DumpableBehavior, dumpable_behavior};

#[test]
fn a_process_with_secrets_is_not_dumpable() -> io::Result<()> {
    assert_eq!(
        dumpable_behavior()?,
        DumpableBehavior::Dumpable,
        "the control"
    );
    barecount_secrets::forbid_dumps()?;
    assert_eq!(dumpable_behavior()?, DumpableBehavior::NotDumpable);
    // What of it others could read is root's, and it reads its own all the same.
    let memory = std::fs::metadata("/proc/self/mem")?;
    assert_eq!(memory.uid(), 0);
    std::fs::read_dir("/proc/self/fd")?;
    std::fs::read_link("/proc/self/exe")?;
    Ok(())
}
