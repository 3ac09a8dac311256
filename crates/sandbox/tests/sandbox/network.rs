//! A brokered network: what the payload sends ends at the agent's sockets, and nowhere else.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use barecount_sandbox::{
    Brokered, Capture, Control, Intercepted, Level, Network, RefusedPacket, Spec, parse_refusals,
};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::launched::{Held, hold, hold_by, spec};
use crate::{TestResult, launcher, launcher_without_nf_tables};

type Error = Box<dyn std::error::Error>;

tests!(a_connection_arrives_with_the_destination_that_was_dialled,);

/// Python with what the scripts below have in common.
fn python(script: &str) -> Spec {
    let common = "
import errno, socket, sys
def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno))
def dial(address, port, family=None, scope=0):
    family = family or (socket.AF_INET6 if ':' in address else socket.AF_INET)
    s = socket.socket(family)
    s.settimeout(20)
    at = (address, port, 0, scope) if family == socket.AF_INET6 else (address, port)
    try:
        s.connect(at)
    except OSError as error:
        s.close()
        return name_of(error)
    return s
";
    let mut spec = spec(&["/usr/bin/python3", "-c", &format!("{common}{script}")]);
    spec.network = Network::Brokered(Brokered::default());
    spec
}

/// Launches, and takes the agent's ends.
fn intercept(spec: &Spec) -> Result<(Held, Intercepted), Error> {
    let mut held = hold(spec)?;
    let intercepted = held.sandbox.take_intercepted().ok_or("not intercepted")?;
    Ok((held, intercepted))
}

/// Waits until one of the sockets has something, and says which.
fn ready(sockets: &[OwnedFd]) -> Result<usize, Error> {
    let mut waiting: Vec<PollFd<'_>> = sockets
        .iter()
        .map(|socket| PollFd::new(socket, PollFlags::IN))
        .collect();
    let patience = Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut waiting, Some(&patience))?;
    let found = waiting.iter().position(|fd| !fd.revents().is_empty());
    Ok(found.ok_or("nothing arrived")?)
}

/// Accepts the next connection, with where it was meant to go.
fn accept(intercepted: &Intercepted) -> Result<(TcpStream, SocketAddr), Error> {
    let listener = &intercepted.tcp[ready(&intercepted.tcp)?];
    let listener = TcpListener::from(listener.try_clone()?);
    let (stream, _) = listener.accept()?;
    let local = stream.local_addr()?;
    let destination = match (intercepted.capture, local) {
        (Capture::DeclaredPorts, local) => local,
        (_, SocketAddr::V4(_)) => rustix::net::sockopt::ip_original_dst(&stream)?.into(),
        (_, SocketAddr::V6(_)) => rustix::net::sockopt::ipv6_original_dst(&stream)?.into(),
    };
    Ok((stream, destination))
}

fn a_connection_arrives_with_the_destination_that_was_dialled() -> TestResult {
    let destinations = [
        "192.0.2.1:80",
        "8.8.8.8:443",
        "169.254.169.254:80",
        "10.1.2.3:1",
        "255.255.255.254:65535",
        "[2001:db8::1]:443",
        "[fd00:ec2::254]:80",
        "[2606:4700:4700::1111]:5432",
    ];
    let script = "
for line in sys.stdin:
    address, port = line.split()
    s = dial(address, int(port))
    print(s if isinstance(s, str) else s.makefile().readline().strip(), flush=True)
";
    let (mut held, intercepted) = intercept(&python(script))?;
    assert_eq!(intercepted.capture, Capture::Redirected);
    for wanted in destinations {
        let wanted: SocketAddr = wanted.parse()?;
        writeln!(held.stdin, "{} {}", wanted.ip(), wanted.port())?;
        let (mut stream, destination) = accept(&intercepted)?;
        assert_eq!(destination, wanted);
        writeln!(stream, "you meant {destination}")?;
        drop(stream);
        assert_eq!(held.line()?, format!("you meant {wanted}"));
    }
    let ended = held.finish()?;
    assert!(ended.exit.status.success(), "{ended:?}");
    Ok(())
}
