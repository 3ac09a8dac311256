//! Which addresses are public, by the IANA special-purpose address registries.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::IpNet;

/// A block of the IANA IPv4 or IPv6 special-purpose address registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialPurpose {
    /// The block.
    pub block: &'static str,
    /// Its name in the registry.
    pub name: &'static str,
    /// Whether the registry calls it globally reachable. Deprecated transition mechanisms, for
    /// which the registry gives no answer, count as unreachable.
    pub globally_reachable: bool,
}

const fn special(
    block: &'static str,
    name: &'static str,
    globally_reachable: bool,
) -> SpecialPurpose {
    SpecialPurpose {
        block,
        name,
        globally_reachable,
    }
}

/// RFC 6890 with its updates (RFC 8190, 9602, 9637, 9665, 9780), and multicast (RFC 5771, 4291).
/// The most specific block decides.
const REGISTRY: &[SpecialPurpose] = &[
    special("0.0.0.0/8", "this network", false),
    special("10.0.0.0/8", "private use", false),
    special("100.64.0.0/10", "shared address space", false),
    special("127.0.0.0/8", "loopback", false),
    special("169.254.0.0/16", "link local", false),
    special("172.16.0.0/12", "private use", false),
    special("192.0.0.0/24", "IETF protocol assignments", false),
    special("192.0.0.9/32", "port control protocol anycast", true),
    special("192.0.0.10/32", "TURN anycast", true),
    special("192.0.2.0/24", "documentation", false),
    special("192.31.196.0/24", "AS112", true),
    special("192.52.193.0/24", "AMT", true),
    special("192.88.99.0/24", "6to4 relay anycast", false),
    special("192.168.0.0/16", "private use", false),
    special("192.175.48.0/24", "direct delegation AS112", true),
    special("198.18.0.0/15", "benchmarking", false),
    special("198.51.100.0/24", "documentation", false),
    special("203.0.113.0/24", "documentation", false),
    special("224.0.0.0/4", "multicast", false),
    special("240.0.0.0/4", "reserved", false),
    special("255.255.255.255/32", "limited broadcast", false),
    // What IANA has not given out as global unicast (RFC 4291 section 2.4) is nobody's.
    special("::/0", "not allocated", false),
    special("2000::/3", "global unicast", true),
    special("::/128", "unspecified", false),
    special("::1/128", "loopback", false),
    special("::ffff:0:0/96", "IPv4-mapped", false),
    special("64:ff9b::/96", "IPv4-IPv6 translation", true),
    special("64:ff9b:1::/48", "local IPv4-IPv6 translation", false),
    special("100::/64", "discard only", false),
    special("100:0:0:1::/64", "dummy", false),
    special("2001::/23", "IETF protocol assignments", false),
    special("2001::/32", "Teredo", false),
    special("2001:1::1/128", "port control protocol anycast", true),
    special("2001:1::2/128", "TURN anycast", true),
    special("2001:1::3/128", "DNS-SD service registration anycast", true),
    special("2001:2::/48", "benchmarking", false),
    special("2001:3::/32", "AMT", true),
    special("2001:4:112::/48", "AS112", true),
    special("2001:10::/28", "ORCHID", false),
    special("2001:20::/28", "ORCHIDv2", true),
    special("2001:30::/28", "drone remote identification", true),
    special("2001:db8::/32", "documentation", false),
    special("2002::/16", "6to4", false),
    special("2620:4f:8000::/48", "direct delegation AS112", true),
    special("3fff::/20", "documentation", false),
    special("5f00::/16", "segment routing identifiers", false),
    special("fc00::/7", "unique local", false),
    special("fe80::/10", "link local", false),
    special("fec0::/10", "site local", false),
    special("ff00::/8", "multicast", false),
];

/// The registry, the most specific block first.
static BLOCKS: LazyLock<Vec<(IpNet, &'static SpecialPurpose)>> = LazyLock::new(|| {
    let mut blocks: Vec<_> = REGISTRY
        .iter()
        .map(|entry| {
            let block = entry.block.parse().expect("a block of the table above");
            (block, entry)
        })
        .collect();
    blocks.sort_by_key(|(block, _): &(IpNet, _)| std::cmp::Reverse(block.prefix_len()));
    blocks
});

/// Addresses at which clouds answer with the host's own credentials.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    // Task metadata and credentials of containers.
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// Where an address lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// A host on the public internet, as far as the registries tell.
    Public,
    /// Not to be reached over the public internet.
    Special(&'static str),
}

/// The most specific block of the registries that holds the address, if any.
pub fn special_purpose(address: IpAddr) -> Option<&'static SpecialPurpose> {
    BLOCKS
        .iter()
        .find(|(block, _)| block.contains(&address))
        .map(|(_, entry)| *entry)
}

/// Where an address lies. What carries an IPv4 address inside (IPv4-mapped, RFC 4291; NAT64, RFC
/// 6052) is what that address is; 6to4 and Teredo, whose relays are gone, are never public.
pub fn classify(address: IpAddr) -> AddressClass {
    let address = address.to_canonical();
    match special_purpose(address) {
        None => AddressClass::Public,
        Some(entry) if !entry.globally_reachable => AddressClass::Special(entry.name),
        Some(_) => match nat64(address) {
            Some(inner) => classify(inner.into()),
            None => AddressClass::Public,
        },
    }
}

/// The IPv4 address in one of NAT64's well-known prefix.
fn nat64(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let octets = address.octets();
    octets
        .starts_with(&[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0])
        .then(|| Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]))
}

/// Whether a cloud answers at the address with credentials of the host. No path leads there.
pub fn is_metadata_service(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let address = nat64(address).map_or(address, IpAddr::V4);
    METADATA.contains(&address)
}

/// Whether declared ranges lead to the address.
///
/// A range opens what it is about, and nothing that it covers by being wide: loopback, link-local
/// and multicast addresses need a range that lies wholly within their own block.
pub fn in_ranges(ranges: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    if is_metadata_service(address) {
        return false;
    }
    let guarded = BLOCKS.iter().find(|(block, entry)| {
        matches!(
            entry.name,
            "loopback" | "link local" | "multicast" | "this network" | "unspecified" | "reserved"
        ) && block.contains(&address)
    });
    ranges.iter().any(|range| {
        range.contains(&address) && guarded.is_none_or(|(block, _)| block.contains(range))
    })
}

#[cfg(test)]
mod tests;
