//! A brokered network: what the payload sends ends at the agent's sockets, and nowhere else.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

use barecount_sandbox::{
    Brokered, Capture, Control, Intercepted, Isolation, Launcher, Level, Network, RefusedPacket,
    Spec, parse_refusals,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::launched::{Held, hold_by, output_of, spec};
use crate::{TestResult, launcher, launchers};

type Error = Box<dyn std::error::Error>;

tests!(
    a_connection_arrives_with_the_destination_that_was_dialled,
    a_link_local_connection_arrives,
    connections_from_one_port_are_kept_apart,
    bytes_pass_both_ways_until_each_side_has_closed,
    sandboxes_that_dial_the_same_are_kept_apart,
    what_nobody_serves_is_refused,
    loopback_stays_the_payloads_own,
    what_is_no_connection_goes_nowhere_and_is_recorded,
    more_refusals_than_are_read_are_known_to_be_lost,
    without_the_packet_log_refusals_are_not_recorded,
    without_nf_tables_declared_ports_arrive,
    without_nf_tables_a_listener_keeps_a_declared_port,
    what_could_be_captured_is_told,
    probes_reach_the_host_only_without_isolation,
    an_abstract_socket_of_another_sandbox_is_out_of_reach,
);

/// What the Python scripts have in common.
pub(crate) const PROBES: &str = "
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

/// A Python script in a brokered network.
pub(crate) fn python(script: &str) -> Spec {
    let mut spec = spec(&["/usr/bin/python3", "-c", &format!("{PROBES}{script}")]);
    spec.network = Network::Brokered(Brokered::default());
    spec
}

/// Launches, and takes the agent's ends.
pub(crate) fn intercept(spec: &Spec) -> Result<(Held, Intercepted), Error> {
    intercept_by(launcher(), spec)
}

fn intercept_by(launcher: &Launcher, spec: &Spec) -> Result<(Held, Intercepted), Error> {
    let mut held = hold_by(launcher, spec)?;
    let intercepted = held.sandbox.take_intercepted().ok_or("not intercepted")?;
    Ok((held, intercepted))
}

/// Waits until one of the sockets has something, and says which.
pub(crate) fn ready(sockets: &[OwnedFd]) -> Result<usize, Error> {
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
pub(crate) fn accept(intercepted: &Intercepted) -> Result<(TcpStream, SocketAddr), Error> {
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

fn a_link_local_connection_arrives() -> TestResult {
    let script = "
s = dial('fe80::a9fe:a9fe', 80, scope=socket.if_nametoindex('lo'))
print(s if isinstance(s, str) else s.makefile().readline().strip())
";
    let (held, intercepted) = intercept(&python(script))?;
    let (mut stream, destination) = accept(&intercepted)?;
    assert_eq!(destination.ip(), "fe80::a9fe:a9fe".parse::<IpAddr>()?);
    assert_eq!(destination.port(), 80);
    writeln!(stream, "metadata")?;
    drop(stream);
    let ended = held.finish()?;
    assert_eq!(ended.stdout, "metadata\n", "{}", ended.stderr);
    Ok(())
}

fn connections_from_one_port_are_kept_apart() -> TestResult {
    let script = "
held = []
for address in ('192.0.2.1', '192.0.2.2', '::ffff:192.0.2.3'):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(20)
    s.bind(('::' if ':' in address else '0.0.0.0', 5000))
    s.connect((address, 80))
    held.append(s)
for s in held:
    print(s.makefile().readline(), end='')
";
    let (held, intercepted) = intercept(&python(script))?;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(accept(&intercepted)?);
    }
    for (stream, destination) in &mut streams {
        writeln!(stream, "{destination}")?;
    }
    drop(streams);
    let ended = held.finish()?;
    let expected = "192.0.2.1:80\n192.0.2.2:80\n192.0.2.3:80\n";
    assert_eq!(ended.stdout, expected, "{}", ended.stderr);
    Ok(())
}

fn bytes_pass_both_ways_until_each_side_has_closed() -> TestResult {
    let script = "
s = dial('198.51.100.7', 5432)
s.sendall(b'x' * 3000000)
s.shutdown(socket.SHUT_WR)
print(len(s.makefile('rb').read()))
";
    let (held, intercepted) = intercept(&python(script))?;
    let (mut stream, _) = accept(&intercepted)?;
    let received = std::io::copy(&mut stream, &mut std::io::sink())?;
    assert_eq!(received, 3_000_000);
    stream.write_all(&vec![b'y'; 2_000_000])?;
    drop(stream);
    let ended = held.finish()?;
    assert_eq!(ended.stdout, "2000000\n", "{}", ended.stderr);
    Ok(())
}

fn sandboxes_that_dial_the_same_are_kept_apart() -> TestResult {
    let dial = |number: usize| -> TestResult {
        let script = format!("dial('192.0.2.1', 80).sendall(b'{number}')");
        let (held, intercepted) = intercept(&python(&script))?;
        let (stream, _) = accept(&intercepted)?;
        assert_eq!(std::io::read_to_string(stream)?, number.to_string());
        assert!(held.finish()?.exit.status.success());
        nothing_arrived(&intercepted)
    };
    let threads: Vec<_> = (0..8)
        .map(|number| std::thread::spawn(move || dial(number).map_err(|it| it.to_string())))
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn what_nobody_serves_is_refused() -> TestResult {
    let script = "
sys.stdin.readline()
print(dial('192.0.2.1', 80), dial('2001:db8::1', 443), dial('8.8.8.8', 53))
";
    let (mut held, intercepted) = intercept(&python(script))?;
    drop(intercepted);
    writeln!(held.stdin)?;
    let ended = held.finish()?;
    let refused = "ECONNREFUSED ECONNREFUSED ECONNREFUSED\n";
    assert_eq!(ended.stdout, refused, "{}", ended.stderr);
    Ok(())
}

fn loopback_stays_the_payloads_own() -> TestResult {
    let script = "
for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET, '127.9.8.7'),
                        (socket.AF_INET6, '::1')):
    server = socket.create_server((address, 0), family=family)
    client = dial(address, server.getsockname()[1])
    server.accept()[0].sendall(b'own ')
    print(client.recv(10).decode(), end='')
    one, other = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    one.bind((address, 0))
    other.sendto(b'datagram ', one.getsockname())
    print(one.recv(10).decode(), end='')
print(dial('127.0.0.1', 9001).recv(10).decode(), dial('127.0.0.1', 9002))
";
    let mut spec = python(script);
    spec.listeners = vec!["127.0.0.1:9001".parse()?];
    let (mut held, intercepted) = intercept(&spec)?;
    let listeners = held.sandbox.take_listeners();
    assert_eq!(listeners.len(), 1);
    ready(&listeners)?;
    let listener = TcpListener::from(listeners[0].try_clone()?);
    listener.accept()?.0.write_all(b"runtime")?;
    let ended = held.finish()?;
    let expected = "own datagram own datagram own datagram runtime ECONNREFUSED\n";
    assert_eq!(ended.stdout, expected, "{}", ended.stderr);
    nothing_arrived(&intercepted)?;
    assert_eq!(refusals(&intercepted)?, []);
    Ok(())
}

/// Fails when a connection or a query waits to be taken.
fn nothing_arrived(intercepted: &Intercepted) -> TestResult {
    for listener in intercepted.tcp.iter().chain(&intercepted.dns_tcp) {
        match TcpListener::from(listener.try_clone()?).accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    for socket in &intercepted.dns_udp {
        match UdpSocket::from(socket.try_clone()?).recv(&mut [0; 512]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

/// What has been refused so far.
pub(crate) fn refusals(intercepted: &Intercepted) -> Result<Vec<RefusedPacket>, Error> {
    let log = intercepted.refusals.as_ref().ok_or("nothing is recorded")?;
    let mut buffer = vec![0; 65_536];
    let mut found = Vec::new();
    loop {
        match rustix::io::read(log, buffer.as_mut_slice()) {
            Ok(length) => found.extend(parse_refusals(&buffer[..length])),
            Err(Errno::AGAIN) => return Ok(found),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn what_is_no_connection_goes_nowhere_and_is_recorded() -> TestResult {
    let script = "
def try_datagram(address, port, is_told):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    # Were it to come back to the namespace, it would come here.
    own = socket.socket(family, socket.SOCK_DGRAM)
    own.bind(('::' if ':' in address else '0.0.0.0', port))
    own.setblocking(False)
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(20)
    s.connect((address, port))
    steps = [lambda: s.send(b'datagram'), lambda: s.recv(10), lambda: own.recv(10)]
    for step in steps if is_told else steps[::2]:
        try:
            step()
            print('done', end=' ')
        except OSError as error:
            print(name_of(error), end=' ')
    print()
for address, port in (('8.8.8.8', 4433), ('169.254.169.254', 1234), ('2001:db8::2', 4433),
                      ('198.51.100.9', 12345)):
    try_datagram(address, port, True)
# Of what is sent to many, nobody is told that it was not delivered.
try_datagram('224.0.0.251', 5353, False)
for kind, protocol in ((socket.SOCK_DGRAM, socket.IPPROTO_ICMP), (socket.SOCK_RAW, 1),
                       (socket.SOCK_RAW, 255)):
    try:
        socket.socket(socket.AF_INET, kind, protocol)
        print('socket')
    except OSError as error:
        print(name_of(error))
";
    let (held, intercepted) = intercept(&python(script))?;
    let ended = held.finish()?;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 8, "{ended:?}");
    // What is sent is dropped, and the socket told so; nothing comes to the namespace's own.
    assert_eq!(lines[..4], ["EPERM ECONNREFUSED EAGAIN "; 4]);
    assert_eq!(lines[4], "EPERM EAGAIN ");
    assert_eq!(lines[5..], ["EACCES", "EPERM", "EPERM"]);
    nothing_arrived(&intercepted)?;
    let udp = |destination: &str| -> Result<RefusedPacket, Error> {
        let destination: SocketAddr = destination.parse()?;
        Ok(RefusedPacket {
            protocol: 17,
            destination: destination.ip(),
            port: Some(destination.port()),
        })
    };
    let expected = [
        udp("8.8.8.8:4433")?,
        udp("169.254.169.254:1234")?,
        udp("[2001:db8::2]:4433")?,
        udp("198.51.100.9:12345")?,
        udp("224.0.0.251:5353")?,
    ];
    assert_eq!(refusals(&intercepted)?, expected);
    Ok(())
}

fn more_refusals_than_are_read_are_known_to_be_lost() -> TestResult {
    let script = "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(5000):
    try:
        s.sendto(b'x', ('198.51.100.1', 1 + number))
    except OSError:
        pass
";
    let (held, intercepted) = intercept(&python(script))?;
    held.finish()?;
    let log = intercepted.refusals.as_ref().ok_or("nothing is recorded")?;
    let mut buffer = vec![0; 65_536];
    let (mut told, mut read) = (false, 0);
    loop {
        match rustix::io::read(log, buffer.as_mut_slice()) {
            Ok(length) => read += parse_refusals(&buffer[..length]).len(),
            Err(Errno::NOBUFS) => told = true,
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    assert!(read > 100, "{read} were read");
    assert_eq!(told, read < 5000, "{read} were read");
    Ok(())
}

fn without_nf_tables_declared_ports_arrive() -> TestResult {
    let script = "
for address, port in (('192.0.2.1', 5432), ('2001:db8::1', 443), ('192.0.2.1', 443)):
    print(dial(address, port).makefile().readline(), end='', flush=True)
print(dial('192.0.2.1', 80), dial('2001:db8::1', 5433))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('8.8.8.8', 443))
s.settimeout(5)
try:
    s.send(b'datagram')
    print(s.recv(10))
except OSError as error:
    print(name_of(error))
";
    let mut spec = python(script);
    spec.network = Network::Brokered(Brokered {
        declared_ports: vec![5432, 443, 5432],
    });
    let (mut held, intercepted) = intercept_by(&launchers().without_nf_tables, &spec)?;
    assert_eq!(intercepted.capture, Capture::DeclaredPorts);
    assert!(intercepted.refusals.is_none());
    for wanted in ["192.0.2.1:5432", "[2001:db8::1]:443", "192.0.2.1:443"] {
        let (mut stream, destination) = accept(&intercepted)?;
        assert_eq!(destination, wanted.parse()?);
        writeln!(stream, "{wanted}")?;
        drop(stream);
        assert_eq!(held.line()?, wanted);
    }
    let ended = held.finish()?;
    let refused = "ECONNREFUSED ECONNREFUSED\nECONNREFUSED\n";
    assert_eq!(ended.stdout, refused, "{}", ended.stderr);
    Ok(())
}

fn without_the_packet_log_refusals_are_not_recorded() -> TestResult {
    let script = "
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 443))
except OSError as error:
    print(name_of(error), flush=True)
dial('192.0.2.1', 80)
";
    let launcher = &launchers().without_packet_log;
    let (held, intercepted) = intercept_by(launcher, &python(script))?;
    assert_eq!(intercepted.capture, Capture::Redirected);
    assert!(intercepted.refusals.is_none());
    let (_stream, destination) = accept(&intercepted)?;
    assert_eq!(destination, "192.0.2.1:80".parse()?);
    assert_eq!(held.finish()?.stdout, "EPERM\n");
    Ok(())
}

fn without_nf_tables_a_listener_keeps_a_declared_port() -> TestResult {
    let script = "
print(dial('127.0.0.1', 9001).recv(10).decode(), dial('192.0.2.1', 9001).recv(10).decode())
";
    let mut spec = python(script);
    spec.listeners = vec!["127.0.0.1:9001".parse()?];
    spec.network = Network::Brokered(Brokered {
        declared_ports: vec![9001, 53],
    });
    let (mut held, intercepted) = intercept_by(&launchers().without_nf_tables, &spec)?;
    let listeners = held.sandbox.take_listeners();
    ready(&listeners)?;
    let listener = TcpListener::from(listeners[0].try_clone()?);
    listener.accept()?.0.write_all(b"runtime")?;
    let (mut stream, destination) = accept(&intercepted)?;
    assert_eq!(destination, "192.0.2.1:9001".parse()?);
    stream.write_all(b"broker")?;
    drop(stream);
    let ended = held.finish()?;
    assert_eq!(ended.stdout, "runtime broker\n", "{}", ended.stderr);
    Ok(())
}

fn what_could_be_captured_is_told() -> TestResult {
    let capture = |launcher: &Launcher, spec: &Spec| -> Result<Option<Level>, Error> {
        let held = hold_by(launcher, spec)?;
        let controls = &held.sandbox.enforcement().controls;
        assert_eq!(controls.get(&Control::Network), Some(&Level::Enforced));
        let level = controls.get(&Control::NetworkCapture).cloned();
        held.finish()?;
        Ok(level)
    };
    assert!(launcher().host().redirection.is_available());
    assert!(launcher().host().packet_log.is_available());
    let brokered = python("");
    assert_eq!(capture(launcher(), &brokered)?, Some(Level::Enforced));
    assert_eq!(capture(launcher(), &spec(&["/bin/true"]))?, None);
    for (lacking, told) in [
        (&launchers().without_nf_tables, "declared ports alone"),
        (&launchers().without_packet_log, "by other protocols"),
    ] {
        let Some(Level::Degraded { reason, .. }) = capture(lacking, &brokered)? else {
            return Err("the capture is not told to be degraded".into());
        };
        assert!(reason.contains(told), "{reason}");
    }
    assert!(
        !launchers()
            .without_nf_tables
            .host()
            .redirection
            .is_available()
    );
    Ok(())
}

/// The same probes with the host's network and with a brokered one: that they fail in the second
/// means something because they succeed in the first.
fn probes_reach_the_host_only_without_isolation() -> TestResult {
    use std::os::linux::net::SocketAddrExt;
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    tcp.set_nonblocking(true)?;
    udp.set_nonblocking(true)?;
    let name = format!("barecount-host-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
    let unix = std::os::unix::net::UnixListener::bind_addr(&address)?;
    unix.set_nonblocking(true)?;
    let script = format!(
        "
s = dial('127.0.0.1', {})
print(s if isinstance(s, str) else 'connected')
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {}))
    print('sent')
except OSError as error:
    print(name_of(error))
try:
    socket.socket(socket.AF_UNIX).connect('\\0{name}')
    print('connected')
except OSError as error:
    print(name_of(error))
",
        tcp.local_addr()?.port(),
        udp.local_addr()?.port(),
    );
    let arrived = || {
        let datagram = udp.recv(&mut [0; 8]).is_ok();
        (tcp.accept().is_ok(), datagram, unix.accept().is_ok())
    };
    let mut plain = python(&script);
    plain.isolation = Isolation::Process;
    plain.network = Network::Loopback;
    assert_eq!(output_of(&plain)?, "connected\nsent\nconnected");
    assert_eq!(arrived(), (true, true, true));
    let brokered = output_of(&python(&script))?;
    assert_eq!(brokered, "ECONNREFUSED\nsent\nECONNREFUSED");
    assert_eq!(arrived(), (false, false, false));
    Ok(())
}

fn an_abstract_socket_of_another_sandbox_is_out_of_reach() -> TestResult {
    let name = format!("barecount-inner-{}", std::process::id());
    let serve = format!(
        "
s = socket.socket(socket.AF_UNIX)
s.bind('\\0{name}')
s.listen()
socket.socket(socket.AF_UNIX).connect('\\0{name}')
print('serving', flush=True)
sys.stdin.read()
"
    );
    let (mut serving, _intercepted) = intercept(&python(&serve))?;
    assert_eq!(serving.line()?, "serving");
    let connect = format!(
        "
try:
    socket.socket(socket.AF_UNIX).connect('\\0{name}')
    print('connected')
except OSError as error:
    print(name_of(error))
"
    );
    assert_eq!(output_of(&python(&connect))?, "ECONNREFUSED");
    serving.finish()?;
    Ok(())
}
