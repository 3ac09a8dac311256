//! Names and addresses of hosts.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::{InvalidText, text_value};

/// A name in the domain name system: lower case, without a dot at its end. Labels are those of host
/// names (RFC 1123 section 2.1), and may hold `_` as service names do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl DomainName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `zone` or below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        let rest = self.0.strip_suffix(zone.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for DomainName {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len())
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(InvalidText::new(
                "labels of at most 63 letters, digits, `-` and `_`, with dots between them, at most 253 \
                 characters in all",
            ));
        }
        // A last label of digits alone is how an address is told from a name.
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidText::new("the last label of a name is not a number"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

text_value!(
    DomainName,
    "barecount-domain-name",
    "a name of a host",
    "^[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?$",
    "The name of a host, without a dot at its end: `api.example.com`."
);

/// Addresses with a common beginning (CIDR, RFC 4632): `10.1.0.0/16`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    first: IpAddr,
    prefix: u8,
}

impl IpRange {
    /// Whether an address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let beginning = |bits: u128, width: u8| {
            let rest = u32::from(width - self.prefix.min(width));
            bits.checked_shr(rest).unwrap_or(0)
        };
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                beginning(u32::from(first).into(), 32) == beginning(u32::from(address).into(), 32)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                beginning(first.into(), 128) == beginning(address.into(), 128)
            }
            _ => false,
        }
    }

    /// The address, if there is one alone.
    pub fn single(self) -> Option<IpAddr> {
        let width = if self.first.is_ipv4() { 32 } else { 128 };
        (self.prefix == width).then_some(self.first)
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(self) -> bool {
        self.first.is_ipv4()
    }

    /// Its first address.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// How many bits of the first address count.
    pub fn prefix_bits(self) -> u8 {
        self.prefix
    }

    /// Whether all of another range lies in it.
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.first)
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for IpRange {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let rule = || InvalidText::new("written as address and length, as in `10.1.0.0/16`");
        let (first, length) = match text.split_once('/') {
            Some((first, length)) => (first, Some(length)),
            None => (text, None),
        };
        let first: IpAddr = first.parse().map_err(|_| rule())?;
        let width = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match length {
            None => width,
            Some(length) => length.parse().map_err(|_| rule())?,
        };
        if prefix > width {
            return Err(rule());
        }
        let range = Self { first, prefix };
        let host_bits = match first {
            IpAddr::V4(first) => u128::from(u32::from(first)) << 96,
            IpAddr::V6(first) => first.into(),
        };
        if host_bits.checked_shl(prefix.into()).unwrap_or(0) != 0 {
            return Err(InvalidText::new(
                "the address has digits after the length; write the range's first address",
            ));
        }
        Ok(range)
    }
}

text_value!(
    IpRange,
    "barecount-ip-range",
    "a range of addresses",
    "^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$",
    "Addresses with a common beginning, as in `10.1.0.0/16` or `fd12::/16`; or one address."
);

/// An address with a port: `10.0.0.2:53`, `[fd12::2]:53`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketAddress(SocketAddr);

impl SocketAddress {
    /// The address.
    pub fn socket_addr(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SocketAddress {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Self(address)),
            _ => Err(InvalidText::new(
                "written as address and port, as in `10.0.0.2:53` or `[fd12::2]:53`",
            )),
        }
    }
}

text_value!(
    SocketAddress,
    "barecount-socket-address",
    "an address with a port",
    "^(([0-9.]{7,15})|(\\[[0-9A-Fa-f:.]{2,45}\\])):[0-9]{1,5}$",
    "An address with a port, as in `10.0.0.2:53`."
);

/// What a destination is declared by: a name, or addresses where there is no name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EgressHost {
    /// Resolved when a connection is made.
    Name(DomainName),
    /// Addresses as such.
    Range(IpRange),
}

impl fmt::Display for EgressHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Range(range) => range.fmt(f),
        }
    }
}

impl FromStr for EgressHost {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        if text.contains("//") {
            return Err(InvalidText::new(
                "a host alone: without `https://` before it and a path behind",
            ));
        }
        let looks_like_address = text.contains([':', '/']) || text.parse::<IpAddr>().is_ok();
        if looks_like_address {
            text.parse().map(Self::Range)
        } else {
            text.parse().map(Self::Name)
        }
    }
}

text_value!(
    EgressHost,
    "barecount-egress-host",
    "a host",
    "^[A-Za-z0-9_:.-]{1,253}(/[0-9]{1,3})?$",
    "The name of a host: `api.example.com`; or addresses: `10.1.2.3`, `10.1.0.0/16`."
);

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), InvalidText>;

    #[test]
    fn a_range_contains_what_begins_as_it_does() -> Outcome {
        let range: IpRange = "10.1.0.0/16".parse()?;
        assert!(range.contains(IpAddr::from([10, 1, 255, 1])));
        assert!(!range.contains(IpAddr::from([10, 2, 0, 1])));
        assert!(range.covers("10.1.2.0/24".parse()?) && range.covers("10.1.2.3".parse()?));
        assert!(!range.covers("10.0.0.0/8".parse()?));
        let all: IpRange = "0.0.0.0/0".parse()?;
        assert!(all.covers(range) && !all.covers("::/0".parse()?));
        let six: IpRange = "fd12:3400::/24".parse()?;
        assert!(six.covers("fd12:34ff::1".parse()?));
        for wrong in ["10.1.0.1/16", "10.1.0.0/33", "10.1/16", "", "/", "x/1"] {
            assert!(wrong.parse::<IpRange>().is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn a_name_is_below_a_zone_at_a_dot_only() -> Outcome {
        let zone: DomainName = "plant.example".parse()?;
        for (name, inside) in [
            ("plant.example", true),
            ("ERP.Plant.Example", true),
            ("otherplant.example", false),
            ("example", false),
        ] {
            assert_eq!(
                name.parse::<DomainName>()?.is_within(&zone),
                inside,
                "{name}"
            );
        }
        for wrong in [
            "",
            ".",
            "a.",
            "a..b",
            "-a",
            "a-",
            "1.2.3.4",
            "a b",
            "ä.example",
        ] {
            assert!(wrong.parse::<DomainName>().is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn a_host_is_a_name_or_addresses_and_never_both() -> Outcome {
        let name = "api.example.com".parse::<EgressHost>()?;
        assert!(matches!(name, EgressHost::Name(_)));
        for address in ["10.1.2.3", "10.1.0.0/16", "fd12::1", "::/0"] {
            let host = address.parse::<EgressHost>()?;
            assert!(matches!(host, EgressHost::Range(_)), "{address}");
        }
        for wrong in ["10.1.2", "300.1.2.3", "a/b", "http://a", "a:80"] {
            assert!(wrong.parse::<EgressHost>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
