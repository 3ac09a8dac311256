//! Runs a tool in a process group of its own and hands on what it prints: line by line, or as the
//! answer to a question.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
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

/// What a tool answered.
pub(super) struct Answered {
    pub(super) status: ExitStatus,
    /// Its standard output; longer than asked for where it says more than that.
    pub(super) output: Vec<u8>,
    /// Its standard error, or the beginning of it.
    pub(super) errors: Vec<u8>,
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
const LINE_BYTES: usize = 2048;
/// Bytes of output handed on; a tool that prints more goes on unheard.
const OUTPUT_BYTES: usize = 16 << 20;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;
/// How often cancellation and deadline are looked at while nothing is printed.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Runs `command` to its end, and hands on what it prints line by line.
///
/// Whatever the tool started and left in its process group is killed with it.
pub(super) fn run(
    command: Command,
    cancel: &Cancel,
    deadline: Instant,
    line: &mut dyn FnMut(&str),
) -> Result<Ended, Stopped> {
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    let mut heard = 0;
    let mut whole = |text: String| {
        heard += text.len();
        if heard <= OUTPUT_BYTES {
            line(&text);
        }
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    };
    let mut begun = [Vec::new(), Vec::new()];
    let status = listen(command, cancel, deadline, &mut |stream, bytes| {
        let begun = &mut begun[stream as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            while begun.len() >= LINE_BYTES || begun.ends_with(b"\n") {
                let rest = begun.split_off(begun.len().min(LINE_BYTES));
                whole(text(&std::mem::replace(begun, rest)));
            }
        }
    })?;
    for last in begun.iter().filter(|begun| !begun.is_empty()) {
        whole(text(last));
    }
    Ok(Ended {
        status,
        tail: tail.into(),
    })
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

/// Runs `command` to its end for what it prints, of which somewhat more than `most` bytes are kept
/// at most. Cancelled, and held to the deadline, as [`run`] is.
pub(super) fn ask(
    command: Command,
    cancel: &Cancel,
    deadline: Instant,
    most: usize,
) -> Result<Answered, Stopped> {
    let mut printed = [Vec::new(), Vec::new()];
    let status = listen(command, cancel, deadline, &mut |stream, bytes| {
        let kept = &mut printed[stream as usize];
        if kept.len() <= most {
            kept.extend_from_slice(bytes);
        }
    })?;
    let [output, errors] = printed;
    Ok(Answered {
        status,
        output,
        errors,
    })
}

#[derive(Clone, Copy)]
enum Stream {
    Output,
    Errors,
}

/// Starts `command` and hands on what it prints until it has ended: all that it printed itself, but
/// not what something prints that it started, that left its group and holds its streams open.
fn listen(
    command: Command,
    cancel: &Cancel,
    deadline: Instant,
    each: &mut dyn FnMut(Stream, &[u8]),
) -> Result<ExitStatus, Stopped> {
    let mut group = Group::start(command)?;
    let output = group.0.stdout.take().map(OwnedFd::from);
    let errors = group.0.stderr.take().map(OwnedFd::from);
    let mut open: Vec<_> = [(Stream::Output, output), (Stream::Errors, errors)]
        .into_iter()
        .filter_map(|(which, pipe)| Some((which, File::from(pipe?))))
        .collect();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        if Instant::now() >= deadline {
            return Err(Stopped::Deadline);
        }
        if let Some(status) = group.0.try_wait().map_err(Stopped::Wait)? {
            for (which, pipe) in &mut open {
                // Asked for after its end: all that it printed and nobody has read lies there.
                let left = rustix::io::ioctl_fionread(&*pipe);
                let mut left = pipe.take(left.map_err(|error| Stopped::Wait(error.into()))?);
                while let Ok(length @ 1..) = left.read(&mut piece) {
                    each(*which, &piece[..length]);
                }
            }
            return Ok(status);
        }
        for at in printed(&open)?.into_iter().rev() {
            let (which, pipe) = &mut open[at];
            match pipe.read(&mut piece) {
                Ok(length @ 1..) => each(*which, &piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An error ends the stream as its end does: the tool's status tells what became of
                // it.
                Err(_) | Ok(0) => drop(open.remove(at)),
            }
        }
    }
}

/// Which of the streams can be read without waiting, as soon as one can, or none after a while.
fn printed(open: &[(Stream, File)]) -> Result<Vec<usize>, Stopped> {
    let mut asked: Vec<_> = open
        .iter()
        .map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN))
        .collect();
    match poll(&mut asked, Some(&TICK)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(Stopped::Wait(error.into())),
    }
    let ready = |at: &usize| !asked[*at].revents().is_empty();
    Ok((0..open.len()).filter(ready).collect())
}

/// A process group that is killed when nobody waits for it any more.
struct Group(Child);

impl Group {
    fn start(mut command: Command) -> Result<Self, Stopped> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command.spawn().map(Self).map_err(Stopped::Start)
    }
}

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
    use std::time::Duration;

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
        assert_eq!(longest, LINE_BYTES);
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
        let deadline = || Instant::now() + Duration::from_millis(100);
        let cancel = Cancel::default();
        let stopped = run(shell("sleep 600"), &cancel, deadline(), &mut |_| {});
        assert!(matches!(stopped, Err(Stopped::Deadline)));
        let unanswered = ask(shell("echo 1; sleep 600"), &cancel, deadline(), 10);
        assert!(matches!(unanswered, Err(Stopped::Deadline)));
        cancel.cancel();
        let unheard = ask(shell("sleep 600"), &cancel, soon(), 10);
        assert!(matches!(unheard, Err(Stopped::Cancelled)));
    }

    #[test]
    fn an_answer_is_all_that_is_printed_and_of_a_longer_one_as_much_as_shows_that() {
        let asked = |script, most| {
            ask(shell(script), &Cancel::default(), soon(), most)
                .unwrap_or_else(|_| panic!("it ends"))
        };
        let answered = asked("head -c 1000000 /dev/zero; echo why >&2; exit 3", 1_000_000);
        assert_eq!(answered.status.code(), Some(3));
        assert_eq!(answered.output.len(), 1_000_000);
        assert_eq!(answered.errors, b"why\n");
        // Something outside of its group has its streams for ever.
        let left = asked("setsid sleep 600 & echo $!; echo told >&2", 1_000);
        assert_eq!(left.errors, b"told\n");
        let left = String::from_utf8(left.output).unwrap_or_default();
        let left = left.trim().parse().ok().and_then(Pid::from_raw);
        let ended = left.map(|left| rustix::process::kill_process(left, Signal::KILL));
        assert_eq!(ended, Some(Ok(())));
        let longer = asked("head -c 1000000 /dev/zero", 1_000).output.len();
        assert!((1_001..=1_000 + PIECE_BYTES).contains(&longer), "{longer}");
    }
}
