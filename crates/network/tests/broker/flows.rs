//! Declared connections work as if nothing were between; others are reset.

use std::{io::Write, net::IpAddr};

use barecount_model::{digest::Digest, manifest::EgressProtocol, untrusted::Label};
use barecount_network::{
    path::PathKind,
    reason::ReasonCode,
    record::{FlowProtocol, Verdict},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::*;

#[tokio::test]
async fn a_declared_name_is_reached_and_written_down() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let (mut work, mut there) = rig.connected().await?;
    work.write_all(b"question").await?;
    work.shutdown().await?;
    assert_eq!(read_all(&mut there).await?, b"question");
    there.write_all(b"answer, longer").await?;
    drop(there);
    assert_eq!(read_all(&mut work).await?, b"answer, longer");
    until(&attempt, |log| log.totals.bytes_down == 14).await;
    drop(work);
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(record.name.as_ref().map(Label::raw), Some("api.example"));
    assert_eq!(record.address, Some(IpAddr::from([127, 0, 0, 1])));
    assert_eq!(
        (record.port, record.protocol),
        (rig.port, FlowProtocol::Tcp)
    );
    assert_eq!((record.bytes_up, record.bytes_down), (8, 14));
    assert_eq!(
        (record.verdict, record.path),
        (Verdict::Allowed, Some(PathKind::Private))
    );
    assert_eq!((record.count, code(record)), (1, None));
    assert!(record.first_at <= record.last_at);
    Ok(())
}

#[tokio::test]
async fn the_other_side_may_speak_first() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let _attempt = rig.begin(EgressProtocol::Tcp);
    let (mut work, mut there) = rig.connected().await?;
    there.write_all(b"220 ready\r\n").await?;
    let mut banner = [0; 11];
    work.read_exact(&mut banner).await?;
    assert_eq!(&banner, b"220 ready\r\n");
    Ok(())
}

/// A connection that has spoken before anything between has been asked to do anything.
fn speaking(
    to: std::net::SocketAddr,
    words: &[u8],
) -> Result<TcpStream, Box<dyn std::error::Error>> {
    let mut work = std::net::TcpStream::connect(to)?;
    work.write_all(words)?;
    work.set_nonblocking(true)?;
    Ok(TcpStream::from_std(work)?)
}

#[tokio::test]
async fn what_was_said_before_the_connection_was_made_arrives_first_and_is_counted() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let address = rig.lookup("api.example").await?.ok_or("no address")?;
    // Less and more than is read before dialling.
    for length in [1, 700, 100_000] {
        let words: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
        let mut work = speaking((address, rig.port).into(), &words)?;
        let (mut there, _) = rig.service.accept().await?;
        work.write_all(b", and the rest").await?;
        work.shutdown().await?;
        let heard = read_all(&mut there).await?;
        assert!(
            heard == [&words, &b", and the rest"[..]].concat(),
            "{length}"
        );
        drop(there);
        assert_eq!(read_all(&mut work).await?, b"");
    }
    let log = attempt.end().await;
    assert_eq!(only(&log).bytes_up, 1 + 700 + 100_000 + 3 * 14);
    Ok(())
}

#[tokio::test]
async fn who_was_gone_before_the_connection_was_made_is_not_spoken_for() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let address = rig.lookup("api.example").await?.ok_or("no address")?;
    let work = speaking((address, rig.port).into(), b"")?;
    work.set_zero_linger()?;
    drop(work);
    until(&attempt, |log| {
        log.records.iter().any(|it| it.reason.is_some())
    })
    .await;
    let log = attempt.end().await;
    assert_eq!(code(only(&log)), Some(ReasonCode::Reset));
    assert!(rig.is_untouched(), "the destination heard of it");
    Ok(())
}

#[tokio::test]
async fn what_was_said_to_nobody_is_not_counted() -> TestResult {
    let mut rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let address = rig.lookup("api.example").await?.ok_or("no address")?;
    // Nobody listens there any more.
    rig.service = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut work = speaking((address, rig.port).into(), b"hello?")?;
    assert_reset(&mut work).await;
    let log = attempt.end().await;
    assert_eq!(code(only(&log)), Some(ReasonCode::ConnectFailed));
    assert_eq!(only(&log).bytes_up, 0);
    Ok(())
}

#[tokio::test]
async fn each_side_may_end_its_direction_first() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let _attempt = rig.begin(EgressProtocol::Tcp);
    let (mut work, mut there) = rig.connected().await?;
    there.write_all(b"all there is").await?;
    there.shutdown().await?;
    assert_eq!(read_all(&mut work).await?, b"all there is");
    work.write_all(b"still talking").await?;
    work.shutdown().await?;
    assert_eq!(read_all(&mut there).await?, b"still talking");
    Ok(())
}

#[tokio::test]
async fn what_passes_arrives_as_it_was_sent() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let _attempt = rig.begin(EgressProtocol::Tcp);
    let (mut work, mut there) = rig.connected().await?;
    let bytes: Vec<u8> = (0..12_000_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(12_000_000)
        .collect();
    let sent = Digest::of(&bytes);
    let up = async {
        work.write_all(&bytes).await?;
        work.shutdown().await?;
        read_all(&mut work).await
    };
    let back = async {
        let read = read_all(&mut there).await?;
        there.write_all(&read).await?;
        there.shutdown().await?;
        Ok(Digest::of(&read))
    };
    let (returned, arrived) = tokio::try_join!(up, back)?;
    assert_eq!((arrived, Digest::of(&returned)), (sent, sent));
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let _attempt = rig.begin(EgressProtocol::Tcp);
    let (mut work, there) = rig.connected().await?;
    let block = vec![7; 1 << 20];
    let mut written = 0;
    // Until the socket has taken nothing for a while, although it could.
    loop {
        let writable =
            tokio::time::timeout(std::time::Duration::from_millis(300), there.writable());
        if writable.await.is_err() {
            break;
        }
        written += there.try_write(&block).unwrap_or(0);
        assert!(written < 64 << 20, "what nobody reads is taken without end");
    }
    drop(there);
    assert_eq!(read_all(&mut work).await?.len(), written);
    Ok(())
}

#[tokio::test]
async fn a_reset_from_there_reaches_the_work_as_one() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let (mut work, mut there) = rig.connected().await?;
    work.write_all(b"x").await?;
    there.read_exact(&mut [0]).await?;
    there.set_zero_linger()?;
    drop(there);
    assert_reset(&mut work).await;
    let log = attempt.end().await;
    assert_eq!(code(only(&log)), Some(ReasonCode::Reset));
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_not_declared_is_reset_and_written_down() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let address = rig.lookup("api.example").await?.ok_or("not found")?;
    let mut work = TcpStream::connect((address, rig.other_port)).await?;
    assert_reset(&mut work).await;
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(record.name.as_ref().map(Label::raw), Some("api.example"));
    assert_eq!(
        (record.address, record.port),
        (Some(address), rig.other_port)
    );
    assert_eq!(
        (record.verdict, code(record)),
        (Verdict::Refused, Some(ReasonCode::PortNotDeclared))
    );
    Ok(())
}

#[tokio::test]
async fn an_address_that_is_not_declared_is_reset_and_written_down() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    for _ in 0..3 {
        let mut work = TcpStream::connect((rig.literal, rig.port)).await?;
        assert_reset(&mut work).await;
    }
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(
        (record.name.clone(), record.address),
        (None, Some(rig.literal))
    );
    assert_eq!(code(record), Some(ReasonCode::AddressNotDeclared));
    assert_eq!(record.count, 3);
    Ok(())
}

#[tokio::test]
async fn an_address_that_was_given_to_no_name_leads_nowhere() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let mut work = TcpStream::connect(("127.64.0.3", rig.port)).await?;
    assert_reset(&mut work).await;
    assert_eq!(
        code(only(&attempt.end().await)),
        Some(ReasonCode::AddressNotDeclared)
    );
    Ok(())
}

#[tokio::test]
async fn a_declared_address_is_reached_where_the_path_leads_there() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    // The listener at this address stands for the sandbox's; the broker then meets it again, which
    // shows that it dialled.
    policy.destinations = vec![destination("127.65.0.0/24", rig.port, EgressProtocol::Tcp)];
    policy.limits.max_flows = 1;
    let attempt = rig.broker.begin(policy)?;
    let mut work = TcpStream::connect((rig.literal, rig.port)).await?;
    assert_reset(&mut work).await;
    let log = attempt.end().await;
    assert_eq!(log.totals.allowed, 1);
    assert!(
        log.records
            .iter()
            .any(|record| record.path == Some(PathKind::Private))
    );
    Ok(())
}

#[tokio::test]
async fn a_destination_that_takes_no_connection_is_allowed_and_failed() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let mut work = {
        let address = rig.lookup("api.example").await?.ok_or("not found")?;
        drop(rig.service);
        TcpStream::connect((address, rig.port)).await?
    };
    assert_reset(&mut work).await;
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(
        (record.verdict, code(record)),
        (Verdict::Allowed, Some(ReasonCode::ConnectFailed))
    );
    Ok(())
}
