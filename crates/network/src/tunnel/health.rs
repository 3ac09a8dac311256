//! What can be told of a tunnel that runs.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a tunnel does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelHealth {
    /// Each peer, in the order of the configuration.
    pub peers: Vec<PeerHealth>,
    /// Datagrams that were no message of any peer's: noise, wrong keys, or an attack.
    pub stray_datagrams: u64,
    /// Packets of ours that no peer's `allowed_ips` lead to.
    pub unroutable_packets: u64,
}

/// How a peer does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerHealth {
    /// Its key, in base64.
    pub public_key: String,
    /// Where it was last heard from, or is expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Whether it carries traffic.
    pub up: bool,
    /// Why it does not; nothing if it was not asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time since the last handshake, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_age_ms: Option<u64>,
    /// The last handshake's round trip, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<u64>,
    /// Bytes of packets sent to it.
    pub bytes_sent: u64,
    /// Bytes of packets received from it and let in.
    pub bytes_received: u64,
    /// Its packets that were not let in: from outside its `allowed_ips`, or not to us.
    pub foreign_packets: u64,
    /// Its messages that were repeated, out of any session, or broken.
    pub refused_messages: u64,
}
