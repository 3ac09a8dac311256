//! Synthetic addresses: what a sandbox's programs connect to in place of the real ones.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Mutex,
};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::name::HostName;

/// The ranges from which names are given addresses inside a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticRanges {
    /// For A records.
    pub v4: Ipv4Net,
    /// For AAAA records, of at most 96 bits; without it names have no IPv6 address.
    pub v6: Option<Ipv6Net>,
}

impl Default for SyntheticRanges {
    /// 198.18.0.0/15, which no host on the internet has (RFC 2544), and a unique local prefix
    /// (RFC 4193).
    fn default() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
        let prefix = Ipv6Addr::new(0xfd62, 0x6172, 0x6563, 0, 0, 0, 0, 0);
        Self {
            v4,
            v6: Some(Ipv6Net::new_assert(prefix, 96)),
        }
    }
}

/// Names that a sandbox may have looked up, so that an audited one cannot fill the agent's memory.
const MAX_NAMES: u64 = 16_384;

/// Which name has which address. Grows only: an address that a program kept from before never
/// means another name.
#[derive(Debug)]
pub(crate) struct SyntheticNames {
    ranges: SyntheticRanges,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    by_index: Vec<HostName>,
    index_of: HashMap<HostName, u32>,
}

impl SyntheticNames {
    pub(crate) fn new(ranges: SyntheticRanges) -> Self {
        Self {
            ranges,
            names: Mutex::default(),
        }
    }

    /// The addresses of a name, or nothing if the range is used up.
    pub(crate) fn addresses(&self, name: &HostName) -> Option<(Ipv4Addr, Option<Ipv6Addr>)> {
        let index = self.index(name)?;
        // The first address of a range is not given out: some programs take it for the network.
        let v4 = u32::from(self.ranges.v4.network()) + index + 1;
        let v6 = self
            .ranges
            .v6
            .map(|range| u128::from(range.network()) + u128::from(index) + 1);
        Some((v4.into(), v6.map(Ipv6Addr::from)))
    }

    fn index(&self, name: &HostName) -> Option<u32> {
        let mut names = self.names.lock().expect("no holder panics");
        if let Some(index) = names.index_of.get(name) {
            return Some(*index);
        }
        let size = 1u64 << (32 - self.ranges.v4.prefix_len());
        let index = u32::try_from(names.by_index.len()).ok()?;
        if u64::from(index) + 2 >= size || u64::from(index) >= MAX_NAMES {
            return None;
        }
        names.by_index.push(name.clone());
        names.index_of.insert(name.clone(), index);
        Some(index)
    }

    /// Whether the address lies in a synthetic range, given out or not.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ranges.v4.contains(&address),
            IpAddr::V6(address) => self.ranges.v6.is_some_and(|range| range.contains(&address)),
        }
    }

    /// The name that was given the address.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<HostName> {
        if !self.holds(address) {
            return None;
        }
        let offset = match address {
            IpAddr::V4(address) => {
                u128::from(u32::from(address) - u32::from(self.ranges.v4.network()))
            }
            IpAddr::V6(address) => u128::from(address) - u128::from(self.ranges.v6?.network()),
        };
        let index = usize::try_from(offset.checked_sub(1)?).ok()?;
        let names = self.names.lock().expect("no holder panics");
        names.by_index.get(index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_name_keeps_its_addresses_and_they_lead_back_to_it() {
        let names = SyntheticNames::new(SyntheticRanges::default());
        let (v4, v6) = names.addresses(&name("a.example")).expect("room");
        assert_eq!(v4, Ipv4Addr::new(198, 18, 0, 1));
        assert_ne!(names.addresses(&name("b.example")).expect("room").0, v4);
        assert_eq!(names.addresses(&name("a.example")), Some((v4, v6)));
        assert_eq!(names.name_of(v4.into()), Some(name("a.example")));
        assert_eq!(
            names.name_of(v6.expect("IPv6").into()),
            Some(name("a.example"))
        );
    }

    #[test]
    fn an_address_that_was_not_given_out_has_no_name() {
        let names = SyntheticNames::new(SyntheticRanges::default());
        names.addresses(&name("a.example"));
        for address in [
            "198.18.0.0",
            "198.18.0.2",
            "198.19.255.255",
            "198.20.0.1",
            "fd62::1",
        ] {
            assert_eq!(names.name_of(address.parse().expect("an address")), None);
        }
        assert!(names.holds(IpAddr::V4(Ipv4Addr::new(198, 19, 255, 255))));
    }

    #[test]
    fn a_range_that_is_used_up_gives_no_address_twice() {
        let names = SyntheticNames::new(SyntheticRanges {
            v4: "198.18.0.0/29".parse().expect("a range"),
            v6: None,
        });
        let given: Vec<_> = (0..20)
            .map_while(|n| names.addresses(&name(&format!("n{n}.example"))))
            .map(|(v4, _)| v4.octets()[3])
            .collect();
        assert_eq!(given, [1, 2, 3, 4, 5, 6]);
        assert!(names.addresses(&name("n3.example")).is_some());
    }
}
