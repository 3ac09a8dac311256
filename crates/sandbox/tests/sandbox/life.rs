//! How sandboxes end, and that nothing outlives its agent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Stdio as ProcessStdio};

use barecount_sandbox::StartError;
use barecount_sandbox::{ExitStatus, Isolation, LaunchError, Launcher, LauncherConfig, Signal};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::launched::{hold, output_of, own_program, run, shell, spec};
use crate::{TestResult, launcher};

tests!(
    the_exit_code_is_the_payloads,
    the_deadly_signal_is_the_payloads,
    the_streams_are_wired,
    a_termination_signal_has_its_default_action,
    a_handler_gets_the_signal,
    killing_ends_the_whole_tree,
    what_the_payload_leaves_behind_ends_with_it,
    dropping_ends_the_whole_tree,
    the_exit_descriptor_becomes_readable,
    a_second_launch_of_a_live_name_is_refused,
    many_threads_launch_at_once,
    a_listener_is_reachable_from_inside_and_served_outside,
    a_launcher_refuses_to_start_with_threads,
    a_killed_launcher_takes_its_sandboxes_along,
    a_killed_agent_takes_everything_along,
    a_sweep_removes_what_two_kills_left,
    a_launcher_at_its_end_removes_what_another_one_held_at_its_beginning,
    a_host_without_user_namespaces_is_told_with_the_remedy,
    a_process_without_isolation_says_so_and_ends_whole,
);

fn the_exit_code_is_the_payloads() -> TestResult {
    for code in [0, 1, 77, 255] {
        let exit = run(&shell(&format!("exit {code}")))?.exit;
        assert_eq!(exit.status, ExitStatus::Code(code));
    }
    Ok(())
}

fn the_deadly_signal_is_the_payloads() -> TestResult {
    for signal in [libc::SIGSEGV, libc::SIGKILL, libc::SIGTERM] {
        let exit = run(&shell(&format!("kill -{signal} $$")))?.exit;
        assert_eq!(exit.status, ExitStatus::Signal(signal));
    }
    Ok(())
}

fn the_streams_are_wired() -> TestResult {
    let mut held = hold(&shell("read line; echo out $line; echo err $line >&2"))?;
    held.stdin.write_all(b"hello\n")?;
    let output = held.finish()?;
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out hello\n", "err hello\n")
    );
    Ok(())
}

fn a_termination_signal_has_its_default_action() -> TestResult {
    let mut held = hold(&spec(&["/bin/sh", "-c", "echo up; exec sleep 1000"]))?;
    assert_eq!(held.line()?, "up");
    held.sandbox.signal(Signal::TERM)?;
    assert_eq!(
        held.finish()?.exit.status,
        ExitStatus::Signal(libc::SIGTERM)
    );
    Ok(())
}

fn a_handler_gets_the_signal() -> TestResult {
    let script = "trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let mut held = hold(&shell(script))?;
    assert_eq!(held.line()?, "up");
    held.sandbox.signal(Signal::TERM)?;
    let output = held.finish()?;
    assert_eq!(output.exit.status, ExitStatus::Code(3));
    assert_eq!(output.stdout, "caught\n");
    Ok(())
}

/// A tree of which each process holds standard output, so that its end shows that all are dead.
const TREE: &str = "
(setsid sh -c 'trap \"\" TERM INT HUP; sleep 1000 & sleep 1000' &)
sleep 1000 &
trap '' TERM
echo up
";

fn killing_ends_the_whole_tree() -> TestResult {
    let mut held = hold(&shell(&format!("{TREE} wait")))?;
    assert_eq!(held.line()?, "up");
    held.sandbox.kill()?;
    assert_eq!(
        held.finish()?.exit.status,
        ExitStatus::Signal(libc::SIGKILL)
    );
    Ok(())
}

fn what_the_payload_leaves_behind_ends_with_it() -> TestResult {
    let output = run(&shell(&format!("{TREE} exit 4")))?;
    assert_eq!(output.exit.status, ExitStatus::Code(4));
    Ok(())
}

fn dropping_ends_the_whole_tree() -> TestResult {
    let mut held = hold(&shell(&format!("{TREE} wait")))?;
    assert_eq!(held.line()?, "up");
    drop(held.sandbox);
    assert_eq!(held.stdout.read(&mut [0; 8])?, 0);
    Ok(())
}

fn the_exit_descriptor_becomes_readable() -> TestResult {
    let held = hold(&shell("read line"))?;
    let ready = |seconds| {
        let mut waiting = [PollFd::from_borrowed_fd(
            held.sandbox.exit_fd(),
            PollFlags::IN,
        )];
        let patience = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut waiting, Some(&patience))
    };
    assert_eq!(ready(0)?, 0);
    assert!(held.sandbox.try_wait()?.is_none());
    (&held.stdin).write_all(b"\n")?;
    assert_eq!(ready(30)?, 1);
    assert!(held.sandbox.try_wait()?.is_some());
    // It stays known, and what comes too late does nothing.
    assert!(held.sandbox.wait()?.status.success());
    held.sandbox.signal(Signal::TERM)?;
    held.sandbox.kill()?;
    Ok(())
}

fn a_second_launch_of_a_live_name_is_refused() -> TestResult {
    let first = shell("read line");
    let held = hold(&first)?;
    let refused = launcher().launch(&first, barecount_sandbox::Stdio::null()?);
    match refused {
        Err(LaunchError::NameInUse { name }) => assert_eq!(name, first.name),
        other => return Err(format!("{other:?}").into()),
    }
    held.finish()?;
    // Once it has been told to be over, the name is free.
    run(&first)?;
    Ok(())
}

fn many_threads_launch_at_once() -> TestResult {
    let launch =
        |number: usize| move || run(&shell(&format!("exit {number}"))).map_err(|e| e.to_string());
    let threads: Vec<_> = (0..16)
        .map(|number| std::thread::spawn(launch(number)))
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let output = thread.join().map_err(|_| "a thread panicked")??;
        assert_eq!(output.exit.status, ExitStatus::Code(number as i32));
    }
    Ok(())
}

fn a_listener_is_reachable_from_inside_and_served_outside() -> TestResult {
    let script = "
import socket
s = socket.create_connection(('127.0.0.1', 9001))
print(s.recv(100).decode(), socket.create_connection(('::1', 80)).recv(100).decode())
";
    let mut spec = spec(&["/usr/bin/python3", "-c", script]);
    spec.listeners = vec!["127.0.0.1:9001".parse()?, "[::1]:80".parse()?];
    let mut held = hold(&spec)?;
    let listeners = held.sandbox.take_listeners();
    assert_eq!(listeners.len(), 2);
    for (listener, greeting) in listeners.into_iter().zip(["from", "outside"]) {
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(false)?;
        listener.accept()?.0.write_all(greeting.as_bytes())?;
    }
    assert_eq!(held.finish()?.stdout, "from outside\n");
    Ok(())
}

fn a_launcher_refuses_to_start_with_threads() -> TestResult {
    let started = std::thread::spawn(|| Launcher::start(LauncherConfig::new("never"))).join();
    match started.map_err(|_| "the thread panicked")? {
        Err(StartError::Threads { threads }) => assert!(threads >= 2),
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

/// An agent of its own with a sandbox in it, to be killed.
struct Agent {
    process: Child,
    output: BufReader<ChildStdout>,
    launcher: i32,
    /// Handle of the init, taken while it lived.
    init: OwnedFd,
    /// The network namespace of its sandbox.
    network: String,
}

impl Agent {
    fn start(prefix: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut process = Command::new(own_program())
            .args(["--agent", "hold", prefix])
            .stdin(ProcessStdio::piped())
            .stdout(ProcessStdio::piped())
            .spawn()?;
        let mut output = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let (launcher, init) = line.trim().split_once(' ').ok_or("no line")?;
        let pid = Pid::from_raw(init.parse()?).ok_or("no pid")?;
        // The init itself cannot be looked at by an ordinary user.
        let payload = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        let network = network_of(payload.trim().parse()?)?;
        let init = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            process,
            output,
            launcher: launcher.parse()?,
            init,
            network,
        })
    }

    fn init_dies(&self) -> TestResult {
        dies(&self.init)
    }
}

fn dies(process: &OwnedFd) -> TestResult {
    let mut waiting = [PollFd::new(process, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut waiting, Some(&patience))? {
        1 => Ok(()),
        _ => Err("it lives on".into()),
    }
}

pub(crate) fn network_of(pid: i32) -> std::io::Result<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net"))?;
    Ok(link.display().to_string())
}

/// Processes that are in a network namespace, as far as they can be looked at.
pub(crate) fn members_of(network: &str) -> Result<Vec<i32>, Box<dyn std::error::Error>> {
    let mut members = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else {
            continue;
        };
        if network_of(pid).is_ok_and(|found| found == network) {
            members.push(pid);
        }
    }
    Ok(members)
}

pub(crate) fn prefix(test: &str) -> String {
    format!("barecount-{test}-{}", std::process::id())
}

/// Control groups whose name begins with a prefix.
pub(crate) fn groups_of(prefix: &str) -> Vec<String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(name), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let directory = format!(
            "/sys/fs/cgroup/{}{path}",
            if name.is_empty() { "unified" } else { name }
        );
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.path().display().to_string());
        found.extend(names.filter(|name| name.contains(prefix)));
    }
    found
}

fn a_killed_launcher_takes_its_sandboxes_along() -> TestResult {
    let mut agent = Agent::start(&prefix("launcher"))?;
    assert!(!members_of(&agent.network)?.is_empty(), "it was there");
    kill(agent.launcher)?;
    agent.init_dies()?;
    assert!(
        members_of(&agent.network)?.is_empty(),
        "its network has nobody left"
    );
    // The agent sees it, and says so.
    let mut line = String::new();
    agent.output.read_line(&mut line)?;
    assert_eq!(
        line.trim(),
        "the launcher process died, and the sandbox with it"
    );
    agent.process.kill()?;
    agent.process.wait()?;
    sweep(&prefix("launcher"))?;
    Ok(())
}

fn a_killed_agent_takes_everything_along() -> TestResult {
    let prefix = prefix("agent");
    let mut agent = Agent::start(&prefix)?;
    let pid = Pid::from_raw(agent.launcher).ok_or("no pid")?;
    let launcher_process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    assert_eq!(groups_of(&prefix).is_empty(), !launcher().host().root);
    agent.process.kill()?;
    agent.init_dies()?;
    assert!(
        members_of(&agent.network)?.is_empty(),
        "its network has nobody left"
    );
    dies(&launcher_process)?;
    agent.process.wait()?;
    assert_eq!(
        groups_of(&prefix),
        Vec::<String>::new(),
        "the launcher cleared up"
    );
    Ok(())
}

fn a_sweep_removes_what_two_kills_left() -> TestResult {
    let prefix = prefix("sweep");
    let mut agent = Agent::start(&prefix)?;
    let alive = Agent::start(&prefix)?;
    kill(agent.launcher)?;
    agent.process.kill()?;
    agent.process.wait()?;
    agent.init_dies()?;
    let before = groups_of(&prefix).len();
    let removed = sweep(&prefix)?;
    if launcher().host().root {
        assert!(removed > 0);
        assert_eq!(
            groups_of(&prefix).len(),
            before / 2,
            "those of the live agent are left alone"
        );
    }
    let mut alive = alive;
    alive.process.kill()?;
    alive.process.wait()?;
    Ok(())
}

/// Whoever is killed holds its lock until its last process is gone, so that the next one's sweep
/// may come too early.
fn a_launcher_at_its_end_removes_what_another_one_held_at_its_beginning() -> TestResult {
    let prefix = prefix("dying");
    let mut dying = Agent::start(&prefix)?;
    let mut next = Agent::start(&prefix)?;
    kill(dying.launcher)?;
    dying.process.kill()?;
    dying.process.wait()?;
    dying.init_dies()?;
    assert_eq!(groups_of(&prefix).is_empty(), !launcher().host().root);
    // Its agent lets go, and it clears up in its own time.
    let pid = Pid::from_raw(next.launcher).ok_or("no pid")?;
    let launcher = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    next.process.kill()?;
    next.process.wait()?;
    dies(&launcher)?;
    assert_eq!(groups_of(&prefix), Vec::<String>::new());
    Ok(())
}

/// Sweeps from an agent of its own, and returns how many groups went.
pub(crate) fn sweep(prefix: &str) -> Result<u32, Box<dyn std::error::Error>> {
    let output = Command::new(own_program())
        .args(["--agent", "sweep", prefix])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

pub(crate) fn kill(pid: i32) -> TestResult {
    let pid = Pid::from_raw(pid).ok_or("no pid")?;
    Ok(rustix::process::kill_process(pid, Signal::KILL)?)
}

/// A user namespace has a limit of its own for those below it, so that the host's is left alone.
fn a_host_without_user_namespaces_is_told_with_the_remedy() -> TestResult {
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" --agent hold \"$1\"";
    let output = Command::new("unshare")
        .args(["-Ur", "sh", "-c", script])
        .arg(own_program())
        .arg(prefix("refused"))
        .output()?;
    let told = String::from_utf8(output.stdout)?;
    let expected = "user.max_user_namespaces is 0. \
                    Run sysctl user.max_user_namespaces=10000 as root.\n";
    assert_eq!(
        told,
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn a_process_without_isolation_says_so_and_ends_whole() -> TestResult {
    use barecount_sandbox::{Control, Level};
    let mut plain = shell("ulimit -c; echo $HOME; tr '\\0' '\\n' < /proc/self/environ");
    plain.isolation = Isolation::Process;
    assert_eq!(output_of(&plain)?, "0\n\nPATH=/usr/bin:/bin");
    let mut tree = shell(&format!("{TREE} wait"));
    tree.isolation = Isolation::Process;
    let mut held = hold(&tree)?;
    let namespaces = held
        .sandbox
        .enforcement()
        .controls
        .get(&Control::Namespaces)
        .cloned();
    assert!(
        matches!(namespaces, Some(Level::Absent { .. })),
        "{namespaces:?}"
    );
    assert_eq!(held.line()?, "up");
    held.sandbox.kill()?;
    assert_eq!(
        held.finish()?.exit.status,
        ExitStatus::Signal(libc::SIGKILL)
    );
    Ok(())
}
