//! What is declared works.

use std::path::Path;

use barecount_model::manifest::EgressProtocol;
use barecount_network::{health, path::PathKind, policy::Destination};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    TestResult,
    far::{HOST_NAME, HOST_V4, HOST_V6, ip},
    near::{PATIENCE, Pair, at, dial, found, named},
};

tests!(
    a_host_behind_is_reached_by_name_and_by_either_address,
    a_hundred_megabytes_arrive_as_they_were_sent,
    many_connections_are_carried_at_a_time,
    a_peer_that_moves_is_followed,
    health_tells_of_the_handshake_and_what_was_carried,
    the_process_inside_goes_with_the_tunnel,
);

async fn a_host_behind_is_reached_by_name_and_by_either_address() -> TestResult {
    let pair = Pair::start().await?;
    for target in [named(), at(HOST_V4), at(HOST_V6)] {
        let dialled = pair.path.dial(&target, 7, PATIENCE).await?;
        assert_eq!(dialled.path, PathKind::Tunnel);
        let mut stream = dial(&pair.path, &target, 7).await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        let mut back = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut back)).await??;
        assert_eq!(back, b"hello", "{target}");
    }
    Ok(())
}

async fn a_hundred_megabytes_arrive_as_they_were_sent() -> TestResult {
    const BLOCK: usize = 1 << 20;
    const BLOCKS: usize = 100;
    let pair = Pair::start().await?;
    let stream = dial(&pair.path, &named(), 7).await?;
    let (mut read, mut write) = stream.into_split();
    // Blocks that all differ, so that none can stand for another.
    let block = |number: usize| -> Vec<u8> {
        let words = 0..BLOCK / 8;
        words
            .flat_map(|word| {
                ((number * BLOCK + word * 8) as u64)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .to_le_bytes()
            })
            .collect()
    };
    let sending = tokio::spawn(async move {
        for number in 0..BLOCKS {
            write.write_all(&block(number)).await?;
        }
        write.shutdown().await
    });
    let mut received = vec![0; BLOCK];
    for number in 0..BLOCKS {
        tokio::time::timeout(PATIENCE, read.read_exact(&mut received)).await??;
        assert!(received == block(number), "block {number} differs");
    }
    assert_eq!(read.read(&mut received).await?, 0, "there is more");
    sending.await??;
    Ok(())
}

async fn many_connections_are_carried_at_a_time() -> TestResult {
    let pair = Pair::start().await?;
    let exchange = |number: u32| {
        let path = &pair.path;
        async move {
            let target = if number.is_multiple_of(2) {
                at(HOST_V4)
            } else {
                at(HOST_V6)
            };
            let mut stream = dial(path, &target, 7).await?;
            stream.write_u32(number).await?;
            assert_eq!(
                tokio::time::timeout(PATIENCE, stream.read_u32()).await??,
                number
            );
            TestResult::Ok(())
        }
    };
    futures::future::try_join_all((0..100).map(exchange)).await?;
    Ok(())
}

async fn a_peer_that_moves_is_followed() -> TestResult {
    let pair = Pair::start().await?;
    let mut stream = dial(&pair.path, &at(HOST_V4), 7).await?;
    let before = pair.far.address();
    stream.write_all(b"a").await?;
    stream.read_u8().await?;
    assert_eq!(pair.near.peer().endpoint, Some(before));
    pair.far.roam().await?;
    let after = pair.far.address();
    assert_ne!(before, after);
    pair.near.until(|peer| peer.endpoint == Some(after)).await;
    stream.write_all(b"b").await?;
    assert_eq!(
        tokio::time::timeout(PATIENCE, stream.read_u8()).await??,
        b'b'
    );
    Ok(())
}

async fn health_tells_of_the_handshake_and_what_was_carried() -> TestResult {
    let pair = Pair::start().await?;
    let wanted = [Destination {
        host: HOST_NAME.parse()?,
        port: 7,
        protocol: EgressProtocol::Tcp,
    }];
    let found = health::probe(&pair.path, &wanted, PATIENCE).await;
    assert!(found.ok, "{found:#?}");
    let peer = found.tunnel.ok_or("no figures")?.peers.remove(0);
    assert!(peer.up, "{peer:?}");
    assert!(peer.handshake_age_ms.ok_or("no age")? < 60_000, "{peer:?}");
    assert!(
        peer.round_trip_ms.ok_or("no round trip")? < 60_000,
        "{peer:?}"
    );
    assert_eq!(peer.endpoint, Some(pair.far.address()));

    let mut stream = dial(&pair.path, &at(HOST_V4), 7).await?;
    let before = pair.near.peer();
    let sent = vec![5; 100_000];
    let mut back = vec![0; sent.len()];
    stream.write_all(&sent).await?;
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await??;
    let after = pair.near.peer();
    for (before, after) in [
        (before.bytes_sent, after.bytes_sent),
        (before.bytes_received, after.bytes_received),
    ] {
        let carried = after - before;
        assert!((100_000..150_000).contains(&carried), "{carried}");
    }
    Ok(())
}

async fn the_process_inside_goes_with_the_tunnel() -> TestResult {
    let pair = Pair::start().await?;
    let stream = dial(&pair.path, &at(HOST_V4), 7).await?;
    assert_eq!(stream.local_addr()?.ip(), ip(crate::far::NEAR_V4));
    let process = format!("/proc/{}", pair.near.pid);
    assert!(std::fs::exists(&process)?);
    drop((stream, pair));
    found(|| (!Path::new(&process).exists()).then_some(())).await?;
    Ok(())
}
