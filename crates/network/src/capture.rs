//! Where an accepted connection was meant to go.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
use tokio::net::TcpStream;

/// Sockets that were opened inside a sandbox's network namespace; all non-blocking.
#[derive(Debug)]
pub struct InsideSockets {
    /// Accept every TCP connection that the payload makes, to whatever address. IPv4 and IPv6.
    pub tcp: Vec<TcpListener>,
    /// The name servers that its `resolv.conf` names, port 53. Each bound to its own address, from
    /// which its answers leave; or to all addresses, to take what is sent to any other name server
    /// and answer it from there.
    pub dns_udp: Vec<UdpSocket>,
    /// The same over TCP. Connections that were made elsewhere are redirected here, as all others.
    pub dns_tcp: Vec<TcpListener>,
    /// How an accepted connection's original destination is found.
    pub capture: Capture,
}

/// How an accepted connection's original destination is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// The kernel redirected it and remembers from where (`SO_ORIGINAL_DST`).
    Redirected,
    /// It came to where it was meant to go: only declared ports listen.
    DeclaredPorts,
}

impl Capture {
    /// IPv4 addresses come back as such, also from a socket for both families.
    pub(crate) fn destination(self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let local = stream.local_addr()?;
        let destination = match (self, local) {
            (Self::DeclaredPorts, local) => local,
            (Self::Redirected, SocketAddr::V4(_)) => ip_original_dst(stream)?.into(),
            (Self::Redirected, SocketAddr::V6(address)) => {
                if address.ip().to_ipv4_mapped().is_some() {
                    ip_original_dst(stream)?.into()
                } else {
                    ipv6_original_dst(stream)?.into()
                }
            }
        };
        Ok(SocketAddr::new(
            destination.ip().to_canonical(),
            destination.port(),
        ))
    }
}
