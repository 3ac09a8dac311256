//! The sockets of a sandbox's name server.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};

use super::responder::{Transport, respond};
use crate::{attempt::AttemptState, broker::Shared, capture::Capture, reason::ReasonCode};

/// The longest message that is looked at over UDP; queries are much shorter.
const MAX_UDP: usize = 4_096;
/// Connections to a name server at a time.
const MAX_CONNECTIONS: usize = 32;
/// Queries over one connection.
const MAX_QUERIES: usize = 1_000;
/// How long a connection may take for a query.
const PATIENCE: Duration = Duration::from_secs(10);
/// A socket that fails this often in a row is gone.
const MAX_FAILURES: u32 = 100;

/// Answers datagrams until the socket fails for good. On a socket of all addresses, each is answered
/// from the one that was asked.
pub(crate) async fn serve_udp(socket: LookupSocket, shared: Arc<Shared>) {
    let mut buffer = vec![0; MAX_UDP];
    let mut failures = 0;
    while failures < MAX_FAILURES {
        let received = match socket.receive(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "no query could be received");
                continue;
            }
        };
        failures = 0;
        if socket.is_of_all_addresses && received.asked.is_none_or(|asked| asked.is_loopback()) {
            // Loopback is the work's own, where we serve nobody.
            shared.pace_refusals().await;
            continue;
        }
        for query in buffer[..received.length].chunks(received.stride) {
            let Some(attempt) = admitted(received.asked, &shared) else {
                // Of several at once the others come too fast as well.
                shared.pace_refusals().await;
                break;
            };
            if let Some(answer) = answer(query, Transport::Udp, received.asked, &attempt)
                && let Err(error) = socket.answer(&answer, &received).await
            {
                tracing::debug!(%error, "an answer could not be sent");
            }
        }
    }
    tracing::warn!("the sandbox's name server stopped: its socket fails");
}

/// A socket of datagrams that tells to which address each was sent.
#[derive(Debug)]
pub(crate) struct LookupSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    is_of_all_addresses: bool,
}

/// What is known of datagrams besides what is in them.
struct Received {
    client: SocketAddr,
    /// The name server that was asked.
    asked: Option<IpAddr>,
    length: usize,
    /// How long each is, where a client sent several at once; at least 1.
    stride: usize,
}

impl LookupSocket {
    pub(crate) fn watch(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        let is_of_all_addresses = socket.local_addr()?.ip().is_unspecified();
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            state,
            is_of_all_addresses,
        })
    }

    /// Cancel-safe.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let room = buffer.len();
        let mut metas = [RecvMeta::default()];
        let receive = || {
            let mut buffers = [IoSliceMut::new(&mut *buffer)];
            let socket = (&self.socket).into();
            self.state.recv(socket, &mut buffers, &mut metas)
        };
        self.socket.async_io(Interest::READABLE, receive).await?;
        let [meta] = metas;
        Ok(Received {
            client: meta.addr,
            asked: meta.dst_ip.map(|asked| asked.to_canonical()),
            length: meta.len.min(room),
            stride: meta.stride.max(1),
        })
    }

    async fn answer(&self, answer: &[u8], to: &Received) -> io::Result<()> {
        let transmit = Transmit {
            destination: to.client,
            ecn: None,
            contents: answer,
            segment_size: None,
            src_ip: to.asked,
        };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        self.socket.async_io(Interest::WRITABLE, send).await
    }
}

/// Answers connections until the listener fails for good.
pub(crate) async fn serve_tcp(listener: TcpListener, capture: Capture, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failures = 0;
    while failures < MAX_FAILURES {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                failures = 0;
                let asked = asked_by(&stream, capture);
                // To take one in costs as much as to answer.
                if admitted(asked, &shared).is_none() {
                    drop(stream);
                    shared.pace_refusals().await;
                    continue;
                }
                let shared = shared.clone();
                let stop = shared.stop.clone();
                tokio::spawn(async move {
                    let _slot = slot;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        ended = converse(stream, asked, &shared) => if let Err(error) = ended {
                            tracing::debug!(%error, "a connection for lookups ended");
                        }
                    }
                });
            }
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "no connection for lookups could be accepted");
            }
        }
    }
    tracing::warn!("the sandbox's name server stopped: its listener fails");
}

/// The name server that a connection was made to. One that was not led here was made to where it is.
fn asked_by(stream: &TcpStream, capture: Capture) -> Option<IpAddr> {
    let destination = capture
        .destination(stream)
        .or_else(|_| stream.local_addr())
        .ok()?;
    Some(destination.ip())
}

/// Each message has its length before it (RFC 1035 section 4.2.2, RFC 7766).
async fn converse(mut stream: TcpStream, asked: Option<IpAddr>, shared: &Shared) -> io::Result<()> {
    for _ in 0..MAX_QUERIES {
        let query = async {
            let length = stream.read_u16().await?;
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await?;
            io::Result::Ok(query)
        };
        let query = tokio::time::timeout(PATIENCE, query).await??;
        let Some(attempt) = admitted(asked, shared) else {
            shared.pace_refusals().await;
            return Ok(());
        };
        let Some(answer) = answer(&query, Transport::Tcp, asked, &attempt) else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return Ok(());
        };
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// The attempt that asks, if there is one and it does not ask too fast.
fn admitted(asked: Option<IpAddr>, shared: &Shared) -> Option<Arc<AttemptState>> {
    let Some(attempt) = shared.attempt() else {
        shared.count_unattributed();
        return None;
    };
    if !attempt.admits_lookup() {
        attempt.refuse_lookup(None, asked, ReasonCode::LookupsTooFast);
        return None;
    }
    Some(attempt)
}

fn answer(
    query: &[u8],
    transport: Transport,
    asked: Option<IpAddr>,
    attempt: &AttemptState,
) -> Option<Vec<u8>> {
    let response = respond(query, transport, attempt);
    if let Some((name, code)) = response.refused {
        attempt.refuse_lookup(name, asked, code);
    }
    response.bytes
}
