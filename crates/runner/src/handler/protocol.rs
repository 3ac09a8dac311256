//! The server's side of the AWS Lambda Runtime API, version 2018-06-01, for one function process:
//! what it may ask when, and what it is answered. No sockets, no clock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use barecount_model::untrusted::{Label, Message};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{Notify, oneshot, watch};

/// The largest event and the largest answer, in bytes.
pub(super) const PAYLOAD_MAX: usize = 6 * 1024 * 1024;

/// The longest answer that is kept as it is.
const MAX_KEPT_ANSWER_BYTES: usize = 256 << 10;

/// One event for the function.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    /// `Lambda-Runtime-Aws-Request-Id`.
    pub(super) id: String,
    /// `Lambda-Runtime-Deadline-Ms`.
    pub(super) deadline_ms: u64,
    /// `Lambda-Runtime-Invoked-Function-Arn`.
    pub(super) function: String,
    /// `Lambda-Runtime-Trace-Id`.
    pub(super) trace: Option<String>,
    /// The body.
    pub(super) payload: Bytes,
}

/// What came of an invocation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Answered(serde_json::Value),
    /// The function's error, or one of ours in its place.
    Failed {
        error_type: Label,
        message: Message,
    },
}

/// Why a request was refused, in the words of the published API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No invocation has this id now.
    InvalidRequestId,
    /// The request does not follow from what came before.
    InvalidStateTransition,
    /// The body is larger than allowed.
    TooLarge,
}

/// A function process as seen through its requests.
#[derive(Debug)]
pub(super) struct Conversation {
    state: Mutex<State>,
    /// Told when an invocation has been queued.
    queued: Notify,
    /// Whether the function waits for an event.
    waiting: watch::Sender<bool>,
    /// Whether it has asked for one, or has said that it never will.
    initialised: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    pending: Option<(Invocation, oneshot::Sender<Outcome>)>,
    /// Delivered and not answered.
    current: Option<(String, oneshot::Sender<Outcome>)>,
    /// The id answered last: a second answer is told apart from a wrong id.
    answered: Option<String>,
    init_error: Option<Outcome>,
    misbehaved: bool,
}

impl Conversation {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            queued: Notify::new(),
            waiting: watch::Sender::new(false),
            initialised: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment: a panic elsewhere leaves the state sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an event, to be delivered when the function asks. The receiver fails if the
    /// conversation is over before it was answered. One at a time.
    pub(super) fn invoke(&self, invocation: Invocation) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if let Some(failed) = &state.init_error {
            drop(sender.send(failed.clone()));
        } else {
            state.pending = Some((invocation, sender));
            drop(state);
            self.queued.notify_one();
        }
        receiver
    }

    /// Takes an event back that was not delivered. `false`: it was.
    pub(super) fn withdraw(&self) -> bool {
        self.state().pending.take().is_some()
    }

    /// Notes that the process did something that a function that works as intended does not.
    pub(super) fn misbehave(&self) {
        self.state().misbehaved = true;
    }

    /// Whether the process did something that a function that works as intended does not.
    pub(super) fn misbehaved(&self) -> bool {
        self.state().misbehaved
    }

    /// Resolves once the function waits for an event. Cancel-safe.
    pub(super) async fn waits(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives in `self`.
        drop(waiting.wait_for(|waiting| *waiting).await);
    }

    /// Resolves once the function has initialised, or has failed to. Cancel-safe.
    pub(super) async fn initialised(&self) {
        let mut initialised = self.initialised.subscribe();
        // The sender lives in `self`.
        drop(initialised.wait_for(|initialised| *initialised).await);
    }

    /// `GET runtime/invocation/next`: resolves with the next event. Dropped when the function's
    /// connection closes, which leaves the event in the queue.
    pub(super) async fn next(&self) -> Result<Invocation, Refusal> {
        let _asking = self.ask()?;
        loop {
            if let Some(invocation) = self.deliver() {
                return Ok(invocation);
            }
            self.queued.notified().await;
        }
    }

    fn ask(&self) -> Result<Asking<'_>, Refusal> {
        let mut state = self.state();
        if let Some((_, sender)) = state.current.take() {
            state.misbehaved = true;
            drop(sender.send(failed(
                "Runtime.NoAnswer",
                "the function asked for the next event without answering this one",
            )));
            return Err(Refusal::InvalidStateTransition);
        }
        if state.init_error.is_some() || self.waiting.send_replace(true) {
            state.misbehaved = true;
            return Err(Refusal::InvalidStateTransition);
        }
        state.answered = None;
        self.initialised.send_replace(true);
        Ok(Asking(self))
    }

    fn deliver(&self) -> Option<Invocation> {
        let mut state = self.state();
        let (invocation, sender) = state.pending.take()?;
        state.current = Some((invocation.id.clone(), sender));
        Some(invocation)
    }

    /// Whether an answer to `id` would be taken now.
    pub(super) fn expects(&self, id: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        if state
            .current
            .as_ref()
            .is_some_and(|(current, _)| current == id)
        {
            return Ok(());
        }
        state.misbehaved = true;
        if state.answered.as_deref() == Some(id) {
            return Err(Refusal::InvalidStateTransition);
        }
        Err(Refusal::InvalidRequestId)
    }

    /// `POST runtime/invocation/{id}/response`.
    pub(super) fn respond(&self, id: &str, body: &[u8]) -> Result<(), Refusal> {
        let outcome = if body.is_empty() {
            Outcome::Answered(serde_json::Value::Null)
        } else {
            match answer(body) {
                Ok(answer) => Outcome::Answered(answer),
                Err(error) => {
                    self.misbehave();
                    failed(
                        "Runtime.InvalidResponse",
                        &format!("the function's answer is not JSON: {error}"),
                    )
                }
            }
        };
        self.settle(id, outcome)
    }

    /// `POST runtime/invocation/{id}/error`.
    pub(super) fn fail(&self, id: &str, header: Option<&str>, body: &[u8]) -> Result<(), Refusal> {
        self.settle(id, reported(header, body))
    }

    /// The answer to `id` was larger than allowed.
    pub(super) fn overflow(&self, id: &str) -> Refusal {
        self.misbehave();
        let outcome = failed(
            "Function.ResponseSizeTooLarge",
            &format!("the function's answer is larger than {PAYLOAD_MAX} bytes"),
        );
        self.settle(id, outcome).err().unwrap_or(Refusal::TooLarge)
    }

    fn settle(&self, id: &str, outcome: Outcome) -> Result<(), Refusal> {
        self.expects(id)?;
        let mut state = self.state();
        if let Some((id, sender)) = state.current.take() {
            state.answered = Some(id);
            // Whoever waited may have been stopped meanwhile.
            drop(sender.send(outcome));
        }
        Ok(())
    }

    /// `POST runtime/init/error`.
    pub(super) fn fail_init(&self, header: Option<&str>, body: &[u8]) -> Result<(), Refusal> {
        let mut state = self.state();
        state.misbehaved = true;
        if *self.initialised.borrow() {
            return Err(Refusal::InvalidStateTransition);
        }
        let outcome = reported(header, body);
        state.init_error = Some(outcome.clone());
        self.initialised.send_replace(true);
        if let Some((_, sender)) = state.pending.take() {
            drop(sender.send(outcome));
        }
        Ok(())
    }
}

/// The function waits for an event, as long as this lives.
struct Asking<'a>(&'a Conversation);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_replace(false);
    }
}

/// A function's answer. One that is longer than people look at is checked, and its length kept: as a
/// value, six megabytes of small numbers take eight hundred.
fn answer(body: &[u8]) -> serde_json::Result<serde_json::Value> {
    if body.len() <= MAX_KEPT_ANSWER_BYTES {
        return serde_json::from_slice(body);
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(body)?;
    Ok(serde_json::json!({ "omitted": { "bytes": body.len() } }))
}

/// The error that a function reports: its body, or the header where the body says nothing.
fn reported(header: Option<&str>, body: &[u8]) -> Outcome {
    #[derive(Default, Deserialize)]
    struct Reported {
        #[serde(rename = "errorType")]
        error_type: Option<String>,
        #[serde(rename = "errorMessage")]
        message: Option<String>,
    }

    let reported: Reported = serde_json::from_slice(body).unwrap_or_default();
    let error_type = reported.error_type.or_else(|| header.map(str::to_owned));
    let message = reported
        .message
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    failed(error_type.as_deref().unwrap_or("Unknown"), &message)
}

pub(super) fn failed(error_type: &str, message: &str) -> Outcome {
    Outcome::Failed {
        error_type: error_type.into(),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_checked_and_its_length_kept() -> serde_json::Result<()> {
        assert_eq!(answer(b"[0]")?, serde_json::json!([0]));
        let long = format!("[{}0]", "[0],".repeat(1 << 20));
        let kept = answer(long.as_bytes())?;
        assert_eq!(
            kept,
            serde_json::json!({ "omitted": { "bytes": long.len() } })
        );
        assert!(answer(&long.as_bytes()[..long.len() - 1]).is_err());
        Ok(())
    }
}
