//! The servers that requests arrive at, each of which tells what it understood.

use std::{
    convert::Infallible,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use http_body_util::Empty;
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

use crate::rig::PATIENCE;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What a server took for a request.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Entry {
    pub(super) method: String,
    /// Its Host fields.
    pub(super) host: String,
    /// The host that it chose, where it tells.
    #[serde(default)]
    pub(super) chosen: Option<String>,
    pub(super) target: String,
    /// What it answered, where it tells.
    #[serde(default)]
    status: Option<String>,
}

/// A server that runs.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    kind: Kind,
}

enum Kind {
    Hyper(Hyper),
    Program(Program),
    Nginx(Nginx),
}

impl Server {
    pub(super) async fn hyper() -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let hyper = Hyper::serve(listener);
        let kind = Kind::Hyper(hyper);
        Ok(Self { address, kind })
    }

    pub(super) fn python() -> Outcome<Self> {
        Self::program("python3", "-c", include_str!("server.py"))
    }

    pub(super) fn node() -> Outcome<Self> {
        Self::program("node", "-e", include_str!("server.js"))
    }

    fn program(name: &str, option: &str, text: &str) -> Outcome<Self> {
        let (address, program) = Program::start(name, option, text)?;
        let kind = Kind::Program(program);
        Ok(Self { address, kind })
    }

    pub(super) async fn nginx() -> Outcome<Self> {
        let (address, nginx) = Nginx::start().await?;
        let kind = Kind::Nginx(nginx);
        Ok(Self { address, kind })
    }

    /// Ends it when it has seen all that it was sent, and tells what it understood.
    pub(super) async fn end(self) -> Outcome<Vec<Entry>> {
        // Connections are accepted in the order in which they came.
        let mut last = TcpStream::connect(self.address).await?;
        last.write_all(b"GET /last HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, last.read_to_end(&mut answer)).await??;
        let mut entries = match self.kind {
            Kind::Hyper(hyper) => hyper.end().await,
            Kind::Program(program) => program.end()?,
            Kind::Nginx(nginx) => nginx.end()?,
        };
        let before = entries.len();
        entries.retain(|entry| entry.target != "/last");
        if before == entries.len() {
            return Err("the server does not tell what it was sent".into());
        }
        // What a server itself refused as malformed it did not take.
        entries.retain(|entry| entry.status.as_deref() != Some("400") && !entry.method.is_empty());
        Ok(entries)
    }
}

struct Hyper {
    entries: Arc<Mutex<Vec<Entry>>>,
    accepting: tokio::task::JoinHandle<()>,
    connections: TaskTracker,
}

impl Hyper {
    fn serve(listener: TcpListener) -> Self {
        let entries = Arc::new(Mutex::new(Vec::new()));
        let connections = TaskTracker::new();
        let (told, tracker) = (entries.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let told = told.clone();
                tracker.spawn(async move {
                    let answer = service_fn(|request: Request<Incoming>| {
                        told.lock().expect("no holder panics").push(entry(&request));
                        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .half_close(true)
                        .serve_connection(TokioIo::new(stream), answer);
                    // Most connections here end in an error.
                    let _ = connection.await;
                });
            }
        });
        Self {
            entries,
            accepting,
            connections,
        }
    }

    async fn end(self) -> Vec<Entry> {
        self.accepting.abort();
        self.connections.close();
        self.connections.wait().await;
        self.entries.lock().expect("no holder panics").clone()
    }
}

fn entry(request: &Request<Incoming>) -> Entry {
    let hosts = request.headers().get_all("host").iter();
    let hosts: Vec<_> = hosts
        .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned())
        .collect();
    Entry {
        method: request.method().to_string(),
        host: hosts.join(", "),
        chosen: request.uri().host().map(str::to_owned),
        target: request.uri().to_string(),
        status: None,
    }
}

/// A program that tells its port and then each request on its standard output, until its standard
/// input ends.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: JoinHandle<io::Result<Vec<String>>>,
}

impl Program {
    fn start(name: &str, option: &str, text: &str) -> Outcome<(SocketAddr, Self)> {
        let mut child = Command::new(name)
            .args([option, text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| missing(name, &error))?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut port = String::new();
        output.read_line(&mut port)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.trim().parse()?));
        let lines = std::thread::spawn(move || output.lines().collect());
        let program = Self {
            child,
            input,
            lines,
        };
        Ok((address, program))
    }

    fn end(mut self) -> Outcome<Vec<Entry>> {
        drop(self.input.take());
        let lines = self.lines.join().map_err(|_| "the reader panicked")??;
        self.child.wait()?;
        read(lines.iter().map(String::as_str))
    }
}

struct Nginx {
    child: Ending,
    folder: PathBuf,
}

/// Killed when dropped, and its folder removed.
struct Ending(Child, PathBuf);

impl Nginx {
    async fn start() -> Outcome<(SocketAddr, Self)> {
        // Free now: nginx takes no port of the kernel's choice.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = free.local_addr()?;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "nginx-{}-{}",
            std::process::id(),
            address.port()
        ));
        std::fs::create_dir_all(&folder)?;
        let configuration = include_str!("nginx.conf")
            .replace("FOLDER", folder.to_str().ok_or("not UTF-8")?)
            .replace("PORT", &address.port().to_string());
        let file = folder.join("configuration");
        std::fs::write(&file, configuration)?;
        drop(free);
        let child = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .arg("-e")
            .arg(folder.join("errors"))
            .arg("-c")
            .arg(&file)
            .spawn()
            .map_err(|error| missing("nginx", &error))?;
        let mut child = Ending(child, folder.clone());
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = child.0.try_wait()? {
                return Err(format!("nginx ended: {status}").into());
            }
            let soon = tokio::time::Instant::now() + Duration::from_millis(5);
            tokio::time::sleep_until(soon).await;
        }
        Ok((address, Self { child, folder }))
    }

    fn end(mut self) -> Outcome<Vec<Entry>> {
        use rustix::process::{Pid, Signal, kill_process};
        // It finishes what it has.
        kill_process(Pid::from_child(&self.child.0), Signal::QUIT)?;
        self.child.0.wait()?;
        // It leaves bytes as they came.
        let lines = std::fs::read(self.folder.join("requests"))?;
        read(String::from_utf8_lossy(&lines).lines())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

fn missing(name: &str, error: &io::Error) -> String {
    format!("`{name}`, which requests are sent to, cannot be run: {error}; see xtask/src/setup.rs")
}

fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Outcome<Vec<Entry>> {
    lines
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}").into()))
        .collect()
}
