//! How much of the network an attempt may use.

use barecount_model::manifest::EgressProtocol;
use barecount_network::{reason::ReasonCode, record::Verdict};
use tokio::io::AsyncWriteExt;

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

#[tokio::test]
async fn bytes_flow_no_faster_than_allowed() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.bytes_per_second = Some(1_000_000);
    let _attempt = rig.broker.begin(policy)?;
    let (mut work, mut there) = rig.connected().await?;
    let start = tokio::time::Instant::now();
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
