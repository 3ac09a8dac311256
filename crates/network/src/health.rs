//! Whether a path leads where it should, before a run is placed on it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    inspect::Target,
    path::{EndpointAddress, Path},
    policy::{Destination, Host},
    reason::{Reason, ReasonCode},
    tunnel::TunnelHealth,
};

/// What a probe found of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathHealth {
    /// Whether every probed destination was reached.
    pub ok: bool,
    /// The slowest of them, in microseconds, names resolved included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Why it is not, of the first that was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Each destination.
    pub destinations: Vec<DestinationHealth>,
    /// How the tunnel does that the path leads through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelHealth>,
}

/// What a probe found of one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationHealth {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// How long it took to resolve the name and connect, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Where the name leads, of a service with a private endpoint at an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<EndpointDns>,
    /// Why it was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// Where the name of a service leads that has a private endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointDns {
    /// To the endpoint: clients outside the platform's sandboxes reach it, too.
    Endpoint,
    /// Elsewhere, which is a fault of the environment: its private DNS is not what it says.
    Elsewhere,
    /// Nowhere: there is no private DNS name. The broker needs none.
    Nowhere,
}

/// Connects to each destination by the path, all at a time and each within `limit`, and closes the
/// connection again. Nothing is sent. A name must resolve to where the path leads, which for
/// endpoints is the endpoint. Ranges are not probed: any host of theirs may be absent. Cancel-safe.
pub async fn probe(path: &Path, destinations: &[Destination], limit: Duration) -> PathHealth {
    if let Some(reason) = down(path, limit).await {
        return PathHealth {
            ok: false,
            latency_us: None,
            reason: Some(reason),
            destinations: Vec::new(),
            tunnel: tunnel_of(path),
        };
    }
    let probes = destinations.iter().filter_map(|to| {
        let target = match &to.host {
            Host::Name(name) => Target::Name(name.clone()),
            Host::Network(net) if net.prefix_len() == net.max_prefix_len() => {
                Target::Address(net.addr())
            }
            Host::Network(_) => return None,
        };
        Some(probe_one(path, to, target, limit))
    });
    let destinations = all(probes).await;
    let reason = destinations.iter().find_map(|probed| probed.reason.clone());
    PathHealth {
        ok: reason.is_none(),
        latency_us: destinations
            .iter()
            .filter_map(|probed| probed.latency_us)
            .max(),
        reason,
        destinations,
        tunnel: tunnel_of(path),
    }
}

/// Why the tunnel that a path leads through does not come up within the limit.
async fn down(path: &Path, limit: Duration) -> Option<Reason> {
    let Path::Through(through) = path else {
        return None;
    };
    let why = match tokio::time::timeout(limit, through.tunnel.raise(None)).await {
        Ok(Ok(())) => return None,
        Ok(Err(down)) => down.to_string(),
        Err(_) => path.down(None).await?,
    };
    let text = format!("the tunnel is down: {why}");
    Some(Reason::new(ReasonCode::PathDown, text))
}

fn tunnel_of(path: &Path) -> Option<TunnelHealth> {
    match path {
        Path::Through(through) => through.tunnel.health(),
        _ => None,
    }
}

async fn probe_one(
    path: &Path,
    to: &Destination,
    target: Target,
    limit: Duration,
) -> DestinationHealth {
    let start = Instant::now();
    let dialled = path.dial(&target, to.port, limit).await;
    if let Ok(dialled) = &dialled {
        dialled.connection.ends_well();
    }
    let latency = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let latency_us = dialled.is_ok().then_some(latency);
    let dns = endpoint_dns(path, &target, limit).await;
    let mismatch = || {
        (dns == Some(EndpointDns::Elsewhere)).then(|| {
            let text = format!("`{target}` does not resolve to its endpoint");
            Reason::new(ReasonCode::EndpointMismatch, text)
        })
    };
    DestinationHealth {
        host: to.host.clone(),
        port: to.port,
        latency_us,
        dns,
        reason: dialled.err().map(|error| error.reason()).or_else(mismatch),
    }
}

async fn endpoint_dns(path: &Path, target: &Target, limit: Duration) -> Option<EndpointDns> {
    let (Path::Endpoint(endpoint), Target::Name(name)) = (path, target) else {
        return None;
    };
    let address = match endpoint.services.get(name)? {
        EndpointAddress::Ip(address) => *address,
        EndpointAddress::Socket(address) => address.ip(),
        EndpointAddress::Name(_) => return None,
    };
    let resolved = tokio::time::timeout(limit, endpoint.resolver.resolve(name)).await;
    Some(match resolved {
        Ok(Ok(addresses)) if addresses.contains(&address) => EndpointDns::Endpoint,
        Ok(Ok(_)) => EndpointDns::Elsewhere,
        Ok(Err(_)) | Err(_) => EndpointDns::Nowhere,
    })
}

/// Runs futures at a time, a bounded number of them, and keeps their order.
async fn all<T>(work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let places = tokio::sync::Semaphore::new(16);
    let bounded: Vec<_> = work
        .map(|work| async {
            let _place = places.acquire().await;
            work.await
        })
        .collect();
    futures::future::join_all(bounded).await
}
