//! Leading everything that the payload sends to sockets of the agent, from inside the sandbox's
//! network namespace, while the init still has its capabilities there.
//!
//! Every address is made local to the namespace, so that nothing has a way out; rules then redirect
//! what is sent to them. The payload, without a capability, can change neither.

mod routes;
mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::SocketType;
use serde::{Deserialize, Serialize};

use super::sockets::{self, Sharing};
use crate::error::{Failure, InStep, Step};
use crate::netlink::Channel;
use crate::network::{Brokered, Capture, Intercepted};
use rules::Ports;

/// What of the kernel is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Means {
    /// Whether it redirects (nf_tables).
    pub(crate) redirect: bool,
    /// Whether it logs what it refuses; without redirection there are no refusals to log.
    pub(crate) log: bool,
}

impl Means {
    /// Declared ports are listened on at all addresses, beside sockets of exact ones.
    pub(super) fn sharing(self) -> Sharing {
        if self.redirect {
            Sharing::Alone
        } else {
            Sharing::ByAddress
        }
    }
}

/// Why the kernel cannot do something: the number of an error; `None` if it can.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Lacking {
    pub(crate) redirect: Option<i32>,
    pub(crate) log: Option<i32>,
}

/// Finds out what the kernel can do by doing it, in a network namespace made for that.
pub(crate) fn probe() -> Lacking {
    let ipv6 = super::loopback_up().and_then(|()| has_ipv6());
    // Any port will do, as nothing is sent.
    let v4 = Ports { tcp: 1, lookups: 1 };
    let v6 = ipv6.unwrap_or(false).then_some(v4);
    let brokered = Brokered::default();
    let number = |errno: Errno| errno.raw_os_error();
    let with_log = rules::open_log().and_then(|_log| rules::install(v4, v6, &brokered, true));
    let Err(log) = with_log else {
        return Lacking {
            redirect: None,
            log: None,
        };
    };
    let without = rules::install(v4, v6, &brokered, false);
    Lacking {
        redirect: without.err().map(number),
        log: Some(number(log)),
    }
}

/// Sets the interception up.
pub(super) fn set_up(brokered: &Brokered, means: Means) -> Result<Intercepted, Failure> {
    let ipv6 = has_ipv6()?;
    routes::set_up(ipv6).step(Step::Intercept)?;
    let both = |v4: Ipv4Addr, v6: Ipv6Addr| {
        let second = ipv6.then_some(IpAddr::V6(v6));
        [Some(IpAddr::V4(v4)), second].into_iter().flatten()
    };
    let open = |kind, ip, port| sockets::open(kind, SocketAddr::new(ip, port), means.sharing());
    let name_servers = |kind| {
        both(Brokered::NAME_SERVER_V4, Brokered::NAME_SERVER_V6)
            .map(|ip| open(kind, ip, Brokered::NAME_SERVER_PORT))
            .collect::<Result<_, _>>()
    };
    let mut intercepted = Intercepted {
        tcp: Vec::new(),
        dns_udp: name_servers(SocketType::DGRAM)?,
        dns_tcp: name_servers(SocketType::STREAM)?,
        refusals: None,
        capture: Capture::DeclaredPorts,
    };
    if means.redirect {
        for ip in both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST) {
            intercepted.tcp.push(open(SocketType::STREAM, ip, 0)?);
        }
        let lookups: Vec<OwnedFd> = both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
            .map(open_lookups)
            .collect::<Result<_, _>>()?;
        let log = means.log.then(rules::open_log).transpose();
        let log = log.step(Step::Intercept)?;
        let mut ports = Vec::new();
        for (tcp, lookups) in intercepted.tcp.iter().zip(&lookups) {
            let (tcp, lookups) = (port_of(tcp)?, port_of(lookups)?);
            ports.push(Ports { tcp, lookups });
        }
        let (v4, v6) = match ports.as_slice() {
            [v4] => (*v4, None),
            [v4, v6] => (*v4, Some(*v6)),
            _ => return Err(Failure::new(Step::Intercept, Errno::INVAL)),
        };
        rules::install(v4, v6, brokered, log.is_some()).step(Step::Intercept)?;
        intercepted.dns_udp.extend(lookups);
        intercepted.refusals = log.map(Channel::into_socket);
        intercepted.capture = Capture::Redirected;
    } else {
        let mut ports = brokered.declared_ports.clone();
        ports.sort_unstable();
        ports.dedup();
        for port in ports {
            for ip in both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED) {
                intercepted.tcp.push(open(SocketType::STREAM, ip, port)?);
            }
        }
    }
    Ok(intercepted)
}

/// Whether the loopback device has its IPv6 address: the kernel may lack the family, or be told to
/// leave it off.
fn has_ipv6() -> Result<bool, Failure> {
    let loopback = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0);
    match sockets::try_open(SocketType::DGRAM, loopback, Sharing::Alone) {
        Ok(_) => Ok(true),
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => Ok(false),
        Err(errno) => Err(Failure::new(Step::Intercept, errno)),
    }
}

/// A socket for queries to whatever address, and for answers from it.
fn open_lookups(any: IpAddr) -> Result<OwnedFd, Failure> {
    let socket = sockets::open(SocketType::DGRAM, SocketAddr::new(any, 0), Sharing::Alone)?;
    if any.is_ipv6() {
        // Routes make every address ours, which for IPv4 is enough to answer from it.
        rustix::net::sockopt::set_ipv6_freebind(&socket, true).step(Step::Intercept)?;
    }
    Ok(socket)
}

fn port_of(socket: &OwnedFd) -> Result<u16, Failure> {
    let address = rustix::net::getsockname(socket).step(Step::Intercept)?;
    Ok(SocketAddr::try_from(address).step(Step::Intercept)?.port())
}
