//! The two ends of a tunnel, each in a namespace of its own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
};

use barecount_network::{
    Target,
    tunnel::{DEFAULT_MTU, InsideTcp, PeerConfig, PrivateKey, TunnelConfig, TunnelEnds, WireGuard},
};
use barecount_sandbox::{InternetFamily, Launcher, Prefix, TunnelNamespace, TunnelNetwork};
use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::net::TcpListener;

use crate::measuring::Outcome;

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

/// Both ends, which know each other.
pub(crate) struct Ends {
    pub(crate) near: WireGuard,
    /// Kept for what is behind it.
    _far: WireGuard,
    far_inside: Arc<Inside>,
    far_address: IpAddr,
}

impl Ends {
    pub(crate) fn open(launcher: &Launcher) -> Outcome<Self> {
        let addresses: [IpAddr; 2] = ["10.77.0.2".parse()?, "10.77.0.1".parse()?];
        let [near_key, far_key] = [key()?, key()?];
        let (far, far_inside) = open(
            launcher,
            (&far_key, addresses[1]),
            (&near_key, addresses[0]),
            None,
        )?;
        let at = SocketAddr::from(([127, 0, 0, 1], far.listen_port()));
        let (near, _) = open(
            launcher,
            (&near_key, addresses[0]),
            (&far_key, addresses[1]),
            Some(at),
        )?;
        Ok(Self {
            near,
            _far: far,
            far_inside,
            far_address: addresses[1],
        })
    }

    /// A listener behind the far end.
    pub(crate) fn listener(&self) -> Outcome<TcpListener> {
        let socket = self.far_inside.tcp_socket(false)?;
        rustix::net::bind(&socket, &SocketAddr::new(self.far_address, 7))?;
        rustix::net::listen(&socket, 1_024)?;
        Ok(TcpListener::from_std(socket.into())?)
    }
}

fn key() -> Outcome<PrivateKey> {
    let bytes: [u8; 32] = rand::random();
    Ok(PrivateKey::from_base64(
        BASE64_STANDARD.encode(bytes).as_bytes(),
    )?)
}

fn open(
    launcher: &Launcher,
    own: (&PrivateKey, IpAddr),
    peer: (&PrivateKey, IpAddr),
    at: Option<SocketAddr>,
) -> Outcome<(WireGuard, Arc<Inside>)> {
    let (key, address) = own;
    let mut namespace = launcher.tunnel(&TunnelNetwork {
        addresses: vec![address],
        routes: vec![Prefix {
            address: peer.1,
            length: 32,
        }],
        mtu: DEFAULT_MTU,
    })?;
    let device = namespace.take_device().ok_or("no device")?;
    let inside = Arc::new(Inside(namespace));
    let config = TunnelConfig {
        private_key: key.clone(),
        addresses: vec![address],
        listen_port: 0,
        peers: vec![PeerConfig {
            public_key: peer.0.public_key(),
            preshared_key: None,
            endpoint: at.map(|at| (Target::Address(at.ip()), at.port())),
            allowed_ips: vec![peer.1.into()],
            keepalive: None,
        }],
    };
    let ends = TunnelEnds {
        device,
        inside: inside.clone(),
    };
    Ok((WireGuard::start(config, ends)?, inside))
}
