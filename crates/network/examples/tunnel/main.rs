//! What a tunnel of our own costs: throughput, new connections and delay through it, beside a plain
//! splice relay and a direct connection in the same run. Prints a JSON object a line.
//!
//! `cargo run --release -p barecount-network --example tunnel [MEBIBYTES]`. Both ends of the tunnel
//! and all that is measured are on this machine, in this process: what is told is the cost of both
//! ends together. Needs user namespaces and `/dev/net/tun`, and no privilege.

mod ends;
#[path = "../measuring/mod.rs"]
mod measuring;

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use barecount_network::path::{Connection, Tunnel};
use barecount_sandbox::{Launcher, LauncherConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    ends::Ends,
    measuring::{Outcome, ROUNDS},
};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Outcome<()> {
    let mebibytes = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => 256,
    };
    // While there is one thread.
    let launcher = Launcher::start(LauncherConfig::new("barecount-example"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(&launcher, mebibytes))
}

/// By which way a connection is made.
enum Way<'a> {
    Host(SocketAddr),
    Through(&'a dyn Tunnel, SocketAddr),
}

impl Way<'_> {
    async fn connect(&self) -> Outcome<TcpStream> {
        let stream = match self {
            Self::Host(to) => TcpStream::connect(to).await?,
            Self::Through(tunnel, to) => {
                let connecting = tokio::time::timeout(PATIENCE, tunnel.connect(*to));
                match connecting.await?? {
                    Connection::Tcp(stream) => stream,
                    Connection::Stream(_) => return Err("no socket of the kernel's".into()),
                }
            }
        };
        stream.set_nodelay(true)?;
        // Tunnels reset what is dropped, until told that it ended well.
        rustix::net::sockopt::set_socket_linger(&stream, None)?;
        Ok(stream)
    }
}

async fn measure(launcher: &Launcher, mebibytes: u32) -> Outcome<()> {
    let ends = Ends::open(launcher)?;
    let behind = ends.listener()?;
    let to = behind.local_addr()?;
    tokio::spawn(measuring::serve(behind));
    let on_host = TcpListener::bind("127.0.0.1:0").await?;
    let direct = on_host.local_addr()?;
    tokio::spawn(measuring::serve(on_host));
    let ways = [
        ("direct", Way::Host(direct)),
        ("plain_splice", Way::Host(plain_relay(direct)?)),
        ("tunnel", Way::Through(&ends.near, to)),
    ];
    report("throughput", "MiB/s", &ways, async |way| {
        throughput(way, mebibytes).await
    })
    .await?;
    report("connections", "1/s", &ways, async |way| {
        connections(way, 500).await
    })
    .await?;
    report("round_trip_p50", "us", &ways, async |way| {
        round_trip(way, 2_000).await
    })
    .await?;
    let health = ends.near.health();
    writeln!(io::stdout(), "{}", serde_json::to_string(&health)?)?;
    Ok(())
}

/// Measures every way in turn and prints each one's median.
async fn report(
    bench: &str,
    unit: &str,
    ways: &[(&str, Way<'_>)],
    measure: impl AsyncFn(&Way<'_>) -> Outcome<f64>,
) -> Outcome<()> {
    let mut rounds = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (figures, (_, way)) in rounds.iter_mut().zip(ways) {
            figures.push(measure(way).await?);
        }
    }
    for (figures, (way, _)) in rounds.into_iter().zip(ways) {
        measuring::print(bench, way, unit, figures)?;
    }
    Ok(())
}

async fn throughput(way: &Way<'_>, mebibytes: u32) -> Outcome<f64> {
    let mut stream = way.connect().await?;
    let block = vec![7; 1 << 20];
    let start = Instant::now();
    stream.write_all(b"s").await?;
    for _ in 0..mebibytes {
        stream.write_all(&block).await?;
    }
    stream.shutdown().await?;
    // The service answers once it has swallowed everything.
    stream.read_u8().await?;
    Ok(f64::from(mebibytes) / start.elapsed().as_secs_f64())
}

async fn connections(way: &Way<'_>, count: u32) -> Outcome<f64> {
    const AT_A_TIME: u32 = 8;
    let start = Instant::now();
    for _ in 0..count / AT_A_TIME {
        let one = async || {
            let mut stream = way.connect().await?;
            stream.write_all(b"e").await?;
            stream.read_u8().await?;
            Outcome::Ok(())
        };
        futures::future::try_join_all((0..AT_A_TIME).map(|_| one())).await?;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

async fn round_trip(way: &Way<'_>, count: usize) -> Outcome<f64> {
    let mut stream = way.connect().await?;
    stream.write_all(b"e").await?;
    stream.read_u8().await?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(b"p").await?;
        stream.read_u8().await?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[count / 2].as_secs_f64() * 1e6)
}

/// The plain relay to a service, on a thread of its own.
fn plain_relay(service: SocketAddr) -> Outcome<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || measuring::relay_plainly(&listener, service));
    Ok(address)
}
