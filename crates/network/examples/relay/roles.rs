//! The processes that the work talks with.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use crate::{
    INSIDE,
    measuring::{self, Outcome},
};
use barecount_model::{class::NetworkProfile, manifest::EgressProtocol};
use barecount_network::{
    broker::{Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    path::{Endpoint, EndpointAddress, Path},
    policy::{Destination, Limits, Mode, Policy},
    resolver::HostResolver,
    synthetic::SyntheticRanges,
};

fn tell(address: SocketAddr) -> Outcome<()> {
    writeln!(std::io::stdout(), "{address}")?;
    Ok(())
}

/// Waits until the process that started this one lets go.
fn until_let_go() -> Outcome<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The service that every way leads to.
pub(crate) fn service() -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        tell(listener.local_addr()?)?;
        Ok(measuring::serve(listener).await?)
    })
}

/// The plain relay.
pub(crate) fn plain(service: SocketAddr) -> Outcome<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    tell(listener.local_addr()?)?;
    Ok(measuring::relay_plainly(&listener, service)?)
}

/// The broker, and a name server of its own.
pub(crate) fn broker(service: SocketAddr, port: u16) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let dns = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let name_server = dns.local_addr()?;
    let sockets = InsideSockets {
        tcp: vec![TcpListener::bind((INSIDE, port))?],
        dns_udp: vec![dns],
        dns_tcp: Vec::new(),
        capture: Capture::DeclaredPorts,
    };
    let path = Path::Endpoint(Endpoint {
        services: BTreeMap::from([("api.example".parse()?, EndpointAddress::Socket(service))]),
        resolver: Arc::new(HostResolver::default()),
    });
    let mut options = BrokerOptions::new(BTreeMap::from([(
        NetworkProfile::PrivateLink,
        Arc::new(path),
    )]));
    options.synthetic = SyntheticRanges {
        v4: "127.64.0.0/16".parse()?,
        v6: None,
    };
    let broker = Broker::start(sockets, options)?;
    let attempt = broker.begin(Policy {
        profile: NetworkProfile::PrivateLink,
        mode: Mode::Enforce,
        destinations: vec![Destination {
            host: "api.example".parse()?,
            port,
            protocol: EgressProtocol::Tcp,
        }],
        limits: Limits {
            max_flows: 4_096,
            new_flows_per_second: 1_000_000,
            ..Limits::default()
        },
    })?;
    tell(name_server)?;
    until_let_go()?;
    for record in runtime.block_on(attempt.end()).records {
        if record.reason.is_some() {
            writeln!(std::io::stderr(), "{}", serde_json::to_string(&record)?)?;
        }
    }
    Ok(())
}
