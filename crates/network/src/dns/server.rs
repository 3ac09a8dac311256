//! The sockets of a sandbox's name server.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};

use super::responder::{Transport, respond};
use crate::{broker::Shared, reason::ReasonCode};

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

/// Answers datagrams until the socket fails for good.
pub(crate) async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let server = socket.local_addr().ok().map(|address| address.ip());
    let mut buffer = vec![0; MAX_UDP];
    let mut failures = 0;
    while failures < MAX_FAILURES {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "no query could be received");
                continue;
            }
        };
        failures = 0;
        if let Some(answer) = answer(&buffer[..length], Transport::Udp, server, &shared)
            && let Err(error) = socket.send_to(&answer, client).await
        {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }
    tracing::warn!("the sandbox's name server stopped: its socket fails");
}

/// Answers connections until the listener fails for good.
pub(crate) async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let server = listener.local_addr().ok().map(|address| address.ip());
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failures = 0;
    while failures < MAX_FAILURES {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                failures = 0;
                let shared = shared.clone();
                let stop = shared.stop.clone();
                tokio::spawn(async move {
                    let _slot = slot;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        ended = converse(stream, server, &shared) => if let Err(error) = ended {
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

/// Each message has its length before it (RFC 1035 section 4.2.2, RFC 7766).
async fn converse(
    mut stream: TcpStream,
    server: Option<IpAddr>,
    shared: &Shared,
) -> io::Result<()> {
    for _ in 0..MAX_QUERIES {
        let query = async {
            let length = stream.read_u16().await?;
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await?;
            io::Result::Ok(query)
        };
        let query = tokio::time::timeout(PATIENCE, query).await??;
        let Some(answer) = answer(&query, Transport::Tcp, server, shared) else {
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

fn answer(
    query: &[u8],
    transport: Transport,
    server: Option<IpAddr>,
    shared: &Shared,
) -> Option<Vec<u8>> {
    let Some(attempt) = shared.attempt() else {
        shared.count_unattributed();
        return None;
    };
    if !attempt.admits_lookup() {
        attempt.refuse_lookup(None, server, ReasonCode::LookupsTooFast);
        return None;
    }
    let response = respond(query, transport, attempt.as_ref());
    if let Some((name, code)) = response.refused {
        attempt.refuse_lookup(name, server, code);
    }
    response.bytes
}
