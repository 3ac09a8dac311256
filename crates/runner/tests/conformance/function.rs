//! This binary as a function, named `bootstrap` in its package: on the published client for Rust,
//! or, where it is to misbehave, on a bare socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use barecount_runner::conformance::{Behaviour, Seen, behave};
use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::payload::{ignore_stops, leave_process, tell};

/// What the program is called by the runner, as a function.
pub(crate) const BOOTSTRAP: &str = "/var/task/bootstrap";
/// The variable that makes the function misbehave.
pub(crate) const MISBEHAVIOUR: &str = "MISBEHAVIOUR";

/// What a function on a bare socket does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Misbehaviour {
    /// Answers twice, then goes on as it should; what the second answer gave is in the first.
    AnswersTwice,
    /// Asks for the next event without an answer to this one.
    NeverAnswers,
    /// Answers to an invocation that is not.
    WrongId,
    /// Answers with more than 6 MiB.
    TooLarge,
    /// Answers with something that is not JSON.
    NotJson,
    /// Reports that it cannot initialise.
    InitError,
    /// Ends well before it asks for anything.
    ExitsAtOnce,
    /// Fails before it asks for anything.
    CrashesAtOnce,
    /// Hangs before it asks for anything.
    HangsAtOnce,
    /// Takes an event, says so in its log, and hangs.
    HangsAtWork,
    /// Starts processes that start processes, and says in its log when no more can be started.
    ForkBomb,
    /// Speaks no HTTP, and ends.
    Rubbish,
    /// Speaks no HTTP on one connection, and answers on another.
    RubbishThenAnswers,
    /// Replaces its output folder by a link.
    ReplacesOutput,
    /// Answers, then ends.
    EndsAfterwards,
    /// Says in its log that it waits, and exits with status 75 when it is asked to stop.
    ExitsWhenAsked,
    /// The same, but answers that it is to be tried again, and goes on.
    AnswersWhenAsked,
}

/// What the program was started as.
fn program() -> String {
    std::env::args().next().unwrap_or_default()
}

#[derive(Deserialize)]
struct Payload {
    barecount: Places,
    event: Value,
}

#[derive(Deserialize)]
struct Places {
    attempt: u64,
    input_dir: String,
    output_dir: String,
    checkpoint_dir: String,
    scratch_dir: String,
    stage: String,
}

pub(crate) fn main() -> ExitCode {
    let done = match std::env::var(MISBEHAVIOUR) {
        Ok(misbehaviour) => misbehave(&misbehaviour),
        Err(_) => serve(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(lambda_runtime::run(service_fn(handle)))
        .map_err(io::Error::other)
}

/// The member of an event that makes the function report an error of this type.
pub(crate) const REPORT: &str = "report";
/// The message of such an error.
pub(crate) const REPORTED: &str = "row 7 has no date";

/// The member of an event that makes the function tell what it finds, and leave files of this name
/// in each of its places.
pub(crate) const LOOK: &str = "look";

/// How many events this process has been given.
static SERVED: AtomicU64 = AtomicU64::new(0);

fn look(name: &str, places: &Value) -> io::Result<Value> {
    let place = |member: &str| Path::new(places[member].as_str().unwrap_or_default());
    let mut found = serde_json::Map::new();
    for member in ["cache_dir", "checkpoint_dir", "output_dir", "scratch_dir"] {
        found.insert(member.to_owned(), json!(names(place(member))?));
        fs_err::write(place(member).join(name), name)?;
    }
    // All that there is of the places of any attempt.
    for member in ["input_dir", "output_dir", "checkpoint_dir"] {
        let all = place(member).parent().unwrap_or(Path::new("/"));
        found.insert(format!("{member}s"), json!(names(all)?.len()));
    }
    let mut secrets = serde_json::Map::new();
    for name in names(place("secrets_dir"))? {
        let value = fs_err::read_to_string(place("secrets_dir").join(&name))?;
        tell(&format_args!("the value is <{value}>"));
        let written = fs_err::write(place("secrets_dir").join(&name), "x").is_ok();
        secrets.insert(name, json!({ "length": value.len(), "written": written }));
    }
    found.insert("secrets".to_owned(), Value::Object(secrets));
    let served = SERVED.fetch_add(1, Ordering::SeqCst) + 1;
    found.insert("served".to_owned(), json!(served));
    Ok(Value::Object(found))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<_> = fs_err::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    if let Some(error_type) = event.payload["event"][REPORT].as_str() {
        return Err(Diagnostic {
            error_type: error_type.to_owned(),
            error_message: REPORTED.to_owned(),
        });
    }
    if let Some(name) = event.payload["event"][LOOK].as_str() {
        return Ok(look(name, &event.payload["barecount"]).map_err(Error::from)?);
    }
    Ok(carry_out(event).await?)
}

async fn carry_out(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let payload: Payload = serde_json::from_value(event.payload)?;
    if payload.event.is_null() {
        // The echo of the tests and of the benchmark.
        return Ok(json!({
            "attempt": payload.barecount.attempt,
            "deadline": event.context.deadline,
            "input_dir": payload.barecount.input_dir,
            "pid": std::process::id(),
            "request_id": event.context.request_id,
            "stage": payload.barecount.stage,
        }));
    }
    let behaviour: Behaviour = serde_json::from_value(payload.event)?;
    match &behaviour {
        Behaviour::Exit(code) => std::process::exit(*code),
        Behaviour::Signal(6) => std::process::abort(),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::IgnoreStop => ignore_stops().await?,
        Behaviour::LeaveProcess => leave_process(&program())?,
        other => behave(
            other,
            Seen {
                input: Path::new(&payload.barecount.input_dir),
                output: Path::new(&payload.barecount.output_dir),
                checkpoint: Path::new(&payload.barecount.checkpoint_dir),
                scratch: Path::new(&payload.barecount.scratch_dir),
            },
        )?,
    }
    Ok(Value::Null)
}

fn misbehave(misbehaviour: &str) -> io::Result<()> {
    match serde_json::from_value(json!(misbehaviour))? {
        Misbehaviour::ExitsAtOnce => Ok(()),
        Misbehaviour::CrashesAtOnce => std::process::exit(3),
        Misbehaviour::HangsAtOnce => loop {
            std::thread::park();
        },
        Misbehaviour::InitError => {
            let error = json!({"errorType": "NoModel", "errorMessage": "the model is missing"});
            post("init/error", error.to_string().as_bytes())?;
            Ok(())
        }
        Misbehaviour::Rubbish => {
            for _ in 0..100 {
                connect()?.write_all(&[0xff; 64 * 1024])?;
            }
            Ok(())
        }
        misbehaviour => loop {
            let (id, event) = next()?;
            answer(misbehaviour, &id, &event)?;
        },
    }
}

fn answer(misbehaviour: Misbehaviour, id: &str, event: &Payload) -> io::Result<()> {
    let path = format!("invocation/{id}/response");
    match misbehaviour {
        Misbehaviour::AnswersTwice => {
            post(&path, b"\"first\"")?;
            let status = post(&path, b"\"second\"")?;
            tell(&format_args!("the second answer gave {status}"));
        }
        Misbehaviour::NeverAnswers => {}
        Misbehaviour::HangsAtWork => {
            tell(&"hanging");
            loop {
                std::thread::park();
            }
        }
        Misbehaviour::ForkBomb => fork_bomb(),
        Misbehaviour::RubbishThenAnswers => {
            // Once the other side has closed, it has seen what this is.
            let mut stream = connect()?;
            stream.write_all(b"\x16\x03\x01 no request\r\n\r\n")?;
            stream.read_to_end(&mut Vec::new())?;
            post(&path, b"\"all the same\"")?;
        }
        Misbehaviour::WrongId => {
            let status = post("invocation/task-0/response", b"1")?;
            post(&path, status.to_string().as_bytes())?;
        }
        Misbehaviour::TooLarge => {
            let status = post(&path, &vec![b'1'; 7 << 20])?;
            tell(&format_args!("the large answer gave {status}"));
        }
        Misbehaviour::NotJson => drop(post(&path, b"\xff\xfe")?),
        Misbehaviour::ReplacesOutput => {
            // Whichever way is open; where none is, the function says so.
            let output = Path::new(&event.barecount.output_dir);
            let replaced = fs_err::rename(output, "/barecount/output/away")
                .and_then(|()| fs_err::os::unix::fs::symlink("/etc", output));
            post(&path, json!(replaced.is_ok()).to_string().as_bytes())?;
        }
        Misbehaviour::EndsAfterwards => {
            post(&path, b"1")?;
            std::process::exit(0);
        }
        Misbehaviour::ExitsWhenAsked => {
            asked_to_stop()?;
            std::process::exit(75);
        }
        Misbehaviour::AnswersWhenAsked => {
            asked_to_stop()?;
            let error = json!({"errorType": "EX_TEMPFAIL", "errorMessage": "page 3 is saved"});
            post(
                &format!("invocation/{id}/error"),
                error.to_string().as_bytes(),
            )?;
        }
        other => return Err(io::Error::other(format!("{other:?} answers nothing"))),
    }
    Ok(())
}

/// Says that it waits, and returns when it is asked to stop.
pub(crate) fn asked_to_stop() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        let mut stops = tokio::signal::unix::signal(kind)?;
        tell(&WAITING);
        stops.recv().await;
        Ok(())
    })
}

/// What is said by whoever waits to be asked to stop.
pub(crate) const WAITING: &str = "waiting";

/// The argument that makes this program a part of a fork bomb.
pub(crate) const BOMB: &str = "bomb";
/// What the fork bomb prints when it is held back.
pub(crate) const REFUSED: &str = "no more processes";

/// Never returns. Every process of it starts others for as long as it may.
pub(crate) fn fork_bomb() -> ! {
    loop {
        if let Err(error) = std::process::Command::new(program()).arg(BOMB).spawn() {
            tell(&format_args!("{REFUSED}: {error}"));
            loop {
                std::thread::park();
            }
        }
    }
}

fn connect() -> io::Result<TcpStream> {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").map_err(io::Error::other)?;
    TcpStream::connect(address)
}

fn next() -> io::Result<(String, Payload)> {
    let (status, headers, body) = exchange("GET", "invocation/next", b"")?;
    let id = headers
        .iter()
        .find_map(|header| header.strip_prefix("lambda-runtime-aws-request-id: "));
    match id {
        Some(id) if status == 200 => Ok((id.to_owned(), serde_json::from_slice(&body)?)),
        _ => Err(io::Error::other(format!("the next event gave {status}"))),
    }
}

fn post(path: &str, body: &[u8]) -> io::Result<u16> {
    exchange("POST", path, body).map(|(status, ..)| status)
}

/// One request on a connection of its own.
fn exchange(method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<String>, Vec<u8>)> {
    let mut stream = connect()?;
    write!(
        stream,
        "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer)?;
    let status = lines
        .first()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status"))?;
    Ok((status, lines, answer))
}
