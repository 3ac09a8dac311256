//! How much of the network an attempt may use.

use std::{io, net::IpAddr, time::Duration};

use barecount_model::manifest::EgressProtocol;
use barecount_network::{
    descriptors::Descriptors,
    reason::ReasonCode,
    record::{FlowRecord, Verdict},
};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use simple_dns::TYPE;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket},
    time::Instant,
};

use crate::rig::*;

#[tokio::test]
async fn no_more_connections_are_open_than_allowed() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.max_flows = 2;
    let attempt = rig.broker.begin(policy)?;
    let (first, _first) = rig.connected().await?;
    let _second = rig.connected().await?;
    let mut third = rig.connect("api.example").await?;
    assert_reset(&mut third).await;
    first.set_zero_linger()?;
    drop(first);
    until(&attempt, |log| {
        log.records
            .iter()
            .any(|flow| code(flow) == Some(ReasonCode::Reset))
    })
    .await;
    let _fourth = rig.connected().await?;
    let log = attempt.end().await;
    let refused = log
        .records
        .iter()
        .find(|flow| flow.verdict == Verdict::Refused);
    assert_eq!(refused.and_then(code), Some(ReasonCode::TooManyFlows));
    assert_eq!(log.totals.refused, 1);
    Ok(())
}

#[tokio::test]
async fn who_holds_many_connections_leaves_descriptors_to_a_neighbour() -> TestResult {
    let descriptors = Descriptors::new(12);
    let one = Rig::start_with(loopback(hosts()), descriptors.clone()).await?;
    let other = Rig::start_with(loopback(hosts()), descriptors).await?;
    let greedy = one.begin(EgressProtocol::Tcp);
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(one.connect("api.example").await?);
    }
    until(&greedy, |log| log.totals.refused == 14).await;
    let _neighbour = other.begin(EgressProtocol::Tcp);
    for _ in 0..4 {
        let (mut work, mut there) = other.connected().await?;
        there.write_all(b"hello").await?;
        drop(there);
        assert_eq!(read_all(&mut work).await?, b"hello");
    }
    let log = greedy.end().await;
    let refused = log
        .records
        .iter()
        .find(|flow| flow.verdict == Verdict::Refused);
    assert_eq!(refused.and_then(code), Some(ReasonCode::TooManyFlows));
    Ok(())
}

#[tokio::test]
async fn connections_that_come_too_fast_are_reset() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.new_flows_per_second = 3;
    let attempt = rig.broker.begin(policy)?;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(rig.connect("api.example").await?);
    }
    until(&attempt, |log| log.totals.refused >= 5).await;
    let log = attempt.end().await;
    assert!((3..=5).contains(&log.totals.allowed), "{:?}", log.totals);
    let refused = log
        .records
        .iter()
        .find(|flow| flow.verdict == Verdict::Refused);
    assert_eq!(refused.and_then(code), Some(ReasonCode::FlowsTooFast));
    Ok(())
}

/// The most that is taken in of what comes too fast: the rate, and a hundred refusals a second, each
/// with a burst of as much.
fn taken_in(rate: u64, start: Instant) -> u64 {
    (rate + 100) * (2 + start.elapsed().as_secs())
}

#[tokio::test]
async fn a_flood_of_connections_waits_where_it_costs_the_agent_nothing() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let declared = (IpAddr::from([127, 64, 0, 1]), rig.port);
    // One leads to a name, one to a port that is not declared, one to no name.
    for to in [
        declared,
        (declared.0, rig.other_port),
        (rig.literal, rig.port),
    ] {
        let mut policy = rig.policy(EgressProtocol::Tcp);
        policy.limits.new_flows_per_second = 10;
        let attempt = rig.broker.begin(policy)?;
        let start = Instant::now();
        let mut connections = Vec::new();
        for _ in 0..1_500 {
            let connect = TcpStream::connect(to);
            // Once the kernel's queue is full, nothing answers.
            match tokio::time::timeout(Duration::from_millis(1), connect).await {
                Ok(Ok(connected)) => connections.push(connected),
                // It was reset before it was looked at.
                Ok(Err(_)) => {}
                Err(_) => tokio::task::yield_now().await,
            }
        }
        let (most, totals) = (taken_in(10, start), attempt.records().totals);
        assert!(totals.refused > 0, "{totals:?}");
        let served = totals.allowed + totals.refused;
        assert!(served <= most, "{served} were taken in, {most} at most");
        attempt.end().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_of_lookups_waits_where_it_costs_the_agent_nothing() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.dns_queries_per_second = 10;
    let attempt = rig.broker.begin(policy)?;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(rig.name_server).await?;
    let start = Instant::now();
    for datagram in [
        &query("api.example", TYPE::A)?[..],
        &query("evil.example", TYPE::A)?,
        b"x",
    ] {
        for _ in 0..2_000 {
            socket.send(datagram).await?;
            tokio::task::yield_now().await;
        }
    }
    let (most, log) = (taken_in(10, start), attempt.records());
    let too_fast = |flow: &&FlowRecord| code(flow) == Some(ReasonCode::LookupsTooFast);
    let records: Vec<_> = log.records.iter().filter(too_fast).collect();
    assert_eq!(records.len(), 1, "one record for all");
    let count = records[0].count;
    assert!(count <= most, "{count} were taken in, {most} at most");
    // Whoever asks again in time is answered.
    let answered = async {
        let soon = Duration::from_millis(200);
        while tokio::time::timeout(soon, rig.lookup("api.example"))
            .await
            .is_err()
        {}
    };
    tokio::time::timeout(PATIENCE, answered).await?;
    Ok(())
}

#[tokio::test]
async fn a_flood_of_lookups_over_tcp_is_limited_by_its_connections_also() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.dns_queries_per_second = 10;
    let attempt = rig.broker.begin(policy)?;
    let start = Instant::now();
    let mut connections = Vec::new();
    for _ in 0..1_500 {
        let connect = TcpStream::connect(rig.name_server);
        match tokio::time::timeout(Duration::from_millis(1), connect).await {
            // Nothing is asked: that they come is enough.
            Ok(Ok(connected)) => connections.push(connected),
            Ok(Err(_)) => {}
            Err(_) => tokio::task::yield_now().await,
        }
    }
    let (most, log) = (taken_in(10, start), attempt.records());
    assert_eq!(code(only(&log)), Some(ReasonCode::LookupsTooFast));
    let count = only(&log).count;
    assert!(count <= most, "{count} were taken in, {most} at most");
    Ok(())
}

/// Sends to a destination that reads nothing until nothing more is taken; how much was.
async fn filled(work: &TcpStream) -> io::Result<usize> {
    let (block, mut taken) = (vec![0; 1 << 16], 0);
    let quiet = Duration::from_millis(50);
    while let Ok(writable) = tokio::time::timeout(quiet, work.writable()).await {
        writable?;
        match work.try_write(&block) {
            Ok(length) => taken += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

#[tokio::test]
async fn the_more_connections_are_open_the_less_is_held_for_each() -> TestResult {
    let rig = Rig::start_with(loopback(hosts()), Descriptors::new(1_000)).await?;
    let _attempt = rig.begin(EgressProtocol::Tcp);
    let mut open = Vec::new();
    for _ in 0..140 {
        let (work, there) = rig.connected().await?;
        // What is held at the two ends is theirs.
        set_socket_send_buffer_size(&work, 4_096)?;
        set_socket_recv_buffer_size(&there, 4_096)?;
        open.push((work, there));
    }
    let last = &open.last().ok_or("none is open")?.0;
    let (held, most) = (filled(last).await?, 1 << 20);
    assert!(held <= most, "{held} bytes are held, {most} at most");
    Ok(())
}

#[tokio::test]
async fn bytes_flow_no_faster_than_allowed() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.bytes_per_second = Some(1_000_000);
    let _attempt = rig.broker.begin(policy)?;
    let (mut work, mut there) = rig.connected().await?;
    let start = Instant::now();
    let send = async {
        work.write_all(&vec![1; 1_600_000]).await?;
        work.shutdown().await
    };
    let (_, read) = tokio::try_join!(send, read_all(&mut there))?;
    assert_eq!(read.len(), 1_600_000);
    // The first second's worth is there at once, the rest takes its time.
    let took = start.elapsed().as_millis();
    assert!(took >= 400, "{took} ms");
    Ok(())
}

#[tokio::test]
async fn records_are_bounded_and_counts_exact() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.max_records = 5;
    let attempt = rig.broker.begin(policy)?;
    for n in 0..40 {
        assert_eq!(rig.lookup(&format!("n{n}.evil.example")).await?, None);
    }
    let log = attempt.end().await;
    assert_eq!(
        (log.records.len(), log.totals.refused, log.totals.unlisted),
        (5, 40, 35)
    );
    assert!(!log.is_complete());
    Ok(())
}
