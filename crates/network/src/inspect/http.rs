//! HTTP/1.1 requests in the clear (RFC 9112): each one on a connection must name the host.
//!
//! Follows the framing of requests, so that a later request of the same connection cannot name
//! another host. What recipients are known to read in different ways is refused, not guessed; what
//! is passed on is written anew from what was understood, so that the other side has nothing else
//! to read.
//!
//! One difference cannot be written away: a server that does not read a body takes it for the next
//! request. So a method that has none by its meaning may have none, and any other request is the
//! last of its connection, and says so, if its body is long or has blanks or line ends in it.

mod head;

use self::head::Framing;
use super::{MAX_HEAD, Target};
use crate::reason::{Reason, ReasonCode};

const MAX_HEADERS: usize = 128;
const MAX_CHUNK_LINE: usize = 1_024;

/// Where in a connection's requests the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    /// After the chunk of no bytes, where trailers would be.
    Trailers,
    /// Behind the last request.
    End,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Requests {
    target: Target,
    port: u16,
    place: Place,
    /// How many of the bytes that were offered and not taken have been looked at.
    seen: usize,
    /// How many have to be there before it is worth looking again.
    awaited: usize,
}

impl Requests {
    /// For a connection with a port of a host, of which nothing has come yet.
    pub fn new(target: Target, port: u16) -> Self {
        Self {
            target,
            port,
            place: Place::Head,
            seen: 0,
            awaited: 0,
        }
    }

    /// Takes what can be taken of the bytes, and adds to `forward` what is to be passed on for it.
    /// Tells how many were taken: they are not offered again, the others are, with what came after
    /// them.
    ///
    /// # Errors
    /// Why nothing more may pass: a request is for another host, or is none.
    pub fn advance(&mut self, bytes: &[u8], forward: &mut Vec<u8>) -> Result<usize, Reason> {
        let mut taken = 0;
        while taken < bytes.len() {
            let step = self.step(&bytes[taken..], forward)?;
            if step == 0 {
                break;
            }
            (self.seen, self.awaited) = (0, 0);
            taken += step;
        }
        Ok(taken)
    }

    fn step(&mut self, bytes: &[u8], forward: &mut Vec<u8>) -> Result<usize, Reason> {
        match self.place {
            Place::Head => match bytes {
                // Empty lines before a request mean nothing (RFC 9112 section 2.2).
                [b'\r', b'\n', ..] => Ok(2),
                _ => self.head(bytes, forward),
            },
            Place::Body(left) => Ok(self.pass(bytes, left, Place::Body, Place::End, forward)),
            Place::Chunk(left) => {
                Ok(self.pass(bytes, left, Place::Chunk, Place::ChunkEnd, forward))
            }
            Place::ChunkSize => self.chunk_size(bytes, forward),
            Place::ChunkEnd => {
                let longer = "a chunk is longer than it says";
                self.line_end(bytes, Place::ChunkSize, longer, forward)
            }
            Place::Trailers => {
                let more = "a request has trailers, which recipients take for different things";
                self.line_end(bytes, Place::End, more, forward)
            }
            Place::End => match bytes {
                [b'\r', b'\n', ..] => Ok(2),
                [b'\r'] => Ok(0),
                _ => Err(not_http(
                    "a request comes after one that is the last of its connection: one with a \
                     body of several words, of HTTP/1.0, or with `Connection: close`",
                )),
            },
        }
    }

    fn pass(
        &mut self,
        bytes: &[u8],
        left: u64,
        stay: fn(u64) -> Place,
        next: Place,
        forward: &mut Vec<u8>,
    ) -> usize {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - here as u64;
        self.place = if left == 0 { next } else { stay(left) };
        forward.extend_from_slice(&bytes[..here]);
        here
    }

    /// A line end must be there, and nothing before it.
    fn line_end(
        &mut self,
        bytes: &[u8],
        next: Place,
        otherwise: &str,
        forward: &mut Vec<u8>,
    ) -> Result<usize, Reason> {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.place = next;
                forward.extend_from_slice(b"\r\n");
                Ok(2)
            }
            [b'\r'] => Ok(0),
            _ => Err(not_http(otherwise)),
        }
    }

    /// Extensions are passed over (RFC 9112 section 7.1.1): they would be for us.
    fn chunk_size(&mut self, bytes: &[u8], forward: &mut Vec<u8>) -> Result<usize, Reason> {
        let Some(end) = line(bytes)? else {
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
        forward.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        self.place = match size {
            0 => Place::Trailers,
            size => Place::Chunk(size),
        };
        Ok(end)
    }

    fn head(&mut self, bytes: &[u8], forward: &mut Vec<u8>) -> Result<usize, Reason> {
        if bytes.len() < self.awaited {
            return Ok(0);
        }
        let new = &bytes[self.seen.min(bytes.len())..];
        // Only whole lines are read, and again only when there is another: who sends a head byte by
        // byte does not have it read as often.
        let last_line = new.iter().rposition(|b| *b == b'\n');
        let lines = last_line.map(|end| bytes.len() - new.len() + end + 1);
        self.seen = bytes.len();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = match lines {
            Some(lines) => request.parse(&bytes[..lines]),
            None => Ok(httparse::Status::Partial),
        };
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Partial) if new.iter().any(|b| is_control(*b)) => {
                return Err(not_http("a request head has control characters"));
            }
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(0),
            Ok(_) => {
                let text = format!("a request head is longer than {MAX_HEAD} bytes");
                return Err(Reason::new(ReasonCode::HeadTooLarge, text));
            }
            Err(httparse::Error::TooManyHeaders) => {
                let text = format!("a request has more than {MAX_HEADERS} header fields");
                return Err(Reason::new(ReasonCode::HeadTooLarge, text));
            }
            Err(fault) => return Err(not_http(format!("a request is malformed: {fault}"))),
        };
        if bytes[..length].iter().any(|b| is_control(*b)) {
            return Err(not_http("a request head has control characters"));
        }
        if has_lone_line_end(&bytes[..length]) {
            return Err(not_http("a line of a request head ends without CRLF"));
        }
        let mut head = head::Head::read(&request, &self.target, self.port)?;
        let body = match short_body(&head, length) {
            Some(end) if bytes.len() < end => {
                (self.seen, self.awaited) = (0, end);
                return Ok(0);
            }
            Some(end) => &bytes[length..end],
            None => &[],
        };
        if !body.is_empty() && body.iter().all(u8::is_ascii_graphic) {
            head.is_last = false;
            head.write(&mut *forward);
            forward.extend_from_slice(body);
            return Ok(length + body.len());
        }
        head.write(&mut *forward);
        self.place = match head.framing {
            Framing::Length(length) if length > 0 => Place::Body(length),
            Framing::Chunked => Place::ChunkSize,
            Framing::None | Framing::Length(_) if head.is_last => Place::End,
            Framing::None | Framing::Length(_) => Place::Head,
        };
        Ok(length)
    }
}

/// Where the body of a request ends that is short enough to be looked at as a whole, before any of it
/// is passed on. One without blanks and line ends, as forms are sent, leaves a server that does not
/// read it nothing to misread but the method of the next request; so another may follow.
fn short_body(head: &head::Head<'_>, length: usize) -> Option<usize> {
    match head.framing {
        Framing::Length(body) if head.is_last_by_body => usize::try_from(body)
            .ok()
            .and_then(|body| length.checked_add(body))
            .filter(|end| *end <= MAX_HEAD),
        _ => None,
    }
}

/// The length of the first line with its end, or nothing if it is not all there.
fn line(bytes: &[u8]) -> Result<Option<usize>, Reason> {
    match bytes.iter().position(|b| *b == b'\n') {
        Some(end) if end > MAX_CHUNK_LINE => Err(not_http("a line of a chunked body is too long")),
        Some(end) if has_lone_line_end(&bytes[..=end]) => {
            Err(not_http("a line of a chunked body ends without CRLF"))
        }
        Some(end) => Ok(Some(end + 1)),
        None if bytes.len() > MAX_CHUNK_LINE => {
            Err(not_http("a line of a chunked body is too long"))
        }
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

/// What no head has; some recipients take it for blanks or line ends.
fn is_control(b: u8) -> bool {
    b.is_ascii_control() && !matches!(b, b'\r' | b'\n' | b'\t')
}

fn not_http(what: impl Into<String>) -> Reason {
    Reason::new(ReasonCode::NotHttp, what)
}

#[cfg(test)]
mod tests;
