use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn a_flood_of_refused_packets_is_told_no_faster_than_the_agent_likes() -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (kernel, log) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    let _refusals = Refusals::watch(log, Arc::default())?;
    let (start, mut told) = (Instant::now(), 0_u64);
    while start.elapsed() < Duration::from_millis(500) {
        match send(&kernel, b"a packet", SendFlags::empty()) {
            Ok(_) => told += 1,
            // The log is full, which is no matter of the agent's.
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        tokio::task::yield_now().await;
    }
    // What the socket holds comes on top.
    let most = REFUSALS_PER_SECOND * 2 + 512;
    assert!(told <= most, "{told} were told, {most} at most");
    Ok(())
}
