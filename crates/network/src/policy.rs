//! What one attempt may reach, and how much of it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    str::FromStr,
    time::Duration,
};

use barecount_model::{
    class::NetworkProfile,
    manifest::{Egress, EgressProtocol},
    text::{EgressHost, InvalidText, IpRange},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::name::HostName;

/// What one attempt may reach. Everything else is refused, and recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// By which path the attempt's connections leave.
    pub profile: NetworkProfile,
    /// Whether what was not declared is refused or let through.
    #[serde(default)]
    pub mode: Mode,
    /// What may be reached.
    #[serde(default)]
    pub destinations: Vec<Destination>,
    /// How much of it.
    #[serde(default)]
    pub limits: Limits,
}

/// Whether what was not declared is refused or let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Refuse it.
    #[default]
    Enforce,
    /// Let it through by the profile's path and record it, so that an allow list can be learned.
    /// What the path itself does not lead to stays out of reach, and what is declared is held to
    /// its declaration.
    Audit,
}

/// A destination that was declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The name, as the work uses it, or the addresses.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
    /// What is spoken there.
    pub protocol: EgressProtocol,
}

/// The host of a declared destination: `db.example`, `10.1.2.3` or `10.1.0.0/16`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// Resolved when a connection is made.
    Name(HostName),
    /// Literal addresses, which only some profiles allow.
    Network(IpNet),
}

/// How much of the network an attempt may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at a time.
    pub max_flows: u32,
    /// New connections per second, with a burst of as many.
    pub new_flows_per_second: u32,
    /// Name lookups per second, with a burst of as many.
    pub dns_queries_per_second: u32,
    /// Bytes per second over all connections and both ways; unlimited unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// How long resolving a name and connecting to it may take.
    pub dial_timeout_ms: u64,
    /// How long the work may take to send a whole ClientHello or request head.
    pub inspect_timeout_ms: u64,
    /// How long a connection may carry nothing in either direction.
    pub idle_timeout_ms: u64,
    /// Flow records that an attempt may leave; what comes after is counted only.
    pub max_records: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 1_024,
            new_flows_per_second: 500,
            dns_queries_per_second: 500,
            bytes_per_second: None,
            dial_timeout_ms: 10_000,
            inspect_timeout_ms: 10_000,
            idle_timeout_ms: 300_000,
            max_records: 1_000,
        }
    }
}

impl Limits {
    pub(crate) fn dial_timeout(&self) -> Duration {
        Duration::from_millis(self.dial_timeout_ms)
    }

    pub(crate) fn inspect_timeout(&self) -> Duration {
        Duration::from_millis(self.inspect_timeout_ms)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }
}

/// Why a policy cannot be enforced as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// One port of one host cannot speak two protocols.
    #[error("port {port} of `{host}` is declared with two protocols")]
    TwoProtocols {
        /// The host.
        host: Host,
        /// The port.
        port: u16,
    },
    /// More than the broker keeps apart.
    #[error("{count} destinations are declared, {limit} is the most")]
    TooManyDestinations {
        /// How many.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// Nothing can be connected to on port 0.
    #[error("`{host}` is declared with port 0")]
    NoPort {
        /// The host.
        host: Host,
    },
}

impl Policy {
    const MAX_DESTINATIONS: usize = 10_000;

    /// Checks that the destinations do not contradict each other.
    pub fn check(&self) -> Result<(), PolicyError> {
        DeclaredDestinations::of(self).map(drop)
    }

    /// Every port that a destination names, for hosts on which only declared ports listen.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.destinations.iter().map(|to| to.port).collect()
    }
}

impl From<&Egress> for Destination {
    /// A destination as a manifest declares it.
    fn from(egress: &Egress) -> Self {
        Self {
            host: Host::from(&egress.host),
            port: egress.port,
            protocol: egress.protocol,
        }
    }
}

impl From<&EgressHost> for Host {
    fn from(host: &EgressHost) -> Self {
        match host {
            EgressHost::Name(name) => Self::Name(HostName::from(name)),
            EgressHost::Range(range) => Self::from(*range),
        }
    }
}

impl From<IpRange> for Host {
    fn from(range: IpRange) -> Self {
        let network = match range.single() {
            Some(address) => Some(address.to_canonical().into()),
            None => IpNet::new(range.first(), range.prefix_bits()).ok(),
        };
        // A range has no more bits than its addresses have.
        Self::Network(network.unwrap_or_else(|| range.first().into()))
    }
}

impl FromStr for Host {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        text.parse().map(|host: EgressHost| Self::from(&host))
    }
}

impl TryFrom<String> for Host {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// The destinations of a policy, arranged for looking up.
#[derive(Debug)]
pub(crate) struct DeclaredDestinations {
    names: HashMap<HostName, HashMap<u16, EgressProtocol>>,
    networks: Vec<(IpNet, u16, EgressProtocol)>,
}

/// What the declarations say of a port of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declared {
    Speaks(EgressProtocol),
    OtherPorts,
    Nothing,
}

impl DeclaredDestinations {
    pub(crate) fn of(policy: &Policy) -> Result<Self, PolicyError> {
        let count = policy.destinations.len();
        if count > Policy::MAX_DESTINATIONS {
            return Err(PolicyError::TooManyDestinations {
                count,
                limit: Policy::MAX_DESTINATIONS,
            });
        }
        let mut names: HashMap<HostName, HashMap<u16, EgressProtocol>> = HashMap::new();
        let mut networks: Vec<(IpNet, u16, EgressProtocol)> = Vec::new();
        for Destination {
            host,
            port,
            protocol,
        } in &policy.destinations
        {
            if *port == 0 {
                return Err(PolicyError::NoPort { host: host.clone() });
            }
            let earlier = match host {
                Host::Name(name) => names
                    .entry(name.clone())
                    .or_default()
                    .insert(*port, *protocol),
                Host::Network(network) => {
                    let earlier = networks
                        .iter()
                        .find(|(other, other_port, _)| other == network && other_port == port)
                        .map(|(.., protocol)| *protocol);
                    networks.push((*network, *port, *protocol));
                    earlier
                }
            };
            if earlier.is_some_and(|earlier| earlier != *protocol) {
                return Err(PolicyError::TwoProtocols {
                    host: host.clone(),
                    port: *port,
                });
            }
        }
        // The most specific range decides which protocol is spoken.
        networks.sort_by_key(|(network, ..)| std::cmp::Reverse(network.prefix_len()));
        Ok(Self { names, networks })
    }

    pub(crate) fn has_name(&self, name: &HostName) -> bool {
        self.names.contains_key(name)
    }

    pub(crate) fn name(&self, name: &HostName, port: u16) -> Declared {
        match self.names.get(name) {
            None => Declared::Nothing,
            Some(ports) => match ports.get(&port) {
                Some(protocol) => Declared::Speaks(*protocol),
                None => Declared::OtherPorts,
            },
        }
    }

    pub(crate) fn address(&self, address: IpAddr, port: u16) -> Declared {
        let mut answer = Declared::Nothing;
        for (network, declared_port, protocol) in &self.networks {
            if network.contains(&address) {
                if *declared_port == port {
                    return Declared::Speaks(*protocol);
                }
                answer = Declared::OtherPorts;
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Policy, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn hosts_are_names_addresses_and_ranges() {
        for (text, shown) in [
            ("API.example", "api.example"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("fd00::1", "fd00::1"),
        ] {
            assert_eq!(
                text.parse::<Host>().map(|host| host.to_string()),
                Ok(shown.to_owned())
            );
        }
        for wrong in ["10.1.2.3/33", "10.1.2.3/16"] {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_fields_of_a_policy_are_refused() {
        let with = |field| {
            policy(&format!(
                r#"{{"profile":"private_vpc","limits":{{"{field}":1}}}}"#
            ))
        };
        assert!(with("max_flows").is_ok());
        assert!(with("max_flow").is_err());
    }

    #[test]
    fn a_policy_that_contradicts_itself_is_refused() -> Result<(), serde_json::Error> {
        let of = |host: &str, port: u16, second: &str| {
            policy(&format!(
                r#"{{"profile":"private_vpc","destinations":[
                    {{"host":"{host}","port":{port},"protocol":"tls"}},
                    {{"host":"{host}","port":{port},"protocol":"{second}"}}]}}"#
            ))
        };
        assert!(of("a.example", 443, "tls")?.check().is_ok());
        for host in ["a.example", "10.0.0.0/8"] {
            assert!(matches!(
                of(host, 443, "tcp")?.check(),
                Err(PolicyError::TwoProtocols { port: 443, .. })
            ));
        }
        assert!(matches!(
            of("a.example", 0, "tls")?.check(),
            Err(PolicyError::NoPort { .. })
        ));
        Ok(())
    }
}
