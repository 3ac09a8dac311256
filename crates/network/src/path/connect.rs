//! Making the connection that a plan allows.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt},
};
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
#[derive(Debug, Clone, Copy)]
pub(crate) enum FirstWord<'a> {
    /// Nobody knows: it may be the other side.
    Unknown,
    /// We do, as soon as there is a connection.
    Ours,
    /// We do, with these bytes. A new connection may have taken some of them.
    Bytes(&'a [u8]),
}

impl Plan {
    /// Tries the addresses in order; each but the last may use an equal share of the time that is
    /// left. The whole is the caller's to limit. Cancel-safe.
    pub(crate) async fn connect(
        &self,
        limit: Duration,
        first: FirstWord<'_>,
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
                Ok((connection, sent)) => {
                    return Ok(Dialled {
                        connection,
                        sent,
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
        first: FirstWord<'_>,
    ) -> Result<(Connection, usize), DialError> {
        let failed = |source| DialError::Connect { address, source };
        match &self.via {
            Via::Host => connect(address, None, first)
                .await
                .map(|(stream, sent)| (Connection::Tcp(stream), sent))
                .map_err(failed),
            Via::Bound(binding) => match connect(address, Some(binding), first).await {
                Ok((stream, sent)) => Ok((Connection::Tcp(stream), sent)),
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
                let (stream, _) = connect(address, None, FirstWord::Ours)
                    .await
                    .map_err(|source| refused(ProxyError::Connection(source)))?;
                proxy::ask(stream, &self.target, self.port)
                    .await
                    .map(|stream| (Connection::Tcp(stream), 0))
                    .map_err(refused)
            }
            Via::Tunnel(tunnel) => {
                let raised = tunnel.raise(Some(address.ip())).await;
                raised.map_err(|down| DialError::tunnel_down(down.to_string()))?;
                let connected = tunnel.connect(address).await;
                connected.map(|connection| (connection, 0)).map_err(failed)
            }
        }
    }
}

/// A TCP connection over the host's network, bound if asked for, and how many of the first bytes it
/// has taken. It is reset when dropped.
pub(crate) async fn connect(
    address: SocketAddr,
    binding: Option<&Binding>,
    first: FirstWord<'_>,
) -> io::Result<(TcpStream, usize)> {
    if let (FirstWord::Bytes(bytes), None) = (first, binding) {
        return connect_speaking(address, bytes).await;
    }
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
    if !matches!(first, FirstWord::Unknown) {
        complete_with_first_bytes(&socket)?;
    }
    Ok((connect_from(socket, address).await?, 0))
}

/// The same, from a socket that is given, by which the other side may speak first.
pub(crate) async fn connect_from(socket: TcpSocket, address: SocketAddr) -> io::Result<TcpStream> {
    prepare(&socket)?;
    socket.connect(address).await
}

/// A connection that takes its first bytes without a wait between, if the other side is on this host
/// and so has answered by the time that the kernel has been asked.
async fn connect_speaking(address: SocketAddr, bytes: &[u8]) -> io::Result<(TcpStream, usize)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    prepare(&socket)?;
    complete_with_first_bytes(&socket)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let sent = rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL);
    let stream = TcpStream::from_std(socket.into())?;
    match sent {
        Ok(sent) => return Ok((stream, sent)),
        Err(Errno::AGAIN) => {}
        // There will be no connection; it is told once, and here it was.
        Err(errno) => return Err(errno.into()),
    }
    stream.writable().await?;
    match stream.take_error()? {
        None => Ok((stream, 0)),
        Some(error) => Err(error),
    }
}

fn prepare(socket: impl AsFd) -> rustix::io::Result<()> {
    let socket = socket.as_fd();
    // Reset however it is left, until it is known to have ended well: also when the agent dies.
    sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
    // What the work wrote at once leaves at once: the broker adds no delay of its own.
    sockopt::set_tcp_nodelay(socket, true)
}

/// Lets the handshake's last packet be the one with the first bytes, so that the other side is woken
/// once. Were there none to follow, it would hear of the connection too late.
fn complete_with_first_bytes(socket: impl AsFd) -> rustix::io::Result<()> {
    sockopt::set_tcp_quickack(socket, false)
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
    ) || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface `{name}`"),
            Self::Source(address) => write!(f, "source address {address}"),
        }
    }
}
