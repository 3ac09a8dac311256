//! As much of HTTP/1.1 as a client of an API needs: one request after another on a connection, and
//! bodies whose length is told.

use std::io::{self, Read, Write};

/// Bytes of a request's head, and of its body.
const MOST_HEAD: usize = 16 << 10;
const MOST_BODY: usize = 64 << 10;
const MOST_HEADERS: usize = 64;

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    /// The method, as it was sent.
    pub(crate) method: String,
    /// The path, without the query.
    pub(crate) path: String,
    /// The query, decoded.
    pub(crate) query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The first parameter of this name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Reads the next request; `None` if there is no other.
pub(crate) fn read(stream: &mut impl Read) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let (mut request, head, length) = loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part)?;
        if count == 0 && bytes.is_empty() {
            return Ok(None);
        }
        bytes.extend_from_slice(&part[..count]);
        if let Some(parsed) = parse(&bytes)? {
            break parsed;
        }
        if count == 0 || bytes.len() > MOST_HEAD {
            return Err(malformed("its head has no end"));
        }
    };
    request.body = bytes.split_off(head);
    if length > MOST_BODY || request.body.len() > length {
        return Err(malformed("its body is longer than it may be"));
    }
    let have = request.body.len();
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body[have..])?;
    Ok(Some(request))
}

/// The request without its body, the bytes of its head, and the bytes that its body will have.
fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(bytes).map_err(malformed)? else {
        return Ok(None);
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        headers: parsed
            .headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value).into_owned();
                (header.name.to_owned(), value)
            })
            .collect(),
        body: Vec::new(),
    };
    if request.header("transfer-encoding").is_some() {
        return Err(malformed("the length of its body is not told"));
    }
    let length = request.header("content-length").map(str::parse);
    let length = length.transpose().map_err(malformed)?.unwrap_or(0);
    Ok(Some((request, head, length)))
}

fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Headers beyond those that every answer has.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The body: JSON, or nothing.
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status != 304 {
            bytes.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        bytes.push_str("\r\n");
        bytes.push_str(&self.body);
        bytes.into_bytes()
    }

    pub(crate) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        stream.write_all(&self.to_bytes())
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "Internal Server Error",
    }
}
