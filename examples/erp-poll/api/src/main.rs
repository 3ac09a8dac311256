//! A small order system to poll: OAuth 2.0 client credentials (RFC 6749 section 4.4), a schema with
//! an entity tag, orders page by page, a rate limit, and failures on demand.
//!
//! It holds nothing but what flags say: the same seed gives the same orders. What it did goes to
//! standard output, an object of JSON a line: first the addresses that it listens on, then each
//! request. Neither has secrets or tokens. `erp-api orders …` prints the orders and ends.

mod faults;
mod flags;
mod http;
mod name_server;
mod orders;
mod service;
mod tokens;

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    faults::Fates,
    flags::{Command, Flags},
    http::Request,
    service::{Reply, Service},
    tokens::{Client, Tokens},
};

/// Connections at a time; more are closed at once.
const MOST_CONNECTIONS: usize = 64;
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing is taken from a socket that has failed: what is short may be there again.
const RECOVERY: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let ended = flags::read()
        .map_err(Into::into)
        .and_then(|command| match command {
            Command::Orders(orders) => {
                for order in orders.page(orders.all()) {
                    tell(&order)?;
                }
                Ok(())
            }
            Command::Serve(flags) => serve(*flags),
        });
    let Err(error): Result<(), Box<dyn Error>> = ended else {
        return ExitCode::SUCCESS;
    };
    // Nobody may read it.
    let _ = writeln!(io::stderr(), "erp-api: {error}");
    ExitCode::FAILURE
}

fn serve(flags: Flags) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(flags.listen)?;
    let address = listener.local_addr()?;
    let mut addresses = json!({ "listening": address.to_string() });
    if let Some(asked_at) = flags.name_server {
        let socket = UdpSocket::bind(asked_at)?;
        addresses["name_server"] = socket.local_addr()?.to_string().into();
        let IpAddr::V4(leads_to) = address.ip() else {
            return Err("the name leads to an IPv4 address; listen on one".into());
        };
        let name = flags.name.clone();
        thread::spawn(move || name_server::serve(&socket, &name, leads_to));
    }
    let secret = fs_text(&flags.client_secret_file)?;
    let service = Arc::new(Service {
        orders: flags.orders,
        schema_version: flags.schema_version,
        retry_after_s: flags.faults.retry_after_s,
        client: Client {
            id: flags.client_id,
            secret,
        },
        tokens: Mutex::new(Tokens::new(
            Duration::from_secs(flags.token_seconds),
            flags.faults.token_uses,
        )),
        fates: Mutex::new(Fates::new(flags.faults)),
    });
    tell(&addresses)?;
    accept(listener.incoming(), &service);
    Ok(())
}

/// Serves each connection in a thread of its own. One that fails before it is there, or for which
/// there is no thread, is its client's loss, and nobody else's.
fn accept(incoming: impl Iterator<Item = io::Result<TcpStream>>, service: &Arc<Service>) {
    let open = Arc::new(());
    for stream in incoming {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                recover("a connection", &error);
                continue;
            }
        };
        let (service, counted) = (Arc::clone(service), Arc::clone(&open));
        // All that are counted, and the one that counts them.
        if Arc::strong_count(&open) > MOST_CONNECTIONS + 1 {
            continue;
        }
        let started = thread::Builder::new().spawn(move || {
            // What a client does wrong ends its connection, and is its own affair.
            let _ = converse(stream, &service);
            drop(counted);
        });
        if let Err(error) = started {
            recover("a thread", &error);
        }
    }
}

/// Tells what could not be had, and waits, lest a lasting failure take up the processor.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when descriptors or memory are there again"
)]
fn recover(what: &str, error: &io::Error) {
    // Nobody may read it.
    let _ = writeln!(io::stderr(), "erp-api: {what} could not be had: {error}");
    thread::sleep(RECOVERY);
}

fn fs_text(path: &std::path::Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn converse(mut stream: TcpStream, service: &Service) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    while let Some(request) = http::read(&mut stream)? {
        let reply = service.reply(&request);
        log(&request, &reply)?;
        match reply {
            Reply::Whole(answer) => answer.write(&mut stream)?,
            Reply::Half(answer) => {
                let bytes = answer.to_bytes();
                return stream.write_all(&bytes[..bytes.len() / 2]);
            }
            Reply::Nothing => {
                stream.set_read_timeout(None)?;
                return stream.read_to_end(&mut Vec::new()).map(|_| ());
            }
        }
    }
    Ok(())
}

fn log(request: &Request, reply: &Reply) -> io::Result<()> {
    let (status, sent) = match reply {
        Reply::Whole(answer) => (Some(answer.status), "whole"),
        Reply::Half(answer) => (Some(answer.status), "half"),
        Reply::Nothing => (None, "nothing"),
    };
    tell(&json!({
        "method": request.method,
        "path": request.path,
        "year": request.parameter("year"),
        "after": request.parameter("after"),
        "status": status,
        "sent": sent,
    }))
}

fn tell(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{faults::Faults, orders::Orders};

    fn service() -> Service {
        Service {
            orders: Orders {
                seed: 7,
                count: 1,
                spoil_every: None,
            },
            schema_version: 1,
            retry_after_s: 1,
            client: Client {
                id: "me".to_owned(),
                secret: "secret".to_owned(),
            },
            tokens: Mutex::new(Tokens::new(PATIENCE, None)),
            fates: Mutex::new(Fates::new(Faults::default())),
        }
    }

    #[test]
    fn a_connection_that_fails_before_it_is_there_keeps_no_other_from_being_served()
    -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.write_all(b"GET /nothing HTTP/1.1\r\n\r\n")?;
        let failed = Err(io::ErrorKind::ConnectionAborted.into());
        let connected = listener.accept().map(|(stream, _)| stream);
        accept([failed, connected].into_iter(), &Arc::new(service()));
        let mut answered = [0; 12];
        client.read_exact(&mut answered)?;
        assert_eq!(&answered, b"HTTP/1.1 404");
        Ok(())
    }
}
