//! A running sandbox, as the agent holds it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::Signal;

use crate::cgroup::Group;
use crate::error::SandboxError;
use crate::meter::Meter;
use crate::network::Intercepted;
use crate::report::{Enforcement, Exit};
use crate::spec::SandboxName;
use crate::wire::{self, Answer, Order};

/// A running sandbox. Dropping it kills the whole tree; it does not wait for that.
#[derive(Debug)]
pub struct Sandbox {
    name: SandboxName,
    pid: i32,
    enforcement: Enforcement,
    listeners: Vec<OwnedFd>,
    intercepted: Option<Intercepted>,
    meter: Option<Meter>,
    session: OwnedFd,
    /// How it ended, once that has been received.
    exit: Mutex<Option<Exit>>,
}

impl Sandbox {
    /// The sandbox that the launcher has told of; `None` if what it told is no such thing.
    pub(crate) fn launched(
        name: SandboxName,
        answer: Answer,
        mut beside: Vec<OwnedFd>,
        session: OwnedFd,
    ) -> Option<Self> {
        let Answer::Launched {
            pid,
            enforcement,
            group,
            intercepted,
        } = answer
        else {
            return None;
        };
        if group.len() > beside.len() {
            return None;
        }
        let mut listeners = beside.split_off(group.len());
        let intercepted = match intercepted {
            Some(layout) => {
                let count = listeners.len().checked_sub(layout.count())?;
                let sockets = listeners.split_off(count);
                Some(Intercepted::from_descriptors(&layout, sockets)?)
            }
            None => None,
        };
        Some(Self {
            name,
            pid,
            enforcement: *enforcement,
            listeners,
            intercepted,
            meter: Meter::of(Group::of_directories(group, beside)),
            session,
            exit: Mutex::new(None),
        })
    }

    /// The name that it was launched under.
    pub fn name(&self) -> &SandboxName {
        &self.name
    }

    /// Process id, on the host, of the sandbox's init. The payload is its child (2 inside).
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The listening sockets that the specification asked for, in its order; non-blocking. Empty on
    /// a second call.
    pub fn take_listeners(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.listeners)
    }

    /// The sockets at which everything ends that the payload sends; `None` on a second call, and
    /// where the network is not brokered. To be served for as long as the payload runs, or it waits.
    pub fn take_intercepted(&mut self) -> Option<Intercepted> {
        self.intercepted.take()
    }

    /// Reads what the payload uses while it runs; `None` on a second call, and where it has no
    /// control group.
    pub fn take_meter(&mut self) -> Option<Meter> {
        self.meter.take()
    }

    /// What the payload is held to.
    pub fn enforcement(&self) -> &Enforcement {
        &self.enforcement
    }

    /// Becomes readable when the payload has ended, or the launcher died; then [`Self::try_wait`]
    /// tells which. For registering with an event loop; do not read from it.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.session.as_fd()
    }

    /// How the payload ended, `None` while it runs. When it has ended, nothing of the tree is left.
    ///
    /// # Errors
    /// [`SandboxError::LauncherGone`] when nobody is left to tell.
    pub fn try_wait(&self) -> Result<Option<Exit>, SandboxError> {
        self.receive_exit()
    }

    /// Waits until the payload has ended. When it has, nothing of the tree is left.
    ///
    /// # Errors
    /// [`SandboxError::LauncherGone`] when nobody is left to tell.
    pub fn wait(&self) -> Result<Exit, SandboxError> {
        loop {
            if let Some(exit) = self.receive_exit()? {
                return Ok(exit);
            }
            let mut waiting = [PollFd::new(&self.session, PollFlags::IN)];
            wire::retry(|| rustix::event::poll(&mut waiting, None))
                .map_err(|errno| SandboxError::Channel(errno.into()))?;
        }
    }

    /// Sends a signal to the payload, as `kill` would: its default action applies. Nothing happens
    /// once it has ended.
    ///
    /// # Errors
    /// [`SandboxError`] when the launcher cannot be reached.
    pub fn signal(&self, signal: Signal) -> Result<(), SandboxError> {
        self.order(&Order::Signal(signal.as_raw()))
    }

    /// Kills the whole tree at once. Nothing happens once it has ended.
    ///
    /// # Errors
    /// [`SandboxError`] when the launcher cannot be reached.
    pub fn kill(&self) -> Result<(), SandboxError> {
        self.order(&Order::Kill)
    }

    fn order(&self, order: &Order) -> Result<(), SandboxError> {
        match wire::send(&self.session, order, &[], SendFlags::empty()) {
            Ok(()) => Ok(()),
            // The launcher closes a session after telling how it ended; what it told can be read.
            Err(Errno::PIPE | Errno::CONNRESET) => self.receive_exit().map(drop),
            Err(errno) => Err(SandboxError::Channel(errno.into())),
        }
    }

    fn receive_exit(&self) -> Result<Option<Exit>, SandboxError> {
        // Held while receiving: of two threads that wait, one receives and both see it.
        let mut exit = self
            .exit
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if exit.is_some() {
            return Ok(exit.clone());
        }
        match wire::receive(&self.session, RecvFlags::DONTWAIT) {
            Ok(Some((Answer::Exited(how), _))) => {
                *exit = Some(how);
                Ok(exit.clone())
            }
            Ok(None) => Err(SandboxError::LauncherGone),
            Err(Errno::AGAIN) => Ok(None),
            Ok(Some(_)) => Err(SandboxError::Channel(Errno::BADMSG.into())),
            Err(errno) => Err(SandboxError::Channel(errno.into())),
        }
    }
}
