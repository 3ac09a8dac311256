//! What an invocation is compared with: a request to another process that echoes its body, by the
//! same HTTP library, and nothing else.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::Failure;

/// The first argument that makes this binary the other process; the second is where its Unix socket
/// is to be.
pub(crate) const SERVER: &str = "plain-echo";

/// Is the other process, until it is killed. Prints the port that it listens on.
pub(crate) fn server(socket: &Path) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let unix = UnixListener::bind(socket)?;
        writeln!(std::io::stdout(), "{}", tcp.local_addr()?.port())?;
        let (by_tcp, by_unix) = tokio::try_join!(tcp.accept(), unix.accept())?;
        by_tcp.0.set_nodelay(true)?;
        tokio::join!(serve(by_tcp.0), serve(by_unix.0));
        Ok(())
    })
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let echo = service_fn(|request: Request<Incoming>| async {
        let body = request.into_body().collect().await;
        let body = body.map(http_body_util::Collected::to_bytes);
        Ok::<_, Infallible>(Response::new(Full::new(body.unwrap_or_default())))
    });
    // An end of the connection is the end of the measurement, however it comes.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), echo)
            .await,
    );
}

/// Connections to the other process, which is killed when this is dropped.
pub(crate) struct Plain {
    process: Child,
    tcp: SendRequest<Full<Bytes>>,
    unix: SendRequest<Full<Bytes>>,
}

impl Plain {
    pub(crate) async fn start(folder: &Path) -> Result<Self, Failure> {
        let socket = folder.join("plain.sock");
        let mut process = Command::new(std::env::current_exe()?)
            .arg(SERVER)
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut port = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut port)?;
        }
        let tcp = TcpStream::connect(("127.0.0.1", port.trim().parse()?)).await?;
        tcp.set_nodelay(true)?;
        let unix = UnixStream::connect(&socket).await?;
        Ok(Self {
            process,
            tcp: connected(tcp).await?,
            unix: connected(unix).await?,
        })
    }

    /// One echo over TCP.
    pub(crate) async fn tcp(&mut self) -> Result<Duration, Failure> {
        echo(&mut self.tcp).await
    }

    /// One echo over the Unix socket.
    pub(crate) async fn unix(&mut self) -> Result<Duration, Failure> {
        echo(&mut self.unix).await
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn connected(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn echo(sender: &mut SendRequest<Full<Bytes>>) -> Result<Duration, Failure> {
    let begin = Instant::now();
    sender.ready().await?;
    let body = Full::new(Bytes::from_static(b"\"hello\""));
    let request = Request::post("/").header("host", "plain").body(body)?;
    let response = sender.send_request(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    let took = begin.elapsed();
    if body != b"\"hello\""[..] {
        return Err("the plain echo answered something else".into());
    }
    Ok(took)
}
