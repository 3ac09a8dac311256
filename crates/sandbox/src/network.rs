//! What a payload can reach, and what the agent is given to serve it with.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::spec::SpecError;

/// The most ports that [`Brokered::declared_ports`] may name: each takes a socket of each family.
const MAX_DECLARED_PORTS: usize = 48;

/// What a payload can reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Its own loopback, and the sockets of [`crate::Spec::listeners`] on it.
    #[default]
    Loopback,
    /// Every TCP connection and DNS query ends at sockets given to the agent, wherever it was meant
    /// to go; nothing else gets anywhere. Loopback stays the payload's own.
    Brokered(Brokered),
}

/// How a brokered network is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brokered {
    /// TCP ports that the payload may dial, listened on where the kernel cannot redirect all of
    /// them ([`Capture::DeclaredPorts`]). At most 48, no port 0; the order does not matter.
    ///
    /// Port 53 among them makes TCP connections to it ordinary connections; otherwise they are
    /// taken for DNS queries.
    pub declared_ports: Vec<u16>,
}

impl Brokered {
    /// Where queries go that follow `/etc/resolv.conf`: the address that payloads know of local
    /// resolvers, within the range that is never redirected.
    pub const NAME_SERVER_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
    /// Where connections for queries end that were made to some name server by IPv6.
    pub const NAME_SERVER_V6: Ipv6Addr = Ipv6Addr::LOCALHOST;
    /// The port of both, UDP and TCP.
    pub const NAME_SERVER_PORT: u16 = 53;

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        let count = self.declared_ports.len();
        if count > MAX_DECLARED_PORTS {
            return Err(SpecError::TooMany {
                field: "declared ports",
                count,
                most: MAX_DECLARED_PORTS,
            });
        }
        if self.declared_ports.contains(&0) {
            return Err(SpecError::PortZero);
        }
        Ok(())
    }
}

/// Which connections reach [`Intercepted::tcp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// All, by redirection (nf_tables). Where a connection was meant to go is its original
    /// destination (`SO_ORIGINAL_DST`, by IPv6 `IP6T_SO_ORIGINAL_DST`).
    Redirected,
    /// Those to declared ports; others find no listener and are reset, unrecorded. Where a
    /// connection was meant to go is its local address (`getsockname`).
    DeclaredPorts,
}

/// The agent's ends of a brokered network: all non-blocking, all in the sandbox's network
/// namespace, which lives until the last of them is closed.
///
/// The payload can dial the listeners' own loopback addresses too. Such a connection has a loopback
/// address for its destination, and nowhere to go.
#[derive(Debug)]
pub struct Intercepted {
    /// Listening TCP sockets, of both families where the host has IPv6.
    pub tcp: Vec<OwnedFd>,
    /// UDP sockets on which DNS queries arrive, bound to the name server's addresses, IPv4 first.
    ///
    /// With [`Capture::Redirected`], there follow sockets of all addresses, on which queries to any
    /// other name server arrive. Which one was asked is told beside the query (`IP_PKTINFO`,
    /// `IPV6_PKTINFO`), and the answer must be sent from that address in the same way. What comes
    /// there to a loopback address was sent to the socket itself, and is nobody's query.
    pub dns_udp: Vec<OwnedFd>,
    /// Listening TCP sockets on which DNS connections arrive, bound to the name server's addresses.
    ///
    /// With [`Capture::Redirected`], connections to any other name server arrive here as well, with
    /// their original destination.
    pub dns_tcp: Vec<OwnedFd>,
    /// What the payload sent by other protocols than TCP, and was refused: to be read packet by
    /// packet with a buffer of 64 KiB, each for [`crate::parse_refusals`]. `ENOBUFS` says that
    /// packets came faster than they were read, and some are lost. `None` where the kernel cannot
    /// log packets, or not redirect.
    pub refusals: Option<OwnedFd>,
    /// Which connections reach `tcp`.
    pub capture: Capture,
}

impl Intercepted {
    pub(crate) fn layout(&self) -> Layout {
        Layout {
            tcp: self.tcp.len(),
            dns_udp: self.dns_udp.len(),
            dns_tcp: self.dns_tcp.len(),
            refusals: self.refusals.is_some(),
            capture: self.capture,
        }
    }

    /// In the order that [`Self::from_descriptors`] takes them.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sockets = [&self.tcp, &self.dns_udp, &self.dns_tcp];
        sockets
            .into_iter()
            .flatten()
            .chain(&self.refusals)
            .map(AsFd::as_fd)
    }

    /// `None` when the number of descriptors is not that of the layout.
    pub(crate) fn from_descriptors(layout: &Layout, descriptors: Vec<OwnedFd>) -> Option<Self> {
        if descriptors.len() != layout.count() {
            return None;
        }
        let mut rest = descriptors.into_iter();
        let mut take = |count| rest.by_ref().take(count).collect();
        Some(Self {
            tcp: take(layout.tcp),
            dns_udp: take(layout.dns_udp),
            dns_tcp: take(layout.dns_tcp),
            refusals: rest.next(),
            capture: layout.capture,
        })
    }
}

/// What the descriptors of an [`Intercepted`] are while they travel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Layout {
    tcp: usize,
    dns_udp: usize,
    dns_tcp: usize,
    refusals: bool,
    capture: Capture,
}

impl Layout {
    /// How many descriptors there are.
    pub(crate) fn count(&self) -> usize {
        self.tcp + self.dns_udp + self.dns_tcp + usize::from(self.refusals)
    }
}
