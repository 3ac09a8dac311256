//! What the measuring examples have in common: the service that is reached, the plain relay that
//! ours is held against, and how figures are printed.

use std::{
    error::Error,
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Each figure is the median of this many rounds, in which the ways take turns.
pub(crate) const ROUNDS: usize = 5;

/// Echoes, or swallows and answers at the end, as the first byte of a connection asks.
pub(crate) async fn serve(listener: tokio::net::TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let first = stream.read_u8().await?;
            let swallows = first == b's';
            let mut buffer = vec![0; if swallows { 1 << 18 } else { 64 }];
            if !swallows {
                stream.write_all(&[first]).await?;
            }
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    _ if swallows => {}
                    length => stream.write_all(&buffer[..length]).await?,
                }
            }
            if swallows {
                stream.write_all(b".").await?;
            }
            io::Result::Ok(())
        });
    }
}

/// The simplest relay that splices: two threads and two pipes for a connection.
pub(crate) fn relay_plainly(listener: &TcpListener, service: SocketAddr) -> io::Result<()> {
    for stream in listener.incoming() {
        let work = stream?;
        std::thread::spawn(move || {
            let there = TcpStream::connect(service)?;
            work.set_nodelay(true)?;
            there.set_nodelay(true)?;
            let (work_too, there_too) = (work.try_clone()?, there.try_clone()?);
            let down = std::thread::spawn(move || pump(&there_too, &work_too));
            pump(&work, &there)?;
            let _ = down.join();
            io::Result::Ok(())
        });
    }
    Ok(())
}

fn pump(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC)?;
    let capacity = fcntl_setpipe_size(&into, 256 * 1024).unwrap_or(64 * 1024);
    loop {
        let mut filled = splice(from, None, &into, None, capacity, SpliceFlags::MOVE)?;
        if filled == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        while filled > 0 {
            filled -= splice(&out, None, to, None, filled, SpliceFlags::MOVE)?;
        }
    }
}

/// Prints one way's figures, of which there is at least one, as a JSON object in a line.
pub(crate) fn print(bench: &str, way: &str, unit: &str, mut figures: Vec<f64>) -> Outcome<()> {
    figures.sort_by(f64::total_cmp);
    let line = serde_json::json!({
        "bench": bench, "way": way, "unit": unit, "median": figures[figures.len() / 2],
        "least": figures.first(), "most": figures.last(),
    });
    Ok(writeln!(io::stdout(), "{line}")?)
}
