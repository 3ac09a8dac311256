//! Where things are.

use std::{path::PathBuf, process::Command};

use serde::{Deserialize, de::DeserializeOwned};

use crate::steps::Failure;

/// The project's folders.
pub(crate) struct Project {
    /// The workspace's root.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Project {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Self, Failure> {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let Metadata {
            workspace_root,
            target_directory,
        } = metadata(&manifest, &["--no-deps"])?;
        Ok(Self {
            root: workspace_root,
            target: target_directory,
        })
    }

    /// Where the output of a step is kept.
    pub(crate) fn log(&self, step: &str) -> PathBuf {
        self.target.join("xtask").join(format!("{step}.log"))
    }

    /// The Python that has the packages which tests need.
    pub(crate) fn test_python(&self) -> PathBuf {
        self.python_environment().join("bin/python")
    }

    /// The virtual environment of [`Project::test_python`].
    pub(crate) fn python_environment(&self) -> PathBuf {
        self.target.join("test-python")
    }

    /// The virtual environment that has what a benchmark compares with.
    pub(crate) fn bench_environment(&self) -> PathBuf {
        self.target.join("bench-python")
    }

    /// Where peers of a benchmark are, with what they are installed with.
    pub(crate) fn peers(&self) -> PathBuf {
        self.target.join("bench-peers")
    }

    /// A program of the workspace as tests run it.
    pub(crate) fn debug_program(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }
}

/// What `cargo metadata` answers about a workspace.
pub(crate) fn metadata<T: DeserializeOwned>(
    manifest: &std::path::Path,
    flags: &[&str],
) -> Result<T, Failure> {
    let failed = |reason: String| Failure::new("cargo metadata", reason);
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--manifest-path",
        ])
        .arg(manifest)
        .args(flags)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}
