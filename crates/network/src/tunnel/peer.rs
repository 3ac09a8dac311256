//! One peer: its session, where it is, and whether it answers.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use boringtun::noise::Tunn;
use tokio::time::Instant;

use super::{PeerHealth, PublicKey, REJECT_AFTER};
use crate::inspect::Target;

/// A peer that has not answered for this long has gone (`Keepalive-Timeout` and `Rekey-Timeout`):
/// it says something within the first of them though it has nothing to say.
const SILENCE: Duration = Duration::from_secs(15);

/// Whether a peer carries traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PeerState {
    /// It does.
    Up { handshake_age: Duration },
    /// There is no session, and nobody has asked for one.
    Dormant,
    /// It does not, though it was asked to.
    Down { reason: String },
}

/// One peer.
pub(super) struct Peer {
    pub(super) key: PublicKey,
    /// Where it is to be found by its configuration.
    pub(super) configured: Option<(Target, u16)>,
    session: Mutex<Tunn>,
    endpoint: Mutex<Option<SocketAddr>>,
    start: Instant,
    /// When the first thing was sent to which there is no answer, in milliseconds since the start,
    /// and one more; 0 if everything was answered.
    unanswered_ms: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    foreign: AtomicU64,
    refused: AtomicU64,
}

impl Peer {
    pub(super) fn new(key: PublicKey, configured: Option<(Target, u16)>, session: Tunn) -> Self {
        let endpoint = match &configured {
            Some((Target::Address(address), port)) => Some(SocketAddr::new(*address, *port)),
            _ => None,
        };
        Self {
            key,
            configured,
            session: Mutex::new(session),
            endpoint: Mutex::new(endpoint),
            start: Instant::now(),
            unanswered_ms: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// A panic elsewhere leaves a session that at worst refuses what comes.
    pub(super) fn session(&self) -> MutexGuard<'_, Tunn> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is there from now on.
    pub(super) fn moved_to(&self, endpoint: SocketAddr) {
        *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(endpoint);
    }

    /// A packet was sent to it.
    pub(super) fn note_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.note_asked();
    }

    /// It was sent something that it will answer.
    pub(super) fn note_asked(&self) {
        if self.unanswered_ms.load(Ordering::Relaxed) == 0 {
            let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.unanswered_ms.store(passed + 1, Ordering::Relaxed);
        }
    }

    /// It said something with a good key.
    pub(super) fn note_heard(&self, from: SocketAddr) {
        self.unanswered_ms.store(0, Ordering::Relaxed);
        let mut endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if *endpoint != Some(from) {
            *endpoint = Some(from);
        }
    }

    pub(super) fn note_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn note_foreign(&self) {
        self.foreign.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state(), PeerState::Up { .. })
    }

    pub(super) fn state(&self) -> PeerState {
        let down = |reason: String| PeerState::Down { reason };
        let age = self.session().time_since_last_handshake();
        let key = self.key;
        let silent = match self.unanswered_ms.load(Ordering::Relaxed) {
            0 => None,
            since => {
                let since = Duration::from_millis(since - 1);
                Some(self.start.elapsed().saturating_sub(since))
            }
        };
        match age {
            None if silent.is_none() => PeerState::Dormant,
            None if self.endpoint().is_none() => down(format!("peer {key} has no address yet")),
            None => down(format!("there is no session with peer {key}")),
            Some(age) if age >= REJECT_AFTER => down(format!(
                "the last handshake with peer {key} was {} s ago",
                age.as_secs()
            )),
            Some(handshake_age) => match silent {
                Some(silent) if silent >= SILENCE => down(format!(
                    "peer {key} has not answered for {} s",
                    silent.as_secs()
                )),
                _ => PeerState::Up { handshake_age },
            },
        }
    }

    /// Of the last handshake that we asked for.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        let (_, _, _, _, round_trip) = self.session().stats();
        round_trip.map(|ms| Duration::from_millis(ms.into()))
    }

    pub(super) fn health(&self) -> PeerHealth {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (up, reason) = match self.state() {
            PeerState::Up { .. } => (true, None),
            PeerState::Dormant => (false, None),
            PeerState::Down { reason } => (false, Some(reason)),
        };
        let age = self.session().time_since_last_handshake();
        PeerHealth {
            public_key: self.key.to_string(),
            endpoint: self.endpoint(),
            up,
            reason,
            handshake_age_ms: age.map(millis),
            round_trip_ms: self.round_trip().map(millis),
            bytes_sent: self.sent.load(Ordering::Relaxed),
            bytes_received: self.received.load(Ordering::Relaxed),
            foreign_packets: self.foreign.load(Ordering::Relaxed),
            refused_messages: self.refused.load(Ordering::Relaxed),
        }
    }
}
