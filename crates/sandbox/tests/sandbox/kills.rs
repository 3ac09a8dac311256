//! `kill -9` at random moments: of the agent, of the launcher, of an init, and of all of them.
//!
//! The moments follow from a seed; `cargo xtask kill` does it as often as one likes.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio as ProcessStdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
};

use crate::{
    TestResult,
    launched::own_program,
    launcher,
    life::{groups_of, prefix, sweep},
};

tests!(
    nothing_outlives_a_kill_at_any_moment,
    what_is_looked_for_after_a_kill_is_there_before_it,
);

type Error = Box<dyn std::error::Error>;

/// How many rounds the suite takes: each victim five times.
const ROUNDS: u64 = 20;
/// Steps of an agent before the one that is cut short: up to more than it keeps alive.
const STEPS: u64 = 6;
/// A launch, or an end, takes a few milliseconds.
const MOMENT_MICROS: u64 = 5_000;

/// For what should have happened at once.
const PATIENCE: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Agent,
    Launcher,
    Init,
    All,
}

const VICTIMS: [Victim; 4] = [Victim::Agent, Victim::Launcher, Victim::Init, Victim::All];

/// SplitMix64: enough for choosing moments.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A process that was there, whatever its number means later.
struct Seen {
    pid: Pid,
    handle: OwnedFd,
}

impl Seen {
    /// `None` when it has ended meanwhile.
    fn open(pid: i32) -> Result<Option<Self>, Error> {
        let pid = Pid::from_raw(pid).ok_or("no pid")?;
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(Self { pid, handle })),
            Err(Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn kill(&self) -> TestResult {
        match rustix::process::pidfd_send_signal(&self.handle, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            // The init of a sandbox is another user's to an ordinary one.
            Err(errno) => Err(errno.into()),
        }
    }

    fn ends(&self, patience: Timespec) -> Result<bool, Error> {
        let mut waiting = [PollFd::new(&self.handle, PollFlags::IN)];
        Ok(rustix::event::poll(&mut waiting, Some(&patience))? == 1)
    }
}

/// An agent that starts and stops sandboxes.
struct Agent {
    process: Child,
    steps: ChildStdin,
    output: BufReader<ChildStdout>,
    launcher: Seen,
    inits: Vec<Seen>,
}

impl Agent {
    fn start(prefix: &str, folder: &Path) -> Result<Self, Error> {
        let mut process = Command::new(own_program())
            .args(["--agent", "churn", prefix])
            .current_dir(folder)
            .env("TMPDIR", folder)
            .stdin(ProcessStdio::piped())
            .stdout(ProcessStdio::piped())
            .spawn()?;
        let steps = process.stdin.take().ok_or("no input")?;
        let mut output = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let launcher = Seen::open(line.trim().parse()?)?.ok_or("the launcher is gone")?;
        Ok(Self {
            process,
            steps,
            output,
            launcher,
            inits: Vec::new(),
        })
    }

    fn begin_step(&mut self) -> TestResult {
        Ok(self.steps.write_all(b"\n")?)
    }

    fn end_step(&mut self) -> TestResult {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let pid = line.trim().parse().map_err(|_| line)?;
        self.inits.extend(Seen::open(pid)?);
        Ok(())
    }

    fn kill(&mut self, victim: Victim, random: &mut Random) -> TestResult {
        match victim {
            Victim::Agent => self.process.kill()?,
            Victim::Launcher => self.launcher.kill()?,
            Victim::Init if self.inits.is_empty() => {}
            Victim::Init => {
                let chosen = random.below(self.inits.len() as u64);
                self.inits[usize::try_from(chosen)?].kill()?;
                // The others and the launcher go on, and so does the agent.
                self.end_step()?;
                self.begin_step()?;
                self.end_step()?;
            }
            Victim::All => {
                self.process.kill()?;
                self.launcher.kill()?;
                self.inits.iter().try_for_each(Seen::kill)?;
            }
        }
        Ok(())
    }

    /// Lets the agent end, where it was not the one.
    fn finish(mut self) -> TestResult {
        drop(self.steps);
        self.process.wait()?;
        Ok(())
    }
}

/// Everything on this host that bears a name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Traces {
    /// By command line: the launcher and the inits are forks of the agent, and the payload is told
    /// the name.
    processes: BTreeSet<i32>,
    /// Of those processes, as far as they can be looked at.
    networks: BTreeSet<String>,
    mounts: Vec<String>,
    files: Vec<String>,
}

impl Traces {
    fn of(name: &str, folder: &Path) -> Result<Self, Error> {
        let mut traces = Self::default();
        let own = std::process::id() as i32;
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            // It may end while it is looked at.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if pid != own
                && line
                    .split(|byte| *byte == 0)
                    .any(|word| word == name.as_bytes())
            {
                traces.processes.insert(pid);
                let network = fs::read_link(format!("/proc/{pid}/ns/net"));
                traces
                    .networks
                    .extend(network.map(|link| link.display().to_string()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let about = |line: &&str| line.contains(name) || line.contains(&*folder.to_string_lossy());
        traces.mounts = mounts.lines().filter(about).map(str::to_owned).collect();
        for place in [Path::new("/dev/shm"), Path::new("/tmp"), folder] {
            for entry in fs::read_dir(place)? {
                let path = entry?.path();
                if place == folder || path.to_string_lossy().contains(name) {
                    traces.files.push(path.display().to_string());
                }
            }
        }
        Ok(traces)
    }
}

/// Waits until so many processes bear the name. One that has just begun to execute a program has
/// no command line for a moment.
fn appear(name: &str, folder: &Path, processes: usize) -> Result<Traces, Error> {
    let deadline = Instant::now() + Duration::try_from(PATIENCE)?;
    loop {
        let traces = Traces::of(name, folder)?;
        if traces.processes.len() >= processes {
            return Ok(traces);
        }
        if Instant::now() > deadline {
            return Err(format!("{processes} are expected: {traces:?}").into());
        }
        std::thread::yield_now();
    }
}

/// Waits until every process of that name has ended.
fn all_end(name: &str, folder: &Path) -> Result<Traces, Error> {
    loop {
        let traces = Traces::of(name, folder)?;
        let Some(first) = traces.processes.first() else {
            return Ok(traces);
        };
        if let Some(seen) = Seen::open(*first)?
            && !seen.ends(PATIENCE)?
        {
            return Err(format!("{} lives on: {traces:?}", seen.pid.as_raw_nonzero()).into());
        }
    }
}

/// Processes in these networks that were there before `since`. The number of a namespace that is gone
/// may be another's at once, who has begun later.
///
/// One that is just ending has lost its command line already and is still in its namespace, so each
/// gets the time to end.
fn inhabited(networks: &BTreeSet<String>, since: u64) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // What is no process, or ended meanwhile, has no such files.
        let Ok(link) = fs::read_link(path.join("ns/net")) else {
            continue;
        };
        let pid = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        if networks.contains(&*link.to_string_lossy())
            && started(&path).is_some_and(|ticks| ticks < since)
            && let Some(seen) = pid.map(Seen::open).transpose()?.flatten()
            && !seen.ends(PATIENCE)?
        {
            found.push(format!("{} in {}", path.display(), link.display()));
        }
    }
    Ok(found)
}

/// When a process began, in ticks since the machine did: field 22 of proc_pid_stat(5).
fn started(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// Now, in the same ticks: hundredths of a second for programs.
fn now() -> Result<u64, Error> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    let seconds = uptime.split(' ').next().ok_or("it is empty")?;
    Ok(seconds.replace('.', "").parse()?)
}

/// One kill; how many control groups were left to the next sweep.
fn round(number: u64, random: &mut Random) -> Result<usize, Error> {
    let folder = tempfile::tempdir()?;
    let name = prefix(&format!("kill-{number}"));
    let victim = VICTIMS[usize::try_from(number)? % VICTIMS.len()];
    let mut agent = Agent::start(&name, folder.path())?;
    for _ in 0..random.below(STEPS) {
        agent.begin_step()?;
        agent.end_step()?;
    }
    agent.begin_step()?;
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(random.below(MOMENT_MICROS) * 1_000)?,
    };
    // Not a wait for anything: the moment is what is tried.
    rustix::event::poll(&mut [], Some(&moment))?;
    let before = Traces::of(&name, folder.path())?;
    let killed = now()?;
    agent.kill(victim, random)?;
    agent.finish()?;
    let after = all_end(&name, folder.path())?;
    if after != Traces::default() {
        return Err(format!("after the end of {victim:?}: {after:?}").into());
    }
    // The namespace of this host is everybody's.
    let host = fs::read_link("/proc/self/ns/net")?.display().to_string();
    let mut networks = before.networks;
    networks.remove(&host);
    let inhabited = inhabited(&networks, killed)?;
    if !inhabited.is_empty() {
        return Err(format!("after the end of {victim:?}: {inhabited:?}").into());
    }
    let left = groups_of(&name).len();
    // The launcher clears up if it has the time; after its own end, the next start's sweep does.
    if left > 0 && !matches!(victim, Victim::Launcher | Victim::All) {
        return Err(format!("after the end of {victim:?}: {:?}", groups_of(&name)).into());
    }
    sweep(&name)?;
    match groups_of(&name) {
        groups if groups.is_empty() => Ok(left),
        groups => Err(format!("swept after the end of {victim:?}: {groups:?}").into()),
    }
}

fn setting(name: &str, usual: u64) -> Result<u64, Error> {
    match std::env::var(name) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(usual),
    }
}

fn nothing_outlives_a_kill_at_any_moment() -> TestResult {
    let rounds = setting("BARECOUNT_KILLS", ROUNDS)?;
    let seed = setting("BARECOUNT_SEED", 1)?;
    let mut random = Random(seed);
    let mut left = 0;
    for number in 0..rounds {
        left += round(number, &mut random)
            .map_err(|error| format!("round {number} of seed {seed}: {error}"))?;
    }
    // Or the sweep would not have been tried.
    assert_eq!(left > 0, launcher().host().root);
    Ok(())
}

fn what_is_looked_for_after_a_kill_is_there_before_it() -> TestResult {
    let folder = tempfile::tempdir()?;
    let name = prefix("alive");
    let mut agent = Agent::start(&name, folder.path())?;
    agent.begin_step()?;
    agent.end_step()?;
    // Agent, launcher, init, and one payload at least.
    let traces = appear(&name, folder.path(), 4)?;
    assert!(traces.networks.len() >= 2, "{traces:?}");
    assert_eq!(!groups_of(&name).is_empty(), launcher().host().root);
    agent.finish()?;
    assert_eq!(all_end(&name, folder.path())?, Traces::default());
    Ok(())
}
