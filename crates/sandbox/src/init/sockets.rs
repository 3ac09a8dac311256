//! Sockets in the sandbox's network namespace that are handed out to the agent.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{Failure, InStep, Step};

/// Connections that wait to be accepted; the kernel's own default for the most.
const BACKLOG: i32 = 4096;

/// What else may be bound to a socket's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Nothing.
    Alone,
    /// Another socket of ours with another address; the kernel prefers the exact one to that of
    /// all addresses. The payload may share it too, as the same user, and then serves itself.
    ByAddress,
}

/// Opens a TCP socket that listens, or a UDP socket; non-blocking.
pub(super) fn open(
    kind: SocketType,
    address: SocketAddr,
    sharing: Sharing,
) -> Result<OwnedFd, Failure> {
    try_open(kind, address, sharing).step_at(Step::Listen, address.to_string())
}

pub(super) fn try_open(
    kind: SocketType,
    address: SocketAddr,
    sharing: Sharing,
) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if kind == SocketType::STREAM {
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        // Every connection inherits it, those included that wait before the agent looks.
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    }
    if sharing == Sharing::ByAddress {
        rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}
