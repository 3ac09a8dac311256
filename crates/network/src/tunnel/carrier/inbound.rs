//! From the peers to the device.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use boringtun::noise::{Packet, Tunn, TunnResult, handshake::parse_handshake_anon};
use quinn_udp::RecvMeta;
use tokio::{io::Interest, time::Instant};

use super::{Core, MAX_HANDSHAKE, Peer};
use crate::tunnel::packet;

/// A buffer has what the kernel put together of many datagrams.
const BUFFER: usize = 1 << 16;
/// How many of them are taken by one call.
const BUFFERS: usize = 8;
/// A cookie in place of an answer, with which an address is proved.
const COOKIE_BYTES: usize = 64;

/// How long to wait when the socket fails and nobody knows why: trying again at once, as often as a
/// core can, would help nobody.
const RECEIVE_PAUSE: Duration = Duration::from_millis(20);

/// The first byte of each message.
mod kind {
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const COOKIE: u8 = 3;
}

/// Carries until aborted.
pub(super) async fn carry(core: Arc<Core>) {
    let mut storage = vec![0; BUFFER * BUFFERS];
    let mut metas = [RecvMeta::default(); BUFFERS];
    let mut plain = vec![0; BUFFER + MAX_HANDSHAKE];
    let mut told = Told::default();
    loop {
        let mut buffers: Vec<_> = storage.chunks_mut(BUFFER).map(IoSliceMut::new).collect();
        let received = core.socket.async_io(Interest::READABLE, || {
            core.udp
                .recv((&core.socket).into(), &mut buffers, &mut metas)
        });
        let count = match received.await {
            Ok(count) => count,
            // What a peer's host says of a port where nobody listens, and the like; it is told
            // once, and the next call is about something else.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => {
                told.tell_and_pause(&error).await;
                continue;
            }
        };
        for (buffer, meta) in storage.chunks(BUFFER).zip(&metas).take(count) {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let received = &buffer[..meta.len.min(BUFFER)];
            for datagram in received.chunks(meta.stride.max(1)) {
                take(&core, datagram, from, &mut plain);
            }
        }
        tokio::task::coop::consume_budget().await;
    }
}

/// The kinds of errors that were told; there are not many kinds.
#[derive(Debug, Default)]
struct Told(Vec<io::ErrorKind>);

impl Told {
    /// Tells of an error, if it is the first of its kind, and waits until the next try. Cancel-safe.
    async fn tell_and_pause(&mut self, error: &io::Error) {
        if !self.0.contains(&error.kind()) {
            self.0.push(error.kind());
            tracing::warn!(%error, "the socket of a tunnel received nothing");
        }
        tokio::time::sleep_until(Instant::now() + RECEIVE_PAUSE).await;
    }
}

/// Takes one datagram from anybody.
fn take(core: &Core, datagram: &[u8], from: SocketAddr, plain: &mut [u8]) {
    let Some(peer) = sender(core, datagram, from) else {
        core.strays.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let was_up = peer.is_up();
    let is_cookie = |message: &[u8]| message.first() == Some(&kind::COOKIE);
    let result = peer.session().decapsulate(Some(from.ip()), datagram, plain);
    match result {
        TunnResult::Err(_) => return peer.note_refused(),
        // Nothing of the sender is proved yet: it is told how to prove its address.
        TunnResult::WriteToNetwork(answer) if is_cookie(answer) => {
            return core.send_or_drop(from, answer);
        }
        // It wants a proof of us, which the next handshake has.
        TunnResult::Done if is_cookie(datagram) => return,
        TunnResult::Done => peer.note_heard(from),
        TunnResult::WriteToNetwork(answer) => {
            peer.note_heard(from);
            core.send_or_drop(from, answer);
        }
        TunnResult::WriteToTunnelV4(packet, source) => {
            peer.note_heard(from);
            admit(core, peer, packet, source.into());
        }
        TunnResult::WriteToTunnelV6(packet, source) => {
            peer.note_heard(from);
            admit(core, peer, packet, source.into());
        }
    }
    if datagram.first() == Some(&kind::RESPONSE) {
        send_what_waited(core, &mut peer.session(), from, plain);
    }
    if !was_up {
        core.established.send_replace(());
    }
}

/// The peer that a datagram claims to be of, once its claim is worth the arithmetic.
fn sender<'a>(core: &'a Core, datagram: &[u8], from: SocketAddr) -> Option<&'a Arc<Peer>> {
    let mut cookie = [0; COOKIE_BYTES];
    let looked_at = core
        .limiter
        .verify_packet(Some(from.ip()), datagram, &mut cookie);
    let index = match looked_at {
        Ok(Packet::HandshakeInit(message)) => {
            let secret = core.private_key.secret();
            let public = core.private_key.public_key().point();
            let opened = parse_handshake_anon(secret, &public, &message).ok()?;
            *core.by_key.get(&opened.peer_static_public)?
        }
        Ok(Packet::HandshakeResponse(message)) => addressee(message.receiver_idx),
        Ok(Packet::PacketCookieReply(message)) => addressee(message.receiver_idx),
        Ok(Packet::PacketData(message)) => addressee(message.receiver_idx),
        Err(TunnResult::WriteToNetwork(cookie)) => {
            core.send_or_drop(from, cookie);
            return None;
        }
        Err(_) => return None,
    };
    core.peers.get(index)
}

/// The peer that we have given a session's number to: all but its last eight bits.
fn addressee(index: u32) -> usize {
    (index >> 8) as usize
}

/// Lets a packet of a peer in, if it is from where the peer may send from, and to us.
fn admit(core: &Core, peer: &Arc<Peer>, packet: &[u8], source: IpAddr) {
    let is_theirs = core
        .peer_of(source)
        .is_some_and(|owner| Arc::ptr_eq(owner, peer));
    let is_for_us = packet::ends(packet).is_some_and(|ends| core.is_own(ends.destination));
    if is_theirs && is_for_us {
        peer.note_received(packet.len());
        core.deliver(packet);
    } else {
        peer.note_foreign();
    }
}

/// Sends the packets that waited for the session.
fn send_what_waited(core: &Core, session: &mut Tunn, to: SocketAddr, buffer: &mut [u8]) {
    while let TunnResult::WriteToNetwork(message) = session.decapsulate(None, &[], buffer) {
        core.send_or_drop(to, message);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, os::fd::OwnedFd, pin::pin};

    use base64::{Engine, prelude::BASE64_STANDARD};

    use super::*;
    use crate::tunnel::{PeerConfig, PrivateKey, TunnelConfig};

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_fails_is_not_asked_without_a_pause() -> TestResult {
        let key = |byte| PrivateKey::from_base64(BASE64_STANDARD.encode([byte; 32]).as_bytes());
        let config = TunnelConfig {
            private_key: key(1)?,
            addresses: Vec::new(),
            listen_port: 0,
            peers: vec![PeerConfig {
                public_key: key(2)?.public_key(),
                preshared_key: None,
                endpoint: None,
                allowed_ips: vec!["10.0.0.0/8".parse()?],
                keepalive: None,
            }],
        };
        let (device, _end) = io::pipe()?;
        let mut core = Core::new(config, device.into())?;
        // It has something to say, and what is asked of a socket of datagrams always fails.
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let _client = std::net::TcpStream::connect(listener.local_addr()?)?;
        core.socket = tokio::net::UdpSocket::from_std(OwnedFd::from(listener).into())?;

        let mut carried = pin!(carry(Arc::new(core)));
        let mut times = 0;
        let counted = poll_fn(|context| {
            times += 1;
            assert!(times < 1_000, "it goes on without a pause");
            carried.as_mut().poll(context)
        });
        let ended = tokio::time::timeout(RECEIVE_PAUSE * 50, counted).await;
        assert!(ended.is_err(), "it gave up");
        assert!((25..=200).contains(&times), "{times} times in 50 pauses");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_failure_is_told_once() {
        let mut told = Told::default();
        let start = Instant::now();
        for kind in [io::ErrorKind::NotConnected, io::ErrorKind::OutOfMemory] {
            for _ in 0..3 {
                told.tell_and_pause(&kind.into()).await;
            }
        }
        assert_eq!(told.0.len(), 2);
        assert!(start.elapsed() >= RECEIVE_PAUSE * 6);
    }
}
