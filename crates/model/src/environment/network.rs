//! What each network profile means in an environment, and which destinations it leads to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    class::NetworkProfile,
    codes::{self, Code},
    environment::tunnel::TunnelSpec,
    manifest::{Egress, EgressMode},
    pipeline::Stage,
    text::{ByteSize, DomainName, EgressHost, IpRange, SocketAddress},
};

/// What each network profile means. A profile that is absent leads nowhere: a stage that asks for it
/// may declare no destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworksSpec {
    /// To public addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_vpc_egress: Option<PublicEgress>,
    /// To private ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_vpc: Option<PrivateVpc>,
    /// To private endpoints of services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privatelink: Option<PrivateLink>,
    /// Through a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpn: Option<Vpn>,
    /// From the agent of a facility.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_prem_agent: Option<OnPremAgent>,
    /// Whether stages may ask for `egress_mode: audit`; not unless said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
}

impl NetworksSpec {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `public_vpc_egress`: the names that stages may declare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicEgress {
    /// Names that stages may declare. Each stands for itself and all names below it.
    #[schemars(length(min = 1, max = 1_000))]
    pub allow: Vec<DomainName>,
    /// Whether names may be spoken to in the clear; only TLS unless said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clear_text: bool,
    /// Who resolves names; the host's own resolver if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<SocketAddress>,
    /// New connections of an attempt in a second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_second: Option<u32>,
    /// Bytes of an attempt in a second, both ways together, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<ByteSize>,
}

/// `private_vpc`: declared ranges, whatever a name resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivateVpc {
    /// The network's own ranges.
    #[schemars(length(min = 1, max = 1_000))]
    pub ranges: Vec<IpRange>,
    /// Ranges of networks that it is peered with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub peering: Vec<IpRange>,
    /// Who resolves names; the host's own resolver if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<SocketAddress>,
    /// The approved way to public names; none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicWay>,
}

/// The approved way from a private network to public names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicWay {
    /// A proxy that takes HTTP `CONNECT`.
    pub proxy: SocketAddress,
    /// Public names that stages may declare. Each stands for itself and all names below it.
    #[schemars(length(min = 1, max = 1_000))]
    pub allow: Vec<DomainName>,
}

/// `privatelink`: endpoints of services, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivateLink {
    /// Where the private endpoint of each service is, by the service's name.
    #[schemars(extend("maxProperties" = 1_000, "minProperties" = 1))]
    pub endpoints: BTreeMap<String, EgressHost>,
    /// Who resolves the endpoints' own names; the host's own resolver if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<SocketAddress>,
}

/// `vpn`: the peer's ranges, over an interface that exists or through a tunnel of our own; nothing
/// while it is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vpn {
    /// The tunnel's interface on the agent's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z0-9_.-]{1,15}$"))]
    pub interface: Option<String>,
    /// A tunnel of our own instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelSpec>,
    /// The peer's ranges; with a tunnel, all that lies behind it if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub ranges: Vec<IpRange>,
    /// Who resolves names, reached through the tunnel; without it only addresses can be declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<SocketAddress>,
}

/// `on_prem_agent`: the facility's own names and ranges, from an agent that carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnPremAgent {
    /// The facility.
    #[schemars(length(min = 1, max = 63))]
    pub facility: String,
    /// The facility's names. Each stands for itself and all names below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub zones: Vec<DomainName>,
    /// The facility's ranges.
    #[schemars(length(min = 1, max = 1_000))]
    pub ranges: Vec<IpRange>,
    /// Who resolves names; the host's own resolver if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<SocketAddress>,
}

impl NetworksSpec {
    /// Why a stage's destinations cannot be reached as it declares them: one sentence each.
    pub(super) fn obstacles(&self, stage: &Stage) -> Vec<(Code, String)> {
        let mut obstacles = Vec::new();
        if stage.egress_mode == EgressMode::Audit && !self.audit {
            let message = "`egress_mode: audit` is not allowed here; declare the destinations, or \
                           try it in an environment with `networks.audit: true`";
            obstacles.push((codes::EGRESS_AUDIT_REFUSED, message.to_owned()));
        }
        for egress in &stage.egress {
            if let Err(message) = self.reaches(stage.network_profile, egress) {
                obstacles.push((codes::EGRESS_UNREACHABLE, message));
            }
        }
        obstacles
    }

    /// Those of a stage's destinations to which the environment has a private endpoint, as
    /// `host:port`.
    pub fn privately_reachable(&self, stage: &Stage) -> Vec<String> {
        let Some(link) = &self.privatelink else {
            return Vec::new();
        };
        let egress = stage.egress.iter();
        egress
            .filter(|to| link.endpoints.contains_key(&to.host.to_string()))
            .map(|to| format!("{}:{}", to.host, to.port))
            .collect()
    }

    fn reaches(&self, profile: NetworkProfile, egress: &Egress) -> Result<(), String> {
        let Egress { host, port, .. } = egress;
        let absent = || {
            format!(
                "`{host}:{port}` cannot be reached: this environment does not say what `{profile}` \
                 means; add `networks.{profile}`"
            )
        };
        match profile {
            NetworkProfile::PublicVpcEgress => {
                let network = self.public_vpc_egress.as_ref().ok_or_else(absent)?;
                self.public(network, egress)
            }
            NetworkProfile::PrivateVpc => {
                let network = self.private_vpc.as_ref().ok_or_else(absent)?;
                match host {
                    // Where a name leads, the broker sees when it is dialled.
                    EgressHost::Name(_) => Ok(()),
                    EgressHost::Range(range) => within(
                        *range,
                        network.ranges.iter().chain(&network.peering),
                        egress,
                    ),
                }
            }
            NetworkProfile::PrivateLink => {
                let network = self.privatelink.as_ref().ok_or_else(absent)?;
                if network.endpoints.contains_key(&host.to_string()) {
                    return Ok(());
                }
                Err(format!(
                    "`{host}:{port}` has no private endpoint here; `networks.privatelink.endpoints` \
                     has {}",
                    listed(network.endpoints.keys())
                ))
            }
            NetworkProfile::Vpn => {
                let network = self.vpn.as_ref().ok_or_else(absent)?;
                match host {
                    EgressHost::Range(range) => within(*range, network.reachable().iter(), egress),
                    EgressHost::Name(_) if network.resolver.is_some() => Ok(()),
                    EgressHost::Name(_) => Err(format!(
                        "`{host}:{port}` is a name, and `networks.vpn` has no `resolver` behind the \
                         tunnel; names would leak to the host's"
                    )),
                }
            }
            NetworkProfile::OnPremAgent => {
                let network = self.on_prem_agent.as_ref().ok_or_else(absent)?;
                match host {
                    EgressHost::Range(range) => within(*range, network.ranges.iter(), egress),
                    EgressHost::Name(name) if below(name, &network.zones) => Ok(()),
                    EgressHost::Name(_) => Err(format!(
                        "`{host}:{port}` is no name of facility `{}`; its zones are {}",
                        network.facility,
                        listed(network.zones.iter())
                    )),
                }
            }
        }
    }

    fn public(&self, network: &PublicEgress, egress: &Egress) -> Result<(), String> {
        let Egress {
            host,
            port,
            protocol,
        } = egress;
        let EgressHost::Name(name) = host else {
            return Err(format!(
                "`{host}:{port}` is an address; `public_vpc_egress` leads to names alone, so that \
                 it can be said who was reached"
            ));
        };
        let private = self.privatelink.as_ref();
        if private.is_some_and(|link| link.endpoints.contains_key(name.as_str())) {
            return Err(format!(
                "`{host}:{port}` has a private endpoint here: choose `network_profile: privatelink`"
            ));
        }
        if !below(name, &network.allow) {
            return Err(format!(
                "`{host}:{port}` is not on the allow list of this environment: it has {}",
                listed(network.allow.iter())
            ));
        }
        if *protocol != crate::manifest::EgressProtocol::Tls && !network.clear_text {
            return Err(format!(
                "`{host}:{port}` would be spoken to in the clear; declare `protocol: tls`, or allow \
                 it by `networks.public_vpc_egress.clear_text`"
            ));
        }
        Ok(())
    }
}

fn below(name: &DomainName, zones: &[DomainName]) -> bool {
    zones.iter().any(|zone| name.is_within(zone))
}

fn within<'a>(
    range: IpRange,
    ranges: impl Iterator<Item = &'a IpRange> + Clone,
    egress: &Egress,
) -> Result<(), String> {
    if ranges.clone().any(|known| known.covers(range)) {
        return Ok(());
    }
    Err(format!(
        "`{}:{}` is outside the ranges of the profile here: {}",
        egress.host,
        egress.port,
        listed(ranges)
    ))
}

/// At most a handful of them, for people.
fn listed<T: std::fmt::Display>(items: impl Iterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let mut items: Vec<String> = items.map(|item| format!("`{item}`")).collect();
    let more = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    match (items.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => items.join(", "),
        (false, more) => format!("{} and {more} more", items.join(", ")),
    }
}
