//! The binary under test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The workspace's root folder.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

/// A folder for what tests make, inside the target folder.
pub fn scratch() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let scratch = target
        .unwrap_or_else(|| workspace().join("target"))
        .join("e2e");
    fs_err::create_dir_all(&scratch).expect("the target folder can be written");
    scratch
}

/// The binary under test: the one that `BARECOUNT_BIN` names, else one that is built here, once.
///
/// # Panics
/// If it cannot be built: a test of a binary that is not there must not pass.
pub fn barecount() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("BARECOUNT_BIN") {
        Some(path) => PathBuf::from(path)
            .canonicalize()
            .expect("BARECOUNT_BIN names the binary under test"),
        None => build(),
    })
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--locked", "--package", "barecount"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(workspace())
        .stderr(std::process::Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "the binary under test is built");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "barecount")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo says where the binary is")
}
