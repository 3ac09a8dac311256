//! From the peers to the device.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use boringtun::noise::{Packet, Tunn, TunnResult, handshake::parse_handshake_anon};
use quinn_udp::RecvMeta;
use tokio::io::Interest;

use super::{Core, MAX_HANDSHAKE, Peer};
use crate::tunnel::packet;

/// A buffer has what the kernel put together of many datagrams.
const BUFFER: usize = 1 << 16;
/// How many of them are taken by one call.
const BUFFERS: usize = 8;
/// A cookie in place of an answer, with which an address is proved.
const COOKIE_BYTES: usize = 64;

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
            Err(_) => {
                tokio::task::yield_now().await;
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
