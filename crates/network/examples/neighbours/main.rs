//! What a steady stage feels of one that floods, where both are served by one agent: its round trip
//! alone and beside each flood, what the agent's processor time comes to meanwhile, and the memory
//! of the kernel's TCP buffers. Prints a JSON object a line.
//!
//! `cargo run --release -p barecount-network --example neighbours`. The service, the agent with the
//! two brokers, and the flood are processes of their own; this one is the steady stage. A flood of
//! nothing but processor time is measured also: what it adds is the machine's, and not the broker's.

mod floods;
#[expect(dead_code, reason = "the other examples use the rest")]
#[path = "../measuring/mod.rs"]
mod measuring;
#[expect(dead_code, reason = "another example uses the rest")]
#[path = "../measuring/role.rs"]
mod role;
mod roles;

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use barecount_network::{NameServer, resolver::Resolver};
use floods::Flood;
use measuring::Outcome;
use role::{Role, raise_descriptor_limit};

/// Where the insides of the brokers are in place of sandboxes: of the steady stage and of the other.
const INSIDES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 64, 0, 1), Ipv4Addr::new(127, 65, 0, 1)];
/// For how long the steady stage is watched at a time.
const WATCHED: Duration = Duration::from_secs(3);
/// What an end of a connection holds that is not the agent's, in bytes: so little that what the
/// kernel holds in all is the agent's.
const END_BUFFER: usize = 8 * 1024;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    raise_descriptor_limit();
    match arguments.as_slice() {
        ["service"] => roles::service(),
        ["agent", service] => roles::agent(service.parse()?),
        ["flood", flood, name_server, inside] => {
            let flood = flood.parse::<Flood>()?;
            flood.run(name_server.parse()?, inside.parse()?)
        }
        [] => measure(),
        _ => Err("usage: neighbours".into()),
    }
}

fn measure() -> Outcome<()> {
    let service = Role::start(&["service"])?;
    let reached = service.address()?;
    let agent = Role::start(&["agent", &reached.to_string()])?;
    let name_servers: Vec<SocketAddr> = agent
        .said
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let port = reached.port();
    let steady = SocketAddr::new(look_up(name_servers[0])?, port);
    let other = SocketAddr::new(look_up(name_servers[1])?, port);
    let mut stream = TcpStream::connect(steady)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"e")?;
    stream.read_exact(&mut [0])?;
    print("alone", &watch(&mut stream, &agent)?)?;
    for flood in Flood::ALL {
        let arguments = [
            "flood",
            flood.name(),
            &name_servers[1].to_string(),
            &other.to_string(),
        ];
        let flooding = Role::start(&arguments)?;
        print(flood.name(), &watch(&mut stream, &agent)?)?;
        drop(flooding);
    }
    print("alone_again", &watch(&mut stream, &agent)?)
}

/// The address of the declared name inside.
fn look_up(name_server: SocketAddr) -> Outcome<IpAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let addresses =
        runtime.block_on(NameServer::new(name_server).resolve(&"api.example".parse()?))?;
    Ok(*addresses.first().ok_or("the name has no address")?)
}

/// What was seen in a while.
struct Watch {
    p50_us: f64,
    p99_us: f64,
    round_trips: usize,
    agent_cores: f64,
    tcp_memory_mib: f64,
}

fn watch(stream: &mut TcpStream, agent: &Role) -> Outcome<Watch> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < WATCHED {
        let sent = Instant::now();
        stream.write_all(b"p")?;
        stream.read_exact(&mut [0])?;
        times.push(sent.elapsed());
    }
    // What the agent does for the steady stage is not counted: it rests, and hears nothing.
    let before = agent.processor_time()?;
    stream.set_read_timeout(Some(WATCHED))?;
    let start = Instant::now();
    if stream.read(&mut [0]).is_ok() {
        return Err("the service spoke unasked".into());
    }
    let agent_cores = (agent.processor_time()? - before) / start.elapsed().as_secs_f64();
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let tcp_memory_mib = tcp_memory()?;
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e6;
    Ok(Watch {
        p50_us: at(50),
        p99_us: at(99),
        round_trips: times.len(),
        agent_cores,
        tcp_memory_mib,
    })
}

/// What the kernel holds for TCP of this network namespace and, before Linux tells them apart, of
/// all.
fn tcp_memory() -> Outcome<f64> {
    let text = std::fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.split_whitespace().last());
    let pages: u32 = pages.ok_or("no TCP in sockstat")?.parse()?;
    Ok(f64::from(pages) * 4_096.0 / f64::from(1 << 20))
}

fn print(beside: &str, watch: &Watch) -> Outcome<()> {
    let line = serde_json::json!({
        "bench": "neighbours", "beside": beside, "p50_us": watch.p50_us, "p99_us": watch.p99_us,
        "round_trips": watch.round_trips, "agent_cores": watch.agent_cores,
        "tcp_memory_mib": watch.tcp_memory_mib,
    });
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
