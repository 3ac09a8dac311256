//! A Python with other engines in it, to open what was committed.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use rustix::fs::{FlockOperation, flock};

use crate::binary;

/// The interpreter that `BARECOUNT_TEST_PYTHON` names, else one in an environment of its own with
/// what `xtask/requirements.txt` names, made once.
///
/// # Panics
/// If it cannot be made: a test with no engine to ask must not pass.
pub fn interpreter() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(
        || match std::env::var_os("BARECOUNT_TEST_PYTHON").map(PathBuf::from) {
            Some(python) => python,
            None => make(),
        },
    )
}

fn make() -> PathBuf {
    let scratch = binary::scratch();
    let lock = fs_err::File::create(scratch.join("python.lock")).expect("a lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock on a file of our own");
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/requirements.txt");
    let wanted = fs_err::read(&requirements).expect("the requirements are listed");
    let folder = scratch.with_file_name("test-python");
    let python = folder.join("bin/python");
    // Written last: an environment without it was never finished.
    let installed = folder.join("installed");
    if fs_err::read(&installed).is_ok_and(|found| found == wanted) {
        return python;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ];
    run(Command::new(&python).args(pip).arg(&requirements));
    fs_err::write(&installed, wanted).expect("a file of the tests' own");
    python
}

fn run(command: &mut Command) {
    let status = command.status().expect("python3 can be started");
    assert!(status.success(), "{command:?}: {status}");
}
