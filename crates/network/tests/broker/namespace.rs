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
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
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
