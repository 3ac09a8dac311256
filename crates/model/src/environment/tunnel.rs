//! A WireGuard tunnel that the platform keeps itself.

use std::{collections::BTreeSet, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::Vpn;
use crate::text::{HostPort, IpRange, OwnAddress, PeerKey, SecretName};

/// A WireGuard tunnel in user space. Its keys are secrets of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelSpec {
    /// The secret that has our private key, as `wg genkey` writes it.
    pub private_key: SecretName,
    /// Our own addresses in the tunnel.
    #[schemars(length(min = 1, max = 16))]
    pub address: Vec<OwnAddress>,
    /// The largest packet in bytes; 1,420 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_280, max = 65_000))]
    pub mtu: Option<u16>,
    /// Who is on the other side.
    #[schemars(length(min = 1, max = 64))]
    pub peers: Vec<PeerSpec>,
}

/// A peer of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// Its public key.
    pub public_key: PeerKey,
    /// The secret that has the key shared with it besides, as `wg genpsk` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<SecretName>,
    /// Where it listens.
    pub endpoint: HostPort,
    /// What lies behind it, and what it may send from.
    #[schemars(length(min = 1, max = 1_000))]
    pub allowed_ips: Vec<IpRange>,
    /// Every how many seconds it hears from us though there is nothing to say, which keeps NATs
    /// open; never unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub keepalive: Option<u16>,
}

/// What a `vpn` says that cannot be.
pub(super) struct Fault {
    /// Where, below `vpn`.
    pub(super) pointer: String,
    pub(super) message: String,
    pub(super) help: &'static str,
}

impl Vpn {
    /// What the profile leads to: its ranges, or what lies behind the tunnel's peers.
    pub fn reachable(&self) -> Vec<IpRange> {
        match &self.tunnel {
            Some(tunnel) if self.ranges.is_empty() => tunnel.behind().collect(),
            _ => self.ranges.clone(),
        }
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        let fault = |pointer: &str, message: String, help| Fault {
            pointer: pointer.to_owned(),
            message,
            help,
        };
        match (&self.interface, &self.tunnel) {
            (Some(_), None) if self.ranges.is_empty() => {
                let message = "an interface leads nowhere without `ranges`".to_owned();
                vec![fault(
                    "",
                    message,
                    "say which addresses lie behind it: `ranges: [10.0.0.0/8]`",
                )]
            }
            (Some(_), None) => Vec::new(),
            (None, Some(tunnel)) => {
                let mut faults = tunnel.faults();
                for (at, range) in self.ranges.iter().enumerate() {
                    if !tunnel.behind().any(|behind| behind.covers(*range)) {
                        let message = format!("no peer's `allowed_ips` have all of {range}");
                        let help = "leave `ranges` out to lead wherever the tunnel does";
                        faults.push(fault(&format!("/ranges/{at}"), message, help));
                    }
                }
                let resolver = self.resolver.map(|resolver| resolver.socket_addr().ip());
                if let Some(address) = resolver
                    && !tunnel.behind().any(|behind| behind.contains(address))
                {
                    let message = format!("the resolver {address} is not behind the tunnel");
                    let help = "names would leak to where the tunnel does not lead; add it to the \
                                `allowed_ips` of its peer";
                    faults.push(fault("/resolver", message, help));
                }
                faults
            }
            (both, _) => {
                let message = if both.is_some() {
                    "an interface that exists and a tunnel of our own exclude each other"
                } else {
                    "neither an `interface` nor a `tunnel` is given"
                };
                let help =
                    "write `interface: wg0` for one that exists, or `tunnel` for one of our own";
                vec![fault("", message.to_owned(), help)]
            }
        }
    }
}

impl TunnelSpec {
    /// What lies behind any of the peers.
    fn behind(&self) -> impl Iterator<Item = IpRange> {
        self.peers
            .iter()
            .flat_map(|peer| peer.allowed_ips.iter().copied())
    }

    fn faults(&self) -> Vec<Fault> {
        let fault = |pointer: String, message: String, help| Fault {
            pointer: format!("/tunnel{pointer}"),
            message,
            help,
        };
        let mut faults = Vec::new();
        let mut own: BTreeSet<IpAddr> = BTreeSet::new();
        for (at, address) in self.address.iter().enumerate() {
            if !own.insert(address.address()) {
                let message = format!("{} is there twice", address.address());
                faults.push(fault(format!("/address/{at}"), message, "write it once"));
            }
        }
        let mut keys = BTreeSet::new();
        let mut networks = BTreeSet::new();
        for (index, peer) in self.peers.iter().enumerate() {
            if !keys.insert(&peer.public_key) {
                let message = "two peers have the same public key".to_owned();
                let help = "put all its `allowed_ips` into one";
                faults.push(fault(format!("/peers/{index}/public_key"), message, help));
            }
            for (at, range) in peer.allowed_ips.iter().enumerate() {
                let pointer = format!("/peers/{index}/allowed_ips/{at}");
                if !networks.insert(*range) {
                    let message = format!("{range} is allowed twice");
                    let help = "a range belongs to one peer; a longer prefix wins over a shorter";
                    faults.push(fault(pointer, message, help));
                } else if !own.iter().any(|own| own.is_ipv4() == range.is_ipv4()) {
                    let message = format!("nothing can be sent to {range}");
                    let help = "give the tunnel an `address` of that family";
                    faults.push(fault(pointer, message, help));
                }
            }
        }
        faults
    }
}
