//! Each path leads where it should, and nowhere else.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use barecount_model::manifest::EgressProtocol;
use barecount_network::{
    health::{EndpointDns, probe},
    path::{
        Binding, Bound, Connection, Direct, Endpoint, EndpointAddress, Facility, Names, Path,
        PathKind, Private, PublicVia, Through, Tunnel, TunnelState,
    },
    reason::ReasonCode,
    record::{FlowRecord, Verdict},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use crate::rig::*;

fn ranges() -> Vec<ipnet::IpNet> {
    vec!["127.0.0.0/8".parse().expect("a range")]
}

/// Connects to `api.example` by a path, expects a reset, and gives the record.
async fn refused_by(path: Path) -> Result<FlowRecord, Box<dyn std::error::Error>> {
    let rig = Rig::start(path).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let mut work = rig.connect("api.example").await?;
    assert_reset(&mut work).await;
    assert!(rig.is_untouched());
    let log = attempt.end().await;
    let record = only(&log).clone();
    assert_eq!(record.verdict, Verdict::Refused);
    Ok(record)
}

#[tokio::test]
async fn a_public_name_with_a_private_answer_is_refused() -> TestResult {
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::ffff:127.0.0.1",
        "2002:7f00:1::1",
    ] {
        let resolver = Hosts::of(&[("api.example", &[address])]);
        let record = refused_by(Path::Direct(Direct {
            names: Names::Any,
            resolver,
        }))
        .await?;
        assert_eq!(
            code(&record),
            Some(ReasonCode::AddressNotPublic),
            "{address}"
        );
        let shown: IpAddr = address.parse()?;
        assert_eq!(record.address, Some(shown.to_canonical()));
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_moves_to_a_private_address_is_refused_from_then_on() -> TestResult {
    /// Public at first; a private address once it has been asked.
    #[derive(Debug, Default)]
    struct Rebinds(std::sync::atomic::AtomicBool);

    #[async_trait]
    impl barecount_network::resolver::Resolver for Rebinds {
        async fn resolve(
            &self,
            _: &barecount_network::name::HostName,
        ) -> Result<Vec<IpAddr>, barecount_network::resolver::ResolveError> {
            let asked = self.0.swap(true, std::sync::atomic::Ordering::Relaxed);
            Ok(vec![
                if asked {
                    [127, 0, 0, 1]
                } else {
                    [240, 0, 0, 1]
                }
                .into(),
            ])
        }
    }
    let rig = Rig::start(Path::Direct(Direct {
        names: Names::Any,
        resolver: Arc::new(Rebinds::default()),
    }))
    .await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    for _ in 0..2 {
        let mut work = rig.connect("api.example").await?;
        assert_reset(&mut work).await;
    }
    assert!(rig.is_untouched());
    assert_eq!(attempt.end().await.totals.refused, 2);
    Ok(())
}

#[tokio::test]
async fn a_private_path_leads_to_its_ranges_whatever_a_name_resolves_to() -> TestResult {
    let path = |answers: &[&str]| {
        Path::Private(Private {
            ranges: vec!["10.20.0.0/16".parse().expect("a range")],
            resolver: Hosts::of(&[("api.example", answers)]),
            public_via: None,
            public_names: Names::Any,
        })
    };
    for address in ["127.0.0.1", "93.184.216.34", "10.21.0.1"] {
        let record = refused_by(path(&[address])).await?;
        assert_eq!(
            code(&record),
            Some(ReasonCode::AddressOutsideRanges),
            "{address}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_a_failure_and_no_refusal() -> TestResult {
    let rig = Rig::start(loopback(Hosts::of(&[]))).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let mut work = rig.connect("api.example").await?;
    assert_reset(&mut work).await;
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(
        (record.verdict, code(record)),
        (Verdict::Allowed, Some(ReasonCode::NotResolved))
    );
    Ok(())
}

/// A proxy that answers as told and then speaks first, with the request that it got.
async fn proxy(answer: &'static str) -> io::Result<(SocketAddr, tokio::task::JoinHandle<String>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        stream.write_all(answer.as_bytes()).await.expect("written");
        String::from_utf8(request).expect("text")
    });
    Ok((address, served))
}

fn behind(proxy: SocketAddr, answers: &[(&str, &[&str])]) -> Path {
    Path::Private(Private {
        ranges: vec!["10.20.0.0/16".parse().expect("a range")],
        resolver: Hosts::of(answers),
        public_via: Some(PublicVia::Proxy(proxy)),
        public_names: Names::Any,
    })
}

#[tokio::test]
async fn a_public_name_is_reached_by_the_approved_proxy_only() -> TestResult {
    for answers in [&[("api.example", &["93.184.216.34"][..])][..], &[]] {
        let (address, served) = proxy("HTTP/1.1 200 OK\r\nX: y\r\n\r\nfirst words").await?;
        let rig = Rig::start(behind(address, answers)).await?;
        let attempt = rig.begin(EgressProtocol::Tcp);
        let mut work = rig.connect("api.example").await?;
        let mut words = [0; 11];
        work.read_exact(&mut words).await?;
        assert_eq!(&words, b"first words");
        let request = served.await?;
        assert!(request.starts_with(&format!("CONNECT api.example:{} HTTP/1.1\r\n", rig.port)));
        let log = attempt.end().await;
        assert_eq!(
            (only(&log).path, only(&log).address),
            (Some(PathKind::Proxy), Some(address.ip()))
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_private_name_outside_the_ranges_does_not_go_by_the_proxy() -> TestResult {
    let (address, served) = proxy("HTTP/1.1 200 OK\r\n\r\n").await?;
    let record = refused_by(behind(address, &[("api.example", &["10.99.0.1"])])).await?;
    assert_eq!(code(&record), Some(ReasonCode::AddressOutsideRanges));
    assert!(!served.is_finished());
    served.abort();
    Ok(())
}

#[tokio::test]
async fn a_proxy_that_refuses_or_talks_nonsense_is_written_down() -> TestResult {
    for answer in [
        "HTTP/1.1 403 Forbidden\r\n\r\n",
        "220 mail.example\r\n\r\n",
        "HTTP/1.1 2",
    ] {
        let (address, _served) = proxy(answer).await?;
        let record = refused_by(behind(address, &[])).await?;
        assert_eq!(code(&record), Some(ReasonCode::ProxyRefused), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoint_stands_for_its_service_and_for_nothing_else() -> TestResult {
    let service = TcpListener::bind(("127.0.0.1", 0)).await?;
    let path = |name: &str, address| {
        Path::Endpoint(Endpoint {
            services: BTreeMap::from([(host(name), address)]),
            resolver: Hosts::of(&[("public.example", &["93.184.216.34"])]),
        })
    };
    let at = EndpointAddress::Socket(service.local_addr()?);
    let rig = Rig::start(path("api.example", at.clone())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let mut work = rig.connect("api.example").await?;
    let (mut there, _) = service.accept().await?;
    there.write_all(b"hello").await?;
    work.read_exact(&mut [0; 5]).await?;
    assert_eq!(only(&attempt.end().await).path, Some(PathKind::Endpoint));

    let record = refused_by(path("other.example", at)).await?;
    assert_eq!(code(&record), Some(ReasonCode::NoEndpoint));
    let public = EndpointAddress::Name(host("public.example"));
    let record = refused_by(path("api.example", public)).await?;
    assert_eq!(code(&record), Some(ReasonCode::AddressOutsideRanges));
    Ok(())
}

#[tokio::test]
async fn a_facility_path_leads_to_its_own_names_in_its_own_ranges() -> TestResult {
    let path = |zone: &str, address: &str| {
        Path::Facility(Facility {
            zones: vec![host(zone)],
            ranges: ranges(),
            resolver: Hosts::of(&[("api.example", &[address])]),
        })
    };
    let rig = Rig::start(path("example", "127.0.0.1")).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let _open = rig.connected().await?;
    until(&attempt, |log| log.totals.allowed == 1).await;
    let record = refused_by(path("plant.example", "127.0.0.1")).await?;
    assert_eq!(code(&record), Some(ReasonCode::NameOutsideFacility));
    let record = refused_by(path("example", "93.184.216.34")).await?;
    assert_eq!(code(&record), Some(ReasonCode::AddressOutsideRanges));
    Ok(())
}

#[tokio::test]
async fn a_bound_path_leads_nowhere_while_its_interface_is_not_there() -> TestResult {
    let path = |binding| {
        Path::Bound(Bound {
            binding,
            ranges: ranges(),
            resolver: hosts(),
        })
    };
    for there in [
        Binding::Interface("lo".to_owned()),
        Binding::Source([127, 0, 0, 9].into()),
    ] {
        let rig = Rig::start(path(there.clone())).await?;
        let _attempt = rig.begin(EgressProtocol::Tcp);
        let _work = rig.connect("api.example").await?;
        let (_there, from) = rig.service.accept().await?;
        if let Binding::Source(source) = there {
            assert_eq!(from.ip(), source);
        }
    }
    for gone in [
        Binding::Interface("nosuchtun0".to_owned()),
        Binding::Source([192, 0, 2, 1].into()),
    ] {
        let record = refused_by(path(gone.clone())).await?;
        assert_eq!(code(&record), Some(ReasonCode::PathDown), "{gone}");
    }
    Ok(())
}

#[tokio::test]
async fn a_probe_finds_a_service_whose_name_leads_past_its_endpoint() -> TestResult {
    let service = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = service.local_addr()?.port();
    for (answers, expected, ok) in [
        (
            &[("api.example", &["127.0.0.1"][..])][..],
            EndpointDns::Endpoint,
            true,
        ),
        (
            &[("api.example", &["93.184.216.34"])],
            EndpointDns::Elsewhere,
            false,
        ),
        (&[], EndpointDns::Nowhere, true),
    ] {
        let at = EndpointAddress::Socket(service.local_addr()?);
        let path = Path::Endpoint(Endpoint {
            services: BTreeMap::from([(host("api.example"), at)]),
            resolver: Hosts::of(answers),
        });
        let wanted = [destination("api.example", port, EgressProtocol::Tcp)];
        let health = probe(&path, &wanted, PATIENCE).await;
        assert_eq!(
            (health.destinations[0].dns, health.ok),
            (Some(expected), ok)
        );
    }
    Ok(())
}

/// A tunnel of bytes in memory; the other ends wait in a list.
#[derive(Debug, Default)]
struct Pipes {
    up: std::sync::atomic::AtomicBool,
    ends: Mutex<Vec<(SocketAddr, DuplexStream)>>,
}

#[async_trait]
impl Tunnel for Pipes {
    async fn connect(&self, to: SocketAddr) -> io::Result<Connection> {
        let (near, far) = tokio::io::duplex(64);
        self.ends.lock().await.push((to, far));
        Ok(Connection::Stream(Box::new(near)))
    }

    async fn state(&self, _to: Option<IpAddr>) -> TunnelState {
        if self.up.load(std::sync::atomic::Ordering::Relaxed) {
            TunnelState::Up {
                handshake_age: None,
                round_trip: None,
            }
        } else {
            TunnelState::Down {
                reason: "no handshake for 200 s".to_owned(),
            }
        }
    }
}

#[tokio::test]
async fn a_tunnel_carries_both_ways_and_nothing_while_it_is_down() -> TestResult {
    let tunnel = Arc::new(Pipes::default());
    let path = Path::Through(Through {
        tunnel: tunnel.clone(),
        ranges: ranges(),
        resolver: hosts(),
    });
    let record = refused_by(path.clone()).await?;
    assert_eq!(code(&record), Some(ReasonCode::PathDown));
    let health = probe(&path, &[], PATIENCE).await;
    assert_eq!(
        health.reason.map(|reason| reason.code),
        Some(ReasonCode::PathDown)
    );

    tunnel.up.store(true, std::sync::atomic::Ordering::Relaxed);
    let rig = Rig::start(path).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let mut work = rig.connect("api.example").await?;
    until(&attempt, |log| {
        log.records.iter().any(|flow| flow.path.is_some())
    })
    .await;
    let (to, mut far) = tunnel.ends.lock().await.pop().ok_or("no connection")?;
    assert_eq!(to, SocketAddr::from(([127, 0, 0, 1], rig.port)));
    let sent = vec![5; 1_000];
    let (mut there, mut back) = (Vec::new(), Vec::new());
    work.write_all(&sent).await?;
    work.shutdown().await?;
    far.read_to_end(&mut there).await?;
    far.write_all(b"answer").await?;
    drop(far);
    work.read_to_end(&mut back).await?;
    assert_eq!((there, &back[..]), (sent, &b"answer"[..]));
    until(&attempt, |log| log.totals.bytes_down == 6).await;
    assert_eq!(only(&attempt.end().await).path, Some(PathKind::Tunnel));
    Ok(())
}

#[tokio::test]
async fn a_probe_tells_which_destination_is_not_reached() -> TestResult {
    let service = TcpListener::bind(("127.0.0.1", 0)).await?;
    let gone = TcpListener::bind(("127.0.0.1", 0))
        .await?
        .local_addr()?
        .port();
    let port = service.local_addr()?.port();
    let path = loopback(hosts());
    let tcp = EgressProtocol::Tcp;
    let good = [
        destination("api.example", port, tcp),
        destination("127.0.0.1", port, tcp),
    ];
    let health = probe(&path, &good, PATIENCE).await;
    assert!(health.ok && health.latency_us.is_some(), "{health:?}");
    let bad = [
        destination("api.example", port, tcp),
        destination("nobody.example", port, tcp),
        destination("api.example", gone, tcp),
    ];
    let health = probe(&path, &bad, PATIENCE).await;
    let codes: Vec<_> = health
        .destinations
        .iter()
        .map(|probed| probed.reason.as_ref().map(|reason| reason.code))
        .collect();
    assert_eq!(
        codes,
        [
            None,
            Some(ReasonCode::NotResolved),
            Some(ReasonCode::ConnectFailed)
        ]
    );
    assert!(!health.ok);
    let _ = TcpStream::connect(service.local_addr()?).await?;
    Ok(())
}
