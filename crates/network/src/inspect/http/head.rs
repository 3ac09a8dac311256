//! The head of a request: what it says, and how it is passed on.

use std::net::IpAddr;

use super::{Target, not_http};
use crate::{
    inspect::without_userinfo,
    name::HostName,
    reason::{Reason, ReasonCode},
};

/// Methods whose content means nothing (RFC 9110 section 9.3), so that servers leave it where it
/// is: the next request.
const WITHOUT_CONTENT: [&str; 4] = ["GET", "HEAD", "DELETE", "TRACE"];
/// Fields that say where a request ends or goes, or what a connection becomes.
const DECISIVE: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "proxy-connection",
    "expect",
    "upgrade",
    "trailer",
    "te",
];
/// Fields by which servers behind others are told the host, beside those whose name says it.
const FORWARDED_HOST: [&str; 3] = ["forwarded", "x-forwarded-server", "x-http-host-override"];
/// Fields by which collectors of logs and measurements are told where these come from. No server is
/// known to choose a site by them.
const SOURCE_HOST: [&str; 3] = ["agent-hostname", "x-datadog-hostname", "x-sumo-host"];
/// Fields for the next hop, which we are (RFC 9110 section 7.6.1).
const FOR_US: [&str; 6] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "http2-settings",
];

/// Where a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// With its head.
    None,
    /// After so many bytes.
    Length(u64),
    /// After a chunk of no bytes.
    Chunked,
}

/// A request head that was understood.
#[derive(Debug)]
pub(super) struct Head<'r> {
    method: &'r str,
    target: String,
    minor_version: u8,
    host: String,
    fields: Vec<(&'r str, &'r [u8])>,
    pub(super) framing: Framing,
    /// Whether no other request may follow.
    pub(super) is_last: bool,
    /// Whether that is so for its body alone, which comes without being asked for.
    pub(super) is_last_by_body: bool,
}

impl<'r> Head<'r> {
    /// Understands a head for a port of a host.
    ///
    /// # Errors
    /// Why it is not to be passed on.
    pub(super) fn read(
        request: &'r httparse::Request<'_, 'r>,
        to: &Target,
        port: u16,
    ) -> Result<Self, Reason> {
        let method = method(request)?;
        let fields: Vec<_> = request
            .headers
            .iter()
            .map(|it| (it.name, it.value))
            .collect();
        let known = Known { to, port };
        let host = known.host(&fields)?;
        let target = known.target(method, request.path.unwrap_or_default())?;
        for (name, value) in &fields {
            known.field(name, value)?;
        }
        let minor_version = request.version.unwrap_or_default();
        let framing = framing(&fields, minor_version)?;
        let has_body = !matches!(framing, Framing::None | Framing::Length(0));
        if has_body && WITHOUT_CONTENT.contains(&method) {
            return Err(not_http(format!(
                "a {method} request has content, which servers take for another request; send it \
                 by another method, or declare protocol tcp"
            )));
        }
        expectation(&fields, has_body)?;
        let is_last = closes(&fields)? || minor_version == 0;
        let expects = fields
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("expect"));
        Ok(Self {
            method,
            target,
            minor_version,
            host,
            fields,
            framing,
            is_last: is_last || has_body,
            is_last_by_body: has_body && !is_last && !expects,
        })
    }

    /// Adds the head as it is passed on.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let mut line = |parts: &[&[u8]]| {
            for part in parts {
                to.extend_from_slice(part);
            }
            to.extend_from_slice(b"\r\n");
        };
        let version = format!(" HTTP/1.{}", self.minor_version);
        line(&[
            self.method.as_bytes(),
            b" ",
            self.target.as_bytes(),
            version.as_bytes(),
        ]);
        for (name, value) in &self.fields {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let length = match self.framing {
                Framing::Length(length) if is("content-length") => length.to_string(),
                _ => String::new(),
            };
            let value = match () {
                () if is("host") => self.host.as_bytes(),
                () if is("content-length") => length.as_bytes(),
                () if is("transfer-encoding") => b"chunked",
                () if is("expect") => b"100-continue",
                () if FOR_US.iter().any(|ours| is(ours)) => continue,
                () => value.trim_ascii(),
            };
            line(&[name.as_bytes(), b": ", value]);
        }
        if self.is_last {
            line(&[b"Connection: close"]);
        }
        line(&[]);
    }
}

fn refused(what: &str) -> Reason {
    Reason::new(
        ReasonCode::MethodRefused,
        format!("{what} makes a connection opaque; declare protocol tcp if it must be"),
    )
}

fn method<'r>(request: &httparse::Request<'_, 'r>) -> Result<&'r str, Reason> {
    let method = request.method.unwrap_or_default();
    if method.eq_ignore_ascii_case("CONNECT") {
        return Err(refused("CONNECT"));
    }
    // All that are registered are; of others, recipients think of one that is.
    let usual = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if method.is_empty() || method == "PRI" || !method.bytes().all(usual) {
        return Err(not_http("a request's method is not one in capital letters"));
    }
    Ok(method)
}

/// What a head is held against.
struct Known<'t> {
    to: &'t Target,
    port: u16,
}

impl Known<'_> {
    /// RFC 9112 section 3.2: one Host field, which names the host.
    fn host(&self, fields: &[(&str, &[u8])]) -> Result<String, Reason> {
        let mut hosts = values(fields, "host");
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => match std::str::from_utf8(host) {
                Ok(host) => self.same(host.trim_matches([' ', '\t'])),
                Err(_) => Err(not_http("a Host field is not text")),
            },
            (None, _) => Err(Reason::new(
                ReasonCode::HostMissing,
                format!("a request names no host, `{}` is declared", self.to),
            )),
            (Some(_), Some(_)) => Err(not_http("a request has two Host fields")),
        }
    }

    /// The target in origin form, as it is spoken to servers. The absolute form names the host
    /// also, and must name the same (RFC 9112 section 3.2.2).
    fn target(&self, method: &str, target: &str) -> Result<String, Reason> {
        if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(not_http("a request's target has what no URI has there"));
        }
        if target == "*" && method == "OPTIONS" {
            return Ok(target.to_owned());
        }
        if target.starts_with('/') {
            return path(target);
        }
        let Some((scheme, rest)) = target.split_once("://") else {
            return Err(not_http("a request's target is neither a path nor a URI"));
        };
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(not_http("a request in the clear asks for another scheme"));
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        self.same(authority)?;
        Ok(match &rest[authority.len()..] {
            "" if method == "OPTIONS" => "*".to_owned(),
            rest if rest.starts_with('/') => path(rest)?,
            query => format!("/{query}"),
        })
    }

    /// Whether a field is what it looks like, and names no other host.
    fn field(&self, name: &str, value: &[u8]) -> Result<(), Reason> {
        let loose = loosely(name);
        if DECISIVE.contains(&loose.as_str()) && !name.eq_ignore_ascii_case(&loose) {
            return Err(not_http(format!(
                "a field `{name}` is taken for `{loose}` by some"
            )));
        }
        if loose == "upgrade" {
            return Err(refused("an Upgrade field"));
        }
        if !names_a_host(&loose) {
            return Ok(());
        }
        let value = std::str::from_utf8(value)
            .map_err(|_| not_http(format!("a field `{name}` is not text")))?;
        if loose != "forwarded" {
            return self.same(value.trim()).map(drop);
        }
        // RFC 7239 section 4: pairs, of which some are hosts.
        for pair in value.split([';', ',']) {
            let (key, host) = pair.split_once('=').unwrap_or((pair, ""));
            if key.trim().eq_ignore_ascii_case("host") {
                self.same(host.trim().trim_matches('"'))?;
            }
        }
        Ok(())
    }

    /// The host as it is passed on, if it is the one.
    fn same(&self, authority: &str) -> Result<String, Reason> {
        let mismatch = || {
            Reason::new(
                ReasonCode::HostMismatch,
                format!(
                    "a request is for `{}`, not for the declared `{}`",
                    without_userinfo(authority),
                    self.to
                ),
            )
        };
        let (host, port) = split_port(authority).ok_or_else(mismatch)?;
        let is_same = match self.to {
            // Brackets are for addresses alone.
            Target::Name(_) if authority.starts_with('[') => false,
            Target::Name(name) => host.parse::<HostName>().is_ok_and(|host| host == *name),
            Target::Address(address) => host
                .parse::<IpAddr>()
                .is_ok_and(|host| host.to_canonical() == *address),
        };
        if !is_same || port.is_some_and(|port| port != self.port) {
            return Err(mismatch());
        }
        let host = match self.to {
            Target::Address(IpAddr::V6(address)) => format!("[{address}]"),
            other => other.to_string(),
        };
        Ok(match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        })
    }
}

/// A name as the most careless of recipients compares it: some write fields as variables of an
/// environment, where all that is no letter and no digit becomes one sign.
fn loosely(name: &str) -> String {
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let loose: String = name.chars().map(letter).collect();
    loose.trim_matches('-').to_owned()
}

/// Whether a server behind others may take the host from a field of this loose name. Each maker of a
/// gateway has a name of his own for it, and whoever writes rules for one, too.
fn names_a_host(loose: &str) -> bool {
    let ends = loose.ends_with("-host") || loose.ends_with("-hostname");
    (ends && !SOURCE_HOST.contains(&loose)) || FORWARDED_HOST.contains(&loose)
}

/// The path and query of a target. One that begins with two slashes is a path here (RFC 9112 section
/// 3.2.1), and a host and a path where it is resolved as a reference (RFC 3986 section 4.2), which
/// some applications do; browsers' rules take `\` for a slash (the URL Standard).
fn path(target: &str) -> Result<String, Reason> {
    if target[1..].starts_with(['/', '\\']) {
        return Err(not_http(
            "a request's path begins with two slashes, behind which some read another host; send it \
             with one, or declare protocol tcp",
        ));
    }
    Ok(target.to_owned())
}

/// `host`, `host:port`, `[address]` or `[address]:port`.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        match port {
            "" => return Some((host, None)),
            _ => (host, port.strip_prefix(':')?),
        }
    } else {
        match authority.split_once(':') {
            None => return Some((authority, None)),
            Some(parts) => parts,
        }
    };
    // An empty port is allowed (RFC 3986 section 3.2.3) and means the default.
    if port.is_empty() {
        return Some((host, None));
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    (digits && !port.starts_with('0'))
        .then(|| port.parse().ok())
        .flatten()
        .map(|port| (host, Some(port)))
}

fn values<'f>(fields: &[(&str, &'f [u8])], name: &str) -> impl Iterator<Item = &'f [u8]> {
    let of_name = fields
        .iter()
        .filter(move |(other, _)| other.eq_ignore_ascii_case(name));
    of_name.map(|(_, value)| *value)
}

/// RFC 9112 section 6.3, with everything refused that has been used to smuggle requests.
fn framing(fields: &[(&str, &[u8])], minor_version: u8) -> Result<Framing, Reason> {
    let mut lengths = values(fields, "content-length");
    let mut codings = values(fields, "transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Framing::None),
        (Some(length), None) => {
            if lengths.next().is_some() {
                return Err(not_http("a request has two lengths"));
            }
            std::str::from_utf8(length)
                .ok()
                .filter(|length| length.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|length| length.parse().ok())
                .map(Framing::Length)
                .ok_or_else(|| not_http("a request's length is not a number"))
        }
        (None, Some(coding)) => {
            let chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !chunked || codings.next().is_some() || minor_version != 1 {
                return Err(not_http("a request's transfer coding is not just chunked"));
            }
            Ok(Framing::Chunked)
        }
        (Some(_), Some(_)) => Err(not_http(
            "a request has both a length and a transfer coding",
        )),
    }
}

/// RFC 9110 section 10.1.1: of a request without a body, and of any other expectation, nobody knows
/// what comes next.
fn expectation(fields: &[(&str, &[u8])], has_body: bool) -> Result<(), Reason> {
    let mut expected = values(fields, "expect");
    match (expected.next(), expected.next()) {
        (None, _) => Ok(()),
        (Some(only), None)
            if has_body && only.trim_ascii().eq_ignore_ascii_case(b"100-continue") =>
        {
            Ok(())
        }
        _ => Err(not_http(
            "a request expects something else than leave to send its body",
        )),
    }
}

/// Whether the connection is said to end with this request. What else a Connection field names is
/// left out on the way (RFC 9110 section 7.6.1), and must not be what decides.
fn closes(fields: &[(&str, &[u8])]) -> Result<bool, Reason> {
    let mut closes = false;
    for value in values(fields, "connection") {
        for option in value.split(|b| *b == b',') {
            match option.trim_ascii().to_ascii_lowercase().as_slice() {
                b"close" => closes = true,
                b"" | b"keep-alive" | b"te" => {}
                b"upgrade" => return Err(refused("a connection that is upgraded")),
                _ => return Err(not_http("a Connection field names other fields")),
            }
        }
    }
    Ok(closes)
}
