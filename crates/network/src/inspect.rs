//! Looking at the first bytes that the work sends: they must name the declared host.
//!
//! Knows bytes only: no sockets, no time. Reading more is the caller's business, up to
//! [`MAX_HEAD`].

pub mod http;
pub(crate) mod tls;
mod userinfo;

use std::net::IpAddr;

use barecount_model::manifest::EgressProtocol;

use crate::{
    name::HostName,
    reason::{Reason, ReasonCode},
};
pub(crate) use userinfo::without_userinfo;

/// The most that is read before a ClientHello or request head must be whole.
pub const MAX_HEAD: usize = 32 * 1024;

/// The host that was declared, and that must be named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// By name; resolved when dialled.
    Name(HostName),
    /// By a literal address.
    Address(IpAddr),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What the first bytes of a connection look like, for advice only.
pub fn guess(bytes: &[u8]) -> EgressProtocol {
    const METHODS: [&[u8]; 8] = [
        b"GET ",
        b"POST ",
        b"PUT ",
        b"HEAD ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"TRACE ",
    ];
    if bytes.starts_with(&[22, 3]) {
        EgressProtocol::Tls
    } else if METHODS.iter().any(|method| bytes.starts_with(method)) {
        EgressProtocol::Http
    } else {
        EgressProtocol::Tcp
    }
}

/// Whether a ClientHello is one for `target`. `Ok(false)`: more bytes are needed.
///
/// # Errors
/// Why it is not: it is no TLS, too long, or names another server or none.
pub fn check_hello(bytes: &[u8], target: &Target) -> Result<bool, Reason> {
    use tls::Parsed;
    let hello = match tls::parse(bytes) {
        Parsed::Incomplete if bytes.len() >= MAX_HEAD => {
            return Err(Reason::new(
                ReasonCode::HeadTooLarge,
                format!("the ClientHello is longer than {MAX_HEAD} bytes"),
            ));
        }
        Parsed::Incomplete => return Ok(false),
        Parsed::NotTls(what) => return Err(Reason::new(ReasonCode::NotTls, what)),
        Parsed::Hello(hello) => hello,
    };
    if hello.encrypted {
        return Err(Reason::new(
            ReasonCode::ServerNameEncrypted,
            "the ClientHello has an encrypted part that may name another server",
        ));
    }
    match (target, hello.server_name) {
        (Target::Name(name), Some(sent)) => match sent.parse::<HostName>() {
            Ok(sent) if sent == *name => Ok(true),
            _ => Err(Reason::new(
                ReasonCode::ServerNameMismatch,
                format!(
                    "the ClientHello is for `{}`, not for the declared `{name}`",
                    without_userinfo(&sent)
                ),
            )),
        },
        (Target::Name(name), None) => Err(Reason::new(
            ReasonCode::ServerNameMissing,
            format!("the ClientHello names no server, `{name}` is declared"),
        )),
        // An address cannot be a server name (RFC 6066 section 3), so there is none.
        (Target::Address(_), None) => Ok(true),
        (Target::Address(address), Some(sent)) => Err(Reason::new(
            ReasonCode::ServerNameMismatch,
            format!(
                "the ClientHello is for `{}`, and only the address {address} is declared",
                without_userinfo(&sent)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_guessed_from_the_first_bytes() {
        assert_eq!(guess(&[22, 3, 1, 2, 0, 1]), EgressProtocol::Tls);
        assert_eq!(guess(b"GET / HTTP/1.1\r\n"), EgressProtocol::Http);
        assert_eq!(guess(b"SSH-2.0-x\r\n"), EgressProtocol::Tcp);
        assert_eq!(guess(b""), EgressProtocol::Tcp);
    }
}
