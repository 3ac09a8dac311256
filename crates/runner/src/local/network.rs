//! The network of a running sandbox: everything that it sends ends at sockets of ours, and a broker
//! makes on its behalf the connections that an attempt has declared.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use barecount_network::{
    broker::{Attempt, Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    limit::Rate,
    path::Paths,
    policy::Policy,
    record::{FlowLog, FlowProtocol},
};
use barecount_sandbox::{Intercepted, parse_refusals};
use rustix::io::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use super::host::failure;
use crate::RunnerError;

/// What the kernel hands out of its packet log in one piece is no longer.
const LOGGED_BYTES: usize = 64 << 10;
/// The most pieces that are read at an attempt's end.
const DRAINED_READS: usize = 256;

/// Refused packets that are told a second, with a burst of as many. What comes faster fills the
/// kernel's log, and the record says that some are missing: a flood costs its sender.
const REFUSALS_PER_SECOND: u64 = 500;

/// The broker of one sandbox, and the attempt that it serves.
pub(crate) struct Network {
    broker: Broker,
    attempt: Arc<Mutex<Option<Attempt>>>,
    refusals: Option<Refusals>,
}

impl Network {
    /// Serves a sandbox's sockets. Nothing that it sent meanwhile is lost: it waits in them.
    pub(crate) fn serve(
        intercepted: Intercepted,
        paths: Paths,
        policy: Policy,
    ) -> Result<Self, RunnerError> {
        let refusals = intercepted.refusals;
        let sockets = InsideSockets {
            tcp: intercepted.tcp.into_iter().map(TcpListener::from).collect(),
            dns_udp: intercepted
                .dns_udp
                .into_iter()
                .map(UdpSocket::from)
                .collect(),
            dns_tcp: intercepted
                .dns_tcp
                .into_iter()
                .map(TcpListener::from)
                .collect(),
            capture: match intercepted.capture {
                barecount_sandbox::Capture::Redirected => Capture::Redirected,
                barecount_sandbox::Capture::DeclaredPorts => Capture::DeclaredPorts,
            },
        };
        let options = BrokerOptions::new(paths);
        let (broker, first) = Broker::start_with(sockets, options, policy)
            .map_err(|error| failure("serve a sandbox's network", error))?;
        let attempt = Arc::new(Mutex::new(Some(first)));
        let refusals = refusals
            .map(|log| Refusals::watch(log, attempt.clone()))
            .transpose()
            .map_err(|error| failure("hear of refused packets", error))?;
        Ok(Self {
            broker,
            attempt,
            refusals,
        })
    }

    /// Lets the connections of another attempt through.
    pub(crate) fn begin(&self, policy: Policy) -> Result<(), RunnerError> {
        let begun = self
            .broker
            .begin(policy)
            .map_err(|error| failure("open the network to an attempt", error))?;
        *lock(&self.attempt) = Some(begun);
        Ok(())
    }

    /// Closes what the attempt left open, and says what it reached and was refused.
    pub(crate) async fn end(&self) -> Option<FlowLog> {
        let attempt = {
            let mut current = lock(&self.attempt);
            if let Some(refusals) = &self.refusals {
                refusals.drain(current.as_ref());
            }
            current.take()?
        };
        Some(attempt.end().await)
    }
}

fn lock(attempt: &Mutex<Option<Attempt>>) -> std::sync::MutexGuard<'_, Option<Attempt>> {
    // Single assignments: a panic elsewhere leaves it sound.
    attempt.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's log of what was sent by other protocols than TCP, which goes nowhere.
struct Refusals {
    log: Arc<AsyncFd<OwnedFd>>,
    reader: JoinHandle<()>,
}

impl Refusals {
    fn watch(log: OwnedFd, attempt: Arc<Mutex<Option<Attempt>>>) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe, and asks for what an owned descriptor keeps by \
                      its type: that it stays open and the same"
        )]
        let log = Arc::new(AsyncFd::with_interest(log, Interest::READABLE)?);
        let watched = log.clone();
        let reader = tokio::spawn(async move {
            let pace = Rate::per_second(REFUSALS_PER_SECOND);
            while let Ok(mut ready) = watched.readable().await {
                let read = read(watched.get_ref(), lock(&attempt).as_ref());
                match read {
                    Read::Some => pace.spend(1).await,
                    Read::Nothing => ready.clear_ready(),
                    Read::End => break,
                }
            }
        });
        Ok(Self { log, reader })
    }

    /// Reads what is there now, all of which the attempt sent. Bounded, should its processes go on.
    fn drain(&self, attempt: Option<&Attempt>) {
        for _ in 0..DRAINED_READS {
            if read(self.log.get_ref(), attempt) != Read::Some {
                return;
            }
        }
        if let Some(attempt) = attempt {
            attempt.lost_refusals();
        }
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(PartialEq)]
enum Read {
    Some,
    Nothing,
    End,
}

/// Reads once and records; with the attempt held, so that nothing is read for one attempt and
/// recorded for the next.
fn read(log: &OwnedFd, attempt: Option<&Attempt>) -> Read {
    let mut buffer = vec![0; LOGGED_BYTES];
    match rustix::io::read(log, &mut buffer) {
        Ok(0) => Read::End,
        Ok(length) => {
            if let Some(attempt) = attempt {
                record(&buffer[..length], attempt);
            }
            Read::Some
        }
        Err(Errno::AGAIN) => Read::Nothing,
        // Packets came faster than they were read; the record says that some are missing.
        Err(Errno::NOBUFS) => {
            if let Some(attempt) = attempt {
                attempt.lost_refusals();
            }
            Read::Some
        }
        // Nothing more is heard of what is refused, and the record says so. The refusal itself holds.
        Err(error) => {
            tracing::warn!(%error, "the kernel's log of refused packets cannot be read");
            if let Some(attempt) = attempt {
                attempt.lost_refusals();
            }
            Read::End
        }
    }
}

fn record(packet: &[u8], attempt: &Attempt) {
    for refused in parse_refusals(packet) {
        let protocol = match refused.protocol {
            17 => FlowProtocol::Udp,
            1 | 58 => FlowProtocol::Icmp,
            _ => FlowProtocol::Other,
        };
        let port = refused.port.unwrap_or_default();
        attempt.refused_packet(protocol, SocketAddr::new(refused.destination, port));
    }
}

#[cfg(test)]
mod tests;
