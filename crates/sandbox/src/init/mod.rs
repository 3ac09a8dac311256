//! The first process of a sandbox: sets it up from inside, starts the payload, reaps, passes
//! signals on, and says how the payload ended.
//!
//! It is a fork of the launcher, which has one thread, so it may allocate. It never runs another
//! program, and the payload cannot reach it: its memory belongs to the host's user namespace and is
//! marked as not dumpable before the payload runs.

mod devices;
mod host;
mod inside;
mod intercept;
mod landlocked;
mod overlay;
mod payload;
mod pieces;
mod resolver;
mod root;
mod sockets;
mod sources;
mod staging;
mod supervise;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use crate::error::{Failure, InStep, Step};
use crate::network::{Intercepted, Network};
use crate::report::Exposed;
use crate::spec::{Isolation, Spec, Stdio};
use crate::sys;
use crate::wire::{self, InitOrder, InitReport};
pub(crate) use host::HostSystem;
pub(crate) use intercept::{Lacking, Means, probe as probe_interception};
use sockets::Sharing;
pub(crate) use sources::{Sources, open_sources};

/// The highest capability number asked about; the kernel refuses those that it does not know.
const CAPABILITY_NUMBERS: std::ops::Range<u32> = 0..64;

/// All that the init needs, made by the launcher before the fork.
pub(crate) struct Plan<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) host: &'a HostSystem,
    pub(crate) stdio: &'a Stdio,
    /// To the launcher.
    pub(crate) socket: &'a OwnedFd,
    /// Bind sources that the launcher opened, being more powerful than the init.
    pub(crate) sources: Option<&'a Sources>,
    /// Where `0` is written to enter the control group.
    pub(crate) doors: Vec<std::os::fd::BorrowedFd<'a>>,
    pub(crate) landlock: bool,
    /// How a brokered network is intercepted.
    pub(crate) interception: Means,
    pub(crate) filter: &'a [sys::Instruction],
    /// Whether the supplementary groups can be dropped.
    pub(crate) drop_groups: bool,
    /// Without the controllers, limits that a process has by itself stand in.
    pub(crate) memory_by_rlimit: bool,
    pub(crate) pids_by_rlimit: bool,
}

/// Runs as the init, in the child of the fork. Never returns.
pub(crate) fn run(plan: &Plan<'_>) -> ! {
    close_what_is_not_ours(plan);
    let ended = match start(plan) {
        Ok(started) => supervise::supervise(plan, started),
        Err(failure) => {
            report(plan, &InitReport::Failed(failure), &[]);
            1
        }
    };
    sys::exit_now(ended)
}

/// What [`start`] leaves to the supervisor.
struct Started {
    payload: rustix::process::Pid,
    listeners: Vec<OwnedFd>,
    intercepted: Option<Intercepted>,
    landlock: bool,
    exposed: Exposed,
}

fn start(plan: &Plan<'_>) -> Result<Started, Failure> {
    match plan.spec.isolation {
        Isolation::Sandbox => start_sandbox(plan),
        Isolation::Process => start_process(plan),
    }
}

fn start_sandbox(plan: &Plan<'_>) -> Result<Started, Failure> {
    // While the launcher maps our identity, which the network has no need of.
    let prepared = tie_life_to_launcher(plan)
        .and_then(|()| loopback_up())
        .and_then(|()| open_network(plan));
    wait_for_go(plan)?;
    // Told only now: the launcher must find us alive while it maps.
    let (listeners, intercepted) = prepared?;
    // Sources are opened as the launcher's user: the payload's may not pass the folders above.
    let opened = match plan.sources {
        Some(_) => None,
        None => Some(open_sources(plan.spec, plan.host, false)?),
    };
    let sources = plan
        .sources
        .or(opened.as_ref())
        .ok_or_else(|| Failure::new(Step::OpenSource, rustix::io::Errno::INVAL))?;
    become_payload_user(plan)?;
    rustix::system::sethostname(plan.spec.name.as_str().as_bytes()).step(Step::HostName)?;
    let exposed = root::enter(plan.spec, plan.host, sources)?;
    let ruleset = if plan.landlock {
        Some(landlocked::ruleset(plan.spec)?)
    } else {
        None
    };
    join_control_group(plan)?;
    leave_last_namespaces().step(Step::CreateNamespaces)?;
    drop_capabilities()?;
    let payload = payload::spawn(plan, ruleset.as_ref())?;
    Ok(Started {
        payload,
        listeners,
        intercepted,
        landlock: ruleset.is_some(),
        exposed,
    })
}

/// Leaves the namespaces that are left: of control groups, and of clocks, whose file in `/proc` every
/// process could otherwise lock. Clocks are those of the host in the new one, too; kernels before 5.6
/// have none. Children are in it, not the init.
pub(crate) fn leave_last_namespaces() -> rustix::io::Result<()> {
    let unshare = |flags| {
        // SAFETY: these are namespaces alone; no descriptor or memory is unshared.
        unsafe { rustix::thread::unshare_unsafe(flags) }
    };
    unshare(UnshareFlags::NEWCGROUP)?;
    match unshare(UnshareFlags::NEWTIME) {
        Err(rustix::io::Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// Without namespaces: what an ordinary process can be held to.
fn start_process(plan: &Plan<'_>) -> Result<Started, Failure> {
    tie_life_to_launcher(plan)?;
    wait_for_go(plan)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step(Step::TieLife)?;
    let (listeners, intercepted) = open_network(plan)?;
    join_control_group(plan)?;
    let payload = payload::spawn(plan, None)?;
    Ok(Started {
        payload,
        listeners,
        intercepted,
        landlock: false,
        exposed: Exposed::default(),
    })
}

fn close_what_is_not_ours(plan: &Plan<'_>) {
    let mut keep = vec![
        plan.socket.as_raw_fd(),
        plan.stdio.stdin.as_raw_fd(),
        plan.stdio.stdout.as_raw_fd(),
        plan.stdio.stderr.as_raw_fd(),
    ];
    keep.extend(plan.doors.iter().map(AsRawFd::as_raw_fd));
    if let Some(sources) = plan.sources {
        keep.extend(sources.descriptors());
    }
    sys::close_all_but(&mut keep);
}

fn report(plan: &Plan<'_>, report: &InitReport, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
    // Should the launcher be gone, we are about to be killed.
    _ = wire::send(plan.socket, report, descriptors, SendFlags::empty());
}

/// Has the kernel kill us when the launcher dies. Once it has died already, the socket tells.
fn tie_life_to_launcher(plan: &Plan<'_>) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step(Step::TieLife)?;
    let mut launcher = [PollFd::new(plan.socket, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    wire::retry(|| rustix::event::poll(&mut launcher, Some(&at_once))).step(Step::TieLife)?;
    if launcher[0].revents().contains(PollFlags::HUP) {
        sys::exit_now(1);
    }
    Ok(())
}

fn wait_for_go(plan: &Plan<'_>) -> Result<(), Failure> {
    match wire::receive(plan.socket, RecvFlags::empty()).step(Step::MapIdentity)? {
        Some((InitOrder::Go, _)) => Ok(()),
        _ => sys::exit_now(1),
    }
}

fn loopback_up() -> Result<(), Failure> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .step(Step::Loopback)?;
    sys::loopback_up(socket.as_fd()).step(Step::Loopback)
}

fn become_payload_user(plan: &Plan<'_>) -> Result<(), Failure> {
    if plan.drop_groups {
        rustix::thread::set_thread_groups(&[]).step(Step::BecomePayload)?;
    }
    let gid = rustix::fs::Gid::from_raw(plan.spec.identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).step(Step::BecomePayload)?;
    let uid = rustix::fs::Uid::from_raw(plan.spec.identity.uid);
    // User 0 does not exist in this namespace, so capabilities survive the change.
    rustix::thread::set_thread_res_uid(uid, uid, uid).step(Step::BecomePayload)?;
    // The change has untied us.
    tie_life_to_launcher(plan)
}

fn join_control_group(plan: &Plan<'_>) -> Result<(), Failure> {
    for door in &plan.doors {
        rustix::io::write(door, b"0").step(Step::JoinControlGroup)?;
    }
    Ok(())
}

/// Opens the sockets that the agent is to hold: the listeners asked for, then what a brokered
/// network needs, which takes ports that are left.
fn open_network(plan: &Plan<'_>) -> Result<(Vec<OwnedFd>, Option<Intercepted>), Failure> {
    let (brokered, sharing) = match &plan.spec.network {
        Network::Loopback => (None, Sharing::Alone),
        Network::Brokered(brokered) => (Some(brokered), plan.interception.sharing()),
    };
    let listeners = plan.spec.listeners.iter();
    let listeners = listeners.map(|address| sockets::open(SocketType::STREAM, *address, sharing));
    let listeners = listeners.collect::<Result<_, _>>()?;
    let intercepted = brokered
        .map(|brokered| intercept::set_up(brokered, plan.interception))
        .transpose()?;
    Ok((listeners, intercepted))
}

/// Gives up every capability in every set, for good.
pub(crate) fn drop_capabilities() -> Result<(), Failure> {
    for number in CAPABILITY_NUMBERS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(Failure::new(Step::DropCapabilities, errno)),
        }
    }
    rustix::thread::clear_ambient_capability_set().step(Step::DropCapabilities)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).step(Step::DropCapabilities)?;
    rustix::thread::set_no_new_privs(true).step(Step::DropCapabilities)
}
