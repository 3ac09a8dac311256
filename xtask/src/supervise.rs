//! Running one command to its end: shown, logged, bounded in time, and leaving nothing behind.
//!
//! The command gets a process group of its own. Whatever it starts and abandons becomes a child of
//! this process ([`adopt_orphans`]), so that when the command has ended — well, badly, or because
//! its time was up — nothing that it started goes on.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, PipeReader, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{self, Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// Lines of output that are kept to be shown again if the command fails.
const TAIL_LINES: usize = 40;
/// Bytes of one such line.
const TAIL_LINE_BYTES: usize = 400;
/// What a command gets to end by itself after it was interrupted.
const GRACE: Duration = Duration::from_secs(10);
/// How long descendants are ended, one generation after another, before that is given up.
const SWEEP: Duration = Duration::from_secs(20);
/// How often the next generation of descendants is looked for.
const GENERATION: Duration = Duration::from_millis(20);

/// How a command ended.
pub(crate) struct Ended {
    /// Its end.
    pub(crate) how: How,
    /// How long it ran.
    pub(crate) took: Duration,
    /// Its last lines of output.
    pub(crate) tail: Vec<String>,
    /// Names of the processes that it left behind; they have been ended.
    pub(crate) left_behind: Vec<String>,
}

/// Where a command's output is shown, beside its log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// On standard output.
    Stdout,
    /// On standard error.
    Stderr,
    /// Nowhere.
    InLog,
}

/// The end of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// With this exit status.
    Exited(i32),
    /// By this signal, sent by another.
    Signalled(i32),
    /// Because its time was up.
    TimedOut,
    /// Because this program was told to stop.
    Interrupted,
}

enum Event {
    Output(Vec<u8>),
    /// The command itself has ended; what it started may not have.
    Ended(WaitStatus),
    /// There is no child left.
    Childless,
    Signal,
}

/// Makes processes whose parent has ended children of this one.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(process::set_child_subreaper(Some(process::getpid()))?)
}

/// Runs the command for no longer than `limit`, with its output where it is to be shown and in the
/// file `log`.
///
/// Must not be called by two threads at once: it waits for every child of the process.
///
/// # Errors
/// Where the command cannot be started or the log not be written.
pub(crate) fn run(
    command: &mut Command,
    limit: Duration,
    log: &Path,
    shown: Shown,
) -> io::Result<Ended> {
    let (events_in, events) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let signals_end = signals.handle();
    let signalled = events_in.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            // Nobody receives once the command has ended.
            let _ = signalled.send(Event::Signal);
        }
    });
    let (output, input) = io::pipe()?;
    let started = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .process_group(0)
        .spawn()?;
    // Its ends of the pipe would keep the output from ending.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let pid = Pid::from_child(&child);
    let forwarded = events_in.clone();
    thread::spawn(move || forward(output, &forwarded));
    thread::spawn(move || reap(pid, &events_in));
    let mut watch = Watch {
        pid,
        events,
        transcript: Transcript::create(log, shown)?,
    };
    let how = watch.until_ended(started + limit);
    let took = started.elapsed();
    let left_behind = watch.sweep();
    signals_end.close();
    Ok(Ended {
        how: how?,
        took,
        tail: watch.transcript.tail(),
        left_behind: left_behind?,
    })
}

fn forward(mut output: PipeReader, events: &Sender<Event>) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        if events
            .send(Event::Output(buffer[..length].to_vec()))
            .is_err()
        {
            return;
        }
    }
}

/// Waits for all children, adopted ones included, until there are none.
fn reap(pid: Pid, events: &Sender<Event>) {
    loop {
        match process::wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => {
                let _ = events.send(Event::Ended(status));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                let _ = events.send(Event::Childless);
                return;
            }
        }
    }
}

struct Watch {
    pid: Pid,
    events: Receiver<Event>,
    transcript: Transcript,
}

impl Watch {
    fn until_ended(&mut self, mut deadline: Instant) -> io::Result<How> {
        let mut ended_by_us = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Output(bytes)) => self.transcript.write(&bytes)?,
                Ok(Event::Ended(status)) => {
                    return Ok(ended_by_us.unwrap_or(how(status)));
                }
                Ok(Event::Signal) if ended_by_us.is_none() => {
                    ended_by_us = Some(How::Interrupted);
                    deadline = Instant::now() + GRACE;
                    self.signal(Signal::INT);
                }
                // A second one means at once.
                Ok(Event::Signal) => self.signal(Signal::KILL),
                Ok(Event::Childless) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the command ended unseen"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    ended_by_us.get_or_insert(How::TimedOut);
                    deadline = Instant::now() + GRACE;
                    self.signal(Signal::KILL);
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended in this moment.
        let _ = process::kill_process_group(self.pid, signal);
    }

    /// Ends what the command left behind, and says what that was.
    fn sweep(&mut self) -> io::Result<Vec<String>> {
        let deadline = Instant::now() + SWEEP;
        let mut found = Vec::new();
        while Instant::now() < deadline {
            for (pid, name) in children()? {
                // Those whose parent is ended here become children of this process in turn.
                if process::kill_process(pid, Signal::KILL).is_ok() {
                    found.push((pid, name));
                }
            }
            match self.events.recv_timeout(GENERATION) {
                Ok(Event::Output(bytes)) => self.transcript.write(&bytes)?,
                Ok(Event::Childless) => break,
                _ => {}
            }
        }
        while let Ok(Event::Output(bytes)) = self.events.recv_timeout(GENERATION) {
            self.transcript.write(&bytes)?;
        }
        found.sort_by_key(|(pid, _)| pid.as_raw_nonzero());
        found.dedup_by_key(|(pid, _)| pid.as_raw_nonzero());
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }
}

fn how(status: WaitStatus) -> How {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => How::Exited(code),
        (None, signal) => How::Signalled(signal.unwrap_or_default()),
    }
}

/// This process's children that have not ended, with their names.
fn children() -> io::Result<Vec<(Pid, String)>> {
    let own = process::getpid();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|text| text.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // One that ends in between is none.
        let Ok(stat) = fs::read_to_string(Path::new("/proc").join(&name).join("stat")) else {
            continue;
        };
        if let Some((parent, state, name)) = parse_stat(&stat)
            && parent == own.as_raw_nonzero().get()
            && state != "Z"
        {
            found.push((pid, name.to_owned()));
        }
    }
    Ok(found)
}

/// Parent, state and name in a line of `/proc/PID/stat` (proc_pid_stat(5)). The name may hold
/// anything, parentheses too.
fn parse_stat(stat: &str) -> Option<(i32, &str, &str)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?;
    Some((fields.next()?.parse().ok()?, state, name))
}

/// Output on its way to the terminal and the log, with its last lines kept.
struct Transcript {
    log: File,
    shown: Shown,
    lines: VecDeque<String>,
    unfinished: Vec<u8>,
}

impl Transcript {
    fn create(path: &Path, shown: Shown) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Self {
            log: File::create(path)?,
            shown,
            lines: VecDeque::new(),
            unfinished: Vec::new(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.shown {
            Shown::Stdout => {
                let mut terminal = io::stdout().lock();
                terminal.write_all(bytes)?;
                terminal.flush()?;
            }
            Shown::Stderr => io::stderr().lock().write_all(bytes)?,
            Shown::InLog => {}
        }
        self.log.write_all(bytes)?;
        for &byte in bytes {
            match byte {
                b'\n' => self.keep(),
                b'\r' => self.unfinished.clear(),
                _ if self.unfinished.len() < TAIL_LINE_BYTES => self.unfinished.push(byte),
                _ => {}
            }
        }
        Ok(())
    }

    fn keep(&mut self) {
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        let line = String::from_utf8_lossy(&self.unfinished).into_owned();
        self.lines.push_back(line);
        self.unfinished.clear();
    }

    fn tail(&mut self) -> Vec<String> {
        if !self.unfinished.is_empty() {
            self.keep();
        }
        self.lines.drain(..).collect()
    }
}

#[cfg(test)]
mod tests;
