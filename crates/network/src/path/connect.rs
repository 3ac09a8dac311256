//! Making the connection that a plan allows.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rustix::net::sockopt::set_tcp_quickack;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};

use super::{
    Binding, Connection, DialError, Dialled, Plan,
    plan::Via,
    proxy::{self, ProxyError},
};

/// Who speaks first over a connection that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstWord {
    /// We do, as soon as there is a connection.
    Ours,
    /// Nobody knows: it may be the other side.
    Unknown,
}

impl Plan {
    /// Tries the addresses in order; each but the last may use an equal share of the time that is
    /// left. The whole is the caller's to limit. Cancel-safe.
    pub(crate) async fn connect(
        &self,
        limit: Duration,
        first: FirstWord,
    ) -> Result<Dialled, DialError> {
        let deadline = Instant::now() + limit;
        let mut failed = DialError::Timeout { after: limit };
        let mut left = u32::try_from(self.candidates.len()).unwrap_or(u32::MAX);
        for address in &self.candidates {
            let connecting = self.connect_to(*address, first);
            let connected = if left <= 1 {
                connecting.await
            } else {
                let share = deadline.saturating_duration_since(Instant::now()) / left;
                match tokio::time::timeout(share, connecting).await {
                    Ok(connected) => connected,
                    Err(_) => Err(DialError::Timeout { after: limit }),
                }
            };
            left = left.saturating_sub(1);
            match connected {
                Ok(connection) => {
                    return Ok(Dialled {
                        connection,
                        address: *address,
                        path: self.kind,
                    });
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        first: FirstWord,
    ) -> Result<Connection, DialError> {
        let failed = |source| DialError::Connect { address, source };
        match &self.via {
            Via::Host => connect(address, None, first)
                .await
                .map(Connection::Tcp)
                .map_err(failed),
            Via::Bound(binding) => match connect(address, Some(binding), first).await {
                Ok(stream) => Ok(Connection::Tcp(stream)),
                Err(source) if is_down(&source) => Err(DialError::Down {
                    what: binding.to_string(),
                    source,
                }),
                Err(source) => Err(failed(source)),
            },
            Via::Proxy => {
                let refused = |source| DialError::Proxy {
                    proxy: address,
                    target: self.target.clone(),
                    source,
                };
                let stream = connect(address, None, FirstWord::Ours)
                    .await
                    .map_err(|source| refused(ProxyError::Connection(source)))?;
                proxy::ask(stream, &self.target, self.port)
                    .await
                    .map(Connection::Tcp)
                    .map_err(refused)
            }
            Via::Tunnel(tunnel) => {
                let raised = tunnel.raise(Some(address.ip())).await;
                raised.map_err(|down| DialError::tunnel_down(down.to_string()))?;
                tunnel.connect(address).await.map_err(failed)
            }
        }
    }
}

/// A TCP connection over the host's network, bound if asked for. It is reset when dropped.
pub(crate) async fn connect(
    address: SocketAddr,
    binding: Option<&Binding>,
    first: FirstWord,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    match binding {
        None => {}
        Some(Binding::Interface(name)) => socket.bind_device(Some(name.as_bytes()))?,
        Some(Binding::Source(source)) => socket.bind(SocketAddr::new(*source, 0))?,
    }
    connect_from(socket, address, first).await
}

/// The same, from a socket that is given.
pub(crate) async fn connect_from(
    socket: TcpSocket,
    address: SocketAddr,
    first: FirstWord,
) -> io::Result<TcpStream> {
    // Reset however it is left, until it is known to have ended well: also when the agent dies.
    socket.set_zero_linger()?;
    if first == FirstWord::Ours {
        // The handshake's last packet then is the one with the first bytes, and the other side is
        // woken once. Were there none to follow, it would hear of the connection too late.
        set_tcp_quickack(&socket, false)?;
    }
    let stream = socket.connect(address).await?;
    // What the work wrote at once leaves at once: the broker adds no delay of its own.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The local address from which a bound datagram socket sends.
pub(crate) fn any_address(like: SocketAddr, binding: Option<&Binding>) -> SocketAddr {
    let address = match (binding, like) {
        (Some(Binding::Source(source)), _) => *source,
        (_, SocketAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (_, SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(address, 0)
}

/// Whether an error says that an interface or its address is not there, or carries nothing.
fn is_down(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable
    ) || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface `{name}`"),
            Self::Source(address) => write!(f, "source address {address}"),
        }
    }
}
