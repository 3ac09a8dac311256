//! A tunnel's namespace: what is dialled inside comes out of the device, and nothing of it stays.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio as ProcessStdio};

use barecount_sandbox::{InternetFamily, Prefix, TunnelError, TunnelNamespace, TunnelNetwork};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::launched::own_program;
use crate::life::{members_of, network_of, prefix as launcher_prefix};
use crate::{TestResult, launcher};

type Error = Box<dyn std::error::Error>;

tests!(
    what_is_dialled_inside_comes_out_of_the_device,
    what_no_route_leads_to_fails_at_once,
    nothing_is_sent_that_was_not_dialled,
    dropping_a_tunnel_ends_its_process_and_namespace,
    a_killed_agent_takes_its_tunnels_along,
    a_killed_process_inside_is_told_of,
    a_tunnel_without_sense_is_refused,
);

fn address(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

fn network() -> TunnelNetwork {
    let route = |text: &str, length| Prefix {
        address: address(text),
        length,
    };
    TunnelNetwork {
        addresses: vec![address("10.9.0.2"), address("fd09::2")],
        routes: vec![route("10.10.0.0", 16), route("fd10::", 64)],
        mtu: 1_420,
    }
}

fn open() -> Result<(TunnelNamespace, OwnedFd), Error> {
    let mut tunnel = launcher().tunnel(&network())?;
    let device = tunnel.take_device().ok_or("no device")?;
    Ok((tunnel, device))
}

/// Begins to connect from a fresh socket inside.
fn dial(tunnel: &TunnelNamespace, to: &str) -> Result<(OwnedFd, rustix::io::Result<()>), Error> {
    let to: SocketAddr = to.parse()?;
    let family = match to {
        SocketAddr::V4(_) => InternetFamily::V4,
        SocketAddr::V6(_) => InternetFamily::V6,
    };
    let socket = tunnel.tcp_socket(family)?;
    let begun = rustix::net::connect(&socket, &to);
    Ok((socket, begun))
}

fn is_readable(fd: impl AsFd, seconds: i64) -> rustix::io::Result<bool> {
    let mut waiting = [PollFd::new(&fd, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Ok(rustix::event::poll(&mut waiting, Some(&patience))? == 1)
}

fn what_is_dialled_inside_comes_out_of_the_device() -> TestResult {
    let (tunnel, device) = open()?;
    let mut packet = [0; 2_048];
    let (_socket, begun) = dial(&tunnel, "10.10.1.2:80")?;
    assert_eq!(begun, Err(Errno::INPROGRESS));
    assert!(is_readable(&device, 30)?);
    rustix::io::read(&device, &mut packet)?;
    assert_eq!(packet[0] >> 4, 4);
    assert_eq!(packet[12..20], [10, 9, 0, 2, 10, 10, 1, 2]);
    let tcp = &packet[20..];
    assert_eq!((&tcp[2..4], tcp[13] & 2), ([0, 80].as_slice(), 2), "a SYN");

    let (_socket, begun) = dial(&tunnel, "[fd10::7]:443")?;
    assert_eq!(begun, Err(Errno::INPROGRESS));
    loop {
        assert!(is_readable(&device, 30)?);
        rustix::io::read(&device, &mut packet)?;
        // The other may be sent again.
        if packet[0] >> 4 == 6 {
            break;
        }
    }
    let [source, destination] = ["fd09::2", "fd10::7"].map(|text| {
        let address: std::net::Ipv6Addr = text.parse().expect("an address");
        address.octets()
    });
    assert_eq!(
        (&packet[8..24], &packet[24..40]),
        (&source[..], &destination[..])
    );
    Ok(())
}

fn what_no_route_leads_to_fails_at_once() -> TestResult {
    let (tunnel, _device) = open()?;
    for to in [
        "10.11.0.1:80",
        "192.0.2.1:80",
        "127.0.0.1:80",
        "[fd11::1]:80",
        "[::1]:80",
    ] {
        let (_socket, begun) = dial(&tunnel, to)?;
        let refused = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ADDRNOTAVAIL];
        assert!(
            begun.is_err_and(|errno| refused.contains(&errno)),
            "{to}: {begun:?}"
        );
    }
    Ok(())
}

fn nothing_is_sent_that_was_not_dialled() -> TestResult {
    let (_tunnel, both) = open()?;
    let mut without_ipv6 = network();
    without_ipv6.addresses.truncate(1);
    without_ipv6.routes.truncate(1);
    let mut without_ipv6 = launcher().tunnel(&without_ipv6)?;
    let v4 = without_ipv6.take_device().ok_or("no device")?;
    // Where the kernel has given itself an address, it looks for routers within a second or two.
    assert!(!is_readable(&v4, 3)?, "something is sent without IPv6");
    assert!(!is_readable(&both, 0)?, "something is sent");
    Ok(())
}

fn process(pid: i32) -> Result<OwnedFd, Error> {
    let pid = Pid::from_raw(pid).ok_or("no pid")?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

fn dropping_a_tunnel_ends_its_process_and_namespace() -> TestResult {
    let (tunnel, device) = open()?;
    let network = network_of(tunnel.pid())?;
    assert_ne!(network, network_of(std::process::id() as i32)?);
    assert_eq!(members_of(&network)?, [tunnel.pid()]);
    let inside = process(tunnel.pid())?;
    drop((tunnel, device));
    assert!(is_readable(&inside, 30)?, "the process lives on");
    assert_eq!(members_of(&network)?, [0; 0]);
    Ok(())
}

/// An agent that holds a tunnel, its process inside, and that one's namespace.
fn agent() -> Result<(Child, OwnedFd, String), Error> {
    let mut agent = Command::new(own_program())
        .args(["--agent", "tunnel", &launcher_prefix("tunnel")])
        .stdin(ProcessStdio::piped())
        .stdout(ProcessStdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(agent.stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
    let pid = line.trim().parse()?;
    Ok((agent, process(pid)?, network_of(pid)?))
}

fn a_killed_agent_takes_its_tunnels_along() -> TestResult {
    let (mut agent, inside, network) = agent()?;
    agent.kill()?;
    assert!(is_readable(&inside, 30)?, "the process lives on");
    // The launcher goes as well, and holds nothing of it meanwhile.
    let mut rest = Vec::new();
    let output = agent.stdout.as_mut().ok_or("no output")?;
    output.read_to_end(&mut rest)?;
    agent.wait()?;
    assert_eq!(members_of(&network)?, [0; 0]);
    Ok(())
}

fn a_killed_process_inside_is_told_of() -> TestResult {
    let (tunnel, _device) = open()?;
    let inside = process(tunnel.pid())?;
    rustix::process::pidfd_send_signal(&inside, rustix::process::Signal::KILL)?;
    assert!(is_readable(&inside, 30)?);
    for _ in 0..2 {
        let error = tunnel
            .tcp_socket(InternetFamily::V4)
            .expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
    Ok(())
}

fn a_tunnel_without_sense_is_refused() -> TestResult {
    let spoilt = |spoil: fn(&mut TunnelNetwork)| {
        let mut network = network();
        spoil(&mut network);
        launcher().tunnel(&network)
    };
    for refused in [
        spoilt(|network| network.addresses.clear()),
        spoilt(|network| network.mtu = 1_279),
        spoilt(|network| network.routes[0].length = 8),
        spoilt(|network| network.routes = vec![network.routes[0]; 2_049]),
    ] {
        let error = refused.expect_err("it has no sense");
        assert!(matches!(error, TunnelError::Network { .. }), "{error}");
    }
    // What the kernel refuses is told with the step.
    let error = spoilt(|network| network.addresses.push(network.addresses[0]));
    let error = error.expect_err("a device has no address twice");
    assert!(matches!(error, TunnelError::SetUp { .. }), "{error}");
    // As many routes as there may be go in.
    let many = |network: &mut TunnelNetwork| {
        let route = |number: u16| Prefix {
            address: std::net::Ipv4Addr::from(0x0a0a_0000 + u32::from(number) * 256).into(),
            length: 24,
        };
        network.routes = (0..2_048).map(route).collect();
    };
    spoilt(many)?;
    Ok(())
}
