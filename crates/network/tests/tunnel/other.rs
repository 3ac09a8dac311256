//! The other side by another implementation of WireGuard: wireguard-go, as Debian packages it.
//!
//! Each test runs in a network namespace of its own, as this program started anew, so that it may
//! make devices there without privilege. In it are our side's socket and wireguard-go's; the device
//! of wireguard-go is moved to a second namespace, where a host echoes.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use barecount_model::digest::Digest;
use barecount_network::{reason::ReasonCode, tunnel::PublicKey};
use barecount_sandbox::{HostIdentity, Launcher, LauncherConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    TestResult,
    far::{HOST_V4, HOST_V6, Key, ip},
    near::{ALLOWED, Near, PATIENCE, at, dial, found},
};

tests!(
    bytes_pass_both_ways,
    a_wrong_key_is_refused,
    a_wrong_shared_key_is_refused,
    a_peer_that_is_started_again_elsewhere_is_followed,
);

/// What this program is asked for to run one of the tests here.
const WITHIN: &str = "--within";
/// And to be the host that echoes.
const ECHO: &str = "--echo";
/// Where wireguard-go is configured.
const CONTROL: &str = "/var/run/wireguard/wg0.sock";
const ECHO_PORT: u16 = 7;

/// Does what this program is started anew for, if it is.
pub(crate) fn started_anew() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let ended = match arguments.next()?.as_str() {
        WITHIN => within(&arguments.next().unwrap_or_default()),
        ECHO => echo().map_err(Into::into),
        _ => return None,
    };
    Some(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    })
}

/// Runs a test in namespaces of its own.
pub(crate) fn in_namespaces(test: &str) -> TestResult {
    // wireguard-go has a fixed folder for its sockets, which here is nobody else's.
    let script = "ip link set lo up && mount -t tmpfs tmpfs /var/run && exec \"$0\" \"$@\"";
    let ended = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "sh"])
        .args(["-e", "-c", script])
        .arg(std::env::current_exe()?)
        .args([WITHIN, test])
        .output()?;
    if ended.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&ended.stderr).into())
}

fn within(test: &str) -> TestResult {
    let mut config = LauncherConfig::new(format!("barecount-tunnel-{}", std::process::id()));
    // The one user that there is in here.
    config.payload_identity = HostIdentity { uid: 0, gid: 0 };
    crate::LAUNCHER
        .set(Launcher::start(config)?)
        .map_err(|_| "it is set once")?;
    let found = TESTS.iter().find(|(name, _)| *name == test);
    found.ok_or("there is no such test")?.1()
}

/// Echoes each connection to its end, until whoever started this lets go.
fn echo() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, ECHO_PORT))?;
    writeln!(io::stdout(), "here")?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream?;
            std::thread::spawn(move || {
                io::copy(&mut &stream, &mut &stream)?;
                stream.shutdown(std::net::Shutdown::Write)
            });
        }
        io::Result::Ok(())
    });
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

/// A process that is ended when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, and gives what it printed.
fn run(program: impl AsRef<OsStr>, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let ended = child.wait_with_output()?;
    if !ended.status.success() {
        let program = program.as_ref().display();
        let text = String::from_utf8_lossy(&ended.stderr);
        return Err(io::Error::other(format!(
            "{program} {arguments:?}: {}",
            text.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// The far side: the namespace with the host that echoes, and wireguard-go.
struct Other {
    /// `None` while it is not running.
    daemon: Option<Process>,
    host: Process,
    key: Key,
    near: PublicKey,
    shared: Option<Key>,
    port: u16,
}

impl Other {
    async fn start(key: &Key, near: PublicKey, shared: Option<&Key>) -> io::Result<Self> {
        let mut host = Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe()?)
            .arg(ECHO)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map(Process)?;
        let output = host.0.stdout.take().ok_or(io::ErrorKind::NotFound)?;
        BufReader::new(output).read_line(&mut String::new())?;
        let mut other = Self {
            daemon: None,
            host,
            key: key.clone(),
            near,
            shared: shared.cloned(),
            port: 0,
        };
        other.raise(None).await?;
        Ok(other)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Starts wireguard-go on a port that it did not have before. Told where our side is, it begins.
    async fn raise(&mut self, near_at: Option<SocketAddr>) -> io::Result<()> {
        self.port = self.free_port()?;
        // One that was killed leaves its socket behind.
        match std::fs::remove_file(CONTROL) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let daemon = Command::new("wireguard-go")
            .args(["--foreground", "wg0"])
            .env("LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        self.daemon = Some(Process(daemon));
        let ready = found(|| Path::new(CONTROL).exists().then_some(())).await;
        ready.map_err(|_| io::Error::other("wireguard-go has no control socket"))?;
        run(
            "wg",
            &["setconf", "wg0", "/dev/stdin"],
            &self.configuration(near_at),
        )?;
        let process = self.host.0.id().to_string();
        run("ip", &["link", "set", "wg0", "netns", &process], "")?;
        for address in [
            "10.77.0.1/24",
            "fd77::1/64",
            &format!("{HOST_V4}/32"),
            &format!("{HOST_V6}/128"),
        ] {
            self.ip(&["address", "add", address, "dev", "wg0", "nodad"])?;
        }
        self.ip(&["link", "set", "lo", "up"])?;
        self.ip(&["link", "set", "wg0", "up"])?;
        // It looks for itself whether a device that went elsewhere is up, and then opens its port.
        let port = self.port;
        let ready = found(|| UdpSocket::bind(("127.0.0.1", port)).is_err().then_some(())).await;
        ready.map_err(|_| io::Error::other("wireguard-go opens no port"))
    }

    /// Nobody else takes it: what is in the namespace is in it for this test.
    fn free_port(&self) -> io::Result<u16> {
        // Both are held until both are known, so that they differ.
        let held = [UdpSocket::bind("[::]:0")?, UdpSocket::bind("[::]:0")?];
        let [one, other] = [held[0].local_addr()?.port(), held[1].local_addr()?.port()];
        Ok(if one == self.port { other } else { one })
    }

    fn configuration(&self, near_at: Option<SocketAddr>) -> String {
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {}\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.77.0.2/32, fd77::2/128\n",
            self.key.text(),
            self.port,
            self.near,
        );
        if let Some(shared) = &self.shared {
            text.push_str(&format!("PresharedKey = {}\n", shared.text()));
        }
        if let Some(near_at) = near_at {
            text.push_str(&format!("Endpoint = {near_at}\nPersistentKeepalive = 1\n"));
        }
        text
    }

    /// Runs `ip` where the device is.
    fn ip(&self, arguments: &[&str]) -> io::Result<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.host.0.id());
        let all: Vec<&str> = [namespace.as_str(), "ip"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        run("nsenter", &all, "")
    }

    /// A figure that wireguard-go has of its one peer.
    fn figure(&self, of: &str) -> Result<u64, Box<dyn std::error::Error>> {
        let told = run("wg", &["show", "wg0", of], "")?;
        let last = told.split_whitespace().last().ok_or("no peer")?;
        Ok(last.parse()?)
    }
}

async fn echoed(path: &barecount_network::path::Path, to: &str, bytes: Vec<u8>) -> TestResult {
    let (mut read, mut write) = dial(path, &at(to), ECHO_PORT).await?.into_split();
    let sent = Digest::of(&bytes);
    let sending = tokio::spawn(async move {
        write.write_all(&bytes).await?;
        write.shutdown().await
    });
    let mut back = Vec::new();
    tokio::time::timeout(PATIENCE, read.read_to_end(&mut back)).await??;
    sending.await??;
    assert_eq!(Digest::of(&back), sent, "{} bytes from {to}", back.len());
    Ok(())
}

async fn bytes_pass_both_ways() -> TestResult {
    let (ours, theirs, shared) = (Key::random(), Key::random(), Key::random());
    let other = Other::start(&theirs, ours.public(), Some(&shared)).await?;
    let near = Near::start(
        &ours,
        theirs.public(),
        other.address(),
        &ALLOWED,
        Some(&shared),
    )?;
    let path = near.path(SocketAddr::new(ip(HOST_V4), 53));
    for to in [HOST_V4, HOST_V6] {
        let bytes = (0..10_000_000_u64)
            .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect();
        echoed(&path, to, bytes).await?;
    }
    assert!(near.peer().up, "{:?}", near.peer());
    assert!(other.figure("latest-handshakes")? > 0);
    assert!(other.figure("transfer")? > 20_000_000);
    Ok(())
}

/// Our side has no session with the other, and a dial says so.
async fn assert_down(near: &Near, other: &Other) -> TestResult {
    let path = near.path(SocketAddr::new(ip(HOST_V4), 53));
    let (host, limit) = (at(HOST_V4), Duration::from_millis(1_500));
    let dialled = path.dial(&host, ECHO_PORT, limit).await;
    let error = dialled.err().ok_or("it was dialled")?;
    assert_eq!(error.code(), ReasonCode::PathDown, "{error:?}");
    let peer = near.peer();
    assert!(!peer.up && peer.handshake_age_ms.is_none(), "{peer:?}");
    assert_eq!(other.figure("latest-handshakes")?, 0);
    Ok(())
}

async fn a_wrong_key_is_refused() -> TestResult {
    let (ours, theirs, wrong) = (Key::random(), Key::random(), Key::random());
    let other = Other::start(&theirs, ours.public(), None).await?;
    let near = Near::start(&ours, wrong.public(), other.address(), &ALLOWED, None)?;
    assert_down(&near, &other).await?;
    let near = Near::start(&wrong, theirs.public(), other.address(), &ALLOWED, None)?;
    assert_down(&near, &other).await?;
    // Nothing but the key was wrong.
    let near = Near::start(&ours, theirs.public(), other.address(), &ALLOWED, None)?;
    let path = near.path(SocketAddr::new(ip(HOST_V4), 53));
    echoed(&path, HOST_V4, b"hello".to_vec()).await
}

async fn a_wrong_shared_key_is_refused() -> TestResult {
    let (ours, theirs) = (Key::random(), Key::random());
    let (shared, wrong) = (Key::random(), Key::random());
    let other = Other::start(&theirs, ours.public(), Some(&shared)).await?;
    for given in [None, Some(&wrong)] {
        let near = Near::start(&ours, theirs.public(), other.address(), &ALLOWED, given)?;
        assert_down(&near, &other).await?;
    }
    Ok(())
}

async fn a_peer_that_is_started_again_elsewhere_is_followed() -> TestResult {
    let (ours, theirs) = (Key::random(), Key::random());
    let mut other = Other::start(&theirs, ours.public(), None).await?;
    let near = Near::start(&ours, theirs.public(), other.address(), &ALLOWED, None)?;
    let path = near.path(SocketAddr::new(ip(HOST_V4), 53));
    let mut open = dial(&path, &at(HOST_V4), ECHO_PORT).await?;
    open.write_all(b"before").await?;
    open.read_exact(&mut [0; 6]).await?;
    let before = other.address();
    assert_eq!(near.peer().endpoint, Some(before));

    other.daemon = None;
    let near_at = SocketAddr::from(([127, 0, 0, 1], near.tunnel.listen_port()));
    other.raise(Some(near_at)).await?;
    assert_ne!(other.address(), before);
    near.until(|peer| peer.endpoint == Some(other.address()))
        .await;
    echoed(&path, HOST_V4, b"after".to_vec()).await?;
    // The host behind was there all the time, and so was its connection.
    open.write_all(b"still").await?;
    let mut back = [0; 5];
    tokio::time::timeout(PATIENCE, open.read_exact(&mut back)).await??;
    assert_eq!(&back, b"still");
    Ok(())
}
