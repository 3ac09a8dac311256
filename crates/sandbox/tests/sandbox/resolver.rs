//! Looking names up in a brokered network.

use std::io::{IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;

use barecount_sandbox::{Brokered, Intercepted, Mount, Network, Root, Spec};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tempfile::TempDir;

use crate::TestResult;
use crate::launched::{output_of, shell};
use crate::network::{accept, intercept, python, ready, refusals};

type Error = Box<dyn std::error::Error>;

tests!(
    a_name_is_looked_up_and_dialled,
    a_query_to_any_name_server_is_answered_in_its_name,
    a_query_by_connection_reaches_the_name_server,
    port_53_is_dialled_where_it_is_declared,
    the_hosts_own_settings_name_the_resolver,
    an_image_gets_the_settings_and_stays_as_it_was,
    an_image_without_settings_gets_them,
    links_for_settings_lead_to_nothing_of_the_image,
    an_empty_root_gets_the_settings,
    a_mount_lies_over_the_settings,
);

/// Where every name leads.
const SYNTHETIC: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// What a query asks for, in dots, and the answer (RFC 1035): an address for type A, none for
/// others.
fn answer(query: &[u8]) -> Result<(String, Vec<u8>), Error> {
    let mut name = String::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push_str(std::str::from_utf8(&query[at + 1..end])?);
        name.push('.');
        at = end;
    }
    let asks_for_v4 = query[at + 1..at + 3] == [0, 1];
    let mut reply = query[..2].to_vec();
    // A response, recursion wanted and there; one question, no authority, nothing additional.
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(asks_for_v4), 0, 0, 0, 0]);
    reply.extend(&query[12..at + 5]);
    if asks_for_v4 {
        // The name of the question, type A, class IN, a minute, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(SYNTHETIC.octets());
    }
    Ok((name, reply))
}

/// Answers the next query by datagram, and tells what it asks for.
fn answer_datagram(intercepted: &Intercepted) -> Result<String, Error> {
    Ok(answer_as_asked(intercepted)?.0)
}

/// The same, and which name server was asked.
fn answer_as_asked(intercepted: &Intercepted) -> Result<(String, IpAddr), Error> {
    let socket = &intercepted.dns_udp[ready(&intercepted.dns_udp)?];
    let socket = UdpSocket::from(socket.try_clone()?);
    let state = UdpSocketState::new((&socket).into())?;
    let (mut query, mut metas) = ([0; 512], [RecvMeta::default()]);
    let mut buffers = [IoSliceMut::new(&mut query)];
    state.recv((&socket).into(), &mut buffers, &mut metas)?;
    let [meta] = metas;
    let (name, reply) = answer(&query[..meta.len])?;
    let transmit = Transmit {
        destination: meta.addr,
        ecn: None,
        contents: &reply,
        segment_size: None,
        src_ip: meta.dst_ip,
    };
    state.try_send((&socket).into(), &transmit)?;
    Ok((name, meta.dst_ip.ok_or("nobody was asked")?))
}

/// Answers the next query by connection, and tells what it asks for.
fn answer_connection(intercepted: &Intercepted) -> Result<String, Error> {
    let listener = &intercepted.dns_tcp[ready(&intercepted.dns_tcp)?];
    let (mut stream, _) = TcpListener::from(listener.try_clone()?).accept()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query)?;
    let (name, reply) = answer(&query)?;
    stream.write_all(&(reply.len() as u16).to_be_bytes())?;
    stream.write_all(&reply)?;
    Ok(name)
}

/// Asks name servers for `db.internal`; prints what is answered, and by whom.
const ASK: &str = "
import struct
QUERY = (b'\\x12\\x34\\x01\\x00\\x00\\x01' + b'\\0' * 6
    + b'\\x02db\\x08internal\\x00' + b'\\x00\\x01\\x00\\x01')
def ask(address, kind):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    s = socket.socket(family, kind)
    s.settimeout(20)
    s.connect((address, 53))
    if kind == socket.SOCK_STREAM:
        s.sendall(struct.pack('>H', len(QUERY)) + QUERY)
        reply = s.makefile('rb').read()[2:]
    else:
        s.send(QUERY)
        reply = s.recv(512)
    print(s.getpeername()[0], socket.inet_ntoa(reply[-4:]))
";

fn a_name_is_looked_up_and_dialled() -> TestResult {
    let script = "
# Only addresses of families that this host has: it must be seen to have some.
flags = socket.AI_ADDRCONFIG
for family in (socket.AF_INET, socket.AF_UNSPEC):
    found = socket.getaddrinfo('db.internal', 5432, family, socket.SOCK_STREAM, flags=flags)
    print([at[4][0] for at in found], flush=True)
print(socket.create_connection(('db.internal', 5432)).makefile().readline(), end='')
print(socket.gethostbyname('localhost'))
";
    let (mut held, intercepted) = intercept(&python(script))?;
    assert_eq!(answer_datagram(&intercepted)?, "db.internal.");
    assert_eq!(held.line()?, "['198.18.0.1']");
    for _ in 0..2 {
        assert_eq!(answer_datagram(&intercepted)?, "db.internal.");
    }
    assert_eq!(held.line()?, "['198.18.0.1']");
    for _ in 0..2 {
        answer_datagram(&intercepted)?;
    }
    let (mut stream, destination) = accept(&intercepted)?;
    assert_eq!(destination, SocketAddr::from((SYNTHETIC, 5432)));
    writeln!(stream, "database")?;
    drop(stream);
    let ended = held.finish()?;
    assert_eq!(ended.stdout, "database\n127.0.0.1\n", "{}", ended.stderr);
    Ok(())
}

fn a_query_to_any_name_server_is_answered_in_its_name() -> TestResult {
    let script = format!(
        "{ASK}
for address in ('127.0.0.53', '8.8.8.8', '192.0.2.53', '2001:4860:4860::8888', '::1'):
    ask(address, socket.SOCK_DGRAM)
"
    );
    let (held, intercepted) = intercept(&python(&script))?;
    for asked in [
        "127.0.0.53",
        "8.8.8.8",
        "192.0.2.53",
        "2001:4860:4860::8888",
        "::1",
    ] {
        let (name, address) = answer_as_asked(&intercepted)?;
        assert_eq!((name.as_str(), address), ("db.internal.", asked.parse()?));
    }
    assert!(refusals(&intercepted)?.is_empty());
    let ended = held.finish()?;
    let expected = "127.0.0.53 198.18.0.1\n\
                    8.8.8.8 198.18.0.1\n\
                    192.0.2.53 198.18.0.1\n\
                    2001:4860:4860::8888 198.18.0.1\n\
                    ::1 198.18.0.1\n";
    assert_eq!(ended.stdout, expected, "{}", ended.stderr);
    Ok(())
}

fn a_query_by_connection_reaches_the_name_server() -> TestResult {
    let script = format!(
        "{ASK}
for address in ('127.0.0.53', '8.8.8.8', '2001:4860:4860::8888'):
    ask(address, socket.SOCK_STREAM)
"
    );
    let (held, intercepted) = intercept(&python(&script))?;
    for _ in 0..3 {
        assert_eq!(answer_connection(&intercepted)?, "db.internal.");
    }
    let ended = held.finish()?;
    let expected = "127.0.0.53 198.18.0.1\n\
                    8.8.8.8 198.18.0.1\n\
                    2001:4860:4860::8888 198.18.0.1\n";
    assert_eq!(ended.stdout, expected, "{}", ended.stderr);
    Ok(())
}

fn port_53_is_dialled_where_it_is_declared() -> TestResult {
    let script = format!("{ASK}\ndial('198.18.0.9', 53)\nask('127.0.0.53', socket.SOCK_STREAM)\n");
    let mut spec = python(&script);
    spec.network = Network::Brokered(Brokered {
        declared_ports: vec![53],
    });
    let (held, intercepted) = intercept(&spec)?;
    let (_stream, destination) = accept(&intercepted)?;
    assert_eq!(destination, "198.18.0.9:53".parse()?);
    assert_eq!(answer_connection(&intercepted)?, "db.internal.");
    let ended = held.finish()?;
    assert!(ended.exit.status.success(), "{ended:?}");
    Ok(())
}

/// Prints the settings, whether they can be written, and what is mounted at them.
const SETTINGS: &str =
    "cat /etc/resolv.conf /etc/hosts; (echo x > /etc/hosts) 2>/dev/null && echo written";
const EXPECTED: &str = "nameserver 127.0.0.53\noptions edns0 timeout:2 attempts:3\n\
                        127.0.0.1 localhost\n::1 localhost";

fn brokered(mut spec: Spec) -> Spec {
    spec.network = Network::Brokered(Brokered::default());
    spec.argv[2].push_str("; true");
    spec
}

fn the_hosts_own_settings_name_the_resolver() -> TestResult {
    assert_eq!(output_of(&brokered(shell(SETTINGS)))?, EXPECTED);
    let address: IpAddr = EXPECTED
        .split_whitespace()
        .nth(1)
        .ok_or("no address")?
        .parse()?;
    assert_eq!(address, Brokered::NAME_SERVER_V4);
    Ok(())
}

/// A small root file system, and a specification that has it for its root.
fn image(script: &str) -> Result<(TempDir, Spec), Error> {
    let image = tempfile::tempdir()?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(image.path(), open)?;
    for name in ["bin", "lib", "lib64", "usr"] {
        std::fs::create_dir(image.path().join(name))?;
    }
    let mut spec = brokered(shell(script));
    spec.root = Root::Directory(image.path().to_owned());
    for name in ["bin", "lib", "lib64", "usr"] {
        let path = Path::new("/").join(name);
        spec.mounts.push(Mount::Bind {
            source: std::fs::canonicalize(&path)?,
            target: path,
            read_only: true,
            executable: true,
            changes: false,
        });
    }
    Ok((image, spec))
}

fn an_image_gets_the_settings_and_stays_as_it_was() -> TestResult {
    let (image, spec) = image(SETTINGS)?;
    let etc = image.path().join("etc");
    std::fs::create_dir(&etc)?;
    for name in ["resolv.conf", "hosts"] {
        std::fs::write(etc.join(name), "nameserver 203.0.113.1\n")?;
    }
    assert_eq!(output_of(&spec)?, EXPECTED);
    for name in ["resolv.conf", "hosts"] {
        let kept = std::fs::read_to_string(etc.join(name))?;
        assert_eq!(kept, "nameserver 203.0.113.1\n");
    }
    // Without a broker they are the image's.
    let mut plain = spec;
    plain.network = Network::Loopback;
    plain.argv[2] = "cat /etc/resolv.conf".to_owned();
    assert_eq!(output_of(&plain)?, "nameserver 203.0.113.1");
    Ok(())
}

fn an_image_without_settings_gets_them() -> TestResult {
    let (image, spec) = image(SETTINGS)?;
    assert_eq!(output_of(&spec)?, EXPECTED);
    assert!(!image.path().join("etc").exists());
    std::fs::create_dir(image.path().join("etc"))?;
    assert_eq!(output_of(&spec)?, EXPECTED);
    assert_eq!(std::fs::read_dir(image.path().join("etc"))?.count(), 0);
    Ok(())
}

fn links_for_settings_lead_to_nothing_of_the_image() -> TestResult {
    for target in [
        "../run/systemd/resolve/stub-resolv.conf",
        "/var/given",
        "/tmp/resolv.conf",
        "../../../../../../../../etc/other",
    ] {
        let (image, spec) = image(SETTINGS)?;
        std::fs::create_dir(image.path().join("etc"))?;
        std::fs::create_dir(image.path().join("var"))?;
        std::fs::write(image.path().join("var/given"), "of the image")?;
        symlink(target, image.path().join("etc/resolv.conf"))?;
        assert_eq!(output_of(&spec)?, EXPECTED, "{target}");
        let kept = std::fs::read_to_string(image.path().join("var/given"))?;
        assert_eq!(kept, "of the image", "{target}");
        assert!(!image.path().join("run").exists(), "{target}");
    }
    Ok(())
}

fn an_empty_root_gets_the_settings() -> TestResult {
    let (_image, mut spec) = image(SETTINGS)?;
    spec.root = Root::Empty;
    assert_eq!(output_of(&spec)?, EXPECTED);
    Ok(())
}

fn a_mount_lies_over_the_settings() -> TestResult {
    let (_image, mut spec) = image("cat /etc/resolv.conf")?;
    let given = tempfile::NamedTempFile::new()?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(given.path(), open)?;
    std::fs::write(given.path(), "nameserver 203.0.113.9")?;
    let over = crate::launched::bind(given.path(), "/etc/resolv.conf", true);
    spec.mounts.push(over);
    assert_eq!(output_of(&spec)?, "nameserver 203.0.113.9");
    Ok(())
}
