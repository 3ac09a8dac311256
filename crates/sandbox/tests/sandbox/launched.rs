//! Launching, and hearing what came out.

use std::io::{PipeReader, PipeWriter, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use barecount_sandbox::{Exit, Launcher, Mount, Sandbox, SandboxName, Spec, Stdio};

use crate::launcher;

type Error = Box<dyn std::error::Error>;

/// What came of a payload.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A sandbox whose streams we hold.
pub(crate) struct Held {
    pub(crate) sandbox: Sandbox,
    pub(crate) stdin: PipeWriter,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

impl Held {
    /// Closes standard input, reads the rest, waits.
    pub(crate) fn finish(mut self) -> Result<Output, Error> {
        drop(self.stdin);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout)?;
        self.stderr.read_to_string(&mut stderr)?;
        Ok(Output {
            exit: self.sandbox.wait()?,
            stdout,
            stderr,
        })
    }

    /// Reads standard output up to the end of a line.
    pub(crate) fn line(&mut self) -> Result<String, Error> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.stdout.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        Ok(String::from_utf8(line)?)
    }
}

/// A name that no other test has.
pub(crate) fn fresh_name() -> SandboxName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    SandboxName::new(format!("test-{number}")).expect("it is a name")
}

pub(crate) fn spec(argv: &[&str]) -> Spec {
    let mut spec = Spec::new(
        fresh_name(),
        argv.iter().map(|&word| word.to_owned()).collect(),
    );
    spec.env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    spec
}

pub(crate) fn shell(script: &str) -> Spec {
    spec(&["/bin/sh", "-c", script])
}

/// This very program inside the sandbox, told to try something.
pub(crate) fn probing(words: &[&str]) -> Spec {
    let mut argv = vec!["/probe", "--probe"];
    argv.extend(words);
    let mut spec = spec(&argv);
    spec.mounts.push(Mount::Bind {
        source: own_program(),
        target: PathBuf::from("/probe"),
        read_only: true,
        executable: true,
        changes: false,
    });
    spec
}

pub(crate) fn own_program() -> PathBuf {
    std::env::current_exe().expect("it has a path")
}

pub(crate) fn hold(spec: &Spec) -> Result<Held, Error> {
    hold_by(launcher(), spec)
}

pub(crate) fn hold_by(launcher: &Launcher, spec: &Spec) -> Result<Held, Error> {
    let (stdin_read, stdin) = std::io::pipe()?;
    let (stdout, stdout_write) = std::io::pipe()?;
    let (stderr, stderr_write) = std::io::pipe()?;
    let stdio = Stdio {
        stdin: stdin_read.into(),
        stdout: stdout_write.into(),
        stderr: stderr_write.into(),
    };
    let sandbox = launcher.launch(spec, stdio)?;
    Ok(Held {
        sandbox,
        stdin,
        stdout,
        stderr,
    })
}

pub(crate) fn run(spec: &Spec) -> Result<Output, Error> {
    hold(spec)?.finish()
}

/// Runs and returns standard output, which must be all there is.
pub(crate) fn output_of(spec: &Spec) -> Result<String, Error> {
    let output = run(spec)?;
    if output.exit.status.success() && output.stderr.is_empty() {
        Ok(output.stdout.trim_end().to_owned())
    } else {
        Err(format!("{output:?}").into())
    }
}

pub(crate) fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount::Bind {
        source: source.to_owned(),
        target: target.into(),
        read_only,
        executable: false,
        changes: false,
    }
}
