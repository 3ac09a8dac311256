//! A WireGuard tunnel of the agent's own, in user space (Donenfeld, "WireGuard: Next Generation
//! Kernel Network Tunnel", NDSS 2017; the protocol itself is `boringtun`'s).
//!
//! ```text
//! relay ──► TCP socket ──► TUN device ─┊─► allowed_ips ──► Noise ──► UDP socket ──► peer
//!           └──── a namespace without ─┊       └── this module ──┘   └ the host's
//!                 another way out      ┊
//! ```
//! Connections are made by sockets of a namespace whose only device is the TUN device in our hands,
//! so that the kernel's TCP carries them, and nothing of them can leave by the host's routes.
//! Nothing here touches the host's network but one UDP socket.
//!
//! A peer's `allowed_ips` say what is sent to it and what it may send: a packet from it whose source
//! lies elsewhere, or whose destination is not the tunnel's own address, is dropped. While a peer
//! has no session, and when none comes to be, what is for it goes nowhere.

mod carrier;
mod health;
mod key;
mod packet;
mod peer;
mod routing;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::{net::TcpSocket, task::JoinSet};

use self::{
    carrier::Core,
    peer::{Peer, PeerState},
};
pub use self::{
    health::{PeerHealth, TunnelHealth},
    key::{InvalidKey, PresharedKey, PrivateKey, PublicKey},
};
use crate::{
    inspect::Target,
    path::{Connection, Tunnel, TunnelDown, TunnelState, connect_from},
};

/// After this long without a new handshake a session carries nothing (`Reject-After-Time`).
pub const REJECT_AFTER: Duration = Duration::from_secs(180);
/// The largest packet of a tunnel unless told otherwise: what fits, with everything around it, into
/// 1,500 bytes by IPv6 too.
pub const DEFAULT_MTU: u16 = 1_420;

/// How a tunnel is set up.
#[derive(Debug)]
pub struct TunnelConfig {
    /// Our key.
    pub private_key: PrivateKey,
    /// Our addresses inside, which are those of the namespace. Packets to others are dropped.
    pub addresses: Vec<IpAddr>,
    /// The UDP port that we listen on; 0 for any. A peer that must reach us first needs to know it.
    pub listen_port: u16,
    /// The peers; no two with one key or one of their networks in common.
    pub peers: Vec<PeerConfig>,
}

/// The other side, or one of several.
#[derive(Debug)]
pub struct PeerConfig {
    /// Its key.
    pub public_key: PublicKey,
    /// A key that both share besides.
    pub preshared_key: Option<PresharedKey>,
    /// Where it listens: host and UDP port. Without one it must speak first. It may roam: what it
    /// sends with a good key tells where it is.
    pub endpoint: Option<(Target, u16)>,
    /// What is sent to it, and what it may send from.
    pub allowed_ips: Vec<IpNet>,
    /// How often it hears from us though there is nothing to say, which keeps NATs open.
    pub keepalive: Option<Duration>,
}

/// Opens TCP sockets inside a tunnel's namespace.
pub trait InsideTcp: Send + Sync + fmt::Debug {
    /// A fresh socket of one family: not bound, not connected, non-blocking. May block for a
    /// moment; is called where that holds nobody up.
    ///
    /// # Errors
    /// When there is none to be had, as when the namespace is gone.
    fn tcp_socket(&self, ipv6: bool) -> io::Result<OwnedFd>;
}

/// The agent's ends of a tunnel's namespace.
#[derive(Debug)]
pub struct TunnelEnds {
    /// The TUN device: non-blocking, whole IP packets without a header before them.
    pub device: OwnedFd,
    /// Sockets on its other side.
    pub inside: Arc<dyn InsideTcp>,
}

/// Why a tunnel was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelStartError {
    /// A tunnel leads somewhere.
    #[error("the tunnel has no peer, or more than {most}")]
    Peers {
        /// The most there may be.
        most: usize,
    },
    /// Two peers have the same key.
    #[error("two peers have the key {key}")]
    DuplicatePeer {
        /// The key.
        key: PublicKey,
    },
    /// A network is allowed to two peers, so that nobody could say which of them it belongs to.
    #[error("{network} is among the allowed_ips of two peers")]
    DuplicateNetwork {
        /// The network.
        network: IpNet,
    },
    /// A peer has our own key.
    #[error("a peer has the tunnel's own key")]
    OwnKey,
    /// No UDP socket on the host.
    #[error("the tunnel's UDP socket cannot be opened on port {port}")]
    Socket {
        /// The port; 0 for any.
        port: u16,
        /// The reason.
        source: io::Error,
    },
    /// The device cannot be waited for.
    #[error("the tunnel's device cannot be used")]
    Device(#[source] io::Error),
}

/// A tunnel that runs. Dropping it stops it at once: what is open through it carries nothing more.
pub struct WireGuard {
    core: Arc<Core>,
    inside: Arc<dyn InsideTcp>,
    port: u16,
    /// Aborted when dropped.
    _work: JoinSet<()>,
}

impl fmt::Debug for WireGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireGuard")
            .field("port", &self.port)
            .field("peers", &self.core.peers.len())
            .finish_non_exhaustive()
    }
}

impl WireGuard {
    /// Starts a tunnel, on the Tokio runtime that this is called in, and asks every peer with an
    /// endpoint for a handshake. Does not wait for one.
    ///
    /// # Errors
    /// [`TunnelStartError`]; nothing runs then.
    pub fn start(config: TunnelConfig, ends: TunnelEnds) -> Result<Self, TunnelStartError> {
        let core = Arc::new(Core::new(config, ends.device)?);
        Ok(Self {
            port: core.port(),
            inside: ends.inside,
            _work: carrier::spawn(&core),
            core,
        })
    }

    /// The UDP port that it listens on.
    pub fn listen_port(&self) -> u16 {
        self.port
    }

    /// How it does, peer by peer.
    pub fn health(&self) -> TunnelHealth {
        self.core.health()
    }

    /// The peer that an address lies behind.
    fn peer_for(&self, to: IpAddr) -> io::Result<&Arc<Peer>> {
        let unreachable = |text: String| io::Error::new(io::ErrorKind::NetworkUnreachable, text);
        if self.core.is_own(to) {
            return Err(unreachable(format!("{to} is the tunnel's own address")));
        }
        self.core
            .peer_of(to)
            .ok_or_else(|| unreachable(format!("no peer's allowed_ips have {to}")))
    }
}

#[async_trait]
impl Tunnel for WireGuard {
    async fn connect(&self, to: SocketAddr) -> io::Result<Connection> {
        let peer = self.peer_for(to.ip())?;
        self.core.raise(peer).await;
        let inside = self.inside.clone();
        let ipv6 = to.is_ipv6();
        let socket = tokio::task::spawn_blocking(move || inside.tcp_socket(ipv6))
            .await
            .map_err(io::Error::other)??;
        let socket = TcpSocket::from_std_stream(socket.into());
        connect_from(socket, to).await.map(Connection::Tcp)
    }

    async fn raise(&self, to: Option<IpAddr>) -> Result<(), TunnelDown> {
        match to.map(|to| self.peer_for(to)) {
            Some(Ok(peer)) => self.core.raise(peer).await,
            Some(Err(error)) => return Err(TunnelDown::new(error.to_string())),
            None => self.core.raise_any().await,
        }
        Ok(())
    }

    async fn state(&self, to: Option<IpAddr>) -> TunnelState {
        let state = |peer: &Arc<Peer>| match peer.state() {
            PeerState::Up { handshake_age } => TunnelState::Up {
                handshake_age: Some(handshake_age),
                round_trip: peer.round_trip(),
            },
            PeerState::Dormant => TunnelState::Dormant,
            PeerState::Down { reason } => TunnelState::Down { reason },
        };
        let is_up = |state: &TunnelState| matches!(state, TunnelState::Up { .. });
        match to.map(|to| self.peer_for(to)) {
            Some(Ok(peer)) => state(peer),
            Some(Err(error)) => TunnelState::Down {
                reason: error.to_string(),
            },
            None => {
                let mut states: Vec<_> = self.core.peers.iter().map(state).collect();
                let best = states.iter().position(is_up).unwrap_or(0);
                states.swap_remove(best)
            }
        }
    }

    fn health(&self) -> Option<TunnelHealth> {
        Some(self.core.health())
    }
}
