//! Our side of a tunnel.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use barecount_network::{
    NameServer, Target,
    path::{Connection, DialError, Path, Through},
    tunnel::{
        DEFAULT_MTU, InsideTcp, PeerConfig, PeerHealth, PublicKey, TunnelConfig, TunnelEnds,
        WireGuard,
    },
};
use barecount_sandbox::{InternetFamily, Prefix, TunnelNamespace, TunnelNetwork};
use ipnet::IpNet;
use tokio::{net::TcpStream, time::error::Elapsed};

use crate::{
    far::{Far, HOST_NAME, Key, NEAR_V4, NEAR_V6, ip},
    launcher,
};

/// Longer than anything here takes, so that a test that hangs fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What is allowed to the far side.
pub(crate) const ALLOWED: [&str; 4] = ["10.77.0.1/32", "10.88.0.0/24", "fd77::1/128", "fd88::/64"];

/// Looks again and again, as of what is looked at nobody tells, until there is something.
pub(crate) async fn found<T>(mut look: impl FnMut() -> Option<T>) -> Result<T, Elapsed> {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let seen = async {
        loop {
            looks.tick().await;
            if let Some(seen) = look() {
                return seen;
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await
}

#[derive(Debug)]
pub(crate) struct Inside(pub(crate) TunnelNamespace);

impl InsideTcp for Inside {
    fn tcp_socket(&self, ipv6: bool) -> io::Result<OwnedFd> {
        self.0.tcp_socket(if ipv6 {
            InternetFamily::V6
        } else {
            InternetFamily::V4
        })
    }
}

/// Our side.
pub(crate) struct Near {
    pub(crate) tunnel: Arc<WireGuard>,
    /// The process inside, on the host.
    pub(crate) pid: i32,
}

impl Near {
    pub(crate) fn start(
        key: &Key,
        peer: PublicKey,
        at: SocketAddr,
        allowed: &[&str],
        shared: Option<&Key>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let allowed: Vec<IpNet> = allowed
            .iter()
            .map(|network| network.parse())
            .collect::<Result<_, _>>()?;
        let addresses = vec![ip(NEAR_V4), ip(NEAR_V6)];
        let prefix = |network: &IpNet| Prefix {
            address: network.network(),
            length: network.prefix_len(),
        };
        let mut namespace = launcher().tunnel(&TunnelNetwork {
            addresses: addresses.clone(),
            routes: allowed.iter().map(prefix).collect(),
            mtu: DEFAULT_MTU,
        })?;
        let pid = namespace.pid();
        let config = TunnelConfig {
            private_key: key.private(),
            addresses,
            listen_port: 0,
            peers: vec![PeerConfig {
                public_key: peer,
                preshared_key: shared.map(Key::shared),
                endpoint: Some((Target::Address(at.ip()), at.port())),
                allowed_ips: allowed,
                keepalive: None,
            }],
        };
        let ends = TunnelEnds {
            device: namespace.take_device().ok_or("no device")?,
            inside: Arc::new(Inside(namespace)),
        };
        let tunnel = Arc::new(WireGuard::start(config, ends)?);
        Ok(Self { tunnel, pid })
    }

    /// The path of the `vpn` profile, with a name server behind the tunnel.
    pub(crate) fn path(&self, name_server: SocketAddr) -> Path {
        Path::Through(Through {
            tunnel: self.tunnel.clone(),
            ranges: ["10.88.0.0/24", "fd88::/64"]
                .map(|range| range.parse().expect("a range"))
                .into(),
            resolver: Arc::new(NameServer::new(name_server).through(self.tunnel.clone())),
        })
    }

    pub(crate) fn peer(&self) -> PeerHealth {
        self.tunnel.health().peers.remove(0)
    }

    /// Waits until the peer's figures say so.
    pub(crate) async fn until(&self, is_so: impl Fn(&PeerHealth) -> bool) {
        let waited = found(|| is_so(&self.peer()).then_some(())).await;
        waited.unwrap_or_else(|_| panic!("it never comes to be so: {:#?}", self.peer()));
    }
}

/// Both sides, with an echo on port 7 and a name server behind the far one.
pub(crate) struct Pair {
    pub(crate) near: Near,
    pub(crate) far: Far,
    pub(crate) path: Path,
}

impl Pair {
    pub(crate) async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let (ours, theirs, shared) = (Key::random(), Key::random(), Key::random());
        let far = Far::start(&theirs, ours.public(), Some(&shared)).await?;
        far.echo(7)?;
        let name_server = far.name_server()?;
        let near = Near::start(
            &ours,
            theirs.public(),
            far.address(),
            &ALLOWED,
            Some(&shared),
        )?;
        let path = near.path(name_server);
        Ok(Self { near, far, path })
    }
}

pub(crate) fn named() -> Target {
    Target::Name(HOST_NAME.parse().expect("a name"))
}

pub(crate) fn at(address: &str) -> Target {
    Target::Address(ip(address))
}

/// Dials, and takes the kernel's socket.
pub(crate) async fn dial(path: &Path, target: &Target, port: u16) -> Result<TcpStream, DialError> {
    let dialled = path.dial(target, port, PATIENCE).await?;
    match dialled.connection {
        Connection::Tcp(stream) => Ok(stream),
        Connection::Stream(_) => panic!("a tunnel carries the kernel's connections"),
    }
}
