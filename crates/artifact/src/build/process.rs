//! Runs a tool in a process group of its own and hands on what it prints, line by line.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Asks a build to stop; clones ask the same build.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops the build: within a tenth of a second its tools are killed.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the build was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How a tool ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The last lines that it printed.
    pub(super) tail: Vec<String>,
}

/// Why a tool was not waited for.
pub(super) enum Stopped {
    Start(io::Error),
    Wait(io::Error),
    Cancelled,
    Deadline,
}

/// Lines kept for an error message.
const TAIL_LINES: usize = 40;
/// Bytes of one line; the rest of a longer one is the next line.
const LINE_BYTES: u64 = 2048;
/// Bytes of output handed on; a tool that prints more goes on unheard.
const OUTPUT_BYTES: usize = 16 << 20;
/// How often cancellation and deadline are looked at while nothing is printed.
const TICK: Duration = Duration::from_millis(50);

/// Runs `command` to its end. Standard output goes to `output`, standard error to `errors`.
///
/// Whatever the tool started and left in its process group is killed with it.
pub(super) fn run(
    mut command: Command,
    cancel: &Cancel,
    deadline: Instant,
    line: &mut dyn FnMut(&str),
) -> Result<Ended, Stopped> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut group = Group(command.spawn().map_err(Stopped::Start)?);
    let (sender, lines) = sync_channel(256);
    if let Some(output) = group.0.stdout.take() {
        forward(output, sender.clone());
    }
    if let Some(errors) = group.0.stderr.take() {
        forward(errors, sender);
    }
    let tail = listen(&mut group, &lines, cancel, deadline, line)?;
    let status = group.0.wait().map_err(Stopped::Wait)?;
    Ok(Ended {
        status,
        tail: tail.into(),
    })
}

fn forward(stream: impl Read + Send + 'static, lines: SyncSender<String>) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        // An error ends the stream as its end does: the tool's status tells what became of it.
        while let Ok(1..) = (&mut stream).take(LINE_BYTES).read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if lines.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// Hands lines on until both streams have ended, or the tool has and nothing more comes.
fn listen(
    group: &mut Group,
    lines: &Receiver<String>,
    cancel: &Cancel,
    deadline: Instant,
    line: &mut dyn FnMut(&str),
) -> Result<VecDeque<String>, Stopped> {
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    let mut heard = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        if Instant::now() >= deadline {
            return Err(Stopped::Deadline);
        }
        match lines.recv_timeout(TICK) {
            Ok(text) => {
                heard += text.len();
                if heard <= OUTPUT_BYTES {
                    line(&text);
                }
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(text);
            }
            Err(RecvTimeoutError::Disconnected) => match group.0.try_wait() {
                Ok(Some(_)) => return Ok(tail),
                // It closed its streams and works on.
                Ok(None) => std::thread::park_timeout(TICK),
                Err(error) => return Err(Stopped::Wait(error)),
            },
            // Something that left the group may hold the streams open for ever.
            Err(RecvTimeoutError::Timeout) => match group.0.try_wait() {
                Ok(Some(_)) => return Ok(tail),
                Ok(None) => {}
                Err(error) => return Err(Stopped::Wait(error)),
            },
        }
    }
}

/// A process group that is killed when nobody waits for it any more.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // The group keeps its number while any member lives, and nobody else can have it as long
        // as the leader is not waited for; afterwards ESRCH is all that can come of it.
        let leader = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let (Ok(None), Some(leader)) = (self.0.try_wait(), leader) {
            let _ = kill_process_group(leader, Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn both_streams_are_heard_and_the_tail_is_kept() {
        let mut heard = Vec::new();
        let script = "echo out; echo err >&2; i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i; done; exit 3";
        let ended = run(shell(script), &Cancel::default(), soon(), &mut |line| {
            heard.push(line.to_owned())
        })
        .unwrap_or_else(|_| panic!("it ends"));
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(heard.len(), 102);
        assert!(heard.contains(&"err".to_owned()));
        assert_eq!(ended.tail.len(), TAIL_LINES);
    }

    #[test]
    fn a_gigantic_line_is_cut_into_bearable_ones() {
        let mut longest = 0;
        let script = "head -c 1000000 /dev/zero | tr '\\0' x";
        let ended = run(shell(script), &Cancel::default(), soon(), &mut |line| {
            longest = longest.max(line.len());
        });
        assert!(ended.is_ok());
        assert_eq!(longest as u64, LINE_BYTES);
    }

    #[test]
    fn cancelling_kills_the_tool_and_what_it_started() {
        let cancel = Cancel::default();
        let pids = std::cell::RefCell::new(Vec::new());
        let script = "sleep 600 & echo $!; echo $$; wait";
        let stopped = run(shell(script), &cancel, soon(), &mut |line| {
            pids.borrow_mut().push(line.to_owned());
            if pids.borrow().len() == 2 {
                cancel.cancel();
            }
        });
        assert!(matches!(stopped, Err(Stopped::Cancelled)));
        for pid in pids.into_inner() {
            let deadline = soon();
            // The killed grandchild is reaped by somebody else, in its time.
            while alive(&pid) {
                assert!(Instant::now() < deadline, "process {pid} is still there");
                std::thread::yield_now();
            }
        }
    }

    fn alive(pid: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn a_tool_that_never_ends_is_stopped_at_the_deadline() {
        let deadline = Instant::now() + Duration::from_millis(100);
        let stopped = run(
            shell("sleep 600"),
            &Cancel::default(),
            deadline,
            &mut |_| {},
        );
        assert!(matches!(stopped, Err(Stopped::Deadline)));
    }
}
