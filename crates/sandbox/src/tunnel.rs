//! A network namespace whose one way out is a TUN device in the agent's hands: what a tunnel's
//! connections are made in.
//!
//! The agent gets the device, which carries IP packets, and has TCP sockets made inside. What the
//! namespace sends leaves by the device or not at all: it has no other device, not even loopback,
//! and nothing of it touches the host's addresses and routes. It takes no privilege on the host.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};

use crate::error::TunnelError;
use crate::wire::{self, InsideOrder, InsideReply};

/// The most addresses of a tunnel.
const MAX_ADDRESSES: usize = 64;
/// The most routes of a tunnel; all go to the kernel in one packet.
const MAX_ROUTES: usize = 2_048;
/// What IPv6 asks of a link (RFC 8200 section 5).
const MIN_MTU: u16 = 1_280;

/// Which family a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternetFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A network that a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// How many bits of it count: at most 32, or 128.
    pub length: u8,
}

impl Prefix {
    fn is_valid(self) -> bool {
        let (bits, width) = match self.address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let host_bits = u128::MAX.checked_shr(self.length.into()).unwrap_or(0);
        self.length <= width && bits & host_bits == 0
    }
}

/// What a tunnel's namespace looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelNetwork {
    /// The tunnel's own addresses, 1 to 64. Of each family, the first is what connections come from.
    pub addresses: Vec<IpAddr>,
    /// What lies behind the tunnel, at most 2,048. A connection to anywhere else fails at once.
    pub routes: Vec<Prefix>,
    /// The largest packet in bytes, from 1,280.
    pub mtu: u16,
}

impl TunnelNetwork {
    fn validate(&self) -> Result<(), TunnelError> {
        let refuse = |reason| Err(TunnelError::Network { reason });
        if self.addresses.is_empty() || self.addresses.len() > MAX_ADDRESSES {
            return refuse("it has 1 to 64 addresses");
        }
        if self.routes.len() > MAX_ROUTES {
            return refuse("it has at most 2048 routes");
        }
        if !self.routes.iter().all(|prefix| prefix.is_valid()) {
            return refuse("a route leads to an address and as many bits of it as count");
        }
        if self.mtu < MIN_MTU {
            return refuse("its packets are of 1280 bytes or more");
        }
        Ok(())
    }
}

/// The agent's ends of a tunnel's namespace. Dropping it ends the process that keeps the namespace;
/// the namespace goes with the last socket and device descriptor that is open in it. When the agent
/// dies, both go.
#[derive(Debug)]
pub struct TunnelNamespace {
    pid: i32,
    device: Option<OwnedFd>,
    /// To the process inside; `None` once it has failed to answer, for an answer that comes late
    /// would be taken for that to the next question.
    session: Mutex<Option<OwnedFd>>,
}

impl TunnelNamespace {
    /// Has the launcher make one, by its control socket.
    pub(crate) fn open(control: &OwnedFd, network: &TunnelNetwork) -> Result<Self, TunnelError> {
        network.validate()?;
        let gone = |errno: Errno| TunnelError::LauncherGone(errno.into());
        let (session, theirs) = wire::socket_pair().map_err(gone)?;
        let request = wire::Request::Tunnel(network.clone());
        wire::send(control, &request, &[theirs.as_fd()], SendFlags::empty()).map_err(gone)?;
        drop(theirs);
        match wire::receive(&session, RecvFlags::empty()).map_err(gone)? {
            Some((wire::Answer::Tunnel { pid }, mut beside)) => match beside.pop() {
                Some(device) => Ok(Self {
                    pid,
                    device: Some(device),
                    session: Mutex::new(Some(session)),
                }),
                None => Err(gone(Errno::BADMSG)),
            },
            Some((wire::Answer::NoUserNamespaces { reason, remedy }, _)) => {
                Err(TunnelError::UserNamespaces { reason, remedy })
            }
            Some((wire::Answer::Failed(failure), _)) => Err(failure.into_tunnel_error()),
            Some(_) => Err(gone(Errno::BADMSG)),
            None => Err(gone(Errno::PIPE)),
        }
    }

    /// Process id, on the host, of the process that keeps the namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The TUN device; non-blocking. A read gives one IP packet that the namespace sends, a write
    /// gives it one, without any header before it. `None` on a second call.
    pub fn take_device(&mut self) -> Option<OwnedFd> {
        self.device.take()
    }

    /// A fresh TCP socket of the namespace, not bound, not connected, non-blocking. Takes some tens
    /// of microseconds, in which it blocks, and gives up after some seconds.
    ///
    /// # Errors
    /// What the kernel says; `BrokenPipe` when the process inside is gone, or once it has failed to
    /// answer.
    pub fn tcp_socket(&self, family: InternetFamily) -> io::Result<OwnedFd> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = session.as_ref() else {
            return Err(Errno::PIPE.into());
        };
        let asked = wire::send(
            socket,
            &InsideOrder::TcpSocket(family),
            &[],
            SendFlags::empty(),
        )
        .and_then(|()| wait_readable(socket))
        .and_then(|()| wire::receive::<InsideReply>(socket, RecvFlags::DONTWAIT));
        match asked {
            Ok(Some((InsideReply::Socket, mut beside))) if beside.len() == 1 => {
                beside.pop().ok_or_else(|| Errno::BADMSG.into())
            }
            Ok(Some((InsideReply::Failed(errno), _))) => Err(io::Error::from_raw_os_error(errno)),
            Ok(Some(_) | None) => {
                *session = None;
                Err(Errno::PIPE.into())
            }
            Err(errno) => {
                *session = None;
                Err(errno.into())
            }
        }
    }
}

/// Waits for an answer, within a time that only a stopped process takes.
fn wait_readable(socket: &OwnedFd) -> rustix::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let patience = Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    let mut waiting = [PollFd::new(socket, PollFlags::IN)];
    match wire::retry(|| rustix::event::poll(&mut waiting, Some(&patience)))? {
        0 => Err(Errno::TIMEDOUT),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix {
            address: address.parse().expect("an address"),
            length,
        }
    }

    #[test]
    fn a_prefix_has_no_bits_beyond_its_length() {
        for (address, length) in [("10.0.0.0", 8), ("0.0.0.0", 0), ("10.1.2.3", 32), ("::", 0)] {
            assert!(prefix(address, length).is_valid(), "{address}/{length}");
        }
        for (address, length) in [
            ("10.0.0.1", 8),
            ("10.0.0.0", 33),
            ("fd00::1", 64),
            ("::", 129),
        ] {
            assert!(!prefix(address, length).is_valid(), "{address}/{length}");
        }
    }
}
