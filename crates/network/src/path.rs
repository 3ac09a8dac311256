//! The ways out: what each network profile means in an environment, and where it leads.

mod connect;
mod plan;
mod proxy;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use barecount_model::class::NetworkProfile;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

pub use self::proxy::{ProxyError, accepted as proxy_accepted};
pub(crate) use self::{
    connect::{FirstWord, any_address, connect, connect_from},
    plan::Plan,
};
use crate::{
    inspect::Target,
    name::HostName,
    reason::{Reason, ReasonCode},
    resolver::{ResolveError, Resolver},
    tunnel::TunnelHealth,
};

/// The path of each profile that an environment offers.
pub type Paths = BTreeMap<NetworkProfile, Arc<Path>>;

/// By which way connections leave, and where that way leads. A path refuses what it does not lead
/// to, whoever declared it.
#[derive(Debug, Clone)]
pub enum Path {
    /// `public_vpc_egress`: to public addresses, and no others.
    Direct(Direct),
    /// `private_vpc`: to declared ranges; public names only by an approved way.
    Private(Private),
    /// `privatelink`: to the endpoints of services, and nothing else.
    Endpoint(Endpoint),
    /// `vpn` over an interface that exists: nothing while it is down.
    Bound(Bound),
    /// `vpn` through a tunnel of the agent's own.
    Through(Through),
    /// `on_prem_agent`: the names and ranges of the agent's facility.
    Facility(Facility),
}

/// To public addresses.
#[derive(Debug, Clone)]
pub struct Direct {
    /// The names it leads to.
    pub names: Names,
    /// Who resolves names. An answer that is not public is refused, whoever gave it.
    pub resolver: Arc<dyn Resolver>,
}

/// To declared ranges.
#[derive(Debug, Clone)]
pub struct Private {
    /// Where the path leads, peering ranges included.
    pub ranges: Vec<IpNet>,
    /// Who resolves names.
    pub resolver: Arc<dyn Resolver>,
    /// The approved way to public names; none without it.
    pub public_via: Option<PublicVia>,
    /// The names for which that way is approved.
    pub public_names: Names,
}

/// Names that a path leads to, whoever declared them, audited attempts included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Whatever there is, addresses included.
    Any,
    /// These and all names below them. No address.
    Below(Vec<HostName>),
}

impl Names {
    pub(crate) fn have(&self, target: &Target) -> bool {
        match (self, target) {
            (Self::Any, _) => true,
            (Self::Below(zones), Target::Name(name)) => {
                zones.iter().any(|zone| name.is_within(zone))
            }
            (Self::Below(_), Target::Address(_)) => false,
        }
    }
}

/// The approved way from a private network to public names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicVia {
    /// A proxy that takes HTTP `CONNECT` (RFC 9110 section 9.3.6) and resolves the name itself.
    Proxy(SocketAddr),
    /// Directly, from the source address that the network's NAT is for.
    Nat(IpAddr),
}

/// To the endpoints of services.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The endpoint of each service, by the service's name.
    pub services: BTreeMap<HostName, EndpointAddress>,
    /// Who resolves the endpoints' own names.
    pub resolver: Arc<dyn Resolver>,
}

/// Where a service's private endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointAddress {
    /// At an address; the port is the one that was declared.
    Ip(IpAddr),
    /// At an address and a port, whatever port was declared.
    Socket(SocketAddr),
    /// At a name that resolves to private addresses.
    Name(HostName),
}

/// Over an interface or from an address that exists already.
#[derive(Debug, Clone)]
pub struct Bound {
    /// What connections are bound to.
    pub binding: Binding,
    /// Where the path leads: the peer's ranges.
    pub ranges: Vec<IpNet>,
    /// Who resolves names; a name server that is reached over the same binding, or names leak.
    pub resolver: Arc<dyn Resolver>,
}

/// What a connection is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// An interface, by name (`SO_BINDTODEVICE`).
    Interface(String),
    /// A source address. Routes decide by which interface it leaves: prefer the interface.
    Source(IpAddr),
}

/// Through a tunnel.
#[derive(Debug, Clone)]
pub struct Through {
    /// The tunnel.
    pub tunnel: Arc<dyn Tunnel>,
    /// Where the path leads: the peer's ranges.
    pub ranges: Vec<IpNet>,
    /// Who resolves names; a name server that is reached through the tunnel, or names leak.
    pub resolver: Arc<dyn Resolver>,
}

/// To a facility's own names and ranges.
#[derive(Debug, Clone)]
pub struct Facility {
    /// The facility's names: each stands for itself and all names below it.
    pub zones: Vec<HostName>,
    /// The facility's ranges, to which its names must lead.
    pub ranges: Vec<IpNet>,
    /// Who resolves names.
    pub resolver: Arc<dyn Resolver>,
}

/// A tunnel that connections are made through.
#[async_trait]
pub trait Tunnel: Send + Sync + fmt::Debug {
    /// Connects to an address on the tunnel's other side, once the tunnel is up. Cancel-safe.
    async fn connect(&self, to: SocketAddr) -> io::Result<Connection>;

    /// Waits until the tunnel carries traffic to an address, or anywhere, and does what brings that
    /// about; as long as the caller likes. Cancel-safe.
    ///
    /// # Errors
    /// [`TunnelDown`] if it is not worth waiting for.
    async fn raise(&self, to: Option<IpAddr>) -> Result<(), TunnelDown> {
        match self.state(to).await {
            TunnelState::Up { .. } | TunnelState::Dormant => Ok(()),
            TunnelState::Down { reason } => Err(TunnelDown { reason }),
        }
    }

    /// Whether the tunnel carries traffic to an address, or anywhere.
    async fn state(&self, to: Option<IpAddr>) -> TunnelState;

    /// Figures of it, where there are any.
    fn health(&self) -> Option<TunnelHealth> {
        None
    }
}

/// A tunnel that carries nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TunnelDown {
    reason: String,
}

impl TunnelDown {
    /// With the reason as a fragment in lower case.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// Whether a tunnel is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelState {
    /// It carries traffic.
    Up {
        /// Time since the last handshake.
        handshake_age: Option<Duration>,
        /// Round trip to the peer.
        round_trip: Option<Duration>,
    },
    /// It has nothing to carry, and would have to be raised first.
    Dormant,
    /// It carries nothing though it should.
    Down {
        /// Why, as a fragment in lower case.
        reason: String,
    },
}

/// A connection that a path made.
#[derive(Debug)]
pub enum Connection {
    /// A socket of the kernel's, which can be spliced.
    Tcp(TcpStream),
    /// Anything else that carries bytes both ways.
    Stream(Box<dyn Stream>),
}

impl Connection {
    /// Lets dropping the connection end it well; until then, a socket of the kernel's is reset.
    pub(crate) fn ends_well(&self) {
        if let Self::Tcp(stream) = self {
            close_gently(stream);
        }
    }
}

/// Lets a socket that is reset when dropped be closed as sockets are.
pub(crate) fn close_gently(stream: &TcpStream) {
    // Fails only for a socket that is gone already.
    let _ = rustix::net::sockopt::set_socket_linger(stream, None);
}

/// Bytes both ways, each with an end of its own.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + fmt::Debug> Stream for T {}

/// Which way a connection took, as flow records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Over the host's own network to a public address.
    Direct,
    /// To a declared private range.
    Private,
    /// To a public name by the approved proxy.
    Proxy,
    /// To a public address from the approved NAT's source address.
    Nat,
    /// To the private endpoint of a service.
    Endpoint,
    /// Over a given interface or from a given address.
    Bound,
    /// Through a tunnel of the agent's.
    Tunnel,
    /// To the agent's own facility.
    Facility,
}

/// A connection with where it went.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub connection: Connection,
    /// Whom it is with; the proxy, if there is one between.
    pub address: SocketAddr,
    /// The way it took.
    pub path: PathKind,
    /// How many of the first bytes it has taken.
    pub(crate) sent: usize,
}

/// Why a path did not lead to a connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("`{name}` could not be resolved")]
    NotResolved {
        /// The name.
        name: HostName,
        /// Why.
        source: ResolveError,
    },
    /// A public path, and an address that is not.
    #[error("`{target}` leads to {address} ({class}), which is not public")]
    NotPublic {
        /// What was asked for.
        target: Target,
        /// Where it led.
        address: IpAddr,
        /// The registry's name for where that is.
        class: &'static str,
    },
    /// A private path, and an address elsewhere.
    #[error("`{target}` leads to {address}, outside the ranges of this path")]
    OutsideRanges {
        /// What was asked for.
        target: Target,
        /// Where it led.
        address: IpAddr,
    },
    /// A path of endpoints, none of which is for this.
    #[error("no endpoint is declared for `{target}`")]
    NoEndpoint {
        /// What was asked for.
        target: Target,
    },
    /// A path with a list of names, and this is not on it.
    #[error("`{target}` is not on the allow list of this path")]
    NotAllowed {
        /// What was asked for.
        target: Target,
    },
    /// A facility's path, and a name elsewhere.
    #[error("`{name}` is not a name of this facility")]
    OutsideFacility {
        /// The name.
        name: HostName,
    },
    /// The tunnel or interface carries nothing.
    #[error("{what} is down")]
    Down {
        /// The tunnel or interface.
        what: String,
        /// What the kernel or tunnel said.
        source: io::Error,
    },
    /// The approved proxy did not make the connection.
    #[error("the proxy at {proxy} made no connection to `{target}`")]
    Proxy {
        /// The proxy.
        proxy: SocketAddr,
        /// What was asked for.
        target: Target,
        /// Why.
        source: ProxyError,
    },
    /// No address took the connection; the last one's error.
    #[error("no connection to {address}")]
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Resolving and connecting took longer than they may.
    #[error("no connection within {} ms", after.as_millis())]
    Timeout {
        /// The limit.
        after: Duration,
    },
}

impl DialError {
    pub(crate) fn tunnel_down(reason: impl Into<String>) -> Self {
        Self::Down {
            what: "the tunnel".to_owned(),
            source: io::Error::new(io::ErrorKind::NetworkDown, reason.into()),
        }
    }

    /// The code that a flow record carries.
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::NotResolved { .. } => ReasonCode::NotResolved,
            Self::NotPublic { .. } => ReasonCode::AddressNotPublic,
            Self::OutsideRanges { .. } => ReasonCode::AddressOutsideRanges,
            Self::NoEndpoint { .. } => ReasonCode::NoEndpoint,
            Self::NotAllowed { .. } => ReasonCode::NameNotAllowed,
            Self::OutsideFacility { .. } => ReasonCode::NameOutsideFacility,
            Self::Down { .. } => ReasonCode::PathDown,
            Self::Proxy { .. } => ReasonCode::ProxyRefused,
            Self::Connect { .. } => ReasonCode::ConnectFailed,
            Self::Timeout { .. } => ReasonCode::DialTimeout,
        }
    }

    /// Whether the path refused to go there, as opposed to having gone and failed.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::NotPublic { .. }
                | Self::OutsideRanges { .. }
                | Self::NoEndpoint { .. }
                | Self::NotAllowed { .. }
                | Self::OutsideFacility { .. }
                | Self::Down { .. }
                | Self::Proxy { .. }
        )
    }

    /// The address that was refused or failed, if it came to one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::NotPublic { address, .. } | Self::OutsideRanges { address, .. } => Some(*address),
            Self::Connect { address, .. } => Some(address.ip()),
            Self::Proxy { proxy, .. } => Some(proxy.ip()),
            _ => None,
        }
    }

    /// The reason that a flow record carries: the whole chain in one line.
    pub fn reason(&self) -> Reason {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Reason::new(self.code(), text)
    }
}

impl Path {
    /// Connects to a port of a host, if the path leads there, within a time limit that covers
    /// resolving, too. Cancel-safe.
    pub async fn dial(
        &self,
        target: &Target,
        port: u16,
        limit: Duration,
    ) -> Result<Dialled, DialError> {
        let dialled = async {
            let plan = self.plan(target, port).await?;
            plan.connect(limit, FirstWord::Unknown).await
        };
        match tokio::time::timeout(limit, dialled).await {
            Ok(Ok(dialled)) => Ok(dialled),
            Ok(Err(error)) => Err(self.explain(error).await),
            Err(_) => Err(self.explain(DialError::Timeout { after: limit }).await),
        }
    }

    /// Whatever failed: if the tunnel is down, that is why.
    pub(crate) async fn explain(&self, error: DialError) -> DialError {
        let (address, may_be_why) = match &error {
            DialError::Connect { address, .. } => (Some(address.ip()), true),
            DialError::Timeout { .. } | DialError::NotResolved { .. } => (None, true),
            _ => (None, false),
        };
        match self.down(address).await {
            Some(reason) if may_be_why => DialError::tunnel_down(reason),
            _ => error,
        }
    }

    /// Why nothing is carried to an address, or anywhere, if this is a tunnel that is down.
    pub(crate) async fn down(&self, to: Option<IpAddr>) -> Option<String> {
        let Self::Through(through) = self else {
            return None;
        };
        match through.tunnel.state(to).await {
            TunnelState::Up { .. } | TunnelState::Dormant => None,
            TunnelState::Down { reason } => Some(reason),
        }
    }
}
