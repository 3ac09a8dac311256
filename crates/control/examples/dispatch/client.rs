//! Callers on the other end of the socket.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use crate::Failure;

/// How the service is called.
pub(crate) struct Load {
    /// Begins each run's token.
    name: &'static str,
    clients: usize,
    /// Runs in one call.
    pub(crate) batch: usize,
    calls: usize,
}

impl Load {
    pub(crate) fn new(name: &'static str, clients: usize, batch: usize, runs: usize) -> Self {
        Self {
            name,
            clients,
            batch,
            calls: runs.div_ceil(batch),
        }
    }
}

/// Makes all calls of a load, each client its next one as soon as its last is answered; gives how
/// long each took.
pub(crate) async fn run_load(socket: &Path, load: &Load) -> Result<Vec<Duration>, Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..load.clients {
        let (socket, next) = (PathBuf::from(socket), Arc::clone(&next));
        let (name, batch, calls) = (load.name, load.batch, load.calls);
        clients.spawn(async move {
            let mut client = Client::connect(&socket).await?;
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return Ok::<_, Failure>(took);
                }
                let tokens: Vec<String> = (0..batch)
                    .map(|run| format!("{name}-{number}-{run}"))
                    .collect();
                let begun = Instant::now();
                client.call(&tokens).await?;
                took.push(begun.elapsed());
            }
        });
    }
    let mut all = Vec::with_capacity(load.calls);
    while let Some(client) = clients.join_next().await {
        all.extend(client??);
    }
    Ok(all)
}

/// One connection: a line of JSON asks, a line answers.
pub(crate) struct Client {
    answers: BufReader<OwnedReadHalf>,
    requests: OwnedWriteHalf,
    line: String,
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, Failure> {
        let (read, requests) = UnixStream::connect(socket).await?.into_split();
        Ok(Self {
            answers: BufReader::new(read),
            requests,
            line: String::new(),
        })
    }

    /// Submits a run for each token, and waits until all have ended well.
    pub(crate) async fn call(&mut self, tokens: &[String]) -> Result<(), Failure> {
        let mut request = serde_json::to_vec(&json!({ "tokens": tokens }))?;
        request.push(b'\n');
        self.requests.write_all(&request).await?;
        self.line.clear();
        self.answers.read_line(&mut self.line).await?;
        let answer: Value = serde_json::from_str(&self.line)?;
        let states = answer["states"].as_array().ok_or("an answer has states")?;
        if states.len() == tokens.len() && states.iter().all(|state| state == "succeeded") {
            Ok(())
        } else {
            Err(format!("the runs did not all succeed: {}", self.line).into())
        }
    }
}
