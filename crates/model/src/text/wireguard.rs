//! What a WireGuard tunnel is described by.

use std::{fmt, net::IpAddr, str::FromStr};

use super::{EgressHost, InvalidText, text_value};

/// Characters of 32 bytes in base64 (RFC 4648).
const KEY_CHARACTERS: usize = 44;

/// Whether a text is what `wg genkey`, `wg pubkey` and `wg genpsk` write.
pub(super) fn is_key(text: &str) -> bool {
    let Some(body) = text.strip_suffix('=') else {
        return false;
    };
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    // Of the last character's six bits, four are of the key, and the rest are 0.
    let ends_whole = body.ends_with(|c| "AEIMQUYcgkosw048".contains(c));
    text.len() == KEY_CHARACTERS && body.bytes().all(is_digit) && ends_whole
}

/// The public key of a peer, as `wg pubkey` writes it. No secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(String);

impl PeerKey {
    /// The key as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PeerKey {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        if is_key(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidText::new(
            "32 bytes in base64, 44 characters, as `wg pubkey` writes them",
        ))
    }
}

text_value!(
    PeerKey,
    "barecount-peer-key",
    "a public key of WireGuard",
    "^[A-Za-z0-9+/]{43}=$",
    "The public key of a peer: 32 bytes in base64, as `wg pubkey` writes them."
);

/// A host and a port, as in `vpn.example.com:51820` or `[fd12::1]:51820`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: EgressHost,
    port: u16,
}

impl HostPort {
    /// A name, or a single address.
    pub fn host(&self) -> &EgressHost {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match &self.host {
            EgressHost::Range(range) => range.single(),
            EgressHost::Name(_) => None,
        };
        match address {
            Some(address @ IpAddr::V6(_)) => write!(f, "[{address}]:{}", self.port),
            Some(address) => write!(f, "{address}:{}", self.port),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for HostPort {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let rule = || InvalidText::new("written as host and port, as in `vpn.example.com:51820`");
        let (host, port) = text.rsplit_once(':').ok_or_else(rule)?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port: u16 = port.parse().map_err(|_| rule())?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address = rest.strip_suffix(']').ok_or_else(rule)?;
                let address: std::net::Ipv6Addr = address.parse().map_err(|_| rule())?;
                address.to_string()
            }
            None if host.contains([':', '/']) => return Err(rule()),
            None => host.to_owned(),
        };
        match host.parse()? {
            host if is_number && port != 0 => Ok(Self { host, port }),
            _ => Err(rule()),
        }
    }
}

text_value!(
    HostPort,
    "barecount-host-port",
    "a host with a port",
    "^([A-Za-z0-9._-]{1,253}|\\[[0-9A-Fa-f:.]{2,45}\\]):[0-9]{1,5}$",
    "A host and a port, as in `vpn.example.com:51820` or `[fd12::1]:51820`."
);

/// An address of our own in a tunnel. A length may be written after it, as other tools want one:
/// what lies behind the tunnel is said by its peers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnAddress {
    address: IpAddr,
    length: u8,
}

impl OwnAddress {
    /// The address.
    pub fn address(self) -> IpAddr {
        self.address
    }
}

impl fmt::Display for OwnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for OwnAddress {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let rule = || InvalidText::new("written as in `10.77.0.2/32` or `fd77::2/128`");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| rule())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => width,
            Some(length) => length.parse().map_err(|_| rule())?,
        };
        let is_host =
            !(address.is_unspecified() || address.is_multicast() || address.is_loopback());
        if length > width || !is_host {
            return Err(rule());
        }
        Ok(Self { address, length })
    }
}

text_value!(
    OwnAddress,
    "barecount-own-address",
    "an address in a tunnel",
    "^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$",
    "An address of our own in a tunnel, as in `10.77.0.2/32`."
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::SecretName;

    const KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_key_is_a_public_key_and_no_name_of_a_secret() {
        assert!(KEY.parse::<PeerKey>().is_ok());
        let error = KEY.parse::<SecretName>().expect_err("it is the key itself");
        assert!(error.to_string().contains("key itself"), "{error}");
        assert!(!error.to_string().contains(&KEY[..8]));
    }

    #[test]
    fn what_is_not_32_bytes_is_no_key() {
        for text in [
            "",
            "aGk=",
            &KEY[1..],
            &KEY.replace("mo=", "mp="),
            &KEY.replace('=', "A"),
        ] {
            assert!(text.parse::<PeerKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_with_its_port_is_printed_as_it_is_read() {
        for text in ["vpn.example.com:51820", "192.0.2.1:1", "[fd12::1]:65535"] {
            let read: HostPort = text.parse().expect("a host and port");
            assert_eq!(read.to_string(), text);
        }
        for text in [
            "vpn.example.com",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "fd12::1:5",
            "10.0.0.0/8:1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_own_address_is_one_of_a_host() {
        let read: OwnAddress = "10.77.0.2/24".parse().expect("an address");
        assert_eq!(read.address(), IpAddr::from([10, 77, 0, 2]));
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "10.0.0.1/33",
            "::",
            "ff02::1",
        ] {
            assert!(text.parse::<OwnAddress>().is_err(), "{text}");
        }
    }
}
