//! What servers take for a request to another host, the broker has refused: requests made up from a
//! seed, malformed in every part, through the broker to servers of four makers.

mod generator;
mod servers;
mod words;

use std::{collections::BTreeMap, net::SocketAddr};

use barecount_model::manifest::EgressProtocol;
use barecount_network::path::{Endpoint, EndpointAddress, Path};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::{
    generator::{Case, cases},
    servers::{Entry, Server},
};
use crate::rig::*;

/// From which the requests are made up: the same ones each time.
const SEED: u64 = 15;
const CASES: usize = 5_000;
const AT_A_TIME: usize = 24;

#[tokio::test]
async fn what_http_server_takes_for_another_host_is_refused() -> TestResult {
    hold(async || Server::python()).await
}

#[tokio::test]
async fn what_hyper_takes_for_another_host_is_refused() -> TestResult {
    hold(Server::hyper).await
}

#[tokio::test]
async fn what_node_takes_for_another_host_is_refused() -> TestResult {
    hold(async || Server::node()).await
}

#[tokio::test]
async fn what_nginx_takes_for_another_host_is_refused() -> TestResult {
    hold(Server::nginx).await
}

/// Sends the battery to a server, first with nothing between, and then through a broker.
async fn hold(start: impl AsyncFn() -> Result<Server, Box<dyn std::error::Error>>) -> TestResult {
    let server = start().await?;
    let rig = Rig::start(Path::Endpoint(Endpoint {
        services: BTreeMap::from([(host("api.example"), EndpointAddress::Socket(server.address))]),
        resolver: hosts(),
    }))
    .await?;
    let cases = cases(SEED, CASES, rig.port);
    let directly = start().await?;
    send_all(&cases, directly.address).await?;
    let foreign = |entries: &[Entry]| -> Vec<Entry> {
        let entries = entries.iter().filter(|entry| is_foreign(entry, rig.port));
        entries.cloned().collect()
    };
    let taken = foreign(&directly.end().await?).len();
    assert!(
        taken > CASES / 50,
        "of these, it takes {taken} for another host"
    );

    let mut policy = rig.policy(EgressProtocol::Http);
    policy.limits.new_flows_per_second = 1_000_000;
    let attempt = rig.broker.begin(policy)?;
    let inside = rig.lookup("api.example").await?.ok_or("no address")?;
    send_all(&cases, (inside, rig.port).into()).await?;
    let totals = attempt.end().await.totals;
    assert_eq!(totals.allowed + totals.refused, CASES as u64);
    let entries = server.end().await?;
    let passed = foreign(&entries);
    let blamed = passed.first().and_then(|entry| blamed(entry, &cases));
    assert!(
        passed.is_empty(),
        "{} requests to another host passed, of {taken} that would have: {passed:#?}\n{blamed:?}",
        passed.len(),
    );
    for case in cases.iter().filter(|case| case.is_sound) {
        let target = format!("/{}", case.number);
        assert!(
            entries.iter().any(|entry| entry.target == target),
            "a sound request did not arrive: {:?}",
            String::from_utf8_lossy(&case.bytes)
        );
    }
    Ok(())
}

async fn send_all(cases: &[Case], to: SocketAddr) -> TestResult {
    stream::iter(cases)
        .map(|case| async move {
            let sent = tokio::time::timeout(PATIENCE, send(case, to)).await;
            sent.map_err(|_| format!("case {} does not end", case.number))?;
            Ok(())
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await
}

/// Says everything, and hears the other side out. It may have heard enough before.
async fn send(case: &Case, to: SocketAddr) {
    let talk = async {
        let mut work = tokio::net::TcpStream::connect(to).await?;
        let mut start = 0;
        for end in case.cuts.iter().copied().chain([case.bytes.len()]) {
            work.write_all(&case.bytes[start..end]).await?;
            tokio::task::yield_now().await;
            start = end;
        }
        work.shutdown().await?;
        work.read_to_end(&mut Vec::new()).await
    };
    let _: std::io::Result<usize> = talk.await;
}

/// Whether a server took it for a request to another host, or to none.
fn is_foreign(entry: &Entry, port: u16) -> bool {
    let is_declared = |host: &str| {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(&format!(":{port}")).unwrap_or(&host);
        ["api.example", "api.example.", "api.example:"].contains(&host)
    };
    let of_target = entry.target.split_once("://").map(|(_, rest)| rest);
    let of_target = of_target.filter(|_| !entry.target.starts_with('/'));
    let authority = of_target.map(|rest| rest.split('/').next().unwrap_or_default());
    let chosen = [entry.chosen.as_deref(), authority];
    !is_declared(&entry.host) || chosen.into_iter().flatten().any(|host| !is_declared(host))
}

/// What was sent, of which a server understood this.
fn blamed(entry: &Entry, cases: &[Case]) -> Option<String> {
    let number = |part: &str| part.parse::<usize>().ok();
    let number = entry.target.split('/').find_map(number)?;
    let case = cases.get(number)?;
    Some(String::from_utf8_lossy(&case.bytes).into_owned())
}
