use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn is_public(address: IpAddr) -> bool {
    classify(address) == AddressClass::Public
}

/// The registries' blocks that are not globally reachable, less their exceptions, by arithmetic.
fn refused_by_the_ipv4_registry(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    match (a, b, c, d) {
        (192, 0, 0, 9 | 10) => false,
        (0 | 10 | 127 | 224..=255, ..) => true,
        (100, 64..=127, ..) | (169, 254, ..) | (172, 16..=31, ..) | (192, 168, ..) => true,
        (198, 18 | 19, ..) => true,
        (192, 0, 0 | 2, _) | (192, 88, 99, _) | (198, 51, 100, _) | (203, 0, 113, _) => true,
        _ => false,
    }
}

/// The same for IPv6; RFC 6890's table with the updates that the registry lists.
fn refused_by_the_ipv6_registry(address: Ipv6Addr) -> bool {
    let s = address.segments();
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return refused_by_the_ipv4_registry(Ipv4Addr::from(
            (u32::from(s[6]) << 16) | u32::from(s[7]),
        ));
    }
    if s[..6] == [0, 0, 0, 0, 0, 0xffff] {
        return refused_by_the_ipv4_registry(Ipv4Addr::from(
            (u32::from(s[6]) << 16) | u32::from(s[7]),
        ));
    }
    match s {
        [0x2001, 1, 0, 0, 0, 0, 0, 1..=3] | [0x2001, 3, ..] | [0x2001, 4, 0x112, ..] => false,
        [0x2001, 0x20..=0x3f, ..] => false,
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] => true,
        [0x3fff, 0..=0xfff, ..] => true,
        [0x2000..=0x3fff, ..] => false,
        _ => true,
    }
}

/// Addresses near the edges of blocks, where a wrong prefix length shows.
fn near_a_block() -> impl Strategy<Value = IpAddr> {
    let blocks: Vec<IpNet> = REGISTRY
        .iter()
        .map(|entry| entry.block.parse().expect("a block"))
        .collect();
    (prop::sample::select(blocks), any::<bool>(), -2i32..=2).prop_map(|(block, end, by)| {
        let edge = if end {
            block.broadcast()
        } else {
            block.network()
        };
        match edge {
            IpAddr::V4(edge) => IpAddr::V4(Ipv4Addr::from(u32::from(edge).wrapping_add_signed(by))),
            IpAddr::V6(edge) => IpAddr::V6(Ipv6Addr::from(
                u128::from(edge).wrapping_add_signed(by.into()),
            )),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn ipv4_addresses_are_classified_as_the_registry_says(bits: u32) {
        let address = Ipv4Addr::from(bits);
        prop_assert_eq!(is_public(address.into()), !refused_by_the_ipv4_registry(address));
    }

    #[test]
    fn ipv6_addresses_are_classified_as_the_registry_says(
        first in prop_oneof![Just(0x2001u16), 0x2000u16..0x4000, any::<u16>()],
        rest: [u16; 7],
    ) {
        let [a, b, c, d, e, f, g] = rest;
        let address = Ipv6Addr::new(first, a, b, c, d, e, f, g);
        prop_assert_eq!(is_public(address.into()), !refused_by_the_ipv6_registry(address));
    }

    #[test]
    fn the_edges_of_every_block_are_classified_as_the_registry_says(address in near_a_block()) {
        let refused = match address {
            IpAddr::V4(address) => refused_by_the_ipv4_registry(address),
            IpAddr::V6(address) => refused_by_the_ipv6_registry(address),
        };
        prop_assert_eq!(is_public(address), !refused, "{}", address);
    }

    #[test]
    fn an_address_inside_another_is_what_it_is_alone(bits: u32) {
        let inner = Ipv4Addr::from(bits);
        let [a, b, c, d] = inner.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low);
        let translated = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low);
        let sixtofour = Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1);
        prop_assert_eq!(is_public(mapped.into()), is_public(inner.into()));
        prop_assert_eq!(is_public(translated.into()), is_public(inner.into()));
        prop_assert!(!is_public(sixtofour.into()));
    }

    #[test]
    fn what_the_standard_library_calls_special_is_never_public(bits: u32, wide: u128) {
        let v4 = Ipv4Addr::from(bits);
        if v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
            || v4.is_documentation() || v4.is_unspecified() || v4.is_broadcast()
        {
            prop_assert!(!is_public(v4.into()));
        }
        let v6 = Ipv6Addr::from(wide);
        if v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast()
            || v6.is_loopback() || v6.is_unspecified()
        {
            prop_assert!(!is_public(v6.into()));
        }
    }
}

#[test]
fn well_known_addresses_are_what_they_are() {
    for public in [
        "1.1.1.1",
        "93.184.216.34",
        "2606:4700:4700::1111",
        "64:ff9b::1.1.1.1",
    ] {
        assert!(is_public(ip(public)), "{public}");
    }
    for special in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
        "fd00:ec2::254",
        "100.64.0.1",
        "2001:0:53aa:64c::1",
    ] {
        assert!(!is_public(ip(special)), "{special}");
    }
}

#[test]
fn no_range_leads_to_a_metadata_service() {
    let ranges = [
        "169.254.169.254/32",
        "0.0.0.0/0",
        "fd00::/8",
        "64:ff9b::/96",
    ];
    let ranges = ranges.map(|range| range.parse().expect("a range"));
    for address in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "fd00:ec2::254",
    ] {
        assert!(!in_ranges(&ranges, ip(address)), "{address}");
    }
    assert!(in_ranges(&ranges, ip("fd00:ec3::1")));
}

#[test]
fn a_wide_range_opens_neither_loopback_nor_link_local_addresses() {
    let wide = ["0.0.0.0/0", "::/0"].map(|range| range.parse().expect("a range"));
    for address in [
        "127.0.0.1",
        "169.254.7.7",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "ff02::1",
        "0.0.0.0",
    ] {
        assert!(!in_ranges(&wide, ip(address)), "{address}");
    }
    assert!(in_ranges(&wide, ip("10.1.2.3")));
    let narrow = ["127.0.0.0/8"].map(|range| range.parse().expect("a range"));
    assert!(in_ranges(&narrow, ip("127.0.0.1")));
    assert!(in_ranges(&narrow, ip("::ffff:127.0.0.1")));
    assert!(!in_ranges(&narrow, ip("10.0.0.1")));
}
