//! The broker of one sandbox.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use barecount_model::class::NetworkProfile;
use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    attempt::AttemptState,
    capture::{Capture, InsideSockets},
    clock::{Clock, SystemClock},
    descriptors::{Descriptors, Share},
    dns::server::{self, LookupSocket},
    flow,
    limit::Rate,
    path::Paths,
    policy::{Policy, PolicyError},
    record::{FlowLog, FlowProtocol},
    relay::PipePool,
    synthetic::{SyntheticNames, SyntheticRanges},
};

/// Empty pipes that a broker keeps.
const IDLE_PIPES: usize = 32;
/// Pipes that hold bytes for slow readers at a time; what is more is copied.
const HELD_PIPES: usize = 256;
/// How long to wait when the host has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What is refused because it comes too fast, or while there is no attempt: so much of it a second is
/// refused by word, with a burst of as much. The rest waits in the sandbox's own kernel, where it
/// costs its sender and not the agent.
const REFUSED_PER_SECOND: u64 = 100;

/// What a broker may be given besides its sockets.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The path of each network profile that the environment offers.
    pub paths: Paths,
    /// From where names are given addresses; the sandbox must route these ranges to the sockets.
    pub synthetic: SyntheticRanges,
    /// The time that flow records carry.
    pub clock: Arc<dyn Clock>,
    /// What the attempts of all brokers share.
    pub descriptors: Arc<Descriptors>,
}

impl BrokerOptions {
    /// With the usual ranges, the host's clock, and the descriptors of this process.
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            synthetic: SyntheticRanges::default(),
            clock: Arc::new(SystemClock),
            descriptors: Descriptors::of_process(),
        }
    }
}

/// The broker of one sandbox, for as long as the sandbox lives.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// What the tasks of a broker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stop: CancellationToken,
    pub(crate) pipes: PipePool,
    pub(crate) names: Arc<SyntheticNames>,
    options: BrokerOptions,
    current: Mutex<Option<Arc<AttemptState>>>,
    unattributed: AtomicU64,
    refusals: Rate,
}

/// Why an attempt cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// A sandbox serves one attempt at a time.
    #[error("an attempt has begun in this sandbox and not ended")]
    Busy,
    /// The environment does not offer the profile.
    #[error("this environment has no path for the profile `{profile}`")]
    NoPath {
        /// The profile.
        profile: NetworkProfile,
    },
    /// The policy contradicts itself.
    #[error("the policy cannot be enforced")]
    Policy(#[from] PolicyError),
}

/// Why a broker cannot start with an attempt.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be watched.
    #[error("a socket of the sandbox cannot be watched")]
    Socket(#[from] io::Error),
    /// The attempt cannot begin.
    #[error(transparent)]
    Begin(#[from] BeginError),
}

/// The sockets, as the runtime watches them.
struct Watched {
    tcp: Vec<TcpListener>,
    dns_tcp: Vec<TcpListener>,
    dns_udp: Vec<LookupSocket>,
    capture: Capture,
}

impl Broker {
    /// Serves the sockets of a sandbox until the broker is stopped or dropped. Nothing gets
    /// through until an attempt begins. To be called within a runtime.
    ///
    /// Fails if a socket cannot be watched.
    pub fn start(sockets: InsideSockets, options: BrokerOptions) -> io::Result<Self> {
        let (broker, watched) = Self::watch(sockets, options)?;
        broker.serve(watched);
        Ok(broker)
    }

    /// The same with an attempt that has begun already, so that what waits in the sockets is part of
    /// it.
    pub fn start_with(
        sockets: InsideSockets,
        options: BrokerOptions,
        policy: Policy,
    ) -> Result<(Self, Attempt), StartError> {
        let (broker, watched) = Self::watch(sockets, options)?;
        let attempt = broker.begin(policy)?;
        broker.serve(watched);
        Ok((broker, attempt))
    }

    fn watch(sockets: InsideSockets, options: BrokerOptions) -> io::Result<(Self, Watched)> {
        let shared = Arc::new(Shared {
            stop: CancellationToken::new(),
            pipes: PipePool::new(IDLE_PIPES, HELD_PIPES),
            names: Arc::new(SyntheticNames::new(options.synthetic)),
            options,
            current: Mutex::default(),
            unattributed: AtomicU64::new(0),
            refusals: Rate::per_second(REFUSED_PER_SECOND),
        });
        let watched = Watched {
            tcp: watched(resetting(sockets.tcp)?)?,
            dns_tcp: watched(sockets.dns_tcp)?,
            dns_udp: sockets
                .dns_udp
                .into_iter()
                .map(LookupSocket::watch)
                .collect::<io::Result<_>>()?,
            capture: sockets.capture,
        };
        let broker = Self {
            shared,
            tasks: TaskTracker::new(),
        };
        Ok((broker, watched))
    }

    fn serve(&self, watched: Watched) {
        for listener in watched.tcp {
            self.spawn(accept(listener, watched.capture, self.shared.clone()));
        }
        for listener in watched.dns_tcp {
            self.spawn(server::serve_tcp(
                listener,
                watched.capture,
                self.shared.clone(),
            ));
        }
        for socket in watched.dns_udp {
            self.spawn(server::serve_udp(socket, self.shared.clone()));
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.shared.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Lets an attempt's connections through, as its policy says, until the attempt ends.
    ///
    /// A connection belongs to the attempt that goes on when it is accepted: the processes of the
    /// one before must be gone.
    pub fn begin(&self, policy: Policy) -> Result<Attempt, BeginError> {
        let Some(path) = self.shared.options.paths.get(&policy.profile) else {
            return Err(BeginError::NoPath {
                profile: policy.profile,
            });
        };
        let state = Arc::new(AttemptState::new(
            policy,
            path.clone(),
            self.shared.names.clone(),
            self.shared.options.clock.clone(),
            Share::of(self.shared.options.descriptors.clone()),
        )?);
        let mut current = self.shared.current.lock().expect("no holder panics");
        if current.is_some() {
            return Err(BeginError::Busy);
        }
        *current = Some(state.clone());
        Ok(Attempt {
            state,
            shared: self.shared.clone(),
        })
    }

    /// Connections and lookups that came while there was no attempt, and were refused.
    pub fn unattributed(&self) -> u64 {
        self.shared.unattributed.load(Ordering::Relaxed)
    }

    /// Closes every socket and connection, and waits until they are closed.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        let current = self.shared.leave();
        if let Some(attempt) = current {
            attempt.close().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        if let Some(attempt) = self.shared.leave() {
            attempt.cancel();
        }
    }
}

impl Shared {
    pub(crate) fn attempt(&self) -> Option<Arc<AttemptState>> {
        self.current.lock().expect("no holder panics").clone()
    }

    pub(crate) fn count_unattributed(&self) {
        self.unattributed.fetch_add(1, Ordering::Relaxed);
    }

    /// To be waited for after each thing that was refused because it came too fast, before more of
    /// its kind is taken in. Cancel-safe.
    pub(crate) async fn pace_refusals(&self) {
        self.refusals.spend(1).await;
    }

    fn leave(&self) -> Option<Arc<AttemptState>> {
        self.current.lock().expect("no holder panics").take()
    }

    /// Gives a connection to the attempt that goes on, or resets it. Whether it came in time: not
    /// faster than may be, and while there is an attempt.
    fn serve(self: &Arc<Self>, stream: TcpStream, capture: Capture) -> bool {
        // Held while the flow is handed over: an attempt that ends waits for every flow it has.
        let current = self.current.lock().expect("no holder panics");
        match current.as_ref() {
            Some(attempt) => {
                let in_time = attempt.admits_flow();
                let accepted = flow::Accepted {
                    inside: stream,
                    capture,
                    in_time,
                };
                attempt.spawn(flow::serve(attempt.clone(), self.clone(), accepted));
                in_time
            }
            None => {
                drop(current);
                self.count_unattributed();
                drop(stream);
                false
            }
        }
    }
}

/// Listeners whose connections are reset however they are left, until one is known to have ended
/// well: also when the agent dies.
fn resetting(listeners: Vec<std::net::TcpListener>) -> io::Result<Vec<std::net::TcpListener>> {
    for listener in &listeners {
        // What is accepted inherits it.
        set_socket_linger(listener, Some(Duration::ZERO))?;
    }
    Ok(listeners)
}

fn watched(listeners: Vec<std::net::TcpListener>) -> io::Result<Vec<TcpListener>> {
    listeners
        .into_iter()
        .map(|listener| {
            listener.set_nonblocking(true)?;
            // What is accepted inherits it. What a destination wrote at once reaches the work at once.
            set_tcp_nodelay(&listener, true)?;
            TcpListener::from_std(listener)
        })
        .collect()
}

async fn accept(listener: TcpListener, capture: Capture, shared: Arc<Shared>) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                if !shared.serve(stream, capture) {
                    shared.pace_refusals().await;
                }
            }
            // A client that left before it was accepted, or no descriptor left: both pass.
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "no connection of a sandbox could be accepted");
                }
                failing = true;
                tokio::time::sleep_until(tokio::time::Instant::now() + ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One attempt, for as long as its connections are let through. Dropping it closes them.
#[derive(Debug)]
pub struct Attempt {
    state: Arc<AttemptState>,
    shared: Arc<Shared>,
}

impl Attempt {
    /// The records so far, open connections with what they have carried included.
    pub fn records(&self) -> FlowLog {
        self.state.log()
    }

    /// Records a packet that the sandbox's kernel refused, since nothing but TCP and lookups gets
    /// anywhere. The port is 0 for protocols that have none.
    pub fn refused_packet(&self, protocol: FlowProtocol, destination: SocketAddr) {
        self.state.refused_packet(protocol, destination);
    }

    /// Records that packets were refused faster than they could be told.
    pub fn lost_refusals(&self) {
        self.state.lost_refusals();
    }

    /// Closes what is still open, waits until it is closed, and gives the whole record. Cancelled,
    /// the connections are closed all the same, and the record is lost.
    pub async fn end(self) -> FlowLog {
        self.leave();
        self.state.close().await;
        self.state.log()
    }

    fn leave(&self) {
        let mut current = self.shared.current.lock().expect("no holder panics");
        if current
            .as_ref()
            .is_some_and(|state| Arc::ptr_eq(state, &self.state))
        {
            *current = None;
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.leave();
        self.state.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_sends_without_delay_and_is_reset_when_dropped() -> io::Result<()> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let listeners = watched(resetting(vec![listener])?)?;
        let _client = std::net::TcpStream::connect(address)?;
        let (accepted, _) = listeners[0].accept().await?;
        assert!(accepted.nodelay()?);
        let linger = rustix::net::sockopt::socket_linger(&accepted)?;
        assert_eq!(linger, Some(Duration::ZERO), "it is reset when dropped");
        Ok(())
    }
}
