//! Tries every way out that it is told of, and says what came of each.
//!
//! `prober FILE`, where each line of the file is a probe; answers to standard output with a line
//! `probe PROBE => reached: WORDS` or `probe PROBE => refused: REASON` for each. Reached is a probe
//! that got an answer, or did what only a way out can need.
//!
//! ```text
//! tcp HOST:PORT            what the other side says first, and that it sends back what it got
//! http HOST:PORT NAME      a request to the host NAME
//! absolute HOST:PORT NAME URL  the same, with the whole URL in its first line
//! upgrade HOST:PORT NAME   the same, with the wish to speak something else from then on
//! tls HOST:PORT NAME|-     a ClientHello to the server NAME, or to none
//! hidden HOST:PORT NAME    the same, with room for a server's name that nobody can read
//! connect HOST:PORT TO     a request to be connected to TO
//! cut HOST:PORT            bytes until the other side breaks off
//! flip HOST:PORT NAME      asks the world to let NAME lead elsewhere from now on
//! outlive HOST:PORT NAME   the same, and an older connection is used after new ones get nowhere
//! mptcp ADDRESS:PORT       as tcp, over several paths if it can
//! udp HOST:PORT            a datagram
//! dns-udp SERVER NAME      a lookup; the server is an address, or `own`
//! dns-tcp SERVER NAME
//! icmp ADDRESS             an echo request from a socket for those
//! raw ADDRESS              the same from a raw socket
//! packet                   a socket of the link layer
//! abstract NAME            a Unix socket without a file
//! hosts NAME ADDRESS PORT  writes the name's address to /etc/hosts, and uses it
//! flush-rules              removes all rules of the packet filter
//! delete-route ADDRESS     removes the local route to an address
//! new-namespaces           makes a user and network namespace of its own
//! ```

use std::{
    error::Error,
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixStream},
    },
    time::{Duration, Instant},
};

use rustix::{
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, netlink,
        sockopt::{Timeout, set_socket_timeout},
    },
    thread::UnshareFlags,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

type Answer = Result<String, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("a file lists the probes")?;
    for probe in fs::read_to_string(file)?.lines() {
        let words: Vec<&str> = probe.split_whitespace().collect();
        let told = match carry_out(&words) {
            Ok(words) => format!("reached: {words}"),
            Err(error) => format!("refused: {error}"),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "probe {probe} => {}", told.replace('\n', " "))?;
        out.flush()?;
    }
    Ok(())
}

fn carry_out(probe: &[&str]) -> Answer {
    match *probe {
        ["tcp", to] => talk(to, "hello"),
        ["flip", to, name] => talk(to, &format!("flip {name}")),
        ["outlive", to, name] => outlive(to, name),
        ["http", to, name] => {
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
            ask(to, request.as_bytes())
        }
        ["absolute", to, name, url] => {
            let request = format!("GET {url} HTTP/1.1\r\nHost: {name}\r\n\r\n");
            ask(to, request.as_bytes())
        }
        ["upgrade", to, name] => {
            let wish = "Connection: Upgrade\r\nUpgrade: websocket";
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n{wish}\r\n\r\n");
            ask(to, request.as_bytes())
        }
        ["connect", to, target] => {
            let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            ask(to, request.as_bytes())
        }
        ["tls", to, "-"] => ask(to, &client_hello(&[])),
        ["tls", to, name] => ask(to, &client_hello(&server_name(name))),
        ["hidden", to, name] => ask(
            to,
            &client_hello(&[server_name(name), encrypted()].concat()),
        ),
        ["cut", to] => until_cut(to),
        ["mptcp", to] => many_paths(to.parse()?),
        ["udp", to] => datagram(to),
        ["dns-udp", server, name] => lookup_by_datagram(server, name),
        ["dns-tcp", server, name] => lookup_by_stream(server, name),
        ["icmp", address] => echo(address.parse()?, SocketType::DGRAM),
        ["raw", address] => echo(address.parse()?, SocketType::RAW),
        ["packet"] => {
            rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None)?;
            Ok("a socket of the link layer".to_owned())
        }
        ["abstract", name] => without_a_file(name),
        ["hosts", name, address, port] => {
            let mut hosts = fs::OpenOptions::new().append(true).open("/etc/hosts")?;
            writeln!(hosts, "{address} {name}")?;
            talk(&format!("{name}:{port}"), "hello")
        }
        ["flush-rules"] => flush_rules(),
        ["delete-route", address] => delete_route(address.parse()?),
        ["new-namespaces"] => {
            #[expect(
                deprecated,
                reason = "its replacement is unsafe for the sake of a flag that is not used here"
            )]
            rustix::thread::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
            Ok("namespaces of its own".to_owned())
        }
        _ => Err("the probe is not understood".into()),
    }
}

fn without_a_file(name: &str) -> Answer {
    let mut stream = UnixStream::connect_addr(&UnixAddress::from_abstract_name(name)?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 256];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn connect(to: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in to.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn all_of(stream: &mut TcpStream) -> Answer {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err("nothing was said".into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Listens first, then speaks and ends, and listens to the end.
fn talk(to: &str, words: &str) -> Answer {
    let mut stream = connect(to)?;
    let mut first = [0; 256];
    let length = stream.read(&mut first)?;
    if length == 0 {
        return Err("nothing was said".into());
    }
    writeln!(stream, "{words}")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let rest = all_of(&mut stream)?;
    Ok(format!(
        "{}{rest}",
        String::from_utf8_lossy(&first[..length])
    ))
}

fn ask(to: &str, request: &[u8]) -> Answer {
    let mut stream = connect(to)?;
    stream.write_all(request)?;
    all_of(&mut stream)
}

fn until_cut(to: &str) -> Answer {
    const MOST: usize = 64 << 20;
    let mut stream = connect(to)?;
    let mut first = [0; 256];
    let length = stream.read(&mut first)?;
    let (piece, mut sent) = ([7; 16 << 10], 0);
    while sent < MOST {
        if stream.write_all(&piece).is_err() {
            let first = String::from_utf8_lossy(&first[..length]);
            return Ok(format!("{first} and then it was cut"));
        }
        sent += piece.len();
    }
    Err("it was never cut".into())
}

/// Whether an old connection is of use when new ones lead nowhere.
#[expect(
    clippy::disallowed_methods,
    reason = "it waits between two looks at a condition, of which nobody tells"
)]
fn outlive(to: &str, name: &str) -> Answer {
    let mut old = connect(to)?;
    old.read_exact(&mut [0; 8])?;
    talk(to, &format!("flip {name}"))?;
    let deadline = Instant::now() + 10 * PATIENCE;
    // One that was made before stalls; the first that is not made at all is reset.
    while !talk(to, "are you there").is_err_and(|error| is_reset(error.as_ref())) {
        if Instant::now() > deadline {
            return Ok("nothing was cut".to_owned());
        }
        // As many connections as can be made in a second would be too many.
        std::thread::sleep(Duration::from_millis(20));
    }
    writeln!(old, "are you there")?;
    old.shutdown(std::net::Shutdown::Write)?;
    let mut rest = String::new();
    old.read_to_string(&mut rest)?;
    match rest.contains("are you there") {
        true => Ok(rest),
        false => Err("nothing comes back".into()),
    }
}

fn is_reset(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

fn datagram(to: &str) -> Answer {
    let mut failed: Box<dyn Error> = "there is no such host".into();
    for address in to.to_socket_addrs()? {
        match exchange(address, b"hello") {
            Ok(answer) => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}

fn exchange(to: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(message)?;
    let mut answer = [0; 2048];
    let length = socket.recv(&mut answer)?;
    Ok(answer[..length].to_vec())
}

fn server(named: &str) -> Result<SocketAddr, Box<dyn Error>> {
    if named != "own" {
        return Ok((named.parse::<IpAddr>()?, 53).into());
    }
    let settings = fs::read_to_string("/etc/resolv.conf")?;
    let server = settings
        .lines()
        .find_map(|line| line.strip_prefix("nameserver "));
    let server = server.ok_or("no name server is configured")?;
    Ok((server.trim().parse::<IpAddr>()?, 53).into())
}

fn lookup_by_datagram(named: &str, name: &str) -> Answer {
    found(&exchange(server(named)?, &query(name))?)
}

fn lookup_by_stream(named: &str, name: &str) -> Answer {
    let mut stream = connect(&server(named)?.to_string())?;
    let query = query(name);
    let length = u16::try_from(query.len())?;
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    found(&answer)
}

/// A query for IPv4 addresses (RFC 1035 section 4).
fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or_default());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// The address with which an answer of one record ends.
fn found(answer: &[u8]) -> Answer {
    let code = answer.get(3).ok_or("the answer is cut short")? & 0x0f;
    let last = answer.last_chunk::<4>().ok_or("the answer is cut short")?;
    match (code, answer.get(7)) {
        (0, Some(1..)) => Ok(Ipv4Addr::from(*last).to_string()),
        (code, _) => Err(format!("the name server says {code}").into()),
    }
}

/// Bytes with their length before them.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// The extension that names a server (RFC 6066 section 3).
fn server_name(name: &str) -> Vec<u8> {
    let entry = [&[0][..], &sized(name.as_bytes())].concat();
    [&[0, 0][..], &sized(&sized(&entry))].concat()
}

/// The extension of an encrypted ClientHello (RFC 9849), filled with noise.
fn encrypted() -> Vec<u8> {
    [&[0xfe, 0x0d][..], &sized(&[7; 32])].concat()
}

/// A ClientHello (RFC 8446 section 4.1.2).
fn client_hello(extensions: &[u8]) -> Vec<u8> {
    // Version, random, session, one cipher suite, no compression.
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(sized(extensions));
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// Multipath TCP (RFC 8684), which is plain TCP to those who do not know it.
fn many_paths(to: SocketAddr) -> Answer {
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket(AddressFamily::INET, kind, Some(ipproto::MPTCP))?;
    rustix::net::connect(&socket, &to)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    all_of(&mut stream)
}

/// An echo request (RFC 792), and whether anything comes back.
fn echo(address: Ipv4Addr, kind: SocketType) -> Answer {
    let socket = rustix::net::socket(AddressFamily::INET, kind, Some(ipproto::ICMP))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    // The sum of all words but the checksum's own is 0x0806.
    let request = [8, 0, 0xf7, 0xf9, 0, 1, 0, 5];
    let to = SocketAddr::from((address, 0));
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &to)?;
    let mut answer = [0; 256];
    rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    Ok("an echo".to_owned())
}

const REQUEST: u16 = 1;
const ACKNOWLEDGED: u16 = 4;

/// A netlink message (`linux/netlink.h`).
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or_default();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

/// Sends messages to the kernel, and takes its answer.
fn order(protocol: Option<Protocol>, messages: &[u8]) -> Result<(), Box<dyn Error>> {
    let flags = SocketFlags::CLOEXEC;
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    rustix::net::send(&socket, messages, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (_, length) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    let code = answer[..length]
        .get(16..20)
        .ok_or("the kernel says too little")?;
    match i32::from_ne_bytes(code.try_into()?) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code).into()),
    }
}

/// `nft flush ruleset` (`linux/netfilter/nf_tables.h`).
fn flush_rules() -> Answer {
    const BATCH_BEGIN: u16 = 0x10;
    const BATCH_END: u16 = 0x11;
    const DELETE_TABLE: u16 = (10 << 8) | 2;
    let of_tables = [0, 0, 0, 10];
    let messages = [
        message(BATCH_BEGIN, 0, &of_tables),
        message(DELETE_TABLE, ACKNOWLEDGED, &[0; 4]),
        message(BATCH_END, 0, &of_tables),
    ];
    order(Some(netlink::NETFILTER), &messages.concat())?;
    Ok("no rule is left".to_owned())
}

/// `ip route delete local ADDRESS` (`linux/rtnetlink.h`).
fn delete_route(address: Ipv4Addr) -> Answer {
    const DELETE_ROUTE: u16 = 25;
    const INET: u8 = 2;
    const TABLE_LOCAL: u8 = 255;
    const NOWHERE: u8 = 255;
    const DESTINATION: u16 = 1;
    let mut body = vec![INET, 32, 0, 0, TABLE_LOCAL, 0, NOWHERE, 0, 0, 0, 0, 0];
    body.extend(8_u16.to_ne_bytes());
    body.extend(DESTINATION.to_ne_bytes());
    body.extend(address.octets());
    order(None, &message(DELETE_ROUTE, ACKNOWLEDGED, &body))?;
    Ok("a route less".to_owned())
}
