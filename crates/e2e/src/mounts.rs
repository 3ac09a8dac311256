//! Namespaces to start the binary in: of mounts, to try a state folder on a file system that is
//! full, or cannot be written; and of a network, to be a host among hosts of the test's own.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Marks the shells that hold namespaces, lest they are taken for something left behind.
pub(crate) const HOLDER: &str = "BARECOUNT_E2E_NAMESPACE";

/// A mount namespace, held by a shell in it. It is gone, with its mounts, when this is dropped.
#[derive(Debug)]
pub struct MountNamespace {
    has_network: bool,
    shell: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl MountNamespace {
    /// A namespace whose mounts nobody else sees. An ordinary user is root in it.
    ///
    /// # Panics
    /// If the host does not let this user have one.
    pub fn new() -> Self {
        Self::make(false)
    }

    /// The same, with a network of its own in which nothing is up yet.
    ///
    /// # Panics
    /// If the host does not let this user have one.
    pub fn with_network() -> Self {
        Self::make(true)
    }

    fn make(has_network: bool) -> Self {
        let mut command = Command::new("unshare");
        if has_network {
            command.arg("--net");
        }
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let mut shell = command
            .args(["--mount", "--propagation", "private", "sh"])
            .env(HOLDER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("unshare (util-linux) can be started");
        let orders = shell.stdin.take().expect("its standard input is a pipe");
        let answers = shell.stdout.take().expect("its standard output is a pipe");
        Self {
            has_network,
            shell,
            orders,
            answers: BufReader::new(answers),
        }
    }

    /// Runs a line of shell in the namespace.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&mut self, line: &str) {
        let mut answer = String::new();
        writeln!(
            self.orders,
            "if {line}; then echo done; else echo failed; fi"
        )
        .and_then(|()| self.answers.read_line(&mut answer))
        .expect("the shell in the namespace lives");
        assert_eq!(answer, "done\n", "{line}");
    }

    /// The process that holds it.
    pub fn holder(&self) -> u32 {
        self.shell.id()
    }

    /// What is put in front of a program's command line to start it in the namespace, in `folder`.
    pub fn entry(&self, folder: &Path) -> Vec<OsString> {
        let mut entry: Vec<OsString> = ["nsenter", "--mount", "--target"].map(Into::into).into();
        entry.push(self.holder().to_string().into());
        if self.has_network {
            entry.push("--net".into());
        }
        if !rustix::process::geteuid().is_root() {
            entry.extend(["--user", "--preserve-credentials"].map(Into::into));
        }
        // A folder is looked up anew: the one of outside is below the mounts.
        entry.extend(["--", "sh", "-c", "cd \"$0\" && exec \"$@\""].map(Into::into));
        entry.push(folder.into());
        entry
    }
}

impl Default for MountNamespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
