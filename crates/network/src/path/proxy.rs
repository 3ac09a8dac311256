//! Asking a proxy for a connection with HTTP `CONNECT` (RFC 9110 section 9.3.6).

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::inspect::Target;

/// The longest answer that is read.
const MAX_ANSWER: usize = 8 * 1024;

/// Why a proxy made no connection.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// There is no connection with the proxy itself.
    #[error("the proxy cannot be talked to")]
    Connection(#[source] io::Error),
    /// It answered, and the answer is not 2xx.
    #[error("the proxy answered with status {0}")]
    Status(u16),
    /// It answered with something else than HTTP, or with too much of it.
    #[error("the proxy's answer is not HTTP")]
    Malformed,
}

/// Turns a connection with a proxy into one with `target`.
pub(super) async fn ask(
    mut stream: TcpStream,
    target: &Target,
    port: u16,
) -> Result<TcpStream, ProxyError> {
    let authority = match target {
        Target::Address(std::net::IpAddr::V6(address)) => format!("[{address}]:{port}"),
        target => format!("{target}:{port}"),
    };
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(ProxyError::Connection)?;
    let mut answer = Vec::with_capacity(256);
    // What follows the answer's head is the other side's first word and stays in the socket, so
    // the head is taken in no more bytes than it has: an answer of 2xx has no body.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err(ProxyError::Malformed);
        }
        let byte = stream.read_u8().await.map_err(ProxyError::Connection)?;
        answer.push(byte);
    }
    accepted(&answer).map(|()| stream)
}

/// Whether the head of a proxy's answer says that there is a connection. Any bytes are safe.
///
/// # Errors
/// [`ProxyError::Status`], [`ProxyError::Malformed`].
pub fn accepted(head: &[u8]) -> Result<(), ProxyError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => match response.code {
            Some(200..=299) => Ok(()),
            Some(status) => Err(ProxyError::Status(status)),
            None => Err(ProxyError::Malformed),
        },
        _ => Err(ProxyError::Malformed),
    }
}
