//! HTTP/1.1 requests in the clear (RFC 9112): each one on a connection must name the host.
//!
//! Follows the framing of requests, so that a later request of the same connection cannot name
//! another host. What recipients are known to read in different ways is refused, not guessed.

use std::net::IpAddr;

use super::{MAX_HEAD, Target, without_userinfo};
use crate::{
    name::HostName,
    reason::{Reason, ReasonCode},
};

const MAX_HEADERS: usize = 128;
const MAX_CHUNK_LINE: usize = 1_024;
const MAX_TRAILERS: usize = 8 * 1024;

/// Where in a connection's requests the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Body(u64),
    ChunkSize,
    /// Data and the line end after it.
    Chunk(u64),
    Trailers,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Requests {
    target: Target,
    port: u16,
    place: Place,
}

impl Requests {
    /// For a connection with a port of a host, of which nothing has come yet.
    pub fn new(target: Target, port: u16) -> Self {
        Self {
            target,
            port,
            place: Place::Head,
        }
    }

    /// How many of the bytes may pass; 0: more are needed first. Bytes that passed are not
    /// offered again, the others are, with what came after them.
    ///
    /// # Errors
    /// Why nothing more may pass: a request is for another host, or is none.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        let mut passed = 0;
        while passed < bytes.len() {
            let step = self.step(&bytes[passed..])?;
            if step == 0 {
                break;
            }
            passed += step;
        }
        Ok(passed)
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        match self.place {
            Place::Head => self.head(bytes),
            Place::Body(left) => Ok(self.pass(bytes, left, Place::Body, Place::Head)),
            Place::Chunk(left) => self.chunk(bytes, left),
            Place::ChunkSize => self.chunk_size(bytes),
            Place::Trailers => self.trailers(bytes),
        }
    }

    fn pass(&mut self, bytes: &[u8], left: u64, stay: fn(u64) -> Place, next: Place) -> usize {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - here as u64;
        self.place = if left == 0 { next } else { stay(left) };
        here
    }

    fn chunk(&mut self, bytes: &[u8], left: u64) -> Result<usize, Reason> {
        if left > 2 {
            return Ok(self.pass(
                bytes,
                left - 2,
                |left| Place::Chunk(left + 2),
                Place::Chunk(2),
            ));
        }
        match bytes {
            [b'\r', b'\n', ..] => {
                self.place = Place::ChunkSize;
                Ok(2)
            }
            [b'\r'] => Ok(0),
            _ => Err(not_http("a chunk is longer than it says")),
        }
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        let Some(end) = line(bytes, MAX_CHUNK_LINE)? else {
            return Ok(0);
        };
        let line = &bytes[..end];
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = std::str::from_utf8(&line[..digits])
            .ok()
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .filter(|size| *size < u64::MAX / 2 && digits <= 16)
            .ok_or_else(|| not_http("a chunk has no size"))?;
        // Extensions follow a semicolon; nobody needs blanks before it.
        if !matches!(line[digits], b'\r' | b';') {
            return Err(not_http("a chunk's size is malformed"));
        }
        self.place = if size == 0 {
            Place::Trailers
        } else {
            Place::Chunk(size + 2)
        };
        Ok(end)
    }

    fn trailers(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        let Some(end) = line(bytes, MAX_TRAILERS)? else {
            return Ok(0);
        };
        if end == 2 {
            self.place = Place::Head;
        }
        Ok(end)
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => {
                return Err(Reason::new(
                    ReasonCode::HeadTooLarge,
                    format!("a request head is longer than {MAX_HEAD} bytes"),
                ));
            }
            Ok(httparse::Status::Partial) => return Ok(0),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Reason::new(
                    ReasonCode::HeadTooLarge,
                    format!("a request has more than {MAX_HEADERS} header fields"),
                ));
            }
            Err(fault) => return Err(not_http(&format!("a request is malformed: {fault}"))),
        };
        if has_lone_line_end(&bytes[..length]) {
            return Err(not_http("a line of a request head ends without CRLF"));
        }
        self.check_method(&request)?;
        self.check_hosts(&request)?;
        self.place = body(&request)?;
        Ok(length)
    }

    fn check_method(&self, request: &httparse::Request<'_, '_>) -> Result<(), Reason> {
        let refused = |what: &str| {
            Err(Reason::new(
                ReasonCode::MethodRefused,
                format!("{what} makes a connection opaque; declare protocol tcp if it must be"),
            ))
        };
        if request.method == Some("CONNECT") {
            return refused("CONNECT");
        }
        if values(request, "upgrade").next().is_some() {
            return refused("an Upgrade field");
        }
        Ok(())
    }

    /// RFC 9112 sections 3.2 and 3.2.2: one Host field, and in the absolute form the target
    /// names the host, too. Both must.
    fn check_hosts(&self, request: &httparse::Request<'_, '_>) -> Result<(), Reason> {
        let path = request.path.unwrap_or_default();
        if let Some((scheme, rest)) = path.split_once("://").filter(|_| !path.starts_with('/')) {
            if !scheme.eq_ignore_ascii_case("http") {
                return Err(not_http("a request in the clear asks for another scheme"));
            }
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            self.check_host(authority)?;
        } else if !path.starts_with('/') && path != "*" {
            return Err(not_http("a request's target is neither a path nor a URI"));
        }
        let mut hosts = values(request, "host");
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => match std::str::from_utf8(host) {
                Ok(host) => self.check_host(host.trim_matches([' ', '\t'])),
                Err(_) => Err(not_http("a Host field is not text")),
            },
            (None, _) => Err(Reason::new(
                ReasonCode::HostMissing,
                format!("a request names no host, `{}` is declared", self.target),
            )),
            (Some(_), Some(_)) => Err(not_http("a request has two Host fields")),
        }
    }

    fn check_host(&self, authority: &str) -> Result<(), Reason> {
        let mismatch = || {
            Reason::new(
                ReasonCode::HostMismatch,
                format!(
                    "a request is for `{}`, not for the declared `{}`",
                    without_userinfo(authority),
                    self.target
                ),
            )
        };
        let (host, port) = split_port(authority).ok_or_else(mismatch)?;
        let same_host = match &self.target {
            Target::Name(name) => host.parse::<HostName>().is_ok_and(|host| host == *name),
            Target::Address(address) => host
                .parse::<IpAddr>()
                .is_ok_and(|host| host.to_canonical() == *address),
        };
        if same_host && port.is_none_or(|port| port == self.port) {
            Ok(())
        } else {
            Err(mismatch())
        }
    }
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
    digits
        .then(|| port.parse().ok())
        .flatten()
        .map(|port| (host, Some(port)))
}

fn values<'b>(
    request: &httparse::Request<'_, 'b>,
    name: &'static str,
) -> impl Iterator<Item = &'b [u8]> {
    request
        .headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// RFC 9112 section 6.3, with everything refused that has been used to smuggle requests.
fn body(request: &httparse::Request<'_, '_>) -> Result<Place, Reason> {
    let mut lengths = values(request, "content-length");
    let mut codings = values(request, "transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Place::Head),
        (Some(length), None) => {
            if lengths.next().is_some() {
                return Err(not_http("a request has two lengths"));
            }
            std::str::from_utf8(length)
                .ok()
                .filter(|length| length.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|length| length.parse().ok())
                .map(|length| {
                    if length == 0 {
                        Place::Head
                    } else {
                        Place::Body(length)
                    }
                })
                .ok_or_else(|| not_http("a request's length is not a number"))
        }
        (None, Some(coding)) => {
            let chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !chunked || codings.next().is_some() || request.version != Some(1) {
                return Err(not_http("a request's transfer coding is not just chunked"));
            }
            Ok(Place::ChunkSize)
        }
        (Some(_), Some(_)) => Err(not_http(
            "a request has both a length and a transfer coding",
        )),
    }
}

/// The length of the first line with its end, or nothing if it is not all there.
fn line(bytes: &[u8], longest: usize) -> Result<Option<usize>, Reason> {
    match bytes.iter().position(|b| *b == b'\n') {
        Some(end) if end > longest => Err(not_http("a line of a chunked body is too long")),
        Some(end) if has_lone_line_end(&bytes[..=end]) => {
            Err(not_http("a line of a chunked body ends without CRLF"))
        }
        Some(end) => Ok(Some(end + 1)),
        None if bytes.len() > longest => Err(not_http("a line of a chunked body is too long")),
        None => Ok(None),
    }
}

/// Whether there is a CR or LF without the other, which recipients read in different ways.
fn has_lone_line_end(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, b)| match b {
        b'\n' => at == 0 || bytes[at - 1] != b'\r',
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    })
}

fn not_http(what: &str) -> Reason {
    Reason::new(ReasonCode::NotHttp, what)
}

#[cfg(test)]
mod tests;
