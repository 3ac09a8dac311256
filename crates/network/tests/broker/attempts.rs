//! Policy and records belong to the attempt, sockets to the sandbox.

use barecount_model::{class::NetworkProfile, manifest::EgressProtocol, untrusted::Label};
use barecount_network::{
    advice::advise,
    broker::BeginError,
    policy::Mode,
    reason::ReasonCode,
    record::{FlowProtocol, Verdict},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::*;

#[tokio::test]
async fn connections_that_an_attempt_leaves_open_are_reset_at_its_end() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let (mut work, mut there) = rig.connected().await?;
    work.write_all(b"half a").await?;
    let mut read = [0; 6];
    there.read_exact(&mut read).await?;
    let log = attempt.end().await;
    assert_reset(&mut work).await;
    assert_reset(&mut there).await;
    assert_eq!(code(only(&log)), Some(ReasonCode::AttemptEnded));
    assert_eq!(
        (only(&log).verdict, only(&log).bytes_up),
        (Verdict::Allowed, 6)
    );
    Ok(())
}

#[tokio::test]
async fn between_attempts_nothing_gets_through_and_nobody_is_blamed() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let address = rig.lookup("api.example").await?.ok_or("not found")?;
    attempt.end().await;
    let mut work = TcpStream::connect((address, rig.port)).await?;
    assert_reset(&mut work).await;
    assert!(rig.is_untouched());
    assert_eq!(rig.broker.unattributed(), 1);
    let next = rig.begin(EgressProtocol::Tcp);
    assert!(next.end().await.records.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_next_attempt_has_the_next_policy() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let old = rig.lookup("api.example").await?.ok_or("not found")?;
    attempt.end().await;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.destinations = vec![destination("www.example", rig.port, EgressProtocol::Tcp)];
    let attempt = rig.broker.begin(policy)?;
    assert_eq!(rig.lookup("api.example").await?, None);
    let new = rig.lookup("www.example").await?;
    assert!(
        new.is_some_and(|new| new != old),
        "an address is never another name's"
    );
    let mut work = TcpStream::connect((old, rig.port)).await?;
    assert_reset(&mut work).await;
    let _allowed = rig.connect("www.example").await?;
    rig.service.accept().await?;
    let log = attempt.end().await;
    assert_eq!((log.totals.allowed, log.totals.refused), (1, 2));
    Ok(())
}

#[tokio::test]
async fn a_sandbox_serves_one_attempt_at_a_time() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let second = rig.broker.begin(rig.policy(EgressProtocol::Tcp));
    assert!(matches!(second, Err(BeginError::Busy)));
    drop(attempt);
    assert!(rig.broker.begin(rig.policy(EgressProtocol::Tcp)).is_ok());
    let mut elsewhere = rig.policy(EgressProtocol::Tcp);
    elsewhere.profile = NetworkProfile::Vpn;
    assert!(matches!(
        rig.broker.begin(elsewhere),
        Err(BeginError::NoPath { .. })
    ));
    Ok(())
}

#[tokio::test]
async fn a_broker_that_stops_closes_everything() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let (mut work, mut there) = rig.connected().await?;
    let (address, port) = (work.peer_addr()?, rig.port);
    rig.broker.stop().await;
    assert_reset(&mut work).await;
    assert_reset(&mut there).await;
    assert!(TcpStream::connect((address.ip(), port)).await.is_err());
    assert_eq!(attempt.end().await.totals.allowed, 1);
    Ok(())
}

#[tokio::test]
async fn an_open_connection_is_in_the_records_with_what_it_has_carried() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let (_work, mut there) = rig.connected().await?;
    there.write_all(b"12345").await?;
    until(&attempt, |log| log.totals.bytes_down == 5).await;
    assert_eq!(only(&attempt.records()).verdict, Verdict::Allowed);
    Ok(())
}

#[tokio::test]
async fn an_audited_attempt_reaches_what_is_not_declared_and_learns_the_lines() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.mode = Mode::Audit;
    let attempt = rig.broker.begin(policy)?;
    let _declared = rig.connected().await?;
    let mut work = rig.connect("undeclared.example").await?;
    let (mut there, _) = rig.service.accept().await?;
    work.write_all(b"GET / HTTP/1.1\r\n").await?;
    let mut read = [0; 16];
    there.read_exact(&mut read).await?;
    work.shutdown().await?;
    drop(there);
    read_all(&mut work).await?;
    let mut speaks_first = rig.connect("www.example").await?;
    let (mut there, _) = rig.service.accept().await?;
    there.write_all(b"220 ready").await?;
    speaks_first.read_exact(&mut [0; 9]).await?;
    let log = attempt.end().await;
    assert_eq!(
        (log.totals.allowed, log.totals.audited, log.totals.refused),
        (1, 2, 0)
    );
    let audited = log
        .records
        .iter()
        .find(|flow| flow.name.as_ref().map(Label::raw) == Some("undeclared.example"));
    let audited = audited.ok_or("no record")?;
    assert_eq!(
        (audited.verdict, audited.protocol),
        (Verdict::Audited, FlowProtocol::Http)
    );
    assert_eq!(code(audited), Some(ReasonCode::NameNotDeclared));
    let lines: Vec<_> = advise(&log.records)
        .into_iter()
        .map(|line| (line.host.to_string(), line.port, line.protocol))
        .collect();
    assert_eq!(
        lines,
        [
            (
                "undeclared.example".to_owned(),
                rig.port,
                EgressProtocol::Http
            ),
            ("www.example".to_owned(), rig.port, EgressProtocol::Tcp),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn an_audited_attempt_goes_nowhere_that_its_path_does_not_lead() -> TestResult {
    let elsewhere = Hosts::of(&[("metadata.example", &["169.254.169.254"])]);
    let rig = Rig::start(loopback(elsewhere)).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.mode = Mode::Audit;
    let attempt = rig.broker.begin(policy)?;
    let mut work = rig.connect("metadata.example").await?;
    assert_reset(&mut work).await;
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(
        (record.verdict, code(record)),
        (Verdict::Refused, Some(ReasonCode::AddressOutsideRanges))
    );
    assert_eq!(record.address, Some("169.254.169.254".parse()?));
    assert!(advise(&log.records).is_empty());
    Ok(())
}
