//! What the other stage does.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use rustix::net::sockopt;

use crate::{END_BUFFER, measuring::Outcome};

/// Connections that are held open.
const HELD: usize = 900;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Flood {
    /// Processor time alone.
    Spin,
    /// Lookups of the declared name.
    Lookups,
    /// Lookups of names that are not declared, each another.
    UndeclaredLookups,
    /// Datagrams to the name server that are no lookups.
    Datagrams,
    /// Lookups over TCP, each over a connection of its own.
    TcpLookups,
    /// Connections to the declared port, ended at once.
    Connections,
    /// Connections to what is not declared.
    UndeclaredConnections,
    /// Connections that are open and idle.
    Open,
    /// Connections that write as much as they can and read nothing.
    SlowReaders,
}

impl Flood {
    pub(crate) const ALL: [Self; 9] = [
        Self::Spin,
        Self::Lookups,
        Self::UndeclaredLookups,
        Self::Datagrams,
        Self::TcpLookups,
        Self::Connections,
        Self::UndeclaredConnections,
        Self::Open,
        Self::SlowReaders,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Lookups => "lookups",
            Self::UndeclaredLookups => "undeclared_lookups",
            Self::Datagrams => "datagrams",
            Self::TcpLookups => "tcp_lookups",
            Self::Connections => "connections",
            Self::UndeclaredConnections => "undeclared_connections",
            Self::Open => "open_connections",
            Self::SlowReaders => "slow_readers",
        }
    }

    /// Floods until the process is ended. Says when it has begun.
    pub(crate) fn run(self, name_server: SocketAddr, inside: SocketAddr) -> Outcome<()> {
        let begun = || writeln!(io::stdout(), "begun");
        match self {
            Self::Open | Self::SlowReaders => {
                let held = self.hold(inside)?;
                begun()?;
                std::thread::park();
                drop(held);
                return Ok(());
            }
            _ => begun()?,
        }
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        datagrams.set_nonblocking(true)?;
        let undeclared = SocketAddr::new(undeclared(inside.ip()), inside.port());
        for number in 0_u64.. {
            // What is refused, or finds no room, is what a flood expects.
            let _ = match self {
                Self::Spin => Ok(()),
                Self::Datagrams => datagrams.send_to(b"x", name_server).map(drop),
                Self::Lookups => datagrams.send_to(&query("api"), name_server).map(drop),
                Self::UndeclaredLookups => {
                    let query = query(&format!("n{number}"));
                    datagrams.send_to(&query, name_server).map(drop)
                }
                Self::TcpLookups => ask_over_tcp(name_server),
                Self::Connections => connect(inside),
                _ => connect(undeclared),
            };
        }
        Ok(())
    }

    fn hold(self, inside: SocketAddr) -> io::Result<Vec<TcpStream>> {
        let mut held = Vec::with_capacity(HELD);
        while held.len() < HELD {
            // They come faster than they may at first, and some are refused.
            if let Ok(stream) = open(inside) {
                held.push(stream);
            }
        }
        // What the other sides have taken makes room for more, for a while.
        let (block, mut full) = (vec![0; 1 << 16], 0);
        while self != Self::Open && full < 200 {
            full += 1;
            for stream in &mut held {
                while stream.write(&block).is_ok() {
                    full = 0;
                }
            }
            std::thread::yield_now();
        }
        Ok(held)
    }
}

impl std::str::FromStr for Flood {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|flood| flood.name() == text);
        found.ok_or_else(|| format!("there is no flood by the name `{text}`"))
    }
}

/// A connection that is served, with little room at its own end.
fn open(inside: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&inside, Duration::from_secs(20))?;
    stream.write_all(b"e")?;
    io::Read::read_exact(&mut stream, &mut [0])?;
    sockopt::set_socket_recv_buffer_size(&stream, END_BUFFER)?;
    sockopt::set_socket_send_buffer_size(&stream, END_BUFFER)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn undeclared(inside: IpAddr) -> IpAddr {
    match inside {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 99).into()
        }
        other => other,
    }
}

fn connect(to: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}

fn ask_over_tcp(name_server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&name_server, Duration::from_secs(1))?;
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    let query = query("api");
    stream.write_all(&[0, u8::try_from(query.len()).unwrap_or(u8::MAX)])?;
    stream.write_all(&query)
}

/// A lookup of an address of `LABEL.example`.
fn query(label: &str) -> Vec<u8> {
    let mut query = vec![4, 210, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [label, "example"] {
        query.push(u8::try_from(label.len()).unwrap_or(63));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}
