//! What carries packets between the device and the peers, and keeps their sessions.

mod inbound;
mod outbound;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use boringtun::noise::{Tunn, TunnResult, rate_limiter::RateLimiter};
use quinn_udp::{Transmit, UdpSocketState};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UdpSocket,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    PrivateKey, TunnelConfig, TunnelHealth, TunnelStartError, peer::Peer, routing::Routing,
};
use crate::{
    inspect::Target,
    resolver::{HostResolver, Resolver},
};

/// The most peers: a message names one by 24 bits, a process has one tunnel for a few sites.
const MAX_PEERS: usize = 256;
/// Handshakes a second that are answered without asking for a proof of address first. A message
/// counts twice, as it is looked at twice.
const HANDSHAKES_PER_SECOND: u64 = 2 * 100;
/// How often sessions are looked after.
const TICK: Duration = Duration::from_millis(250);
/// How often who waits for a peer asks it again; an unanswered handshake is repeated by its own
/// timer (`Rekey-Timeout`), so that asking is seldom more than looking.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a name that a silent peer was found by counts as fresh.
const NAME_LIFE: Duration = Duration::from_secs(10);
/// A handshake's first message, which is the longest but for data.
const MAX_HANDSHAKE: usize = 148;
/// What the socket keeps for us at most: a few milliseconds of a fast line. The kernel may give less.
const SOCKET_BUFFER: usize = 4 << 20;

/// All that the tasks of a tunnel share.
pub(super) struct Core {
    device: AsyncFd<OwnedFd>,
    socket: UdpSocket,
    udp: UdpSocketState,
    /// Whether the socket is of IPv6, so that it takes IPv4 addresses in their mapped form.
    mapped: bool,
    private_key: PrivateKey,
    limiter: Arc<RateLimiter>,
    pub(super) peers: Vec<Arc<Peer>>,
    by_key: HashMap<[u8; 32], usize>,
    routing: Routing<usize>,
    own: HashSet<IpAddr>,
    /// Told whenever there is a new session, and when a peer is heard after a silence.
    established: watch::Sender<()>,
    /// Somebody waits for a peer whose name may have to be looked up.
    wanted: Vec<Notify>,
    strays: AtomicU64,
    unroutable: AtomicU64,
}

impl Core {
    pub(super) fn new(config: TunnelConfig, device: OwnedFd) -> Result<Self, TunnelStartError> {
        if config.peers.is_empty() || config.peers.len() > MAX_PEERS {
            return Err(TunnelStartError::Peers { most: MAX_PEERS });
        }
        let own_key = config.private_key.public_key();
        let limiter = Arc::new(RateLimiter::new(&own_key.point(), HANDSHAKES_PER_SECOND));
        let mut by_key = HashMap::new();
        let mut routing = Routing::default();
        let mut peers = Vec::new();
        let wanted = config.peers.iter().map(|_| Notify::new()).collect();
        for (index, peer) in config.peers.into_iter().enumerate() {
            let key = peer.public_key;
            if key == own_key {
                return Err(TunnelStartError::OwnKey);
            }
            if by_key.insert(*key.bytes(), index).is_some() {
                return Err(TunnelStartError::DuplicatePeer { key });
            }
            for network in peer.allowed_ips {
                if !routing.add(network, index) {
                    return Err(TunnelStartError::DuplicateNetwork { network });
                }
            }
            let keepalive = peer.keepalive.map(|every| every.as_secs().max(1));
            let session = Tunn::new(
                config.private_key.secret().clone(),
                key.point(),
                peer.preshared_key.as_ref().map(|key| *key.bytes()),
                keepalive.map(|seconds| u16::try_from(seconds).unwrap_or(u16::MAX)),
                u32::try_from(index).expect("few peers"),
                Some(limiter.clone()),
            );
            peers.push(Arc::new(Peer::new(key, peer.endpoint, session)));
        }
        let (socket, udp, mapped) =
            open_socket(config.listen_port).map_err(|source| TunnelStartError::Socket {
                port: config.listen_port,
                source,
            })?;
        Ok(Self {
            device: watched(device).map_err(TunnelStartError::Device)?,
            socket,
            udp,
            mapped,
            private_key: config.private_key,
            limiter,
            peers,
            by_key,
            routing,
            own: config.addresses.into_iter().collect(),
            established: watch::Sender::new(()),
            wanted,
            strays: AtomicU64::new(0),
            unroutable: AtomicU64::new(0),
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.socket.local_addr().map_or(0, |address| address.port())
    }

    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The peer that an address lies behind.
    pub(super) fn peer_of(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        self.peers.get(self.routing.find(address)?)
    }

    pub(super) fn health(&self) -> TunnelHealth {
        TunnelHealth {
            peers: self.peers.iter().map(|peer| peer.health()).collect(),
            stray_datagrams: self.strays.load(Ordering::Relaxed),
            unroutable_packets: self.unroutable.load(Ordering::Relaxed),
        }
    }

    /// Waits until a peer carries traffic, and asks it for a handshake meanwhile. Cancel-safe.
    pub(super) async fn raise(&self, peer: &Peer) {
        self.raise_one_of(|core| core.ask(peer), || peer.is_up())
            .await;
    }

    /// The same for any of the peers.
    pub(super) async fn raise_any(&self) {
        let ask = |core: &Self| core.peers.iter().for_each(|peer| core.ask(peer));
        self.raise_one_of(ask, || self.peers.iter().any(|peer| peer.is_up()))
            .await;
    }

    async fn raise_one_of(&self, ask: impl Fn(&Self), is_up: impl Fn() -> bool) {
        let mut established = self.established.subscribe();
        while !is_up() {
            ask(self);
            // Woken or not, it is looked at again.
            let _ = tokio::time::timeout(ASK_AGAIN, established.changed()).await;
        }
    }

    /// Begins a handshake with a peer, unless one is under way.
    fn ask(&self, peer: &Peer) {
        peer.note_asked();
        if let Some(index) = self.by_key.get(peer.key.bytes()) {
            self.wanted[*index].notify_one();
        }
        let Some(to) = peer.endpoint() else { return };
        let mut message = [0; MAX_HANDSHAKE];
        let asked = peer
            .session()
            .format_handshake_initiation(&mut message, false);
        if let TunnResult::WriteToNetwork(message) = asked {
            self.send_or_drop(to, message);
        }
    }

    /// An address in the form that the socket takes.
    fn addressed(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(address) if self.mapped => {
                SocketAddr::new(address.to_ipv6_mapped().into(), to.port())
            }
            _ => to,
        }
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || {
            self.udp.try_send((&self.socket).into(), transmit)
        })
    }

    /// Sends one message now or not at all, as a network may lose any.
    fn send_or_drop(&self, to: SocketAddr, message: &[u8]) {
        let transmit = Transmit {
            destination: self.addressed(to),
            ecn: None,
            contents: message,
            segment_size: None,
            src_ip: None,
        };
        // Timers repeat what matters.
        let _ = self.try_send(&transmit);
    }

    /// Sends messages of one size (the last may be shorter) when the socket has room for them.
    async fn send(&self, to: SocketAddr, messages: &[u8], size: usize) {
        let transmit = Transmit {
            destination: self.addressed(to),
            ecn: None,
            contents: messages,
            segment_size: (messages.len() > size).then_some(size),
            src_ip: None,
        };
        loop {
            match self.try_send(&transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.socket.writable().await.is_err() {
                        return;
                    }
                }
                // Lost like what any network loses: TCP inside notices, and so does health.
                _ => return,
            }
        }
    }

    /// Gives the namespace a packet; one that it does not take is lost.
    fn deliver(&self, packet: &[u8]) {
        let _ = rustix::io::write(self.device.get_ref(), packet);
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for types whose descriptor may change; an owned one does not"
)]
fn watched(device: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(device, Interest::READABLE)
}

/// A socket of both families if the host has IPv6, and of IPv4 otherwise.
fn open_socket(port: u16) -> io::Result<(UdpSocket, UdpSocketState, bool)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let open = |family| rustix::net::socket_with(family, SocketType::DGRAM, flags, None);
    let dual = open(AddressFamily::INET6).and_then(|socket| {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
        rustix::net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        Ok(socket)
    });
    let (socket, mapped) = match dual {
        Ok(socket) => (socket, true),
        Err(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL) => {
            let socket = open(AddressFamily::INET)?;
            rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
            (socket, false)
        }
        Err(errno) => return Err(errno.into()),
    };
    // The kernel caps them by its own limits, with which it works too.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
    let udp = UdpSocketState::new((&socket).into())?;
    Ok((UdpSocket::from_std(socket.into())?, udp, mapped))
}

/// Starts the tasks of a tunnel. Each ends when aborted, or with the device.
pub(super) fn spawn(core: &Arc<Core>) -> JoinSet<()> {
    let mut work = JoinSet::new();
    work.spawn(outbound::carry(core.clone()));
    work.spawn(inbound::carry(core.clone()));
    work.spawn(keep_time(core.clone()));
    for (index, peer) in core.peers.iter().enumerate() {
        if let Some((Target::Name(_), _)) = &peer.configured {
            work.spawn(keep_endpoint(core.clone(), index));
        }
        core.ask(peer);
    }
    work
}

/// Repeats handshakes, makes new ones in time, keeps alive, and forgets keys that are too old.
async fn keep_time(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut message = [0; MAX_HANDSHAKE];
    loop {
        ticks.tick().await;
        core.limiter.reset_count();
        for peer in &core.peers {
            let due = peer.session().update_timers(&mut message);
            // What was given up is asked for again by who needs it.
            if let (TunnResult::WriteToNetwork(message), Some(to)) = (due, peer.endpoint()) {
                core.send_or_drop(to, message);
            }
        }
    }
}

/// Looks a peer's name up when it is wanted and does not answer where it was.
async fn keep_endpoint(core: Arc<Core>, index: usize) {
    let peer = &core.peers[index];
    let Some((Target::Name(name), port)) = &peer.configured else {
        return;
    };
    let resolver = HostResolver::default();
    let mut found_at: Option<Instant> = None;
    loop {
        core.wanted[index].notified().await;
        if peer.is_up() || found_at.is_some_and(|at| at.elapsed() < NAME_LIFE) {
            continue;
        }
        // What it cannot say now it may say when asked again, which who waits does.
        if let Ok(addresses) = resolver.resolve(name).await
            && let Some(address) = addresses.first()
        {
            found_at = Some(Instant::now());
            peer.moved_to(SocketAddr::new(*address, *port));
            core.ask(peer);
        }
    }
}
