//! Running commands one after another, each shown before it starts and timed after.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// A command that failed, or could not be started.
#[derive(Debug)]
pub(crate) struct Failure {
    step: String,
    reason: String,
}

impl Failure {
    pub(crate) fn new(step: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            step: step.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step `{}` failed: {}", self.step, self.reason)
    }
}

/// One command of a task.
pub(crate) struct Step {
    /// The name that selects it.
    pub(crate) name: &'static str,
    command: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl Step {
    pub(crate) fn new(name: &'static str, command: &str) -> Self {
        let command = command.split_whitespace().map(str::to_owned).collect();
        Self {
            name,
            command,
            env: Vec::new(),
        }
    }

    pub(crate) fn with_env(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.env.push((key, value.into()));
        self
    }

    /// Runs the command in the workspace's root and returns how long it took.
    #[expect(clippy::print_stdout, reason = "what runs is shown")]
    pub(crate) fn run(&self) -> Result<Duration, Failure> {
        println!("\n==> {}: {}", self.name, self.command.join(" "));
        let started = Instant::now();
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| Failure::new(self.name, "it has no command"))?;
        let status = Command::new(program)
            .args(arguments)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(workspace())
            .status()
            .map_err(|error| Failure::new(self.name, format!("`{program}`: {error}")))?;
        if status.success() {
            Ok(started.elapsed())
        } else {
            Err(Failure::new(
                self.name,
                format!("{status}; run again with `{}`", self.command.join(" ")),
            ))
        }
    }
}

/// The workspace's root folder.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
