//! What the broker costs: throughput, new connections, delay and memory, each beside a plain
//! splice relay and a direct connection in the same run, and beside slirp4netns and pasta where they
//! are installed. Prints a JSON object a line.
//!
//! `cargo run --release -p barecount-network --example relay [MEBIBYTES]`. The service, the broker
//! and the plain relay are processes of their own; this one is the work.

mod beside;
#[path = "../measuring/mod.rs"]
mod measuring;
#[expect(dead_code, reason = "another example uses the rest")]
#[path = "../measuring/role.rs"]
mod role;
mod roles;

use std::{
    error::Error,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use barecount_network::{NameServer, resolver::Resolver};
use beside::Attached;
use measuring::{Outcome, ROUNDS};
use role::{Role, raise_descriptor_limit};

const OPEN_FLOWS: usize = 1_000;
/// The ways that are made of nothing but what is built here.
const OWN_WAYS: [&str; 3] = ["direct", "plain_splice", "broker"];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    raise_descriptor_limit();
    match arguments.as_slice() {
        ["service"] => roles::service(),
        ["plain", service] => roles::plain(service.parse()?),
        ["broker", service, port] => roles::broker(service.parse()?, port.parse()?),
        ["hold"] => beside::hold(),
        ["client", work, to, amount] => {
            let figure = work.parse::<Work>()?.figure(to.parse()?, amount.parse()?)?;
            Ok(writeln!(std::io::stdout(), "{figure}")?)
        }
        [] => measure(256),
        [mebibytes] => measure(mebibytes.parse()?),
        _ => Err("usage: relay [MEBIBYTES]".into()),
    }
}

fn measure(mebibytes: u64) -> Outcome<()> {
    let service = Role::start(&["service"])?;
    let reached = service.address()?;
    let at = reached.to_string();
    let plain = Role::start(&["plain", &at])?;
    let port = reached.port().to_string();
    let broker = Role::start(&["broker", &at, &port])?;
    let inside = SocketAddr::new(look_up(broker.address()?)?, reached.port());
    let (slirp4netns, pasta) = (Attached::slirp4netns(), Attached::pasta());
    let mut ways = vec![
        Way::here("direct", reached),
        Way::here("plain_splice", plain.address()?),
        Way::here("broker", inside),
    ];
    let by_gateway = Attached::by_gateway(reached);
    match &slirp4netns {
        Ok(attached) => ways.push(Way::within("slirp4netns", attached, by_gateway)),
        Err(error) => missing("slirp4netns", error.as_ref())?,
    }
    match &pasta {
        Ok(attached) => {
            ways.push(Way::within("pasta", attached, by_gateway));
            ways.push(Way::within("pasta_loopback", attached, reached));
        }
        Err(error) => missing("pasta", error.as_ref())?,
    }

    let mut failed = report(&ways, Work::Throughput, mebibytes)?;
    failed.extend(report(&ways, Work::Connections, 1_000)?);
    failed.extend(report(&ways, Work::RoundTrip, 3_000)?);

    let before = broker.resident_kib()?;
    let mut open = Vec::with_capacity(OPEN_FLOWS);
    for _ in 0..OPEN_FLOWS {
        let mut stream = TcpStream::connect(inside)?;
        echo(&mut stream)?;
        open.push(stream);
    }
    let (during, flows) = (broker.resident_kib()?, open.len());
    let line = serde_json::json!({
        "bench": "memory", "unit": "KiB", "flows": flows, "before": before, "open": during,
    });
    writeln!(std::io::stdout(), "{line}")?;
    drop(open);
    // Without those of others the budgets can be told all the same.
    failed.retain(|way| OWN_WAYS.contains(way));
    if failed.is_empty() {
        return Ok(());
    }
    // What its records say of it goes to standard error.
    broker.let_go()?;
    Err(format!("no figures of {}", failed.join(", ")).into())
}

/// The address of the declared name inside.
fn look_up(name_server: SocketAddr) -> Outcome<std::net::IpAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let addresses =
        runtime.block_on(NameServer::new(name_server).resolve(&"api.example".parse()?))?;
    Ok(*addresses.first().ok_or("the name has no address")?)
}

/// Says that a way is not measured.
fn missing(way: &str, error: &dyn Error) -> Outcome<()> {
    let line = serde_json::json!({"bench": "missing", "way": way, "reason": error.to_string()});
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// How the service is reached.
struct Way<'a> {
    name: &'static str,
    to: SocketAddr,
    within: Option<&'a Attached>,
}

impl<'a> Way<'a> {
    fn here(name: &'static str, to: SocketAddr) -> Self {
        let within = None;
        Self { name, to, within }
    }

    fn within(name: &'static str, attached: &'a Attached, to: SocketAddr) -> Self {
        let within = Some(attached);
        Self { name, to, within }
    }

    fn figure(&self, work: Work, amount: u64) -> Outcome<f64> {
        match self.within {
            None => work.figure(self.to, amount),
            Some(attached) => {
                let (to, amount) = (self.to.to_string(), amount.to_string());
                attached.figure(&[work.name(), &to, &amount])
            }
        }
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum Work {
    Throughput,
    Connections,
    RoundTrip,
}

impl Work {
    const ALL: [Self; 3] = [Self::Throughput, Self::Connections, Self::RoundTrip];

    fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Connections => "connections",
            Self::RoundTrip => "round_trip_p50",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "MiB/s",
            Self::Connections => "1/s",
            Self::RoundTrip => "us",
        }
    }

    fn figure(self, to: SocketAddr, amount: u64) -> Outcome<f64> {
        match self {
            Self::Throughput => throughput(to, amount),
            Self::Connections => connections(to, u32::try_from(amount)?),
            Self::RoundTrip => round_trip(to, usize::try_from(amount)?),
        }
    }
}

impl std::str::FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|work| work.name() == text);
        found.ok_or_else(|| format!("nothing is measured by the name `{text}`"))
    }
}

/// Measures every way in turn and prints each one's median. A way that fails is said to, and has no
/// figure: the others have theirs all the same. Gives the failed ones.
fn report(ways: &[Way<'_>], work: Work, amount: u64) -> Outcome<Vec<&'static str>> {
    let mut rounds: Vec<_> = ways.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (figures, way) in rounds.iter_mut().zip(ways) {
            if let Ok(of_way) = figures {
                match way.figure(work, amount) {
                    Ok(figure) => of_way.push(figure),
                    Err(error) => *figures = Err(error),
                }
            }
        }
    }
    let mut failed = Vec::new();
    for (figures, way) in rounds.into_iter().zip(ways) {
        match figures {
            Ok(figures) => measuring::print(work.name(), way.name, work.unit(), figures)?,
            Err(error) => {
                let line = serde_json::json!({
                    "bench": "failed", "work": work.name(), "way": way.name,
                    "reason": error.to_string(),
                });
                writeln!(std::io::stdout(), "{line}")?;
                failed.push(way.name);
            }
        }
    }
    Ok(failed)
}

/// The first byte asks the service to echo, or to swallow.
fn echo(stream: &mut TcpStream) -> Outcome<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"e")?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

fn throughput(to: SocketAddr, mebibytes: u64) -> Outcome<f64> {
    let mut stream = TcpStream::connect(to)?;
    let block = vec![7; 1 << 20];
    let start = Instant::now();
    stream.write_all(b"s")?;
    for _ in 0..mebibytes {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The service answers once it has swallowed everything.
    stream.read_exact(&mut [0])?;
    Ok(f64::from(u32::try_from(mebibytes)?) / start.elapsed().as_secs_f64())
}

fn connections(to: SocketAddr, count: u32) -> Outcome<f64> {
    const AT_A_TIME: u32 = 8;
    let start = Instant::now();
    let workers: Vec<_> = (0..AT_A_TIME)
        .map(|_| {
            std::thread::spawn(move || {
                (0..count / AT_A_TIME).try_for_each(|_| {
                    let mut stream = TcpStream::connect(to)
                        .map_err(|error| format!("no connection: {error}"))?;
                    echo(&mut stream).map_err(|error| format!("no echo: {error}"))
                })
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")??;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn round_trip(to: SocketAddr, count: usize) -> Outcome<f64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    echo(&mut stream)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(b"p")?;
        stream.read_exact(&mut [0])?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[count / 2].as_secs_f64() * 1e6)
}

/// Where the inside of the broker is in place of a sandbox.
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 1);
