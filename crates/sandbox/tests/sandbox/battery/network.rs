//! Sockets, and what they reach.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixStream},
    },
    time::Duration,
};

use super::{
    Attempt, Environment, Probe, Refusal,
    call::{Word, call, done, holds, numbered, system_call},
    probe,
};

/// What a service of the host says at once.
pub(super) const GREETING: &[u8] = b"greeting";
const PATIENCE: Duration = Duration::from_millis(500);

const FAMILIES: [(&str, i32, i32, i32); 27] = [
    ("AX.25", 3, libc::SOCK_SEQPACKET, 0),
    ("IPX", 4, libc::SOCK_DGRAM, 0),
    ("AppleTalk", 5, libc::SOCK_DGRAM, 0),
    ("X.25", 9, libc::SOCK_SEQPACKET, 0),
    ("key management", 15, libc::SOCK_RAW, 2),
    ("packet", 17, libc::SOCK_RAW, 0),
    ("packet datagram", 17, libc::SOCK_DGRAM, 0),
    ("RDS", 21, libc::SOCK_SEQPACKET, 0),
    ("PPP over X", 24, libc::SOCK_STREAM, 0),
    ("LLC", 26, libc::SOCK_STREAM, 0),
    ("CAN", 29, libc::SOCK_RAW, 1),
    ("TIPC", 30, libc::SOCK_STREAM, 0),
    ("Bluetooth", 31, libc::SOCK_RAW, 1),
    ("RxRPC", 33, libc::SOCK_DGRAM, 2),
    ("Phonet", 35, libc::SOCK_DGRAM, 0),
    ("IEEE 802.15.4", 36, libc::SOCK_DGRAM, 0),
    ("CAIF", 37, libc::SOCK_STREAM, 0),
    ("crypto", 38, libc::SOCK_SEQPACKET, 0),
    ("NFC", 39, libc::SOCK_RAW, 0),
    ("virtual machine", 40, libc::SOCK_STREAM, 0),
    ("KCM", 41, libc::SOCK_DGRAM, 0),
    ("Qualcomm router", 42, libc::SOCK_DGRAM, 0),
    ("SMC", 43, libc::SOCK_STREAM, 0),
    ("XDP", 44, libc::SOCK_RAW, 0),
    ("MCTP", 45, libc::SOCK_DGRAM, 0),
    ("SCTP", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    ("MPTCP", libc::AF_INET, libc::SOCK_STREAM, 262),
];

const NETLINK: [(&str, i32); 18] = [
    ("route", 0),
    ("user", 2),
    ("socket diagnosis", 4),
    ("packet log", 5),
    ("IPsec", 6),
    ("SELinux", 7),
    ("iSCSI", 8),
    ("audit", 9),
    ("forwarding lookup", 10),
    ("connector", 11),
    ("netfilter", 12),
    ("DECnet", 14),
    ("kernel object events", 15),
    ("generic", 16),
    ("SCSI transport", 18),
    ("eCryptfs", 19),
    ("RDMA", 20),
    ("crypto", 21),
];

fn socket(family: i32, kind: i32, protocol: i32) -> Result<i32, Refusal> {
    call!(SYS_socket, family, kind | libc::SOCK_CLOEXEC, protocol).map(|fd| fd as i32)
}

/// Sends one message over netlink and returns what the kernel answers.
fn ask(kind: u16, flags: u16, body: &[u8]) -> Attempt {
    const REQUEST_AND_ACK: u16 = 5;
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)?;
    let mut message = Vec::new();
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST_AND_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message.resize(message.len().next_multiple_of(8), 0);
    let length = 16 + body.len() as i64;
    let mut words = [0_u64; 32];
    for (word, bytes) in words.iter_mut().zip(message.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().map_err(|_| 0)?);
    }
    call!(SYS_sendto, socket, &mut words, length, 0, 0, 0)?;
    let mut answer = [0_u64; 64];
    call!(SYS_recvfrom, socket, &mut answer, 512, 0, 0, 0)?;
    match (answer[2] & 0xffff_ffff) as i32 {
        0 => Ok(()),
        code => Err(-code),
    }
}

/// Adds a device of the kind `dummy`.
pub(super) fn add_device() -> Attempt {
    let mut body = vec![0; 16];
    body.extend(16_u16.to_ne_bytes());
    body.extend((18_u16 | 0x8000).to_ne_bytes());
    body.extend(9_u16.to_ne_bytes());
    body.extend(1_u16.to_ne_bytes());
    body.extend(*b"dummy\0\0\0");
    // NLM_F_CREATE; without the kind in the kernel, it says so after the permission.
    match ask(16, 0x400, &body) {
        Err(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn delete_route(family: u8) -> Attempt {
    let mut body = vec![family, 0, 0, 0, 255, 3, 254, 2, 0, 0, 0, 0];
    body.extend(8_u16.to_ne_bytes());
    body.extend(4_u16.to_ne_bytes());
    body.extend(1_u32.to_ne_bytes());
    match ask(25, 0, &body) {
        Err(libc::ESRCH) => Ok(()),
        other => other,
    }
}

fn set_option(level: i32, name: i32, value: u64) -> Attempt {
    let socket = numbered(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let mut value = [value];
    done(call!(
        SYS_setsockopt,
        socket.as_raw_fd(),
        level,
        name,
        &mut value,
        4
    ))
}

/// Whether there is the greeting at an address. A connection that is caught brings none.
fn greeted(address: SocketAddr) -> Attempt {
    let mut stream = numbered(TcpStream::connect_timeout(&address, PATIENCE))?;
    numbered(stream.set_read_timeout(Some(PATIENCE)))?;
    hears_greeting(&mut stream)
}

fn hears_greeting(stream: &mut impl Read) -> Attempt {
    let mut text = [0; GREETING.len()];
    numbered(stream.read_exact(&mut text))?;
    holds(text == *GREETING)
}

pub(super) fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (name, family, kind, protocol) in FAMILIES {
        probes.push(probe(format!("open a socket: {name}"), move |_| {
            done(socket(family, kind, protocol))
        }));
    }
    for (name, protocol) in NETLINK {
        probes.push(probe(
            format!("open a socket: netlink, {name}"),
            move |_| done(socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)),
        ));
    }
    for (name, family, protocol) in [
        ("IPv4", libc::AF_INET, libc::IPPROTO_ICMP),
        ("IPv6", libc::AF_INET6, libc::IPPROTO_ICMPV6),
    ] {
        probes.push(probe(format!("open a socket: raw {name}"), move |_| {
            done(socket(family, libc::SOCK_RAW, protocol))
        }));
        probes.push(probe(
            format!("open a socket: ping over {name}"),
            move |_| done(socket(family, libc::SOCK_DGRAM, protocol)),
        ));
    }
    probes.push(probe("open a pair of sockets: TIPC", |_| {
        let mut pair = [0];
        done(call!(
            SYS_socketpair,
            30,
            libc::SOCK_SEQPACKET,
            0,
            &mut pair
        ))
    }));
    probes.extend(steering());
    probes.extend(options());
    probes.extend(reaching());
    probes
}

/// Changing what leads packets.
fn steering() -> Vec<Probe> {
    vec![
        probe("delete a route", |_| delete_route(2)).in_own_network(),
        probe("add a device", |_| add_device()).in_own_network(),
        probe("take the loopback device down", |_| {
            let socket = numbered(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
            // An `ifreq`: the name, and no flags.
            let mut request = [u64::from_ne_bytes(*b"lo\0\0\0\0\0\0"), 0, 0, 0, 0];
            done(call!(
                SYS_ioctl,
                socket.as_raw_fd(),
                0x8914_i64,
                &mut request
            ))
        })
        .in_own_network(),
        probe("replace the rules of a packet filter", |_| {
            let socket = socket(libc::AF_INET, libc::SOCK_RAW, 255)?;
            let mut rules = [0; 64];
            let replaced = call!(SYS_setsockopt, socket, 0, 64, &mut rules, 200);
            super::call::beyond(replaced, &[libc::EINVAL, libc::ENOPROTOOPT, libc::ENOENT])
        })
        .in_own_network(),
        probe("listen on port 80", |_| {
            done(numbered(TcpListener::bind((Ipv4Addr::LOCALHOST, 80))))
        })
        .in_own_network(),
    ]
}

/// Options of sockets that take a privilege.
fn options() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (name, level, option, value) in [
        ("mark packets", libc::SOL_SOCKET, libc::SO_MARK, 1),
        (
            "give packets the highest priority",
            libc::SOL_SOCKET,
            libc::SO_PRIORITY,
            7,
        ),
        (
            "force a large buffer",
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            1 << 26,
        ),
        (
            "log what a socket does",
            libc::SOL_SOCKET,
            libc::SO_DEBUG,
            1,
        ),
        (
            "take any address for its own",
            libc::SOL_IP,
            libc::IP_TRANSPARENT,
            1,
        ),
    ] {
        probes.push(probe(name, move |_| set_option(level, option, value)));
    }
    probes.push(probe("repair a TCP connection", |_| {
        let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        let mut on = [1];
        done(call!(SYS_setsockopt, socket, libc::SOL_TCP, 19, &mut on, 4))
    }));
    probes
}

/// Services of the host.
fn reaching() -> Vec<Probe> {
    let tcp = |name: &str, address: IpAddr| {
        probe(name, move |around: &Environment| {
            greeted(SocketAddr::new(address, around.port))
        })
    };
    vec![
        tcp("reach the host's loopback", Ipv4Addr::LOCALHOST.into()),
        tcp(
            "reach the host's loopback by IPv6",
            Ipv6Addr::LOCALHOST.into(),
        ),
        tcp("reach the host's loopback by a mapped address", {
            Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()
        }),
        tcp("reach the host's loopback by another address of it", {
            Ipv4Addr::new(127, 200, 0, 1).into()
        }),
        tcp("reach the host by the address of nobody", {
            Ipv4Addr::UNSPECIFIED.into()
        }),
        probe("reach an abstract socket of the host", |around| {
            let address = numbered(UnixAddr::from_abstract_name(&around.abstract_name))?;
            hears_greeting(&mut numbered(UnixStream::connect_addr(&address))?)
        }),
        probe("reach a socket of the host by its path", |around| {
            hears_greeting(&mut numbered(UnixStream::connect(&around.socket))?)
        }),
        probe("attach shared memory of the host", |around| {
            done(call!(SYS_shmat, around.segment, 0, libc::SHM_RDONLY))
        }),
        probe("open a message queue of the host", |around| {
            let name = std::ffi::CString::new(around.queue.as_str()).map_err(|_| 0)?;
            let name = Word::Text(&name);
            done(system_call(
                libc::SYS_mq_open,
                &mut [name, libc::O_RDONLY.into()],
            ))
        }),
    ]
}
