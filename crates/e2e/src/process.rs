//! Starting the binary, waiting for it with a deadline, and looking at how it ended.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Seek, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};
use serde_json::Value;

use crate::{binary, tree::Tree};

/// Nothing that a test starts may take longer, on a machine with a lot else to do, too.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A program about to be started.
#[derive(Debug)]
pub struct Invocation {
    command: Command,
    shown: String,
    patience: Duration,
}

impl Invocation {
    /// The binary under test with these arguments, in `folder`, in a process group of its own.
    /// Whatever `BARECOUNT_…` variables the tests were given do not reach it.
    pub fn of_binary<A: AsRef<OsStr>>(
        folder: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut invocation = Self::of(binary::barecount(), folder, arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BARECOUNT_") {
                invocation.command.env_remove(name);
            }
        }
        invocation
    }

    /// Any program.
    pub fn of<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        folder: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .process_group(0);
        let shown = format!("{command:?}");
        Self {
            command,
            shown,
            patience: PATIENCE,
        }
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Leaves a variable of the tests' own out.
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Gives it bytes to read from standard input.
    ///
    /// # Panics
    /// If they cannot be put into a file.
    pub fn reads(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let mut file = tempfile::tempfile().expect("a file for standard input");
        file.write_all(bytes.as_ref())
            .and_then(|()| file.rewind())
            .expect("a file can be written");
        self.command.stdin(file);
        self
    }

    /// Adds an argument.
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self.shown = format!("{:?}", self.command);
        self
    }

    /// Adds arguments.
    pub fn arguments<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::argument)
    }

    /// Allows it another time than [`PATIENCE`].
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Puts other programs in front, which start this one: `nsenter …`.
    pub fn behind(self, programs: &[OsString]) -> Self {
        let Some((first, rest)) = programs.split_first() else {
            return self;
        };
        let mut command = Command::new(first);
        command
            .args(rest)
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(folder) = self.command.get_current_dir() {
            command.current_dir(folder);
        }
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let shown = format!("{command:?}");
        Self {
            command,
            shown,
            ..self
        }
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut self) -> Running {
        let stdout = tempfile::tempfile().expect("a file for standard output");
        let stderr = tempfile::tempfile().expect("a file for standard error");
        let copy = |file: &File| file.try_clone().expect("a file can be opened twice");
        self.command.stdout(copy(&stdout)).stderr(copy(&stderr));
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.shown));
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a child has a pidfd");
        Running {
            child,
            pid,
            pidfd,
            stdout,
            stderr,
            shown: self.shown,
            deadline: Instant::now() + self.patience,
            reaped: false,
        }
    }

    /// Starts it and waits for its end.
    pub fn finish(self) -> Finished {
        self.start().finish()
    }
}

/// A program that runs. Dropping it kills its process group.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its process, which leads a group of its own.
    pub pid: Pid,
    pidfd: OwnedFd,
    stdout: File,
    stderr: File,
    shown: String,
    deadline: Instant,
    reaped: bool,
}

impl Running {
    /// Waits for the end.
    ///
    /// # Panics
    /// If it takes longer than [`PATIENCE`].
    pub fn finish(mut self) -> Finished {
        if !self.ends_before(self.deadline) {
            let _ = kill_process_group(self.pid, Signal::KILL);
            let said = self.so_far();
            panic!("{} did not end:\n{said}", self.shown);
        }
        let status = self.child.wait().expect("a child can be waited for");
        self.reaped = true;
        Finished {
            status,
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            shown: std::mem::take(&mut self.shown),
        }
    }

    /// Whether it ends before `moment`; waits no longer than that. It stays to be waited for.
    pub fn ends_before(&self, moment: Instant) -> bool {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut watched = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut watched, Some(&timeout)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("a pidfd can be polled: {error}"),
            }
        }
    }

    /// Sends a signal to the process alone, as `kill` does.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill_process(self.pid, signal);
    }

    /// Waits until something that can be observed holds while it runs.
    ///
    /// # Panics
    /// If it ends before, or takes too long.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        wait_until(self.deadline, what, || {
            let ended = self.ends_before(Instant::now());
            let held = holds();
            assert!(held || !ended, "it ended before {what}:\n{}", self.so_far());
            held
        });
    }

    /// It, and everything that it started, at this moment.
    pub fn tree(&self) -> Tree {
        Tree::of(self.pid)
    }

    /// What it has printed until now, on both streams.
    pub fn so_far(&self) -> String {
        format!("{}\n{}", text(&self.stdout), text(&self.stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill_process_group(self.pid, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// What was written to a file so far. Read without moving the offset that the writer shares.
fn text(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let length = file.metadata().map_or(0, |found| found.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)
        .expect("what was printed can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Polls a condition that can be observed, but not waited for, until it holds.
///
/// # Panics
/// If it does not hold before `deadline`.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that waits between two looks at a condition of another process"
)]
pub fn wait_until(deadline: Instant, what: &str, mut holds: impl FnMut() -> bool) {
    while !holds() {
        assert!(Instant::now() < deadline, "it was waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a program ended, and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    shown: String,
}

impl Finished {
    /// Asserts an exit status.
    ///
    /// # Panics
    /// With all that was printed, if it is another one.
    #[track_caller]
    pub fn exits_with(self, status: i32) -> Self {
        assert_eq!(self.status.code(), Some(status), "exit status of {self}");
        self
    }

    /// Asserts a failure: exit status, and error code with a page.
    ///
    /// # Panics
    /// With all that was printed, if it is not that.
    #[track_caller]
    pub fn fails_with(self, status: i32, code: &str) -> Self {
        let finished = self.exits_with(status).tells(&format!("[{code}]"));
        let page = binary::workspace().join(format!("docs/errors/{code}.md"));
        assert!(page.is_file(), "code {code} has a page");
        finished
    }

    /// Asserts that standard output or standard error hold a text.
    ///
    /// # Panics
    /// With all that was printed, if they do not.
    #[track_caller]
    pub fn tells(self, text: &str) -> Self {
        let told = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(told, "`{text}` is told by {self}");
        self
    }

    /// Standard output as JSON of a kind: `barecount/<kind>/v1`.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn json(&self, kind: &str) -> Value {
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("standard output is JSON ({error}): {self}"));
        assert_eq!(value["schema"], format!("barecount/{kind}/v1"), "{self}");
        value
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            status,
            stdout,
            stderr,
            shown,
        } = self;
        write!(
            f,
            "{shown}\n{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}
