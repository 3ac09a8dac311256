//! What is declared as TLS or HTTP must name the declared host before anything is dialled.

use barecount_model::manifest::EgressProtocol;
use barecount_network::{
    reason::ReasonCode,
    record::{FlowProtocol, Verdict},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::*;

/// A ClientHello for a name, with padding, in records of at most `size` bytes.
fn hello(name: Option<&str>, padding: usize, size: usize) -> Vec<u8> {
    let vector16 = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).expect("short");
        [&length.to_be_bytes()[..], bytes].concat()
    };
    let mut extensions = [&[0, 21][..], &vector16(&vec![0; padding])].concat();
    if let Some(name) = name {
        let entry = [&[0][..], &vector16(name.as_bytes())].concat();
        extensions.extend([&[0, 0][..], &vector16(&vector16(&entry))].concat());
    }
    let body = [
        &[3, 3][..],
        &[9; 32],
        &[0, 0, 2, 0x13, 0x01, 1, 0],
        &vector16(&extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).expect("short");
    let message = [&[1][..], &length.to_be_bytes()[1..], &body].concat();
    message
        .chunks(size)
        .flat_map(|fragment| [&[22, 3, 1][..], &vector16(fragment)].concat())
        .collect()
}

/// Sends bytes to `api.example` and expects a reset without anything being dialled.
async fn refused(
    protocol: EgressProtocol,
    bytes: &[u8],
) -> Result<ReasonCode, Box<dyn std::error::Error>> {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(protocol);
    let mut work = rig.connect("api.example").await?;
    // The broker may have seen enough before it has seen all.
    let _ = work.write_all(bytes).await;
    assert_reset(&mut work).await;
    assert!(rig.is_untouched());
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(record.verdict, Verdict::Refused);
    assert_eq!((record.bytes_up, record.bytes_down), (0, 0));
    Ok(code(record).ok_or("no reason")?)
}

#[tokio::test]
async fn a_hello_for_the_declared_name_passes_untouched() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tls);
    let mut work = rig.connect("api.example").await?;
    // Over several records, and a byte at a time.
    let bytes = hello(Some("API.example"), 700, 100);
    for byte in &bytes {
        work.write_all(&[*byte]).await?;
        tokio::task::yield_now().await;
    }
    let (mut there, _) = rig.service.accept().await?;
    let mut read = vec![0; bytes.len()];
    there.read_exact(&mut read).await?;
    assert_eq!(read, bytes);
    there.write_all(b"server hello").await?;
    work.write_all(b"more").await?;
    drop(there);
    let log = attempt.end().await;
    assert_eq!(only(&log).protocol, FlowProtocol::Tls);
    Ok(())
}

#[tokio::test]
async fn a_hello_for_another_name_is_reset_and_nothing_dialled() -> TestResult {
    let evil = hello(Some("evil.example"), 0, 16_000);
    assert_eq!(
        refused(EgressProtocol::Tls, &evil).await?,
        ReasonCode::ServerNameMismatch
    );
    let silent = hello(None, 0, 16_000);
    assert_eq!(
        refused(EgressProtocol::Tls, &silent).await?,
        ReasonCode::ServerNameMissing
    );
    let long = [0; 3]
        .map(|_| hello(None, 16_000, 16_000)[..16_000].to_vec())
        .concat();
    assert!(refused(EgressProtocol::Tls, &long).await.is_ok());
    assert_eq!(
        refused(EgressProtocol::Tls, b"SSH-2.0-x\r\n").await?,
        ReasonCode::NotTls
    );
    Ok(())
}

#[tokio::test]
async fn a_client_that_never_names_a_host_is_reset_in_time() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    for (protocol, first) in [
        (EgressProtocol::Tls, &b""[..]),
        (
            EgressProtocol::Tls,
            &hello(Some("api.example"), 0, 16_000)[..20],
        ),
        (EgressProtocol::Http, b"GET / HTTP/1.1\r\n"),
    ] {
        let mut policy = rig.policy(protocol);
        policy.limits.inspect_timeout_ms = 50;
        let attempt = rig.broker.begin(policy)?;
        let mut work = rig.connect("api.example").await?;
        work.write_all(first).await?;
        assert_reset(&mut work).await;
        assert!(rig.is_untouched());
        assert_eq!(
            code(only(&attempt.end().await)),
            Some(ReasonCode::HeadMissing)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_ends_before_it_names_a_host_is_written_down() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tls);
    let mut work = rig.connect("api.example").await?;
    work.shutdown().await?;
    assert_reset(&mut work).await;
    assert_eq!(
        code(only(&attempt.end().await)),
        Some(ReasonCode::HeadMissing)
    );
    Ok(())
}

#[tokio::test]
async fn a_request_for_the_declared_host_passes_untouched() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Http);
    let (mut work, request) = (rig.connect("api.example").await?, get("api.example"));
    for _ in 0..2 {
        work.write_all(request.as_bytes()).await?;
    }
    let (mut there, _) = rig.service.accept().await?;
    let mut read = vec![0; request.len() * 2];
    there.read_exact(&mut read).await?;
    assert_eq!(read, request.repeat(2).as_bytes());
    there.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    work.shutdown().await?;
    drop(there);
    assert!(read_all(&mut work).await?.starts_with(b"HTTP/1.1 204"));
    until(&attempt, |log| log.totals.bytes_down > 0).await;
    let log = attempt.end().await;
    assert_eq!(only(&log).protocol, FlowProtocol::Http);
    assert_eq!(only(&log).bytes_up, 2 * request.len() as u64);
    Ok(())
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[tokio::test]
async fn a_request_for_another_host_is_reset_and_nothing_dialled() -> TestResult {
    let evil = get("evil.example");
    let http = EgressProtocol::Http;
    assert_eq!(
        refused(http, evil.as_bytes()).await?,
        ReasonCode::HostMismatch
    );
    assert_eq!(
        refused(http, b"GET / HTTP/1.0\r\n\r\n").await?,
        ReasonCode::HostMissing
    );
    let connect = b"CONNECT evil.example:443 HTTP/1.1\r\nHost: api.example\r\n\r\n";
    assert_eq!(refused(http, connect).await?, ReasonCode::MethodRefused);
    assert_eq!(
        refused(http, &hello(Some("api.example"), 0, 999)).await?,
        ReasonCode::NotHttp
    );
    Ok(())
}

#[tokio::test]
async fn a_second_request_for_another_host_never_arrives() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Http);
    let mut work = rig.connect("api.example").await?;
    let first = get("api.example");
    work.write_all(first.as_bytes()).await?;
    let (mut there, _) = rig.service.accept().await?;
    let mut read = vec![0; first.len()];
    there.read_exact(&mut read).await?;
    work.write_all(get("evil.example").as_bytes()).await?;
    assert_reset(&mut work).await;
    assert!(
        there.read(&mut read).await.is_err(),
        "the service sees a reset"
    );
    let log = attempt.end().await;
    assert_eq!(code(only(&log)), Some(ReasonCode::HostMismatch));
    assert_eq!(only(&log).bytes_up, first.len() as u64);
    Ok(())
}

#[tokio::test]
async fn many_that_wait_to_name_a_host_hold_up_nobody() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tls);
    let mut waiting: Vec<TcpStream> = Vec::new();
    for _ in 0..50 {
        waiting.push(rig.connect("api.example").await?);
    }
    let mut work = rig.connect("api.example").await?;
    work.write_all(&hello(Some("api.example"), 0, 999)).await?;
    tokio::time::timeout(PATIENCE, rig.service.accept()).await??;
    drop(waiting);
    until(&attempt, |log| log.totals.refused == 50).await;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_carries_nothing_is_closed_in_time() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.idle_timeout_ms = 50;
    let attempt = rig.broker.begin(policy)?;
    let (mut work, mut there) = rig.connected().await?;
    assert_reset(&mut work).await;
    assert_reset(&mut there).await;
    assert_eq!(
        code(only(&attempt.end().await)),
        Some(ReasonCode::IdleTimeout)
    );
    Ok(())
}
