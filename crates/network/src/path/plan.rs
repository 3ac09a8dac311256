//! Where a path leads: from a declared host to addresses that may be dialled.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Binding, DialError, Direct, Endpoint, EndpointAddress, Facility, Path, PathKind, Private,
    PublicVia, Tunnel,
};
use crate::{
    address::{AddressClass, classify, in_ranges, is_metadata_service},
    inspect::Target,
    resolver::{ResolveError, Resolver},
};

/// More addresses of one name than this are not tried.
const MAX_CANDIDATES: usize = 8;

/// The ranges in which a private endpoint may have its address (RFC 1918, 6598, 4193).
const PRIVATE_USE: [IpNet; 5] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),
        7,
    )),
];

/// Addresses that may be dialled, and how.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(super) target: Target,
    pub(super) port: u16,
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) via: Via,
    pub(super) kind: PathKind,
}

/// How a connection is made.
#[derive(Debug, Clone)]
pub(super) enum Via {
    Host,
    Bound(Binding),
    Proxy,
    Tunnel(Arc<dyn Tunnel>),
}

impl Path {
    /// Resolves the target and keeps what the path leads to.
    pub(crate) async fn plan(&self, target: &Target, port: u16) -> Result<Plan, DialError> {
        let plan = |addresses: Vec<IpAddr>, via, kind| Plan {
            target: target.clone(),
            port,
            candidates: addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, port))
                .collect(),
            via,
            kind,
        };
        match self {
            Self::Direct(Direct { names, resolver }) => {
                if !names.have(target) {
                    return Err(DialError::NotAllowed {
                        target: target.clone(),
                    });
                }
                let addresses = resolve(resolver, target).await?;
                let public = keep_public(target, &addresses)?;
                Ok(plan(public, Via::Host, PathKind::Direct))
            }
            Self::Private(private) => {
                let (addresses, via, kind) = private.plan(target, port).await?;
                let mut plan = plan(Vec::new(), via, kind);
                plan.candidates = addresses;
                Ok(plan)
            }
            Self::Endpoint(endpoint) => {
                let mut plan = plan(Vec::new(), Via::Host, PathKind::Endpoint);
                plan.candidates = endpoint.candidates(target, port).await?;
                Ok(plan)
            }
            Self::Bound(bound) => {
                let addresses = resolve(&bound.resolver, target).await?;
                let kept = keep_in_ranges(target, &addresses, &bound.ranges)?;
                Ok(plan(
                    kept,
                    Via::Bound(bound.binding.clone()),
                    PathKind::Bound,
                ))
            }
            Self::Through(through) => {
                let addresses = resolve(&through.resolver, target).await?;
                let kept = keep_in_ranges(target, &addresses, &through.ranges)?;
                Ok(plan(
                    kept,
                    Via::Tunnel(through.tunnel.clone()),
                    PathKind::Tunnel,
                ))
            }
            Self::Facility(facility) => {
                let kept = facility.addresses(target).await?;
                Ok(plan(kept, Via::Host, PathKind::Facility))
            }
        }
    }
}

impl Private {
    /// In a declared range, directly. Public, or unknown here, only by the approved way. Private
    /// elsewhere, not at all.
    async fn plan(
        &self,
        target: &Target,
        port: u16,
    ) -> Result<(Vec<SocketAddr>, Via, PathKind), DialError> {
        let found = resolve(&self.resolver, target).await;
        let public_via = self.public_via.filter(|_| self.public_names.have(target));
        let addresses = match (found, public_via) {
            (Ok(addresses), _) => addresses,
            // Networks behind a proxy often resolve their own names only.
            (
                Err(DialError::NotResolved {
                    source: ResolveError::NoSuchName,
                    ..
                }),
                Some(PublicVia::Proxy(proxy)),
            ) => return Ok((vec![proxy], Via::Proxy, PathKind::Proxy)),
            (Err(error), _) => return Err(error),
        };
        let with_port = |addresses: Vec<IpAddr>| {
            let sockets = addresses.into_iter().map(|ip| SocketAddr::new(ip, port));
            sockets.collect()
        };
        let within = keep_in_ranges(target, &addresses, &self.ranges);
        match (within, public_via) {
            (Ok(kept), _) => Ok((with_port(kept), Via::Host, PathKind::Private)),
            (Err(outside), None) => Err(outside),
            (Err(outside), Some(via)) => {
                let Ok(public) = keep_public(target, &addresses) else {
                    return Err(outside);
                };
                Ok(match via {
                    PublicVia::Proxy(proxy) => (vec![proxy], Via::Proxy, PathKind::Proxy),
                    PublicVia::Nat(source) => (
                        with_port(public),
                        Via::Bound(Binding::Source(source)),
                        PathKind::Nat,
                    ),
                })
            }
        }
    }
}

impl Endpoint {
    async fn candidates(&self, target: &Target, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let address = match target {
            Target::Name(name) => self.services.get(name),
            Target::Address(_) => None,
        };
        match address {
            None => Err(DialError::NoEndpoint {
                target: target.clone(),
            }),
            Some(EndpointAddress::Ip(address)) => Ok(vec![SocketAddr::new(*address, port)]),
            Some(EndpointAddress::Socket(address)) => Ok(vec![*address]),
            Some(EndpointAddress::Name(name)) => {
                let target = Target::Name(name.clone());
                let addresses = resolve(&self.resolver, &target).await?;
                let kept = keep_in_ranges(&target, &addresses, &PRIVATE_USE)?;
                Ok(kept
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, port))
                    .collect())
            }
        }
    }
}

impl Facility {
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, DialError> {
        if let Target::Name(name) = target
            && !self.zones.iter().any(|zone| name.is_within(zone))
        {
            return Err(DialError::OutsideFacility { name: name.clone() });
        }
        let addresses = resolve(&self.resolver, target).await?;
        keep_in_ranges(target, &addresses, &self.ranges)
    }
}

/// At least one address.
async fn resolve(resolver: &Arc<dyn Resolver>, target: &Target) -> Result<Vec<IpAddr>, DialError> {
    let name = match target {
        Target::Address(address) => return Ok(vec![address.to_canonical()]),
        Target::Name(name) => name,
    };
    let not_resolved = |source| DialError::NotResolved {
        name: name.clone(),
        source,
    };
    let addresses = resolver.resolve(name).await.map_err(not_resolved)?;
    if addresses.is_empty() {
        return Err(not_resolved(ResolveError::NoAddress));
    }
    Ok(addresses.into_iter().map(|ip| ip.to_canonical()).collect())
}

/// The public ones of some addresses; the first other one as the error if there are none.
fn keep_public(target: &Target, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, DialError> {
    let class = |address: &IpAddr| match classify(*address) {
        AddressClass::Public => None,
        AddressClass::Special(class) => Some(class),
    };
    let public: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|ip| class(ip).is_none())
        .collect();
    match addresses.first() {
        Some(first) if public.is_empty() => Err(DialError::NotPublic {
            target: target.clone(),
            address: *first,
            class: class(first).unwrap_or_default(),
        }),
        _ => Ok(limited(public)),
    }
}

/// The addresses that the ranges lead to; the first other one as the error if there are none.
fn keep_in_ranges(
    target: &Target,
    addresses: &[IpAddr],
    ranges: &[IpNet],
) -> Result<Vec<IpAddr>, DialError> {
    let kept: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|address| in_ranges(ranges, *address) && !is_metadata_service(*address))
        .collect();
    match addresses.first() {
        Some(first) if kept.is_empty() => Err(DialError::OutsideRanges {
            target: target.clone(),
            address: *first,
        }),
        _ => Ok(limited(kept)),
    }
}

fn limited(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.truncate(MAX_CANDIDATES);
    addresses
}

#[cfg(test)]
mod tests;
