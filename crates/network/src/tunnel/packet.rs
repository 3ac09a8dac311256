//! What is read of an IP packet: whole, from whom, to whom (RFC 791, RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The two ends of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// The ends of a packet; nothing if its fixed header is not there.
pub(super) fn ends(packet: &[u8]) -> Option<Ends> {
    match packet.first()? >> 4 {
        4 => {
            let header: &[u8; 20] = packet.first_chunk()?;
            let address = |at: usize| {
                let [a, b, c, d] = [header[at], header[at + 1], header[at + 2], header[at + 3]];
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            };
            Some(Ends {
                source: address(12),
                destination: address(16),
            })
        }
        6 => {
            let header: &[u8; 40] = packet.first_chunk()?;
            let (source, destination) = header[8..].split_first_chunk::<16>()?;
            Some(Ends {
                source: IpAddr::V6(Ipv6Addr::from(*source)),
                destination: IpAddr::V6(Ipv6Addr::from(*destination.first_chunk::<16>()?)),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_read_of_either_family() {
        let mut v4 = vec![0x45; 1];
        v4.resize(12, 0);
        v4.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        let expected = Ends {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
        };
        assert_eq!(ends(&v4), Some(expected));
        let mut v6 = vec![0x60; 1];
        v6.resize(8, 0);
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend(Ipv6Addr::UNSPECIFIED.octets());
        let expected = Ends {
            source: Ipv6Addr::LOCALHOST.into(),
            destination: Ipv6Addr::UNSPECIFIED.into(),
        };
        assert_eq!(ends(&v6), Some(expected));
        for whole in [v4, v6] {
            for length in 0..whole.len() {
                assert_eq!(ends(&whole[..length]), None, "{length} bytes");
            }
        }
    }

    #[test]
    fn other_versions_are_not_read() {
        assert_eq!(ends(&[0x50; 64]), None);
    }
}
