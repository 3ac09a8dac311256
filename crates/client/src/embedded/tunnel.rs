//! The tunnel of the `vpn` profile, where an environment has the platform keep one itself.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use barecount_model::{
    environment::{Environment, TunnelSpec},
    text::{EgressHost, IpRange, SecretName},
};
use barecount_network::{
    Target,
    tunnel::{
        DEFAULT_MTU, InsideTcp, InvalidKey, PeerConfig, PresharedKey, PrivateKey, TunnelConfig,
        TunnelEnds, TunnelStartError, WireGuard,
    },
};
use barecount_sandbox::{InternetFamily, Launcher, Prefix, TunnelNamespace, TunnelNetwork};
use barecount_secrets::Secret;

use super::networks;
use crate::failure::{Failure, Status};

/// Starts the tunnel that an environment describes; nothing if it describes none. `secret` gives
/// the value of a secret of the environment's own. Within a Tokio runtime.
pub(super) fn open(
    environment: &Environment,
    launcher: &Launcher,
    secret: impl Fn(&SecretName) -> Result<Secret, Failure>,
) -> Result<Option<Arc<WireGuard>>, Failure> {
    let vpn = environment.networks.vpn.as_ref();
    let Some(spec) = vpn.and_then(|vpn| vpn.tunnel.as_ref()) else {
        return Ok(None);
    };
    let config = config(spec, secret)?;
    let network = TunnelNetwork {
        addresses: config.addresses.clone(),
        routes: routes(spec),
        mtu: spec.mtu.unwrap_or(DEFAULT_MTU),
    };
    let unavailable = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            Status::Unavailable,
            "the tunnel of `networks.vpn` cannot be set up",
        )
        .because(error)
        .with_code("BC0310")
        .with_help("It takes user namespaces and the device /dev/net/tun (module `tun`).")
    };
    let mut namespace = launcher
        .tunnel(&network)
        .map_err(|error| unavailable(&error))?;
    let device = namespace
        .take_device()
        .ok_or_else(|| unavailable(&io::Error::from(io::ErrorKind::NotFound)))?;
    let ends = TunnelEnds {
        device,
        inside: Arc::new(Inside(namespace)),
    };
    let tunnel = WireGuard::start(config, ends).map_err(|error| match error {
        TunnelStartError::OwnKey
        | TunnelStartError::DuplicatePeer { .. }
        | TunnelStartError::DuplicateNetwork { .. } => unusable(error),
        error => unavailable(&error),
    })?;
    Ok(Some(Arc::new(tunnel)))
}

/// The namespace that connections are made in, for as long as the tunnel is there.
#[derive(Debug)]
struct Inside(TunnelNamespace);

impl InsideTcp for Inside {
    fn tcp_socket(&self, ipv6: bool) -> io::Result<OwnedFd> {
        self.0.tcp_socket(if ipv6 {
            InternetFamily::V6
        } else {
            InternetFamily::V4
        })
    }
}

fn config(
    spec: &TunnelSpec,
    secret: impl Fn(&SecretName) -> Result<Secret, Failure>,
) -> Result<TunnelConfig, Failure> {
    let preshared = |path: &SecretName| {
        let key = PresharedKey::from_base64(secret(path)?.expose());
        key.map_err(|error| no_key(path, &error))
    };
    let path = &spec.private_key;
    let private_key = PrivateKey::from_base64(secret(path)?.expose());
    let mut config = TunnelConfig {
        private_key: private_key.map_err(|error| no_key(path, &error))?,
        addresses: spec.address.iter().map(|own| own.address()).collect(),
        listen_port: 0,
        peers: Vec::with_capacity(spec.peers.len()),
    };
    for peer in &spec.peers {
        let public_key = peer.public_key.as_str().parse();
        config.peers.push(PeerConfig {
            public_key: public_key.map_err(|error: InvalidKey| unusable(error))?,
            preshared_key: peer.preshared_key.as_ref().map(preshared).transpose()?,
            endpoint: Some((target(peer.endpoint.host())?, peer.endpoint.port())),
            allowed_ips: networks::ranges(&peer.allowed_ips).map_err(unusable)?,
            keepalive: peer
                .keepalive
                .map(|seconds| Duration::from_secs(seconds.into())),
        });
    }
    Ok(config)
}

fn target(host: &EgressHost) -> Result<Target, Failure> {
    match host {
        EgressHost::Name(name) => Ok(Target::Name(name.into())),
        EgressHost::Range(range) => match range.single() {
            Some(address) => Ok(Target::Address(address)),
            None => Err(unusable("an endpoint is one host")),
        },
    }
}

/// Where connections may go inside; what each peer may be sent, the tunnel knows.
fn routes(spec: &TunnelSpec) -> Vec<Prefix> {
    let behind = spec.peers.iter().flat_map(|peer| &peer.allowed_ips);
    let prefix = |range: &IpRange| Prefix {
        address: range.first(),
        length: range.prefix_bits(),
    };
    behind.map(prefix).collect()
}

fn no_key(path: &SecretName, error: &InvalidKey) -> Failure {
    let what = format!("secret `{path}` is no key of the tunnel of `networks.vpn`");
    Failure::new(Status::Usage, what)
        .because(error)
        .with_code("BC0301")
        .with_help("Store a key as `wg genkey` or `wg genpsk` writes it.")
}

fn unusable(why: impl std::fmt::Display) -> Failure {
    let what = format!("`networks.vpn.tunnel` of the environment cannot be used: {why}");
    Failure::new(Status::Usage, what).with_code("BC0301")
}
