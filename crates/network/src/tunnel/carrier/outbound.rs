//! From the device to the peers.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering};

use boringtun::noise::TunnResult;
use rustix::io::Errno;

use super::{Core, MAX_HANDSHAKE};
use crate::tunnel::packet;

/// The largest packet of a device.
const MAX_PACKET: usize = 1 << 16;
/// What a message has besides the packet.
const OVERHEAD: usize = 32;
/// What is sent by one call at most, which the kernel cuts into messages again.
const MAX_RUN: usize = 60_000;
/// Packets that are read before what they became is sent, though there were more.
const AT_ONCE: usize = 64;

/// Carries until the device is gone.
pub(super) async fn carry(core: Arc<Core>) {
    let mut packet = vec![0; MAX_PACKET];
    let mut run = Run::new();
    loop {
        let Ok(mut ready) = core.device.readable().await else {
            return;
        };
        for _ in 0..AT_ONCE {
            match rustix::io::read(core.device.get_ref(), packet.as_mut_slice()) {
                Ok(length) => encapsulate(&core, &packet[..length], &mut run).await,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(_) => return,
            }
        }
        run.flush(&core).await;
        tokio::task::coop::consume_budget().await;
    }
}

async fn encapsulate(core: &Core, packet: &[u8], run: &mut Run) {
    // What has another source is nothing that a socket of ours sent.
    let ends = packet::ends(packet).filter(|ends| core.is_own(ends.source));
    let Some(peer) = ends.and_then(|ends| core.peer_of(ends.destination)) else {
        core.unroutable.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let room = run.room(packet.len());
    let length = match peer.session().encapsulate(packet, room) {
        TunnResult::WriteToNetwork(message) => message.len(),
        // It waits for a session, with a bounded number of others.
        _ => 0,
    };
    peer.note_sent(packet.len());
    if let (Some(to), 1..) = (peer.endpoint(), length) {
        run.add(core, to, length).await;
    }
}

/// Messages one after another to one place, of one size but for the last.
struct Run {
    bytes: Vec<u8>,
    used: usize,
    size: usize,
    count: usize,
    to: Option<SocketAddr>,
}

impl Run {
    fn new() -> Self {
        Self {
            bytes: vec![0; MAX_RUN + MAX_PACKET + OVERHEAD + MAX_HANDSHAKE],
            used: 0,
            size: 0,
            count: 0,
            to: None,
        }
    }

    /// Where the message of a packet is written.
    fn room(&mut self, packet: usize) -> &mut [u8] {
        let wanted = (packet + OVERHEAD).max(MAX_HANDSHAKE);
        &mut self.bytes[self.used..self.used + wanted]
    }

    /// Adds the message that was written; sends what cannot go with it first.
    async fn add(&mut self, core: &Core, to: SocketAddr, length: usize) {
        let ended = self.used != self.size * self.count;
        // Fewer once a device has refused to cut them.
        let most = core.udp.max_gso_segments();
        let fits = self.count < most
            && self.to == Some(to)
            && length <= self.size
            && !ended
            && self.used + length <= MAX_RUN;
        if self.count > 0 && !fits {
            let written = self.used..self.used + length;
            self.flush(core).await;
            self.bytes.copy_within(written, 0);
        }
        if self.count == 0 {
            (self.size, self.to) = (length, Some(to));
        }
        self.used += length;
        self.count += 1;
    }

    async fn flush(&mut self, core: &Core) {
        if let Some(to) = self.to.take() {
            core.send(to, &self.bytes[..self.used], self.size).await;
        }
        (self.used, self.size, self.count) = (0, 0, 0);
    }
}
