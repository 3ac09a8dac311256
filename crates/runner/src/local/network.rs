//! The network of a running sandbox: everything that it sends ends at sockets of ours, and a broker
//! makes on its behalf the connections that an attempt has declared.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use barecount_network::{
    broker::{Attempt, Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    path::Paths,
    policy::Policy,
    record::{FlowLog, FlowProtocol},
};
use barecount_sandbox::{Intercepted, parse_refusals};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use super::host::failure;
use crate::RunnerError;

/// What the kernel hands out of its packet log in one piece is no longer.
const LOGGED_BYTES: usize = 64 << 10;

/// The broker of one sandbox, and the attempt that it serves.
pub(crate) struct Network {
    broker: Broker,
    attempt: Arc<Mutex<Option<Attempt>>>,
    refusals: Option<JoinHandle<()>>,
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
            .map(|log| watch(log, attempt.clone()))
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
        let attempt = lock(&self.attempt).take()?;
        Some(attempt.end().await)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(refusals) = &self.refusals {
            refusals.abort();
        }
    }
}

fn lock(attempt: &Mutex<Option<Attempt>>) -> std::sync::MutexGuard<'_, Option<Attempt>> {
    // Single assignments: a panic elsewhere leaves it sound.
    attempt.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records what was sent by other protocols than TCP, which goes nowhere.
fn watch(log: OwnedFd, attempt: Arc<Mutex<Option<Attempt>>>) -> io::Result<JoinHandle<()>> {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe, and asks for what an owned descriptor keeps by its \
                  type: that it stays open and the same"
    )]
    let log = AsyncFd::with_interest(log, Interest::READABLE)?;
    Ok(tokio::spawn(async move {
        let mut buffer = vec![0; LOGGED_BYTES];
        while let Ok(mut ready) = log.readable().await {
            match rustix::io::read(log.get_ref(), &mut buffer).map_err(io::Error::from) {
                Ok(0) => break,
                Ok(length) => record(&buffer[..length], &attempt),
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                // Packets came faster than they were read; the record says that some are missing.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
                {
                    if let Some(attempt) = &*lock(&attempt) {
                        attempt.lost_refusals();
                    }
                }
                Err(_) => break,
            }
        }
    }))
}

fn record(packet: &[u8], attempt: &Mutex<Option<Attempt>>) {
    let attempt = lock(attempt);
    let Some(attempt) = &*attempt else { return };
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
