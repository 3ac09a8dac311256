//! Reading what the kernel's packet log says of refused packets (`linux/netfilter/nfnetlink_log.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{attributes, messages};

/// Type of a message that holds a logged packet: its subsystem in the upper byte.
const PACKET: u16 = ((libc::NFNL_SUBSYS_ULOG as u16) << 8) | libc::NFULNL_MSG_PACKET as u16;
/// Bytes of the fixed part of a netfilter message (`struct nfgenmsg`).
const FIXED_BYTES: usize = 4;
/// The most IPv6 extension headers that are passed over in search of the transport header.
const MAX_EXTENSIONS: usize = 8;

/// A packet that a payload sent and that went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RefusedPacket {
    /// What it carried, by the numbers of IANA: 1 ICMP, 17 UDP, 58 ICMPv6, 132 SCTP.
    pub protocol: u8,
    /// Where it was to go.
    pub destination: IpAddr,
    /// The port there, for protocols that have ports.
    pub port: Option<u16>,
}

/// Reads one packet of [`crate::Intercepted::refusals`]: what it tells, in order. What is not whole,
/// or not understood, is passed over; any input is safe.
pub fn parse_refusals(packet: &[u8]) -> Vec<RefusedPacket> {
    messages(packet)
        .filter(|(kind, _)| *kind == PACKET)
        .filter_map(|(_, body)| {
            let (_, logged) = attributes(body.get(FIXED_BYTES..)?)
                .find(|(kind, _)| i32::from(*kind) == libc::NFULA_PAYLOAD)?;
            refused(logged)
        })
        .collect()
}

fn refused(packet: &[u8]) -> Option<RefusedPacket> {
    match packet.first()? >> 4 {
        4 => refused_v4(packet),
        6 => refused_v6(packet),
        _ => None,
    }
}

fn refused_v4(packet: &[u8]) -> Option<RefusedPacket> {
    let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
    let protocol = *packet.get(9)?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    // Only the first fragment has the transport header.
    let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff;
    let transport = if fragment == 0 && header_bytes >= 20 {
        packet.get(header_bytes..)
    } else {
        None
    };
    Some(RefusedPacket {
        protocol,
        destination: Ipv4Addr::from(destination).into(),
        port: port(protocol, transport),
    })
}

fn refused_v6(packet: &[u8]) -> Option<RefusedPacket> {
    let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let (protocol, transport) = transport_v6(*packet.get(6)?, packet.get(40..)?);
    Some(RefusedPacket {
        protocol,
        destination: Ipv6Addr::from(destination).into(),
        port: port(protocol, transport),
    })
}

/// Passes over extension headers (RFC 8200): the first that is none, as far as the packet was
/// logged.
fn transport_v6(mut next: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    for _ in 0..MAX_EXTENSIONS {
        let length = match i32::from(next) {
            libc::IPPROTO_HOPOPTS | libc::IPPROTO_ROUTING | libc::IPPROTO_DSTOPTS => {
                rest.get(1).map(|units| (usize::from(*units) + 1) * 8)
            }
            libc::IPPROTO_FRAGMENT => {
                let offset = rest
                    .get(2..4)
                    .map(|at| u16::from_be_bytes([at[0], at[1]]) & 0xfff8);
                // Only the first fragment has what follows.
                if offset == Some(0) { Some(8) } else { None }
            }
            _ => return (next, Some(rest)),
        };
        let (Some(following), Some(after)) =
            (rest.first(), length.and_then(|length| rest.get(length..)))
        else {
            return (next, None);
        };
        (next, rest) = (*following, after);
    }
    (next, None)
}

/// The destination port, for protocols whose header begins with two ports.
fn port(protocol: u8, transport: Option<&[u8]>) -> Option<u16> {
    const WITH_PORTS: [i32; 5] = [
        libc::IPPROTO_TCP,
        libc::IPPROTO_UDP,
        libc::IPPROTO_UDPLITE,
        libc::IPPROTO_DCCP,
        libc::IPPROTO_SCTP,
    ];
    if !WITH_PORTS.contains(&i32::from(protocol)) {
        return None;
    }
    let bytes = transport?.get(2..4)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}
