//! A public address, routes as a sandbox has them, and an interface that goes down: in a network
//! namespace of the test's own.

use std::{collections::BTreeMap, net::IpAddr, process::Command, sync::Arc};

use barecount_model::{class::NetworkProfile, manifest::EgressProtocol};
use barecount_network::{
    broker::{Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    path::{Binding, Bound, Direct, Names, Path, PathKind},
    policy::{Limits, Mode, Policy},
    reason::ReasonCode,
};
use simple_dns::TYPE;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::rig::*;

const PUBLIC: &str = "93.184.215.14";

/// Runs one of the ignored tests below in a namespace that a script has prepared.
fn in_a_namespace(test: &str, script: &str) {
    let this = std::env::current_exe().expect("the test's own path");
    let script =
        format!("set -e; ip link set lo up; {script}; exec \"$0\" --exact {test} --ignored");
    let ended = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", &script])
        .arg(this)
        .output()
        .expect("unshare runs");
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

#[test]
fn a_public_address_is_reached_through_the_synthetic_ones() {
    in_a_namespace(
        "namespace::inside_a_public_address_is_reached",
        &format!(
            "ip address add {PUBLIC}/32 dev lo; \
             ip route add local 198.18.0.0/15 dev lo; \
             ip -6 route add local fd62:6172:6563::/96 dev lo; \
             echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind"
        ),
    );
}

#[test]
fn a_path_over_an_interface_that_goes_down_leads_nowhere() {
    in_a_namespace(
        "namespace::inside_an_interface_goes_down",
        "ip link add tun9 type veth peer name tun8; ip address add 10.9.0.1/24 dev tun9; ip link set tun9 up",
    );
}

#[test]
fn a_connection_whose_destination_the_kernel_does_not_know_is_refused() {
    in_a_namespace("namespace::inside_nothing_was_redirected", "true");
}

#[test]
fn a_lookup_at_any_name_server_is_answered_from_there_and_written_down_with_it() {
    in_a_namespace(
        "namespace::inside_any_name_server_is_asked",
        "ip address add 192.0.0.8/32 dev lo; ip route add local default dev lo src 192.0.0.8; \
         ip -6 route add local default dev lo; \
         echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind",
    );
}

/// A broker with one listener on each address, which declares `api.example`.
async fn broker(
    path: Path,
    port: u16,
    inside: &[IpAddr],
    capture: Capture,
) -> Result<Broker, Box<dyn std::error::Error>> {
    let mut tcp = Vec::new();
    for address in inside {
        tcp.push(std::net::TcpListener::bind((*address, port))?);
    }
    let dns_udp = std::net::UdpSocket::bind("127.0.0.1:53")?;
    let sockets = InsideSockets {
        tcp,
        dns_udp: vec![dns_udp],
        dns_tcp: Vec::new(),
        capture,
    };
    let paths = BTreeMap::from([(NetworkProfile::PublicVpcEgress, Arc::new(path))]);
    Ok(Broker::start(sockets, BrokerOptions::new(paths))?)
}

fn policy(port: u16) -> Policy {
    Policy {
        profile: NetworkProfile::PublicVpcEgress,
        mode: Mode::Enforce,
        destinations: vec![destination("api.example", port, EgressProtocol::Tcp)],
        limits: Limits::default(),
    }
}

#[tokio::test]
#[ignore = "runs in a namespace that another test makes"]
async fn inside_a_public_address_is_reached() -> TestResult {
    let service = TcpListener::bind((PUBLIC, 0)).await?;
    let port = service.local_addr()?.port();
    let resolver = Hosts::of(&[("api.example", &["127.0.0.1", PUBLIC])]);
    let inside: [IpAddr; 2] = ["198.18.0.1".parse()?, "fd62:6172:6563::1".parse()?];
    let path = Path::Direct(Direct {
        names: Names::Any,
        resolver,
    });
    let broker = broker(path, port, &inside, Capture::DeclaredPorts).await?;
    let attempt = broker.begin(policy(port))?;
    // The first answer comes with the first address; the program would ask as well.
    let answer = barecount_network::NameServer::new("127.0.0.1:53".parse()?);
    let addresses =
        barecount_network::resolver::Resolver::resolve(&answer, &host("api.example")).await?;
    assert_eq!(addresses, inside);
    for address in inside {
        let mut work = TcpStream::connect((address, port)).await?;
        let (mut there, _) = service.accept().await?;
        there.write_all(b"hello").await?;
        work.read_exact(&mut [0; 5]).await?;
        work.shutdown().await?;
        drop(there);
        read_all(&mut work).await?;
    }
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(
        (record.address, record.path),
        (Some(PUBLIC.parse()?), Some(PathKind::Direct))
    );
    assert_eq!(record.count, 2);
    Ok(())
}

#[tokio::test]
#[ignore = "runs in a namespace that another test makes"]
async fn inside_an_interface_goes_down() -> TestResult {
    let path = Path::Bound(Bound {
        binding: Binding::Interface("tun9".to_owned()),
        ranges: vec!["10.9.0.0/24".parse()?],
        resolver: Hosts::of(&[("api.example", &["10.9.0.7"])]),
    });
    let down = Command::new("ip")
        .args(["link", "set", "tun9", "down"])
        .status()?;
    assert!(down.success());
    let error = path
        .dial(
            &barecount_network::Target::Name(host("api.example")),
            9,
            PATIENCE,
        )
        .await
        .expect_err("the interface is down");
    assert_eq!(error.code(), ReasonCode::PathDown, "{error:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "runs in a namespace that another test makes"]
async fn inside_nothing_was_redirected() -> TestResult {
    let inside = IpAddr::from([127, 0, 0, 1]);
    let path = loopback(hosts());
    let broker = broker(path, 7_777, &[inside], Capture::Redirected).await?;
    let attempt = broker.begin(policy(7_777))?;
    let mut work = TcpStream::connect((inside, 7_777)).await?;
    assert_reset(&mut work).await;
    let log = attempt.end().await;
    assert_eq!(code(only(&log)), Some(ReasonCode::DestinationUnknown));
    Ok(())
}

#[tokio::test]
#[ignore = "runs in a namespace that another test makes"]
async fn inside_any_name_server_is_asked() -> TestResult {
    let any = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
    let sockets = InsideSockets {
        tcp: Vec::new(),
        // That of IPv6 takes both families.
        dns_udp: vec![std::net::UdpSocket::bind((any[1], 53))?],
        dns_tcp: vec![std::net::TcpListener::bind((any[1], 53))?],
        capture: Capture::DeclaredPorts,
    };
    let paths = BTreeMap::from([(NetworkProfile::PublicVpcEgress, Arc::new(loopback(hosts())))]);
    let broker = Broker::start(sockets, BrokerOptions::new(paths))?;
    let attempt = broker.begin(policy(443))?;
    let query = query("elsewhere.example", TYPE::A)?;
    let servers = ["8.8.8.8", "198.51.100.53", "2001:4860:4860::8888"];
    for server in servers {
        let server: IpAddr = server.parse()?;
        let own = any[usize::from(server.is_ipv6())];
        // Connected, it hears nobody else.
        let asking = UdpSocket::bind((own, 0)).await?;
        asking.connect((server, 53)).await?;
        asking.send(&query).await?;
        let answer = tokio::time::timeout(PATIENCE, asking.recv(&mut [0; 512])).await??;
        assert!(answer > 12, "{server} answered {answer} bytes");
        let mut asking = TcpStream::connect((server, 53)).await?;
        asking.write_u16(u16::try_from(query.len())?).await?;
        asking.write_all(&query).await?;
        tokio::time::timeout(PATIENCE, asking.read_u16()).await??;
    }
    // Loopback is the work's own: nobody answers there, and nothing is said of it.
    let asking = UdpSocket::bind((any[0], 0)).await?;
    asking.send_to(&query, ("127.0.0.1", 53)).await?;
    asking.send_to(&query, ("8.8.8.8", 53)).await?;
    let (_, from) = asking.recv_from(&mut [0; 512]).await?;
    assert_eq!(from.ip(), IpAddr::from([8, 8, 8, 8]));
    let log = attempt.end().await;
    let asked: Vec<(String, u64)> = log
        .records
        .iter()
        .filter_map(|record| Some((record.address?.to_string(), record.count)))
        .collect();
    let wanted = [3, 2, 2].into_iter().zip(servers);
    let wanted: Vec<_> = wanted.map(|(count, at)| (at.to_owned(), count)).collect();
    assert_eq!(asked, wanted);
    Ok(())
}
