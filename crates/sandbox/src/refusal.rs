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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Batch;

    /// What the kernel tells of logged packets, in one packet of its own.
    fn told(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut batch = Batch::new();
        for packet in packets {
            batch.message(PACKET, 0, &[2, 0, 0, 0], |message| {
                message.bytes(libc::NFULA_PACKET_HDR as u16, &[8, 0, 3, 0]);
                message.be32(libc::NFULA_UID as u16, 1000);
                message.bytes(libc::NFULA_PAYLOAD as u16, packet);
            });
        }
        batch.as_bytes().to_vec()
    }

    fn v4(protocol: u8, options: &[u8], fragment: u16, transport: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x40 | (5 + options.len() / 4) as u8;
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = protocol;
        packet[16..20].copy_from_slice(&[198, 51, 100, 7]);
        packet.extend(options);
        packet.extend(transport);
        packet
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[6] = next;
        let destination: Ipv6Addr = "2001:db8::7".parse().expect("it is an address");
        packet[24..40].copy_from_slice(&destination.octets());
        packet.extend(rest);
        packet
    }

    /// From port 5 to port 4433.
    const UDP: [u8; 8] = [0, 5, 0x11, 0x51, 0, 8, 0, 0];
    /// Eight bytes before UDP: what follows, how many units of eight beyond the first, the rest.
    const EXTENSION: [u8; 8] = [17, 0, 0, 0, 0, 0, 0, 0];

    fn only(packet: Vec<u8>) -> (u8, String, Option<u16>) {
        let found = parse_refusals(&told(&[packet]));
        assert_eq!(found.len(), 1);
        let RefusedPacket {
            protocol,
            destination,
            port,
        } = found[0];
        (protocol, destination.to_string(), port)
    }

    #[test]
    fn protocol_address_and_port_are_read() {
        let v4_told = |protocol, port| (protocol, "198.51.100.7".to_owned(), port);
        assert_eq!(only(v4(17, &[], 0, &UDP)), v4_told(17, Some(4433)));
        assert_eq!(only(v4(17, &[1; 8], 0, &UDP)), v4_told(17, Some(4433)));
        assert_eq!(only(v4(132, &[], 0, &UDP)), v4_told(132, Some(4433)));
        assert_eq!(only(v4(1, &[], 0, &UDP)), v4_told(1, None));
        let v6_told = |protocol, port| (protocol, "2001:db8::7".to_owned(), port);
        assert_eq!(only(v6(17, &UDP)), v6_told(17, Some(4433)));
        assert_eq!(only(v6(58, &UDP)), v6_told(58, None));
    }

    #[test]
    fn extension_headers_are_passed_over() {
        for next in [0, 43, 44, 60] {
            let rest = [EXTENSION.as_slice(), &UDP].concat();
            assert_eq!(only(v6(next, &rest)).2, Some(4433), "after header {next}");
        }
        // As many as there may be, and one too many.
        let mut rest = [60, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSIONS);
        rest.extend(UDP);
        assert_eq!(only(v6(60, &rest)).0, 60);
    }

    #[test]
    fn a_later_fragment_has_no_port() {
        assert_eq!(only(v4(17, &[], 0x0001, &UDP)).2, None);
        assert_eq!(only(v4(17, &[], 0x2000, &UDP)).2, Some(4433), "the first");
        let mut later = EXTENSION;
        later[2..4].copy_from_slice(&8_u16.to_be_bytes());
        assert_eq!(only(v6(44, &[later, UDP].concat())).2, None);
    }

    #[test]
    fn several_are_read_in_order_and_what_is_not_understood_is_passed_over() {
        let packets = [
            v4(17, &[], 0, &UDP),
            vec![],
            vec![0x50; 60],
            v6(17, &UDP),
            v4(17, &[], 0, &[])[..19].to_vec(),
        ];
        let found = parse_refusals(&told(&packets));
        let v4_first: Vec<bool> = found.iter().map(|it| it.destination.is_ipv4()).collect();
        assert_eq!(v4_first, [true, false]);
    }

    #[test]
    fn any_input_is_safe() {
        let whole = told(&[v4(17, &[1; 8], 0, &UDP), v6(0, &[EXTENSION, UDP].concat())]);
        for length in 0..whole.len() {
            assert!(parse_refusals(&whole[..length]).len() < 2);
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut bent = whole.clone();
                bent[at] = value;
                assert!(parse_refusals(&bent).len() <= 2);
            }
        }
        // A linear congruential sequence, the same in every run.
        let mut state = 1_u64;
        for _ in 0..2000 {
            let noise: Vec<u8> = (0..200)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            let mut framed = whole[..16].to_vec();
            framed.extend(noise);
            parse_refusals(&framed);
        }
    }
}
