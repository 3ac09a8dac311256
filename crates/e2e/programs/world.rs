//! The hosts around a boundary, all in one network namespace: whatever is sent to any of its
//! addresses is answered, and written to standard output.
//!
//! `world FILE`, where each line of the file is one of
//!
//! ```text
//! address ADDRESS               datagrams to it are answered
//! name NAME ADDRESS…            what the name leads to
//! alias NAME NAME               a CNAME record
//! rebinding NAME FIRST SECOND   leads to FIRST until somebody sends `flip NAME`
//! abstract NAME                 a Unix socket without a file
//! ```
//!
//! The first line of the output is `ready`. Then `tcp ADDRESS:PORT`, `udp ADDRESS:PORT`,
//! `dns NAME`, `proxy NAME:PORT`, `flip NAME` and `abstract`, for each that came.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixListener},
    },
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Says who it is before anything was sent, and then sends everything back.
const BANNER: [u16; 2] = [7000, 7001];
/// Breaks off in the middle of what is sent to it.
const CUT: u16 = 7002;
const ECHO_UDP: u16 = 7007;
const DNS: u16 = 53;
const HTTP: u16 = 80;
const TLS: u16 = 443;
const PROXY: u16 = 3128;

/// Nobody keeps a connection for longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than this is read of nothing.
const MOST: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    // Who looks at this world may be killed.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let file = std::env::args()
        .nth(1)
        .ok_or("a file describes the world")?;
    let zone = Arc::new(Zone::read(&std::fs::read_to_string(file)?)?);
    for port in BANNER.into_iter().chain([CUT, DNS, HTTP, TLS, PROXY]) {
        // For IPv4 as well.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
        let zone = zone.clone();
        thread::spawn(move || accept(&listener, port, &zone));
    }
    let own = IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
    for address in zone.addresses.iter().chain([&own]) {
        for port in [DNS, TLS, ECHO_UDP] {
            let socket = UdpSocket::bind(scoped(*address, port))?;
            let zone = zone.clone();
            thread::spawn(move || datagrams(&socket, &zone));
        }
    }
    for name in &zone.abstract_names {
        let listener = UnixListener::bind_addr(&UnixAddress::from_abstract_name(name)?)?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                tell("abstract");
                let _ = (&stream).write_all(b"here is the host\n");
            }
        });
    }
    tell("ready");
    loop {
        thread::park();
    }
}

/// One line, whole.
fn tell(line: &str) {
    let mut out = io::stdout().lock();
    // Whoever listened may have ended.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Link-local addresses are on the first interface of the namespace, the loopback.
fn scoped(address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, 1).into(),
        address => SocketAddr::new(address, port),
    }
}

#[derive(Debug, Default)]
struct Zone {
    addresses: BTreeSet<IpAddr>,
    names: BTreeMap<String, Vec<IpAddr>>,
    aliases: BTreeMap<String, String>,
    rebinding: BTreeMap<String, [IpAddr; 2]>,
    flipped: Mutex<BTreeSet<String>>,
    abstract_names: Vec<String>,
}

impl Zone {
    fn read(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut zone = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                ["address", address] => {
                    zone.addresses.insert(address.parse()?);
                }
                ["name", name, ref addresses @ ..] => {
                    let addresses = addresses.iter().map(|address| address.parse());
                    zone.names
                        .insert(name.to_owned(), addresses.collect::<Result<_, _>>()?);
                }
                ["alias", name, other] => {
                    zone.aliases.insert(name.to_owned(), other.to_owned());
                }
                ["rebinding", name, first, second] => {
                    let both = [first.parse()?, second.parse()?];
                    zone.rebinding.insert(name.to_owned(), both);
                }
                ["abstract", name] => zone.abstract_names.push(name.to_owned()),
                _ => return Err(format!("not understood: {line}").into()),
            }
        }
        Ok(zone)
    }

    fn lookup(&self, name: &str) -> Option<Vec<IpAddr>> {
        if let Some(both) = self.rebinding.get(name) {
            let flipped = self.flipped.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(vec![both[usize::from(flipped.contains(name))]]);
        }
        self.names.get(name).cloned()
    }

    fn flip(&self, name: &str) {
        let mut flipped = self.flipped.lock().unwrap_or_else(PoisonError::into_inner);
        flipped.insert(name.to_owned());
    }
}

fn accept(listener: &TcpListener, port: u16, zone: &Arc<Zone>) {
    for stream in listener.incoming().flatten() {
        let zone = zone.clone();
        thread::spawn(move || {
            let _ = serve(stream, port, &zone);
        });
    }
}

fn serve(mut stream: TcpStream, port: u16, zone: &Zone) -> io::Result<()> {
    let own = stream.local_addr()?;
    let own = SocketAddr::new(own.ip().to_canonical(), own.port());
    tell(&format!("tcp {own}"));
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let here = format!("here is {own}\n");
    match port {
        DNS => lookups(stream, zone),
        CUT => {
            stream.write_all(here.as_bytes())?;
            // What has come and was not read makes the kernel reset the connection.
            stream.read_exact(&mut [0; 1024])
        }
        HTTP => {
            read_until(&mut stream, |read| read.ends_with(b"\r\n\r\n"))?;
            let length = here.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{here}"
            )
        }
        TLS => {
            read_until(&mut stream, is_record)?;
            stream.write_all(here.as_bytes())
        }
        PROXY => {
            let head = read_until(&mut stream, |read| read.ends_with(b"\r\n\r\n"))?;
            let head = String::from_utf8_lossy(&head);
            let to = head.split(' ').nth(1).unwrap_or_default();
            tell(&format!("proxy {to}"));
            write!(stream, "HTTP/1.1 200 OK\r\n\r\n")?;
            read_until(&mut stream, is_record)?;
            writeln!(stream, "here is the proxy for {to}")
        }
        _ => {
            stream.write_all(here.as_bytes())?;
            let said = read_until(&mut stream, |_| false)?;
            let said = String::from_utf8_lossy(&said);
            if let Some(name) = said.strip_prefix("flip ") {
                zone.flip(name.trim());
                tell(said.trim());
            }
            stream.write_all(said.as_bytes())
        }
    }
}

/// A whole TLS record (RFC 8446 section 5.1), or something else.
fn is_record(read: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    match read {
        [HANDSHAKE, _, _, high, low, rest @ ..] => {
            rest.len() >= usize::from(u16::from_be_bytes([*high, *low]))
        }
        [] | [HANDSHAKE, ..] => false,
        _ => true,
    }
}

fn read_until(stream: &mut TcpStream, whole: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while !whole(&read) && read.len() < MOST {
        match stream.read(&mut buffer)? {
            0 => break,
            length => read.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(read)
}

fn datagrams(socket: &UdpSocket, zone: &Zone) {
    let mut buffer = [0; 2048];
    let Ok(own) = socket.local_addr() else { return };
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        tell(&format!("udp {own}"));
        let answer = if own.port() == DNS {
            answer(&buffer[..length], zone)
        } else {
            Some(format!("here is {own}\n").into_bytes())
        };
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// Each message has its length before it (RFC 7766).
fn lookups(mut stream: TcpStream, zone: &Zone) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query)?;
        let Some(answer) = answer(&query, zone) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// Answers a query (RFC 1035 section 4) of one question.
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let question = query.get(12..at + 4)?;
    let mut name = labels.join(".");
    tell(&format!("dns {name}"));
    let mut records = Vec::new();
    while let Some(other) = zone.aliases.get(&name) {
        records.push(record(&name, CNAME, &encoded(other)));
        name.clone_from(other);
    }
    let found = zone.lookup(&name);
    let exists = found.is_some() || !records.is_empty();
    for address in found.into_iter().flatten() {
        match address {
            IpAddr::V4(v4) if kind == A => records.push(record(&name, A, &v4.octets())),
            IpAddr::V6(v6) if kind == AAAA => records.push(record(&name, AAAA, &v6.octets())),
            _ => {}
        }
    }
    let code = if exists { 0 } else { 3 };
    let count = u8::try_from(records.len()).ok()?;
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    answer.extend(records.concat());
    Some(answer)
}

/// A record that may not be kept.
fn record(name: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(name);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, 0]);
    bytes.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
