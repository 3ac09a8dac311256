//! What is not declared, not proved, or not there is refused.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use barecount_network::{
    path::DialError,
    reason::ReasonCode,
    tunnel::{PeerConfig, TunnelConfig, TunnelEnds, TunnelStartError, WireGuard},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::{
    TestResult,
    far::{ABSENT_V4, Far, HOST_V4, Key, NEAR_V4, ip},
    near::{ALLOWED, Near, PATIENCE, Pair, at, dial, named},
};

tests!(
    what_the_path_does_not_lead_to_is_refused,
    an_unknown_name_is_not_asked_of_the_host,
    a_wrong_key_leads_nowhere,
    a_wrong_shared_key_leads_nowhere,
    without_a_peer_nothing_falls_back_to_the_host,
    a_packet_from_a_foreign_source_is_dropped,
    a_packet_to_another_is_not_passed_on,
    a_message_that_is_repeated_is_refused,
    noise_does_no_harm,
    a_configuration_without_sense_is_refused,
);

/// Fails with what the record would say.
async fn refused(
    path: &barecount_network::path::Path,
    target: &barecount_network::Target,
    limit: Duration,
) -> DialError {
    let dialled = path.dial(target, 7, limit).await;
    dialled.expect_err("it was dialled")
}

async fn what_the_path_does_not_lead_to_is_refused() -> TestResult {
    let pair = Pair::start().await?;
    dial(&pair.path, &at(HOST_V4), 7).await?;
    for address in [
        "10.77.0.1",
        "192.0.2.1",
        "127.0.0.1",
        "fd77::1",
        "169.254.169.254",
    ] {
        let error = refused(&pair.path, &at(address), PATIENCE).await;
        assert_eq!(error.code(), ReasonCode::AddressOutsideRanges, "{address}");
    }
    // In the ranges, and no host there: the kernel of the far side does not answer for it.
    let error = refused(&pair.path, &at(ABSENT_V4), Duration::from_millis(300)).await;
    assert_eq!(error.code(), ReasonCode::DialTimeout);
    let error = pair.path.dial(&at(HOST_V4), 8, PATIENCE).await;
    assert_eq!(
        error.err().map(|error| error.code()),
        Some(ReasonCode::ConnectFailed)
    );
    Ok(())
}

async fn an_unknown_name_is_not_asked_of_the_host() -> TestResult {
    let pair = Pair::start().await?;
    // Which the host's resolver knows.
    let target = barecount_network::Target::Name("localhost.example".parse()?);
    let error = refused(&pair.path, &target, PATIENCE).await;
    assert_eq!(error.code(), ReasonCode::NotResolved, "{error:?}");
    Ok(())
}

/// Neither side's packets pass, and the dial says that the tunnel is down.
async fn assert_down(near: &Near, far: &Far) -> TestResult {
    let listener = far.listen(HOST_V4, 7)?;
    let path = near.path(SocketAddr::new(ip(HOST_V4), 53));
    for target in [at(HOST_V4), named()] {
        let error = refused(&path, &target, Duration::from_millis(1_500)).await;
        assert_eq!(error.code(), ReasonCode::PathDown, "{error:?}");
    }
    assert!(futures::FutureExt::now_or_never(listener.accept()).is_none());
    let peer = near.peer();
    assert!(!peer.up && peer.handshake_age_ms.is_none(), "{peer:?}");
    Ok(())
}

async fn a_wrong_key_leads_nowhere() -> TestResult {
    let (ours, theirs, other) = (Key::random(), Key::random(), Key::random());
    let far = Far::start(&theirs, ours.public(), None).await?;
    let near = Near::start(&ours, other.public(), far.address(), &ALLOWED, None)?;
    assert_down(&near, &far).await?;
    let near = Near::start(&other, theirs.public(), far.address(), &ALLOWED, None)?;
    assert_down(&near, &far).await
}

async fn a_wrong_shared_key_leads_nowhere() -> TestResult {
    let (ours, theirs) = (Key::random(), Key::random());
    let (shared, other) = (Key::random(), Key::random());
    let far = Far::start(&theirs, ours.public(), Some(&shared)).await?;
    let near = Near::start(
        &ours,
        theirs.public(),
        far.address(),
        &ALLOWED,
        Some(&other),
    )?;
    assert_down(&near, &far).await
}

async fn without_a_peer_nothing_falls_back_to_the_host() -> TestResult {
    let on_the_host = TcpListener::bind("127.0.0.1:0").await?;
    let port = on_the_host.local_addr()?.port();
    // It hears, and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").await?;
    let near = Near::start(
        &Key::random(),
        Key::random().public(),
        silent.local_addr()?,
        &["0.0.0.0/0", "127.0.0.0/8", "::/0"],
        None,
    )?;
    let path = barecount_network::path::Path::Through(barecount_network::path::Through {
        tunnel: near.tunnel.clone(),
        ranges: vec!["127.0.0.0/8".parse()?],
        resolver: std::sync::Arc::new(
            barecount_network::NameServer::new("127.0.0.1:53".parse()?)
                .through(near.tunnel.clone()),
        ),
    });
    let error = path
        .dial(&at("127.0.0.1"), port, Duration::from_secs(1))
        .await
        .err()
        .ok_or("it was dialled")?;
    assert_eq!(error.code(), ReasonCode::PathDown, "{error:?}");
    assert!(error.is_refusal());
    let mut first = [0; 256];
    let (length, _) = silent.recv_from(&mut first).await?;
    assert_eq!((length, first[0]), (148, 1), "it was asked for a handshake");
    assert!(futures::FutureExt::now_or_never(on_the_host.accept()).is_none());
    Ok(())
}

/// An IPv4 packet of protocol 253, which is for experiments (RFC 3692).
fn packet(source: &str, destination: &str) -> Vec<u8> {
    let octets = |text| match ip(text) {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => unreachable!("an IPv4 address"),
    };
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 253, 0, 0];
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend([0; 8]);
    packet
}

async fn a_packet_from_a_foreign_source_is_dropped() -> TestResult {
    let pair = Pair::start().await?;
    dial(&pair.path, &at(HOST_V4), 7).await?;
    let before = pair.near.peer();
    pair.far.send_packet(&packet("192.0.2.66", NEAR_V4)).await?;
    pair.near.until(|peer| peer.foreign_packets == 1).await;
    pair.far.send_packet(&packet(HOST_V4, NEAR_V4)).await?;
    pair.near
        .until(|peer| peer.bytes_received >= before.bytes_received + 28)
        .await;
    assert_eq!(pair.near.peer().foreign_packets, 1);
    Ok(())
}

async fn a_packet_to_another_is_not_passed_on() -> TestResult {
    let pair = Pair::start().await?;
    dial(&pair.path, &at(HOST_V4), 7).await?;
    for (already, destination) in [HOST_V4, "10.77.0.3", "127.0.0.1"].iter().enumerate() {
        pair.far.send_packet(&packet(HOST_V4, destination)).await?;
        pair.near
            .until(|peer| peer.foreign_packets == already as u64 + 1)
            .await;
    }
    Ok(())
}

async fn a_message_that_is_repeated_is_refused() -> TestResult {
    let pair = Pair::start().await?;
    let mut stream = dial(&pair.path, &at(HOST_V4), 7).await?;
    stream.write_all(b"x").await?;
    stream.read_u8().await?;
    let before = pair.near.peer();
    pair.far.send_message(&pair.far.last_message()).await?;
    pair.near
        .until(|peer| peer.refused_messages == before.refused_messages + 1)
        .await;
    Ok(())
}

async fn noise_does_no_harm() -> TestResult {
    let pair = Pair::start().await?;
    let mut stream = dial(&pair.path, &at(HOST_V4), 7).await?;
    let stranger = UdpSocket::bind("127.0.0.1:0").await?;
    let near = SocketAddr::from(([127, 0, 0, 1], pair.near.tunnel.listen_port()));
    let mut sent = 0;
    for kind in 0..=5_u8 {
        for length in [1, 4, 16, 32, 64, 92, 148, 1_452] {
            let mut noise: Vec<u8> = (0..length).map(|_| rand::random()).collect();
            noise.splice(
                ..noise.len().min(4),
                [kind, 0, 0, 0].into_iter().take(length),
            );
            stranger.send_to(&noise, near).await?;
            sent += 1;
        }
    }
    // Data for a session that there is: of the right number, with a wrong key.
    let strays = || pair.near.tunnel.health().stray_datagrams + pair.near.peer().refused_messages;
    pair.near.until(|_| strays() >= sent - 1).await;
    assert_eq!(
        pair.near.peer().endpoint,
        Some(pair.far.address()),
        "it follows no stranger"
    );
    stream.write_all(b"x").await?;
    assert_eq!(
        tokio::time::timeout(PATIENCE, stream.read_u8()).await??,
        b'x'
    );
    Ok(())
}

async fn a_configuration_without_sense_is_refused() -> TestResult {
    let (ours, theirs) = (Key::random(), Key::random());
    let peer = |key: &Key, network: &str| PeerConfig {
        public_key: key.public(),
        preshared_key: None,
        endpoint: None,
        allowed_ips: vec![network.parse().expect("a network")],
        keepalive: None,
    };
    let start = |peers| {
        let (device, _) = std::io::pipe().expect("a pipe");
        let config = TunnelConfig {
            private_key: ours.private(),
            addresses: vec![ip(NEAR_V4)],
            listen_port: 0,
            peers,
        };
        let ends = TunnelEnds {
            device: device.into(),
            inside: std::sync::Arc::new(NoInside),
        };
        WireGuard::start(config, ends)
    };
    let error = start(Vec::new()).expect_err("no peer");
    assert!(matches!(error, TunnelStartError::Peers { .. }), "{error}");
    let error = start(vec![peer(&ours, "10.0.0.0/8")]).expect_err("our own key");
    assert!(matches!(error, TunnelStartError::OwnKey), "{error}");
    let twice = vec![peer(&theirs, "10.0.0.0/8"), peer(&theirs, "10.1.0.0/16")];
    let error = start(twice).expect_err("one key twice");
    assert!(
        matches!(error, TunnelStartError::DuplicatePeer { .. }),
        "{error}"
    );
    let twice = vec![
        peer(&theirs, "10.0.0.0/8"),
        peer(&Key::random(), "10.0.0.0/8"),
    ];
    let error = start(twice).expect_err("one network twice");
    assert!(
        matches!(error, TunnelStartError::DuplicateNetwork { .. }),
        "{error}"
    );
    Ok(())
}

#[derive(Debug)]
struct NoInside;

impl barecount_network::tunnel::InsideTcp for NoInside {
    fn tcp_socket(&self, _ipv6: bool) -> std::io::Result<std::os::fd::OwnedFd> {
        Err(std::io::ErrorKind::NotConnected.into())
    }
}
