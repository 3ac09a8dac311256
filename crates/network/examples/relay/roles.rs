//! The processes that the work talks with.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use barecount_model::{class::NetworkProfile, manifest::EgressProtocol};
use barecount_network::{
    broker::{Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    path::{Endpoint, EndpointAddress, Path},
    policy::{Destination, Limits, Mode, Policy},
    resolver::HostResolver,
    synthetic::SyntheticRanges,
};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{INSIDE, Outcome};

fn tell(address: SocketAddr) -> Outcome<()> {
    writeln!(std::io::stdout(), "{address}")?;
    Ok(())
}

/// Waits until the process that started this one lets go.
fn until_let_go() -> Outcome<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Echoes, or swallows and answers at the end.
pub(crate) fn service() -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        tell(listener.local_addr()?)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let first = stream.read_u8().await?;
                let swallows = first == b's';
                let mut buffer = vec![0; if swallows { 1 << 18 } else { 64 }];
                if !swallows {
                    stream.write_all(&[first]).await?;
                }
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => break,
                        _ if swallows => {}
                        length => stream.write_all(&buffer[..length]).await?,
                    }
                }
                if swallows {
                    stream.write_all(b".").await?;
                }
                std::io::Result::Ok(())
            });
        }
    })
}

/// The simplest relay that splices: two threads and two pipes for a connection.
pub(crate) fn plain(service: SocketAddr) -> Outcome<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    tell(listener.local_addr()?)?;
    for stream in listener.incoming() {
        let work = stream?;
        std::thread::spawn(move || {
            let there = TcpStream::connect(service)?;
            work.set_nodelay(true)?;
            there.set_nodelay(true)?;
            let (work_too, there_too) = (work.try_clone()?, there.try_clone()?);
            let down = std::thread::spawn(move || pump(&there_too, &work_too));
            pump(&work, &there)?;
            let _ = down.join();
            std::io::Result::Ok(())
        });
    }
    Ok(())
}

fn pump(from: &TcpStream, to: &TcpStream) -> std::io::Result<()> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC)?;
    let capacity = fcntl_setpipe_size(&into, 256 * 1024).unwrap_or(64 * 1024);
    loop {
        let mut filled = splice(from, None, &into, None, capacity, SpliceFlags::MOVE)?;
        if filled == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        while filled > 0 {
            filled -= splice(&out, None, to, None, filled, SpliceFlags::MOVE)?;
        }
    }
}

/// The broker, and a name server of its own.
pub(crate) fn broker(service: SocketAddr, port: u16) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let dns = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let name_server = dns.local_addr()?;
    let sockets = InsideSockets {
        tcp: vec![TcpListener::bind((INSIDE, port))?],
        dns_udp: vec![dns],
        dns_tcp: Vec::new(),
        capture: Capture::DeclaredPorts,
    };
    let path = Path::Endpoint(Endpoint {
        services: BTreeMap::from([("api.example".parse()?, EndpointAddress::Socket(service))]),
        resolver: Arc::new(HostResolver::default()),
    });
    let mut options = BrokerOptions::new(BTreeMap::from([(
        NetworkProfile::PrivateLink,
        Arc::new(path),
    )]));
    options.synthetic = SyntheticRanges {
        v4: "127.64.0.0/16".parse()?,
        v6: None,
    };
    let broker = Broker::start(sockets, options)?;
    let _attempt = broker.begin(Policy {
        profile: NetworkProfile::PrivateLink,
        mode: Mode::Enforce,
        destinations: vec![Destination {
            host: "api.example".parse()?,
            port,
            protocol: EgressProtocol::Tcp,
        }],
        limits: Limits {
            max_flows: 4_096,
            new_flows_per_second: 1_000_000,
            ..Limits::default()
        },
    })?;
    tell(name_server)?;
    until_let_go()
}
