//! A tunnel that is cut, as the broker's records tell of it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use barecount_model::{class::NetworkProfile, manifest::EgressProtocol, untrusted::Label};
use barecount_network::{
    broker::{Attempt, Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    policy::{Destination, Limits, Mode, Policy},
    reason::ReasonCode,
    record::{FlowRecord, Verdict},
    resolver::Resolver,
    synthetic::SyntheticRanges,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    TestResult,
    far::{HOST_NAME, HOST_V4, ip},
    near::{PATIENCE, Pair, found},
};

tests!(
    a_flow_is_recorded_with_the_way_it_took,
    a_flow_whose_tunnel_is_cut_ends_idle,
    once_a_peer_counts_as_gone_the_record_says_so,
);

/// A broker in place of a sandbox's, on loopback addresses.
struct Rig {
    _broker: Broker,
    attempt: Attempt,
    inside: SocketAddr,
}

impl Rig {
    async fn start(pair: &Pair, limits: Limits) -> Result<Self, Box<dyn std::error::Error>> {
        let tcp = std::net::TcpListener::bind("127.64.0.1:0")?;
        let port = tcp.local_addr()?.port();
        pair.far.echo(port)?;
        let dns = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let name_server = dns.local_addr()?;
        let sockets = InsideSockets {
            tcp: vec![tcp],
            dns_udp: vec![dns],
            dns_tcp: Vec::new(),
            capture: Capture::DeclaredPorts,
        };
        let paths = BTreeMap::from([(NetworkProfile::Vpn, Arc::new(pair.path.clone()))]);
        let mut options = BrokerOptions::new(paths);
        options.synthetic = SyntheticRanges {
            v4: "127.64.0.0/16".parse()?,
            v6: None,
        };
        let broker = Broker::start(sockets, options)?;
        let attempt = broker.begin(Policy {
            profile: NetworkProfile::Vpn,
            mode: Mode::Enforce,
            destinations: vec![Destination {
                host: HOST_NAME.parse()?,
                port,
                protocol: EgressProtocol::Tcp,
            }],
            limits,
        })?;
        let asked = barecount_network::NameServer::new(name_server);
        let address = asked.resolve(&HOST_NAME.parse()?).await?;
        Ok(Self {
            _broker: broker,
            attempt,
            inside: SocketAddr::new(*address.first().ok_or("no address")?, port),
        })
    }

    /// A connection through which a byte has gone there and back.
    async fn connected(&self) -> Result<TcpStream, Box<dyn std::error::Error>> {
        let mut work = TcpStream::connect(self.inside).await?;
        work.write_all(b"x").await?;
        tokio::time::timeout(PATIENCE, work.read_u8()).await??;
        Ok(work)
    }

    /// Waits until a record has a reason.
    async fn broken(&self) -> FlowRecord {
        let broken = || {
            let records = self.attempt.records().records;
            records.into_iter().find(|record| record.reason.is_some())
        };
        found(broken).await.expect("a flow breaks off")
    }
}

fn code(record: &FlowRecord) -> Option<ReasonCode> {
    record.reason.as_ref().map(|reason| reason.code)
}

async fn a_flow_is_recorded_with_the_way_it_took() -> TestResult {
    let pair = Pair::start().await?;
    let rig = Rig::start(&pair, Limits::default()).await?;
    let mut work = rig.connected().await?;
    work.shutdown().await?;
    assert_eq!(work.read(&mut [0]).await?, 0);
    drop(work);
    let log = rig.attempt.end().await;
    let record = log.records.first().ok_or("no record")?;
    assert_eq!(record.name.as_ref().map(Label::raw), Some(HOST_NAME));
    assert_eq!(record.path, Some(barecount_network::path::PathKind::Tunnel));
    assert_eq!((record.bytes_up, record.bytes_down), (1, 1));
    assert_eq!(record.verdict, Verdict::Allowed);
    Ok(())
}

async fn a_flow_whose_tunnel_is_cut_ends_idle() -> TestResult {
    let pair = Pair::start().await?;
    let limits = Limits {
        idle_timeout_ms: 500,
        ..Limits::default()
    };
    let rig = Rig::start(&pair, limits).await?;
    let mut work = rig.connected().await?;
    pair.far.die();
    // Until nothing more fits anywhere.
    let block = vec![7; 1 << 20];
    let mid_transfer = async { while work.write_all(&block).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, mid_transfer).await?;
    let record = rig.broken().await;
    assert_eq!(code(&record), Some(ReasonCode::IdleTimeout), "{record:?}");
    assert_eq!(record.path, Some(barecount_network::path::PathKind::Tunnel));
    assert!(record.bytes_up > 1, "{record:?}");
    Ok(())
}

async fn once_a_peer_counts_as_gone_the_record_says_so() -> TestResult {
    let pair = Pair::start().await?;
    let limits = Limits {
        // Longer than the protocol's own patience with a peer.
        idle_timeout_ms: 16_000,
        ..Limits::default()
    };
    let rig = Rig::start(&pair, limits).await?;
    let mut work = rig.connected().await?;
    pair.far.die();
    work.write_all(b"unanswered").await?;
    let record = rig.broken().await;
    assert_eq!(code(&record), Some(ReasonCode::PathDown), "{record:?}");
    assert!(!pair.near.peer().up);
    // And what is dialled now is refused for the same reason.
    let error = pair
        .path
        .dial(
            &barecount_network::Target::Address(ip(HOST_V4)),
            7,
            Duration::from_secs(1),
        )
        .await
        .err()
        .ok_or("it was dialled")?;
    assert_eq!(error.code(), ReasonCode::PathDown, "{error:?}");
    Ok(())
}
