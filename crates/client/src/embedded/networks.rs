//! By which way connections leave, for each network profile, as an environment says.

use std::{collections::BTreeMap, sync::Arc};

use barecount_model::{
    class::NetworkProfile,
    environment::{Environment, NetworksSpec, OnPremAgent, PrivateLink, PrivateVpc, Vpn},
    text::{DomainName, EgressHost, IpRange, SocketAddress},
};
use barecount_network::{
    NameServer,
    path::{
        Binding, Bound, Direct, Endpoint, EndpointAddress, Facility, Names, Path, Paths, Private,
        PublicVia, Through,
    },
    resolver::{HostResolver, Resolver},
    tunnel::WireGuard,
};

use crate::failure::{Failure, Status};

/// The paths of an environment, with the tunnel that it describes, if it does. A profile of which it
/// says nothing leads nowhere.
pub(super) fn paths(
    environment: &Environment,
    tunnel: Option<Arc<WireGuard>>,
) -> Result<Paths, Failure> {
    let networks = &environment.networks;
    let mut paths = Paths::new();
    for profile in NetworkProfile::ALL.iter().copied() {
        let path = path(profile, networks, tunnel.clone()).map_err(|what| {
            let what = format!("`networks.{profile}` of the environment cannot be used: {what}");
            Failure::new(Status::Usage, what).with_code("BC0301")
        })?;
        paths.insert(profile, Arc::new(path));
    }
    Ok(paths)
}

fn path(
    profile: NetworkProfile,
    networks: &NetworksSpec,
    tunnel: Option<Arc<WireGuard>>,
) -> Result<Path, String> {
    let found = match profile {
        NetworkProfile::PublicVpcEgress => networks.public_vpc_egress.as_ref().map(|network| {
            Ok(Path::Direct(Direct {
                names: below(&network.allow)?,
                resolver: resolver(network.resolver.as_ref()),
            }))
        }),
        NetworkProfile::PrivateVpc => networks.private_vpc.as_ref().map(private),
        NetworkProfile::PrivateLink => networks.privatelink.as_ref().map(endpoints),
        NetworkProfile::Vpn => networks.vpn.as_ref().map(|network| vpn(network, tunnel)),
        NetworkProfile::OnPremAgent => networks.on_prem_agent.as_ref().map(facility),
    };
    found.unwrap_or_else(|| Ok(nowhere()))
}

/// A network without ranges: nothing lies within it.
fn nowhere() -> Path {
    Path::Private(Private {
        ranges: Vec::new(),
        resolver: Arc::new(HostResolver::default()),
        public_via: None,
        public_names: Names::Below(Vec::new()),
    })
}

fn private(network: &PrivateVpc) -> Result<Path, String> {
    let all: Vec<IpRange> = network
        .ranges
        .iter()
        .chain(&network.peering)
        .copied()
        .collect();
    Ok(Path::Private(Private {
        ranges: ranges(&all)?,
        resolver: resolver(network.resolver.as_ref()),
        public_via: network
            .public
            .as_ref()
            .map(|way| PublicVia::Proxy(way.proxy.socket_addr())),
        public_names: match &network.public {
            Some(way) => below(&way.allow)?,
            None => Names::Below(Vec::new()),
        },
    }))
}

fn endpoints(network: &PrivateLink) -> Result<Path, String> {
    let mut services = BTreeMap::new();
    for (service, endpoint) in &network.endpoints {
        let name = service
            .parse()
            .map_err(|error| format!("`{service}` is no name of a service: {error}"))?;
        let address = match endpoint {
            EgressHost::Name(name) => EndpointAddress::Name(name.into()),
            EgressHost::Range(range) => EndpointAddress::Ip(
                range
                    .single()
                    .ok_or_else(|| format!("the endpoint of `{service}` is one address"))?,
            ),
        };
        services.insert(name, address);
    }
    Ok(Path::Endpoint(Endpoint {
        services,
        resolver: resolver(network.resolver.as_ref()),
    }))
}

fn vpn(network: &Vpn, tunnel: Option<Arc<WireGuard>>) -> Result<Path, String> {
    let ranges = ranges(&network.reachable())?;
    let resolver = |reached: &dyn Fn(NameServer) -> NameServer| -> Arc<dyn Resolver> {
        match &network.resolver {
            Some(address) => Arc::new(reached(NameServer::new(address.socket_addr()))),
            // Manifests with names were refused: names would leak to the host's resolver.
            None => Arc::new(HostResolver::default()),
        }
    };
    match (&network.interface, tunnel) {
        (Some(interface), _) => {
            let binding = Binding::Interface(interface.clone());
            Ok(Path::Bound(Bound {
                resolver: resolver(&|server| server.bound(binding.clone())),
                binding,
                ranges,
            }))
        }
        (None, Some(tunnel)) => Ok(Path::Through(Through {
            resolver: resolver(&|server| server.through(tunnel.clone())),
            tunnel,
            ranges,
        })),
        (None, None) => Err("there is no tunnel to lead through".to_owned()),
    }
}

fn facility(network: &OnPremAgent) -> Result<Path, String> {
    Ok(Path::Facility(Facility {
        zones: names(&network.zones)?,
        ranges: ranges(&network.ranges)?,
        resolver: resolver(network.resolver.as_ref()),
    }))
}

/// These names and all below them.
fn below(zones: &[DomainName]) -> Result<Names, String> {
    names(zones).map(Names::Below)
}

fn names<T: std::str::FromStr<Err: std::fmt::Display>>(
    names: &[DomainName],
) -> Result<Vec<T>, String> {
    let name = |name: &DomainName| {
        let parsed = name.as_str().parse();
        parsed.map_err(|error| format!("`{name}`: {error}"))
    };
    names.iter().map(name).collect()
}

fn resolver(address: Option<&SocketAddress>) -> Arc<dyn Resolver> {
    match address {
        Some(address) => Arc::new(NameServer::new(address.socket_addr())),
        None => Arc::new(HostResolver::default()),
    }
}

pub(super) fn ranges<T: std::str::FromStr<Err: std::fmt::Display>>(
    ranges: &[IpRange],
) -> Result<Vec<T>, String> {
    let range = |range: &IpRange| {
        range
            .to_string()
            .parse()
            .map_err(|error| format!("{range}: {error}"))
    };
    ranges.iter().map(range).collect()
}
