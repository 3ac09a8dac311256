//! While the payload runs: reap, pass signals on, and say how it ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::{Plan, Started, report};
use crate::network::Intercepted;
use crate::report::ExitStatus;
use crate::spec::Isolation;
use crate::sys;
use crate::wire::{self, InitOrder, InitReport};

/// Runs until the payload has ended and the rest of the tree is gone; returns our exit code.
pub(super) fn supervise(plan: &Plan<'_>, started: Started) -> i32 {
    let Started {
        payload,
        listeners,
        intercepted,
        landlock,
        exposed,
    } = started;
    let mut descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    descriptors.extend(intercepted.iter().flat_map(Intercepted::descriptors));
    let ready = InitReport::Ready {
        landlock,
        exposed,
        intercepted: intercepted.as_ref().map(Intercepted::layout),
    };
    report(plan, &ready, &descriptors);
    drop((listeners, intercepted));
    let Some(children) = watch(plan) else {
        return 1;
    };
    loop {
        let mut waiting = [
            PollFd::new(plan.socket, PollFlags::IN),
            PollFd::new(&children, PollFlags::IN),
        ];
        if wire::retry(|| rustix::event::poll(&mut waiting, None)).is_err() {
            return 1;
        }
        let [orders, deaths] = waiting.map(|fd| !fd.revents().is_empty());
        if deaths {
            // Says that there were deaths, not how many; they are found by waiting.
            _ = rustix::io::read(&children, &mut [0; 128]);
            if let Some(status) = reap(payload) {
                end_tree(plan.spec.isolation);
                let usage = crate::usage::from_rusage(&sys::usage_of_children());
                report(plan, &InitReport::Exited { status, usage }, &[]);
                return 0;
            }
        }
        if orders && !obey(plan, payload) {
            end_tree(plan.spec.isolation);
            return 1;
        }
    }
}

/// Closes what only the payload is to hold, so that the other ends of its streams see it end, and
/// watches for deaths.
fn watch(plan: &Plan<'_>) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd;
    let children = sys::signal_fd(&[libc::SIGCHLD]).ok()?;
    sys::close_all_but(&mut [plan.socket.as_raw_fd(), children.as_raw_fd()]);
    Some(children)
}

/// Takes one order; false when the launcher is gone.
fn obey(plan: &Plan<'_>, payload: Pid) -> bool {
    match wire::receive(plan.socket, RecvFlags::DONTWAIT) {
        Ok(Some((InitOrder::Signal(number), _))) => {
            if let Some(signal) = Signal::from_named_raw(number) {
                _ = rustix::process::kill_process(payload, signal);
            }
            true
        }
        Ok(Some((InitOrder::Kill, _))) => {
            _ = rustix::process::kill_process(payload, Signal::KILL);
            true
        }
        Ok(Some((InitOrder::Go, _))) | Err(Errno::AGAIN) => true,
        Ok(None) | Err(_) => false,
    }
}

/// Reaps all that are dead; the payload's status if it is among them.
fn reap(payload: Pid) -> Option<ExitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == payload {
            ended = exit_status(status);
        }
    }
    ended
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    let code = status.exit_status().map(ExitStatus::Code);
    code.or_else(|| status.terminating_signal().map(ExitStatus::Signal))
}

/// Kills and reaps what the payload left behind.
fn end_tree(isolation: Isolation) {
    loop {
        match isolation {
            // Every process of the namespace but ourselves, at once: none can fork away from it.
            Isolation::Sandbox => sys::kill_all_others(),
            Isolation::Process => kill_children(),
        }
        match wire::retry(|| rustix::process::wait(WaitOptions::empty())) {
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Orphans below come to us as their subreaper, so that the next round finds them.
fn kill_children() {
    let own = rustix::process::getpid().as_raw_nonzero();
    let list = std::fs::read_to_string(format!("/proc/self/task/{own}/children"));
    for word in list.unwrap_or_default().split_ascii_whitespace() {
        if let Some(pid) = word.parse().ok().and_then(Pid::from_raw) {
            _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}
