//! The launcher process: one thread, one event loop.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, Signal};

use super::birth::{Born, Nursery};
use super::{LauncherConfig, enforce, host, readable, tunnel};
use crate::cgroup::{Cgroups, Group};
use crate::error::{Failure, InStep, Step};
use crate::init::{HostSystem, Means};
use crate::report::{Availability, Controller, Exit, ExitStatus, HostReport, Usage};
use crate::spec::{Isolation, Spec, Stdio};
use crate::tunnel::TunnelNetwork;
use crate::wire::{self, Answer, InitOrder, InitReport, Order, Request, Start};
use crate::{seccomp, sys, usage};

/// How long to wait before asking again for control groups that were still busy.
const RETRY_NANOS: i64 = 20_000_000;

/// Runs as the launcher process, in the child of the fork. Never returns.
pub(super) fn run(config: LauncherConfig, control: OwnedFd, agent: i32) -> ! {
    // An unwinding panic must not reach the agent's code, of which this process is a copy.
    let ended = std::panic::catch_unwind(|| {
        let death = match prepare(&control) {
            Ok(Some(death)) => death,
            Ok(None) => return 0,
            Err(failure) => {
                tell(&control, &Answer::Failed(failure), &[]);
                return 1;
            }
        };
        let Ok(mut server) = Server::start(config, control, agent, &death) else {
            return 1;
        };
        let code = match server.serve() {
            Ok(()) => 0,
            Err(_) => 1,
        };
        server.end();
        code
    });
    sys::exit_now(ended.unwrap_or(101))
}

/// Makes this process one that ends with the agent, and waits to be told to start; what then says that
/// the agent has died. `None` when the agent has let go, or is gone: nothing is to be launched.
fn prepare(control: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    readable::hide().step(Step::Hide)?;
    sys::close_all_but(&mut [control.as_raw_fd()]);
    // A session of its own: an interrupt from the terminal is for the agent alone, which then
    // ends its sandboxes in order. The agent's death shows in the socket, and as a signal in
    // case somebody else still holds the other end.
    _ = rustix::process::setsid();
    sys::block_all_signals(true);
    sys::default_signal_actions();
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).step(Step::TieLife)?;
    _ = rustix::thread::set_name(c"barecount-launcher");
    rustix::process::chdir("/").step(Step::WorkingDirectory)?;
    let death = sys::signal_fd(&[libc::SIGTERM]).step(Step::Prepare)?;
    let started = wire::receive::<Start>(control, RecvFlags::empty()).step(Step::Receive)?;
    Ok(started.map(|_| death))
}

/// A sandbox from the launcher's side.
struct Live {
    spec: Box<Spec>,
    /// To the agent; `None` once it has let go.
    session: Option<OwnedFd>,
    /// To the init; `None` once that has closed it.
    socket: Option<OwnedFd>,
    pid: Pid,
    pidfd: OwnedFd,
    group: Option<Group>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    /// The agent has been told how it ended; what is left is to reap the init.
    Told,
}

/// What an event is about; the rest of its number is the sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Control = 0,
    AgentDeath = 1,
    Session = 2,
    Init = 3,
    InitDeath = 4,
    TunnelDeath = 5,
}

impl Source {
    const ALL: [Self; 6] = [
        Self::Control,
        Self::AgentDeath,
        Self::Session,
        Self::Init,
        Self::InitDeath,
        Self::TunnelDeath,
    ];

    fn key(self, sandbox: u64) -> epoll::EventData {
        epoll::EventData::new_u64(sandbox * Self::ALL.len() as u64 + self as u64)
    }

    fn from_key(key: u64) -> (Self, u64) {
        let count = Self::ALL.len() as u64;
        (Self::ALL[(key % count) as usize], key / count)
    }
}

struct Server {
    control: OwnedFd,
    epoll: OwnedFd,
    nursery: Nursery,
    cgroups: Cgroups,
    host: HostReport,
    sandboxes: HashMap<u64, Live>,
    /// The processes that keep tunnels' namespaces, each with its handle.
    tunnels: HashMap<u64, (Pid, OwnedFd)>,
    next: u64,
}

impl Server {
    fn start(
        config: LauncherConfig,
        control: OwnedFd,
        agent: i32,
        death: &OwnedFd,
    ) -> rustix::io::Result<Self> {
        let own = std::process::id() as i32;
        let cgroups = Cgroups::establish(&config.cgroup_prefix, &[agent, own]);
        let (identities, users) = match host::identities(&config) {
            Ok(identities) => (Some(identities), Availability::Available),
            Err(lack) => (None, lack),
        };
        let mut nursery = Nursery {
            host: HostSystem::find(identities.is_none()),
            filter: seccomp::compile(),
            identities,
            // Version 1 forbids every rename between directories.
            landlock: sys::landlock_abi() >= 2,
            // Until the host has been tried.
            interception: Means {
                redirect: false,
                log: false,
            },
        };
        let probe = Spec::new(
            crate::SandboxName::new("probe").map_err(|_| Errno::INVAL)?,
            vec!["probe".to_owned()],
        );
        let host = host::report(
            &cgroups,
            users,
            &nursery.identity(&probe),
            &nursery.filter,
            &config,
        );
        nursery.interception = Means {
            redirect: host.redirection.is_available(),
            log: host.packet_log.is_available(),
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, &control, Source::Control.key(0), readable)?;
        epoll::add(&epoll, death, Source::AgentDeath.key(0), readable)?;
        let ready = Answer::Host(Box::new(host.clone()));
        wire::send(&control, &ready, &[], SendFlags::empty())?;
        Ok(Self {
            control,
            epoll,
            nursery,
            cgroups,
            host,
            sandboxes: HashMap::new(),
            tunnels: HashMap::new(),
            next: 0,
        })
    }

    /// Serves until the agent is gone.
    fn serve(&mut self) -> rustix::io::Result<()> {
        loop {
            for (source, sandbox) in self.events()? {
                match source {
                    Source::AgentDeath => return Ok(()),
                    Source::Control => {
                        if !self.accept()? {
                            return Ok(());
                        }
                    }
                    Source::Session => self.hear_agent(sandbox),
                    Source::Init => self.hear_init(sandbox),
                    Source::InitDeath => self.bury(sandbox),
                    Source::TunnelDeath => self.bury_tunnel(sandbox),
                }
            }
        }
    }

    /// Waits for events; before it blocks, does what nobody waits for.
    fn events(&mut self) -> rustix::io::Result<Vec<(Source, u64)>> {
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let found = self.poll(Some(&at_once))?;
        if !found.is_empty() {
            return Ok(found);
        }
        // While an init is at work, its word is waited for.
        let starting = |live: &Live| live.phase == Phase::Starting;
        let again = !self.sandboxes.values().any(starting) && self.cgroups.use_idle_time();
        let later = Timespec {
            tv_sec: 0,
            tv_nsec: RETRY_NANOS,
        };
        self.poll(again.then_some(&later))
    }

    fn poll(&self, timeout: Option<&Timespec>) -> rustix::io::Result<Vec<(Source, u64)>> {
        let mut events = Vec::with_capacity(64);
        let buffer = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, buffer, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(events
            .iter()
            .map(|event: &epoll::Event| Source::from_key(event.data.u64()))
            .collect())
    }

    /// Takes one request; false when the agent has closed.
    fn accept(&mut self) -> rustix::io::Result<bool> {
        match wire::receive(&self.control, RecvFlags::DONTWAIT) {
            Ok(Some((Request::Launch(spec), descriptors))) => {
                if let Ok([session, stdin, stdout, stderr]) = <[OwnedFd; 4]>::try_from(descriptors)
                {
                    self.launch(
                        spec,
                        session,
                        &Stdio {
                            stdin,
                            stdout,
                            stderr,
                        },
                    );
                }
                Ok(true)
            }
            Ok(Some((Request::Sweep, mut descriptors))) => {
                if let Some(back) = descriptors.pop() {
                    let (removed, left) = self.cgroups.sweep();
                    tell(&back, &Answer::Swept { removed, left }, &[]);
                }
                Ok(true)
            }
            Ok(Some((Request::Tunnel(network), mut descriptors))) => {
                if let Some(session) = descriptors.pop() {
                    self.open_tunnel(&network, &session);
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            // A request that cannot be read is dropped with its descriptors, which its sender sees.
            Err(Errno::AGAIN | Errno::BADMSG | Errno::MSGSIZE) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    fn launch(&mut self, spec: Box<Spec>, session: OwnedFd, stdio: &Stdio) {
        let alive = |live: &Live| live.phase != Phase::Told && live.spec.name == spec.name;
        if self.sandboxes.values().any(alive) {
            return tell(&session, &Answer::NameInUse, &[]);
        }
        if let (Isolation::Sandbox, Availability::Unavailable { reason, remedy }) =
            (spec.isolation, &self.host.user_namespaces)
        {
            let (reason, remedy) = (reason.clone(), remedy.clone());
            return tell(&session, &Answer::NoUserNamespaces { reason, remedy }, &[]);
        }
        let group = match self.cgroups.create(&spec.limits) {
            Ok(group) => group,
            Err(errno) => {
                let failure = Failure::new(Step::ControlGroup, errno);
                return tell(&session, &Answer::Failed(failure), &[]);
            }
        };
        let by_rlimit = (
            !self.cgroups.has(Controller::Memory),
            !self.cgroups.has(Controller::Pids),
        );
        match self.nursery.bear(&spec, stdio, Some(&group), by_rlimit) {
            Ok(born) => self.adopt(spec, session, group, born),
            Err(failure) => {
                self.cgroups.remove(group);
                tell(&session, &Answer::Failed(failure), &[]);
            }
        }
    }

    fn adopt(&mut self, spec: Box<Spec>, session: OwnedFd, group: Group, born: Born) {
        self.next += 1;
        let id = self.next;
        let Born { pid, pidfd, socket } = born;
        let readable = epoll::EventFlags::IN;
        // Out of memory is the one reason for which these fail; the session then closes, which
        // both sides understand, and the init ends with its socket.
        for (fd, source) in [
            (session.as_fd(), Source::Session),
            (socket.as_fd(), Source::Init),
            (pidfd.as_fd(), Source::InitDeath),
        ] {
            _ = epoll::add(&self.epoll, fd, source.key(id), readable);
        }
        let live = Live {
            spec,
            session: Some(session),
            socket: Some(socket),
            pid,
            pidfd,
            group: Some(group),
            phase: Phase::Starting,
        };
        self.sandboxes.insert(id, live);
    }

    /// Starts the process of a tunnel's namespace. It answers itself, and ends when the agent
    /// closes the session, of which nothing is kept here.
    fn open_tunnel(&mut self, network: &TunnelNetwork, session: &OwnedFd) {
        if let Availability::Unavailable { reason, remedy } = &self.host.user_namespaces {
            let (reason, remedy) = (reason.clone(), remedy.clone());
            return tell(session, &Answer::NoUserNamespaces { reason, remedy }, &[]);
        }
        match tunnel::start(network, session) {
            Ok((pid, pidfd)) => {
                self.next += 1;
                let key = Source::TunnelDeath.key(self.next);
                if epoll::add(&self.epoll, &pidfd, key, epoll::EventFlags::IN).is_err() {
                    // Out of memory. Its death would not be heard of; the session says the rest.
                    _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                    return;
                }
                self.tunnels.insert(self.next, (pid, pidfd));
            }
            Err(failure) => tell(session, &Answer::Failed(failure), &[]),
        }
    }

    fn bury_tunnel(&mut self, id: u64) {
        if let Some((pid, _)) = self.tunnels.remove(&id) {
            _ = sys::reap(pid);
        }
    }

    fn hear_agent(&mut self, id: u64) {
        let Some(live) = self.sandboxes.get_mut(&id) else {
            return;
        };
        let Some(session) = &live.session else { return };
        match wire::receive(session, RecvFlags::DONTWAIT) {
            Ok(Some((Order::Signal(signal), _))) => live.pass_on(&InitOrder::Signal(signal)),
            Ok(Some((Order::Kill, _))) => live.kill(),
            Err(Errno::AGAIN) => {}
            Ok(None) | Err(_) => {
                live.session = None;
                live.kill();
            }
        }
    }

    fn hear_init(&mut self, id: u64) {
        let Some(live) = self.sandboxes.get_mut(&id) else {
            return;
        };
        let Some(socket) = &live.socket else { return };
        match wire::receive(socket, RecvFlags::DONTWAIT) {
            Ok(Some((
                InitReport::Ready {
                    landlock,
                    exposed,
                    intercepted,
                },
                sockets,
            ))) => {
                live.phase = Phase::Running;
                let enforcement = enforce::enforcement(&live.spec, &self.host, landlock, &exposed);
                let (group, mut beside) = match &live.group {
                    Some(group) => group.directories(),
                    None => (Vec::new(), Vec::new()),
                };
                beside.extend(sockets.iter().map(AsFd::as_fd));
                let answer = Answer::Launched {
                    pid: live.pid.as_raw_nonzero().get(),
                    enforcement: Box::new(enforcement),
                    group,
                    intercepted,
                };
                live.tell(&answer, &beside);
            }
            Ok(Some((InitReport::Failed(failure), _))) => {
                live.phase = Phase::Told;
                live.tell(&Answer::Failed(failure), &[]);
            }
            Ok(Some((InitReport::Exited { status, usage }, _))) => live.tell_exit(status, usage),
            Err(Errno::AGAIN) => {}
            Ok(None) | Err(_) => live.socket = None,
        }
    }

    /// The init is dead, and so is everything in its process namespace.
    fn bury(&mut self, id: u64) {
        // What it said last comes before its death.
        while self
            .sandboxes
            .get(&id)
            .is_some_and(|live| live.socket.is_some())
        {
            self.hear_init(id);
        }
        let Some(mut live) = self.sandboxes.remove(&id) else {
            return;
        };
        let (status, used) = match sys::reap(live.pid) {
            Ok((status, rusage)) => (status, usage::from_rusage(&rusage)),
            Err(_) => (libc::SIGKILL, Usage::default()),
        };
        match live.phase {
            Phase::Told => {}
            Phase::Starting => live.tell(&Answer::Died, &[]),
            Phase::Running => live.tell_exit(ExitStatus::Signal(status & 0x7f), used),
        }
        if let Some(group) = live.group.take() {
            if live.spec.isolation == Isolation::Process {
                group.kill();
            }
            self.cgroups.remove(group);
        }
    }

    /// Ends every sandbox and leaves nothing behind.
    fn end(mut self) {
        for live in self.sandboxes.values_mut() {
            live.session = None;
            live.kill();
        }
        for (_, pidfd) in self.tunnels.values() {
            _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        while !(self.sandboxes.is_empty() && self.tunnels.is_empty()) {
            let Ok(events) = self.poll(None) else { break };
            for (source, id) in events {
                match source {
                    Source::InitDeath => self.bury(id),
                    Source::Init => self.hear_init(id),
                    Source::TunnelDeath => self.bury_tunnel(id),
                    Source::Control | Source::AgentDeath | Source::Session => {}
                }
            }
        }
        self.cgroups.close();
    }
}

impl Live {
    fn tell(&self, answer: &Answer, descriptors: &[BorrowedFd<'_>]) {
        if let Some(session) = &self.session {
            tell(session, answer, descriptors);
        }
    }

    fn tell_exit(&mut self, status: ExitStatus, mut usage: Usage) {
        let mut oom_killed = false;
        if let Some(group) = &self.group {
            group.measure(&mut usage);
            oom_killed = group.oom_killed();
        }
        self.phase = Phase::Told;
        self.tell(
            &Answer::Exited(Exit {
                status,
                oom_killed,
                usage,
            }),
            &[],
        );
    }

    fn pass_on(&self, order: &InitOrder) {
        if let Some(socket) = &self.socket {
            _ = wire::send(socket, order, &[], SendFlags::DONTWAIT);
        }
    }

    fn kill(&self) {
        match self.spec.isolation {
            // The kernel kills a process namespace with its init.
            Isolation::Sandbox => {
                _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
            }
            // The init must live to find the orphans.
            Isolation::Process => self.pass_on(&InitOrder::Kill),
        }
    }
}

/// Tells the agent; if it does not listen any more, its closed end will say so.
fn tell(session: &OwnedFd, answer: &Answer, descriptors: &[BorrowedFd<'_>]) {
    _ = wire::send(session, answer, descriptors, SendFlags::DONTWAIT);
}
