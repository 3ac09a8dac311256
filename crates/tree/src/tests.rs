//! Trees of the kinds that work leaves behind, made by a seeded generator, and removed by root and by
//! an ordinary user.

mod asides;
mod grown;
mod hostile;
mod limits;
mod measured;
mod owned;

use std::{
    ffi::CString,
    fs::{File, Permissions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Gid, Uid},
};

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A user of whom this host has nothing.
pub(crate) const ORDINARY: u32 = 42_424;

/// Does something as a user whom modes bind: on a thread that is an ordinary user's, where this
/// process is root.
pub(crate) fn as_ordinary(work: impl FnOnce() -> TestResult + Send + 'static) -> TestResult {
    let thread = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            let group = Gid::from_raw(ORDINARY);
            let user = Uid::from_raw(ORDINARY);
            // Of this thread alone.
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(group, group, group)?;
            rustix::thread::set_thread_res_uid(user, user, user)?;
        }
        work()
    });
    thread.join().map_err(|_| "the work panicked")?
}

/// A folder that is there until it is removed by what is tested; where that fails, it stays. It is in
/// memory (shm_overview(7)): what takes its time on a disk is the disk.
pub(crate) fn place() -> io::Result<PathBuf> {
    place_in(Path::new("/dev/shm"))
}

pub(crate) fn place_on_disk() -> io::Result<PathBuf> {
    place_in(&temporary())
}

#[expect(clippy::disallowed_methods, reason = "a test has no folder of its own")]
fn temporary() -> PathBuf {
    std::env::temp_dir()
}

fn place_in(folder: &Path) -> io::Result<PathBuf> {
    tempfile::Builder::new()
        .prefix("barecount-tree-")
        .tempdir_in(folder)
        .map(tempfile::TempDir::keep)
}

pub(crate) fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A chain of nested folders, each with this mode at the end; made from the inside out of one open
/// folder after the other, since no path is so long.
pub(crate) fn chain(within: &Path, depth: usize, name: &str, mode: u32) -> io::Result<()> {
    let name = CString::new(name)?;
    let mut folder: OwnedFd = File::open(within)?.into();
    for _ in 0..depth {
        rustix::fs::mkdirat(&folder, &*name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = rustix::fs::openat(&folder, &*name, flags, Mode::empty())?;
        rustix::fs::fchmod(folder.as_fd(), Mode::from_raw_mode(mode))?;
        folder = below;
    }
    Ok(())
}

/// Runs an ignored test of this binary in a process of its own, which a shell prepares.
pub(crate) fn in_own_process(before: &str, test: &str) -> TestResult {
    let script =
        format!("{before} \"$0\" --exact tests::{test} --ignored --nocapture --test-threads 1");
    let ran = Command::new("sh")
        .args(["-ec", &script])
        .arg(std::env::current_exe()?)
        // The stack of a thread that was not asked for more is two mebibytes.
        .env("RUST_MIN_STACK", "262144")
        .output()?;
    let told = String::from_utf8_lossy(&ran.stdout);
    if ran.status.success() && told.contains("1 passed") {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&ran.stderr);
    Err(format!("{test}: {}\n{told}\n{errors}", ran.status).into())
}
