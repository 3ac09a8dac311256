//! The same suite as an ordinary user.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::TestResult;
use crate::launched::own_program;

tests!(everything_holds_for_an_ordinary_user);

/// What it runs is that user's suite, which does not contain it.
pub(crate) const AS_ROOT: &[&str] = &["everything_holds_for_an_ordinary_user"];

fn everything_holds_for_an_ordinary_user() -> TestResult {
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777))?;
    // The folder of the build may not be open to others.
    let program = folder.path().join("sandbox-tests");
    std::fs::copy(own_program(), &program)?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    let output = Command::new(&program)
        .arg("--test-threads=2")
        .uid(54_321)
        .gid(54_321)
        .current_dir("/")
        .env_clear()
        .env("TMPDIR", folder.path())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stdout).into_owned().into())
}
