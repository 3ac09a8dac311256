//! Runs a tool in a process group of its own and hands on what it prints: line by line, or as the
//! answer to a question.

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
const LINE_BYTES: u64 = 2048;
/// Bytes of output handed on; a tool that prints more goes on unheard.
const OUTPUT_BYTES: usize = 16 << 20;
/// Bytes of an answer that are handed on at once.
const PIECE_BYTES: usize = 64 << 10;
/// How often cancellation and deadline are looked at while nothing is printed.
const TICK: Duration = Duration::from_millis(50);

/// Runs `command` to its end. Standard output goes to `output`, standard error to `errors`.
///
/// Whatever the tool started and left in its process group is killed with it.
pub(super) fn run(
    command: Command,
    cancel: &Cancel,
    deadline: Instant,
    line: &mut dyn FnMut(&str),
) -> Result<Ended, Stopped> {
    let mut group = Group::start(command)?;
    let (sender, lines) = sync_channel(256);
    if let Some(output) = group.0.stdout.take() {
        forward(output, sender.clone());
    }
    if let Some(errors) = group.0.stderr.take() {
        forward(errors, sender);
    }
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    let mut heard = 0;
    let status = listen(&mut group, &lines, cancel, deadline, &mut |text: String| {
        heard += text.len();
        if heard <= OUTPUT_BYTES {
            line(&text);
        }
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    })?;
    Ok(Ended {
        status,
        tail: tail.into(),
    })
}

/// Runs `command` to its end for what it prints, of which somewhat more than `most` bytes are kept
/// at most. Cancelled, and held to the deadline, as [`run`] is.
pub(super) fn ask(
    command: Command,
    cancel: &Cancel,
    deadline: Instant,
    most: usize,
) -> Result<Answered, Stopped> {
    let mut group = Group::start(command)?;
    let (sender, pieces) = sync_channel(16);
    if let Some(output) = group.0.stdout.take() {
        hand_on(output, Stream::Output, sender.clone());
    }
    if let Some(errors) = group.0.stderr.take() {
        hand_on(errors, Stream::Errors, sender);
    }
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let status = listen(&mut group, &pieces, cancel, deadline, &mut |piece| {
        let (stream, bytes): (Stream, Vec<u8>) = piece;
        let kept = match stream {
            Stream::Output => &mut output,
            Stream::Errors => &mut errors,
        };
        if kept.len() <= most {
            kept.extend(bytes);
        }
    })?;
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

fn hand_on(
    mut stream: impl Read + Send + 'static,
    which: Stream,
    pieces: SyncSender<(Stream, Vec<u8>)>,
) {
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An error ends the stream as its end does: the tool's status tells what became of
                // it.
                Err(_) | Ok(0) => return,
                Ok(length) => {
                    if pieces.send((which, piece[..length].to_vec())).is_err() {
                        return;
                    }
                }
            }
        }
    });
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

/// Hands on what is printed until both streams have ended, or the tool has and nothing more comes.
fn listen<T>(
    group: &mut Group,
    printed: &Receiver<T>,
    cancel: &Cancel,
    deadline: Instant,
    each: &mut dyn FnMut(T),
) -> Result<ExitStatus, Stopped> {
    loop {
        if cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        if Instant::now() >= deadline {
            return Err(Stopped::Deadline);
        }
        let ended = |group: &mut Group| group.0.try_wait().map_err(Stopped::Wait);
        match printed.recv_timeout(TICK) {
            Ok(piece) => each(piece),
            Err(RecvTimeoutError::Disconnected) => match ended(group)? {
                Some(status) => return Ok(status),
                // It closed its streams and works on.
                None => std::thread::park_timeout(TICK),
            },
            // Something that left the group may hold the streams open for ever.
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = ended(group)? {
                    return Ok(status);
                }
            }
        }
    }
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
        let longer = asked("head -c 1000000 /dev/zero", 1_000).output.len();
        assert!((1_001..=1_000 + PIECE_BYTES).contains(&longer), "{longer}");
    }
}
