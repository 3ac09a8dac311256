//! Which peer an address belongs to: the one with the longest prefix that has it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

/// Networks, each with what it belongs to. Few lengths of prefixes are in use at a time, so that a
/// look into a table for each is quick.
#[derive(Debug)]
pub(super) struct Routing<T> {
    v4: Lengths<T>,
    v6: Lengths<T>,
}

/// By length of prefix, and then by network.
type Lengths<T> = BTreeMap<u8, HashMap<u128, T>>;

impl<T> Default for Routing<T> {
    fn default() -> Self {
        Self {
            v4: BTreeMap::new(),
            v6: BTreeMap::new(),
        }
    }
}

impl<T: Copy> Routing<T> {
    /// Adds a network; false if it is there already.
    pub(super) fn add(&mut self, network: IpNet, value: T) -> bool {
        let length = network.prefix_len();
        let lengths = match network {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        };
        let key = masked(network.addr(), length);
        let networks = lengths.entry(length).or_default();
        networks.insert(key, value).is_none()
    }

    /// What an address belongs to.
    pub(super) fn find(&self, address: IpAddr) -> Option<T> {
        let lengths = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let longest_first = lengths.iter().rev();
        let mut found =
            longest_first.filter_map(|(length, networks)| networks.get(&masked(address, *length)));
        found.next().copied()
    }
}

/// The leading bits of an address.
fn masked(address: IpAddr, length: u8) -> u128 {
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let host_bits = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    bits & !host_bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_families_are_apart() {
        let mut routing = Routing::default();
        for (network, value) in [("0.0.0.0/0", 0), ("10.0.0.0/8", 1), ("10.1.0.0/16", 2)] {
            assert!(routing.add(network.parse().expect("a network"), value));
        }
        assert!(!routing.add("10.0.0.9/8".parse().expect("a network"), 3));
        let find = |text: &str| routing.find(text.parse().expect("an address"));
        assert_eq!(find("192.0.2.1"), Some(0));
        assert_eq!(find("10.2.0.1"), Some(3));
        assert_eq!(find("10.1.255.255"), Some(2));
        assert_eq!(find("fd00::1"), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_looking_at_every_network(
            networks in prop::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            address in any::<u32>(),
        ) {
            let address = IpAddr::V4(address.into());
            let networks: Vec<IpNet> = networks
                .iter()
                .map(|(bits, length)| {
                    let network = ipnet::Ipv4Net::new((*bits).into(), *length);
                    IpNet::V4(network.expect("a length").trunc())
                })
                .collect();
            let mut routing = Routing::default();
            for network in &networks {
                routing.add(*network, *network);
            }
            let longest = networks.iter().filter(|network| network.contains(&address));
            prop_assert_eq!(routing.find(address), longest.copied().max_by_key(IpNet::prefix_len));
        }
    }
}
