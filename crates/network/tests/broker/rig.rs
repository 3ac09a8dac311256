//! A broker between a service and a program.

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use barecount_model::{class::NetworkProfile, manifest::EgressProtocol};
use barecount_network::{
    broker::{Attempt, Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    descriptors::Descriptors,
    name::HostName,
    path::{Names, Path, Private},
    policy::{Destination, Limits, Mode, Policy},
    reason::ReasonCode,
    record::{FlowLog, FlowRecord},
    resolver::{ResolveError, Resolver},
    synthetic::SyntheticRanges,
};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE, rdata::RData};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

pub(crate) type TestResult = Result<(), Box<dyn Error>>;

/// Longer than anything here takes, so that a test that hangs fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Names as a test defines them.
#[derive(Debug, Default)]
pub(crate) struct Hosts(pub(crate) BTreeMap<HostName, Vec<IpAddr>>);

impl Hosts {
    pub(crate) fn of(hosts: &[(&str, &[&str])]) -> Arc<Self> {
        let address = |text: &&str| text.parse().expect("an address");
        Arc::new(Self(
            hosts
                .iter()
                .map(|(name, addresses)| (host(name), addresses.iter().map(address).collect()))
                .collect(),
        ))
    }
}

#[async_trait]
impl Resolver for Hosts {
    async fn resolve(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        self.0.get(name).cloned().ok_or(ResolveError::NoSuchName)
    }
}

pub(crate) fn host(name: &str) -> HostName {
    name.parse().expect("a name")
}

pub(crate) fn destination(name: &str, port: u16, protocol: EgressProtocol) -> Destination {
    Destination {
        host: name.parse().expect("a host"),
        port,
        protocol,
    }
}

/// Loopback addresses, reached as a private range is.
pub(crate) fn loopback(resolver: Arc<dyn Resolver>) -> Path {
    Path::Private(Private {
        ranges: vec!["127.0.0.0/8".parse().expect("a range")],
        resolver,
        public_via: None,
        public_names: Names::Any,
    })
}

/// `api.example`, `www.example` and others, all at the service's address.
pub(crate) fn hosts() -> Arc<Hosts> {
    Hosts::of(&[
        ("api.example", &["127.0.0.1"]),
        ("www.example", &["127.0.0.1"]),
        ("undeclared.example", &["127.0.0.1"]),
    ])
}

const LITERAL: Ipv4Addr = Ipv4Addr::new(127, 65, 0, 1);

/// Tries again while a port that one address has free is taken on another.
async fn retried<T>(bind: impl AsyncFn() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        tries += 1;
        match bind().await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 50 => {}
            bound => return bound,
        }
    }
}

/// Sockets of both protocols on one port.
pub(crate) async fn udp_and_tcp() -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    retried(async || {
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let tcp = std::net::TcpListener::bind(udp.local_addr()?)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    })
    .await
}

/// A broker between a service and a program.
pub(crate) struct Rig {
    /// The service at 127.0.0.1 and the port that is declared.
    pub(crate) service: TcpListener,
    /// The declared port.
    pub(crate) port: u16,
    /// A port that is not declared, and on which a listener waits all the same.
    pub(crate) other_port: u16,
    pub(crate) broker: Broker,
    pub(crate) name_server: SocketAddr,
    /// Where listeners wait for connections to literal addresses.
    pub(crate) literal: IpAddr,
}

impl Rig {
    pub(crate) async fn start(path: Path) -> io::Result<Self> {
        Self::start_with(path, Descriptors::of_process()).await
    }

    /// With descriptors that others may share.
    pub(crate) async fn start_with(path: Path, descriptors: Arc<Descriptors>) -> io::Result<Self> {
        let bound = retried(async || {
            let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = service.local_addr()?.port();
            let given = (1..=4).map(|last| Ipv4Addr::new(127, 64, 0, last));
            let inside: io::Result<Vec<_>> = given
                .chain([LITERAL])
                .map(|address| std::net::TcpListener::bind((address, port)))
                .collect();
            Ok((service, inside?))
        });
        let (service, mut tcp) = bound.await?;
        let port = service.local_addr()?.port();
        let other = std::net::TcpListener::bind((Ipv4Addr::new(127, 64, 0, 1), 0))?;
        let other_port = other.local_addr()?.port();
        tcp.push(other);
        let (dns_udp, dns_tcp) = udp_and_tcp().await?;
        let name_server = dns_udp.local_addr()?;
        let sockets = InsideSockets {
            tcp,
            dns_tcp: vec![dns_tcp],
            dns_udp: vec![dns_udp],
            capture: Capture::DeclaredPorts,
        };
        let paths = BTreeMap::from([(NetworkProfile::PrivateVpc, Arc::new(path))]);
        let mut options = BrokerOptions::new(paths);
        options.descriptors = descriptors;
        options.synthetic = SyntheticRanges {
            v4: "127.64.0.0/16".parse().expect("a range"),
            v6: None,
        };
        Ok(Self {
            service,
            port,
            other_port,
            broker: Broker::start(sockets, options)?,
            name_server,
            literal: LITERAL.into(),
        })
    }

    /// A policy that declares `api.example`.
    pub(crate) fn policy(&self, protocol: EgressProtocol) -> Policy {
        Policy {
            profile: NetworkProfile::PrivateVpc,
            mode: Mode::Enforce,
            destinations: vec![destination("api.example", self.port, protocol)],
            limits: Limits::default(),
        }
    }

    pub(crate) fn begin(&self, protocol: EgressProtocol) -> Attempt {
        self.broker
            .begin(self.policy(protocol))
            .expect("a policy that stands")
    }

    /// A whole exchange with the name server over UDP.
    pub(crate) async fn ask(&self, name: &str, kind: TYPE) -> Result<Vec<u8>, Box<dyn Error>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(self.name_server).await?;
        socket.send(&query(name, kind)?).await?;
        let mut buffer = [0; 2_048];
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await??;
        Ok(buffer[..length].to_vec())
    }

    /// The same over TCP.
    pub(crate) async fn ask_over_tcp(&self, queries: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        let mut stream = TcpStream::connect(self.name_server).await?;
        let mut answers = Vec::new();
        for query in queries {
            let length = u16::try_from(query.len()).expect("a short query");
            // Length and query apart, as some clients send them.
            stream.write_u16(length).await?;
            stream.write_all(query).await?;
        }
        for _ in queries {
            let mut answer = vec![0; stream.read_u16().await?.into()];
            stream.read_exact(&mut answer).await?;
            answers.push(answer);
        }
        Ok(answers)
    }

    pub(crate) async fn lookup(&self, name: &str) -> Result<Option<IpAddr>, Box<dyn Error>> {
        let answer = self.ask(name, TYPE::A).await?;
        let answer = Packet::parse(&answer)?;
        Ok(match answer.rcode() {
            RCODE::NoError => answer
                .answers
                .iter()
                .find_map(|record| match &record.rdata {
                    RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
                    _ => None,
                }),
            _ => None,
        })
    }

    /// Connects as a program does: looks the name up, and connects to what it is told.
    pub(crate) async fn connect(&self, name: &str) -> Result<TcpStream, Box<dyn Error>> {
        let address = self.lookup(name).await?.ok_or("the name was not found")?;
        Ok(TcpStream::connect((address, self.port)).await?)
    }

    /// Both ends of a connection to `api.example`.
    pub(crate) async fn connected(&self) -> Result<(TcpStream, TcpStream), Box<dyn Error>> {
        let work = self.connect("api.example").await?;
        let (there, _) = tokio::time::timeout(PATIENCE, self.service.accept()).await??;
        Ok((work, there))
    }

    /// Whether nothing has connected to the service.
    pub(crate) fn is_untouched(&self) -> bool {
        futures::FutureExt::now_or_never(self.service.accept()).is_none()
    }
}

pub(crate) fn query(name: &str, kind: TYPE) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut packet = Packet::new_query(0x4d2);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(name)?,
        kind.into(),
        CLASS::IN.into(),
        false,
    ));
    Ok(packet.build_bytes_vec()?)
}

/// What the other side sent until it ended the connection.
pub(crate) async fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await??;
    Ok(read)
}

/// Asserts that a connection is reset, and not just ended.
pub(crate) async fn assert_reset(stream: &mut TcpStream) {
    let error = read_all(stream)
        .await
        .expect_err("the connection ended as if well");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// The one record of a log.
pub(crate) fn only(log: &FlowLog) -> &FlowRecord {
    assert_eq!(log.records.len(), 1, "{log:#?}");
    &log.records[0]
}

pub(crate) fn code(record: &FlowRecord) -> Option<ReasonCode> {
    record.reason.as_ref().map(|reason| reason.code)
}

/// Waits until an attempt's records say so.
pub(crate) async fn until(attempt: &Attempt, is_so: impl Fn(&FlowLog) -> bool) {
    let so = async {
        while !is_so(&attempt.records()) {
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so)
        .await
        .expect("it comes to be so");
}
