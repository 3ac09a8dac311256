//! The life of one connection: where was it meant to go, is that declared, does it name the host,
//! does the path lead there, and then bytes both ways.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use barecount_model::{class::NetworkProfile, manifest::EgressProtocol, untrusted::Label};
use rustix::{io::Errno, net::RecvFlags};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    attempt::{AttemptState, Decision, Slot},
    broker::Shared,
    buffer,
    capture::Capture,
    inspect::{self, MAX_HEAD, Target, http::Requests},
    path::{Connection, DialError, FirstWord, PathKind},
    reason::{Reason, ReasonCode},
    record::{FlowProtocol, FlowRecord, Meter, Verdict},
    relay::{Broken, Opened, Terms, Upward, relay},
};

/// What is read at once of what was sent before a connection is dialled.
const EARLY: usize = 1_024;

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct Flow {
    name: Option<Label>,
    /// The one that the work used.
    address: IpAddr,
    port: u16,
    declared: Option<EgressProtocol>,
    guessed: OnceLock<EgressProtocol>,
    dialled: OnceLock<(IpAddr, PathKind)>,
    /// Why it was let through though not declared.
    audited: Option<Reason>,
    meter: Meter,
    first_at: u64,
}

impl Flow {
    /// The record of the flow as it is now, let through so far.
    pub(crate) fn record(&self, profile: NetworkProfile, now: u64) -> FlowRecord {
        let (bytes_up, bytes_down) = self.meter.read();
        let dialled = self.dialled.get();
        let protocol = self.declared.or_else(|| self.guessed.get().copied());
        FlowRecord {
            name: self.name.clone(),
            address: Some(dialled.map_or(self.address, |(address, _)| *address)),
            port: self.port,
            protocol: protocol.map_or(FlowProtocol::Tcp, FlowProtocol::from),
            profile,
            path: dialled.map(|(_, path)| *path),
            bytes_up,
            bytes_down,
            first_at: self.first_at,
            last_at: now,
            verdict: match self.audited {
                Some(_) => Verdict::Audited,
                None => Verdict::Allowed,
            },
            reason: self.audited.clone(),
            count: 1,
        }
    }
}

/// How a flow ended other than by itself.
#[derive(Debug)]
enum Ending {
    /// It was not let through.
    Refused(Reason),
    /// The path does not lead there, or led to nothing.
    NotDialled(DialError),
    /// It was let through and broke off.
    Broken(Reason),
}

/// A connection that the work made.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) inside: TcpStream,
    pub(crate) capture: Capture,
    /// Whether it did not come faster than may be.
    pub(crate) in_time: bool,
}

/// Serves a connection to its end, and writes it down.
pub(crate) async fn serve(attempt: Arc<AttemptState>, shared: Arc<Shared>, accepted: Accepted) {
    let Accepted {
        inside,
        capture,
        in_time,
    } = accepted;
    let (destination, decision) = match capture.destination(&inside) {
        Ok(destination) => (destination, attempt.decide(destination)),
        Err(error) => {
            let text = format!("the kernel does not tell the destination: {error}");
            let reason = Reason::new(ReasonCode::DestinationUnknown, text);
            (unknown(&inside), Decision::Refuse(None, reason))
        }
    };
    let (target, declared, audited, refused) = match decision {
        Decision::Allow(target, protocol) => (target, Some(protocol), None, None),
        Decision::Audit(target, reason) => (target, None, Some(reason), None),
        Decision::Refuse(Some(name), reason) => (Target::Name(name), None, None, Some(reason)),
        Decision::Refuse(None, reason) => {
            (Target::Address(destination.ip()), None, None, Some(reason))
        }
    };
    let flow = Arc::new(Flow {
        name: match &target {
            Target::Name(name) => Some(name.as_str().into()),
            Target::Address(_) => None,
        },
        address: destination.ip(),
        port: destination.port(),
        declared,
        guessed: OnceLock::new(),
        dialled: OnceLock::new(),
        audited,
        meter: Meter::default(),
        first_at: attempt.now(),
    });
    let key = attempt.opened(&flow);
    let ended = match refused.or_else(|| (!in_time).then(|| too_fast(&attempt))) {
        Some(reason) => {
            drop(inside);
            Err(Ending::Refused(reason))
        }
        None => tokio::select! {
            biased;
            () = attempt.cancelled().cancelled() => Err(Ending::Broken(Reason::new(
                ReasonCode::AttemptEnded,
                "the attempt ended while the connection was open",
            ))),
            ended = carry(&attempt, &shared, &flow, &target, inside) => ended,
        },
    };
    attempt.closed(key, record(&attempt, &flow, ended));
}

fn unknown(inside: &TcpStream) -> SocketAddr {
    inside
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

fn record(attempt: &AttemptState, flow: &Flow, ended: Result<(), Ending>) -> FlowRecord {
    let mut record = flow.record(attempt.profile(), attempt.now());
    match ended {
        Ok(()) => {}
        Err(Ending::Refused(reason)) => {
            record.verdict = Verdict::Refused;
            record.reason = Some(reason);
        }
        Err(Ending::NotDialled(error)) => {
            if error.is_refusal() {
                record.verdict = Verdict::Refused;
            }
            record.address = error.address().or(record.address);
            record.reason = Some(error.reason());
        }
        Err(Ending::Broken(reason)) => record.reason = Some(reason),
    }
    record
}

async fn carry(
    attempt: &AttemptState,
    shared: &Shared,
    flow: &Flow,
    target: &Target,
    mut inside: TcpStream,
) -> Result<(), Ending> {
    let _slot = admitted(attempt)?;
    let broken = |error: std::io::Error| Ending::Broken(lost(&error));
    let open = attempt.open_flows();
    buffer::bound(&inside, open).map_err(broken)?;
    let opening = inspected(attempt, flow, target, &mut inside).await?;
    let dialled = attempt
        .dial(target, flow.port, opening.first_word())
        .await
        .map_err(Ending::NotDialled)?;
    let _ = flow.dialled.set((dialled.address.ip(), dialled.path));
    if let Connection::Tcp(outside) = &dialled.connection {
        buffer::bound(outside, open).map_err(broken)?;
    }
    let upward = match (flow.declared, opening) {
        (None, _) => Upward::Guess(&flow.guessed),
        (Some(_), Opening::Bytes(first)) => Upward::Pass {
            first,
            sent: dialled.sent,
        },
        (Some(_), Opening::Requests(opened)) => Upward::Requests(opened),
    };
    let terms = Terms {
        meter: &flow.meter,
        pipes: &shared.pipes,
        pace: attempt.pace(),
        idle: attempt.limits().idle_timeout(),
    };
    let Err(broken) = relay(inside, dialled.connection, upward, terms).await else {
        return Ok(());
    };
    let reason = match broken {
        Broken::Violation(reason) => return Err(Ending::Refused(reason)),
        Broken::Idle => Reason::new(
            ReasonCode::IdleTimeout,
            format!(
                "nothing was carried for {} ms",
                attempt.limits().idle_timeout_ms
            ),
        ),
        Broken::Lost(error) => lost(&error),
    };
    // A tunnel that is cut ends its flows this way; the record says which it was.
    let down = attempt.path().down(Some(dialled.address.ip())).await;
    Err(Ending::Broken(match down {
        Some(down) => Reason::new(
            ReasonCode::PathDown,
            format!("{}; the tunnel is down: {down}", reason.text),
        ),
        None => reason,
    }))
}

fn too_fast(attempt: &AttemptState) -> Reason {
    let text = format!(
        "more than {} new connections a second",
        attempt.limits().new_flows_per_second
    );
    Reason::new(ReasonCode::FlowsTooFast, text)
}

fn admitted(attempt: &AttemptState) -> Result<Slot, Ending> {
    attempt.slot().map_err(|most| {
        Ending::Refused(Reason::new(
            ReasonCode::TooManyFlows,
            format!("more than {most} connections at a time"),
        ))
    })
}

/// What was read before dialling.
enum Opening {
    Bytes(Vec<u8>),
    Requests(Opened),
}

impl Opening {
    fn first_word(&self) -> FirstWord<'_> {
        match self {
            Self::Bytes(bytes) if bytes.is_empty() => FirstWord::Unknown,
            Self::Bytes(bytes) => FirstWord::Bytes(bytes),
            Self::Requests(_) => FirstWord::Ours,
        }
    }
}

/// Reads what must name the host. Nothing is waited for of other protocols, in which the other side
/// may speak first.
async fn inspected(
    attempt: &AttemptState,
    flow: &Flow,
    target: &Target,
    inside: &mut TcpStream,
) -> Result<Opening, Ending> {
    let is_tls = match flow.declared {
        None => return Ok(Opening::Bytes(Vec::new())),
        Some(EgressProtocol::Tcp) => return already_there(inside).map(Opening::Bytes),
        Some(EgressProtocol::Tls) => true,
        Some(EgressProtocol::Http) => false,
    };
    let reading = async {
        let mut read = Vec::new();
        if is_tls {
            while !inspect::check_hello(&read, target)? {
                read_more(inside, &mut read, "a ClientHello").await?;
            }
            return Ok(Opening::Bytes(read));
        }
        let mut requests = Requests::new(target.clone(), flow.port);
        let mut ready = Vec::new();
        loop {
            let taken = requests.advance(&read, &mut ready)?;
            read.drain(..taken);
            if !ready.is_empty() {
                return Ok(Opening::Requests(Opened {
                    requests,
                    ready,
                    held: read,
                }));
            }
            read_more(inside, &mut read, "a request").await?;
        }
    };
    match tokio::time::timeout(attempt.limits().inspect_timeout(), reading).await {
        Ok(read) => read.map_err(Ending::Refused),
        Err(_) => Err(Ending::Refused(Reason::new(
            ReasonCode::HeadMissing,
            format!(
                "nothing that names a host came within {} ms",
                attempt.limits().inspect_timeout_ms
            ),
        ))),
    }
}

/// What the work has sent by now.
fn already_there(inside: &TcpStream) -> Result<Vec<u8>, Ending> {
    // Asked of the kernel itself: of a socket this new, the runtime does not know yet.
    let mut bytes = [0; EARLY];
    match rustix::net::recv(inside, &mut bytes, RecvFlags::DONTWAIT) {
        Ok((length, _)) => Ok(bytes[..length].to_vec()),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Vec::new()),
        // The kernel tells it once: who reads next would take the cut for an end.
        Err(errno) => Err(Ending::Broken(lost(&errno.into()))),
    }
}

fn lost(error: &std::io::Error) -> Reason {
    Reason::new(ReasonCode::Reset, error.to_string())
}

async fn read_more(inside: &mut TcpStream, read: &mut Vec<u8>, what: &str) -> Result<(), Reason> {
    let missing = |text: String| Reason::new(ReasonCode::HeadMissing, text);
    if read.is_empty() {
        // Room is made when there is something to read: many connections may wait here.
        let readable = inside.readable().await;
        readable.map_err(|error| missing(format!("no {what} came: {error}")))?;
    }
    read.reserve(2_048);
    let room = MAX_HEAD.saturating_sub(read.len()).max(1) as u64;
    match inside.take(room).read_buf(read).await {
        Ok(0) => Err(missing(format!("the connection ended before {what} did"))),
        Ok(_) => Ok(()),
        Err(error) => Err(missing(format!(
            "the connection broke before {what} ended: {error}"
        ))),
    }
}
