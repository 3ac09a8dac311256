//! The processes that the stages talk with.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
};

use barecount_model::{class::NetworkProfile, manifest::EgressProtocol};
use barecount_network::{
    broker::{Attempt, Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    path::{Endpoint, EndpointAddress, Path},
    policy::{Destination, Limits, Mode, Policy},
    resolver::HostResolver,
    synthetic::SyntheticRanges,
};

use rustix::net::sockopt;

use crate::{
    END_BUFFER, INSIDES,
    measuring::{self, Outcome},
};

fn tell(text: &str) -> Outcome<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// The service that both stages reach.
pub(crate) fn service() -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        // What is accepted inherits it.
        sockopt::set_socket_recv_buffer_size(&listener, END_BUFFER)?;
        sockopt::set_socket_send_buffer_size(&listener, END_BUFFER)?;
        tell(&listener.local_addr()?.to_string())?;
        Ok(measuring::serve(listener).await?)
    })
}

/// An agent that serves both stages with the usual limits. Tells their name servers.
pub(crate) fn agent(service: SocketAddr) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let steady = broker(service, INSIDES[0])?;
    let other = broker(service, INSIDES[1])?;
    tell(&format!("{} {}", steady.2, other.2))?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn broker(service: SocketAddr, inside: Ipv4Addr) -> Outcome<(Broker, Attempt, SocketAddr)> {
    let [a, b, ..] = inside.octets();
    let port = service.port();
    let dns = UdpSocket::bind((inside, 0))?;
    let name_server = dns.local_addr()?;
    let dns_tcp = TcpListener::bind(name_server)?;
    // At the second, which is given to no name, nothing is declared.
    let tcp = [1, 99].map(|last| TcpListener::bind((Ipv4Addr::new(a, b, 0, last), port)));
    let sockets = InsideSockets {
        tcp: tcp.into_iter().collect::<Result<_, _>>()?,
        dns_udp: vec![dns],
        dns_tcp: vec![dns_tcp],
        capture: Capture::DeclaredPorts,
    };
    let path = Path::Endpoint(Endpoint {
        services: BTreeMap::from([("api.example".parse()?, EndpointAddress::Socket(service))]),
        resolver: Arc::new(HostResolver::default()),
    });
    let profile = NetworkProfile::PrivateLink;
    let mut options = BrokerOptions::new(BTreeMap::from([(profile, Arc::new(path))]));
    options.synthetic = SyntheticRanges {
        v4: format!("{a}.{b}.0.0/16").parse()?,
        v6: None,
    };
    let broker = Broker::start(sockets, options)?;
    let attempt = broker.begin(Policy {
        profile,
        mode: Mode::Enforce,
        destinations: vec![Destination {
            host: "api.example".parse()?,
            port,
            protocol: EgressProtocol::Tcp,
        }],
        limits: Limits::default(),
    })?;
    Ok((broker, attempt, name_server))
}
