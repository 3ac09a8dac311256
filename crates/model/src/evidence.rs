//! Evidence: what the ledger holds of a run, as in-toto Statements.
//!
//! Each entry is an [in-toto Statement v1](https://in-toto.io/Statement/v1) in canonical JSON
//! (object keys sorted, no white space), so that the same facts give the same bytes. Subjects are
//! what the statement is about: the pipeline version, and the content digests of outputs. Record
//! payloads, secrets and personal data never enter. No statement is longer than an entry may be:
//! what makes it so is [omitted](OMITTED), with its digest in its place.

mod against;
mod canonical;
mod facts;
mod fit;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    approval::{Approval, ApprovalState, Signed},
    id::RunId,
    plan::Plan,
    run::{Record, Run, outcome::CommittedDataset},
};

use self::facts::{
    AbandonmentFacts, Answer, AttemptFacts, Commit, EndOfRun, Refusal, Resumption, Submission,
};
pub use against::{Difference, Shown, differences};
pub use facts::PlanText;
pub use fit::{MAX_STATEMENT_BYTES, OMITTED};

/// The type of every entry.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// What a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// A run was accepted.
    Submission,
    /// A run was refused.
    Refusal,
    /// A run was taken up again.
    Resumption,
    /// An attempt ended.
    Attempt,
    /// A task's outputs were committed.
    Commit,
    /// A task's work had been done before, and what that wrote still stood.
    Answer,
    /// A run ended.
    Run,
    /// An artifact was built.
    Build,
    /// A run was given up, and what was decided for with it.
    Abandonment,
    /// Somebody restored, dropped or gave a dataset by hand.
    Dataset,
    /// Somebody asked for an approval, granted, denied or revoked it.
    Approval,
}

impl EvidenceKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Submission,
        Self::Refusal,
        Self::Resumption,
        Self::Attempt,
        Self::Commit,
        Self::Answer,
        Self::Run,
        Self::Build,
        Self::Abandonment,
        Self::Dataset,
        Self::Approval,
    ];

    /// The kind as JSON spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submission => "submission",
            Self::Refusal => "refusal",
            Self::Resumption => "resumption",
            Self::Attempt => "attempt",
            Self::Commit => "commit",
            Self::Answer => "answer",
            Self::Run => "run",
            Self::Build => "build",
            Self::Abandonment => "abandonment",
            Self::Dataset => "dataset",
            Self::Approval => "approval",
        }
    }

    /// The in-toto predicate type.
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::Submission => "https://barecount.dev/evidence/submission/v1",
            Self::Refusal => "https://barecount.dev/evidence/refusal/v1",
            Self::Resumption => "https://barecount.dev/evidence/resumption/v1",
            Self::Attempt => "https://barecount.dev/evidence/attempt/v1",
            Self::Commit => "https://barecount.dev/evidence/commit/v1",
            Self::Answer => "https://barecount.dev/evidence/answer/v1",
            Self::Run => "https://barecount.dev/evidence/run/v1",
            Self::Build => "https://barecount.dev/evidence/build/v1",
            Self::Abandonment => "https://barecount.dev/evidence/abandonment/v1",
            Self::Dataset => "https://barecount.dev/evidence/dataset/v1",
            Self::Approval => "https://barecount.dev/evidence/approval/v1",
        }
    }
}

/// A statement, ready for the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What it is about.
    pub kind: EvidenceKind,
    /// Its canonical bytes.
    pub bytes: Vec<u8>,
}

/// A statement as it is written.
#[derive(Serialize)]
struct Document<'a, P, S> {
    _type: &'static str,
    predicate: P,
    #[serde(rename = "predicateType")]
    predicate_type: &'static str,
    subject: &'a [S],
}

/// Makes a statement of any kind, of at most [`MAX_STATEMENT_BYTES`], from a predicate that can be
/// written as JSON.
pub fn statement(kind: EvidenceKind, subjects: &[Subject], predicate: impl Serialize) -> Statement {
    fitting(kind, subjects, predicate)
}

fn fitting(
    kind: EvidenceKind,
    subjects: &[impl Serialize],
    predicate: impl Serialize,
) -> Statement {
    let document = document(kind, subjects, predicate);
    let text = fit::fitting(&document, MAX_STATEMENT_BYTES);
    Statement {
        kind,
        bytes: text.into_bytes(),
    }
}

/// The same from subjects and a predicate with text of a plan; where that makes it too long, without.
fn statement_with<'t, S: Serialize, P: Serialize>(
    kind: EvidenceKind,
    text: &'t PlanText,
    of: impl Fn(Option<&'t PlanText>) -> (Vec<S>, P),
) -> Statement {
    let (subjects, predicate) = of(Some(text));
    let bytes = canonical::text(&document(kind, &subjects, predicate)).into_bytes();
    if bytes.len() <= MAX_STATEMENT_BYTES {
        return Statement { kind, bytes };
    }
    let (subjects, predicate) = of(None);
    fitting(kind, &subjects, predicate)
}

fn document<P, S>(kind: EvidenceKind, subjects: &[S], predicate: P) -> Document<'_, P, S> {
    Document {
        _type: STATEMENT_TYPE,
        predicate,
        predicate_type: kind.predicate_type(),
        subject: subjects,
    }
}

/// What a predicate has in any case.
fn required(kind: EvidenceKind) -> Value {
    match kind {
        EvidenceKind::Submission => json!([
            "run",
            "at",
            "requester",
            "manifest",
            "lock",
            "decision",
            "stages"
        ]),
        EvidenceKind::Refusal => json!(["decision"]),
        // Older ones do not say by what.
        EvidenceKind::Resumption => json!(["run", "at"]),
        EvidenceKind::Attempt => json!(["run", "task", "attempt", "state", "metrics", "detail"]),
        EvidenceKind::Commit => json!(["run", "task", "attempt", "outputs", "at"]),
        EvidenceKind::Answer => json!(["run", "task", "work", "answered_by", "outputs", "at"]),
        EvidenceKind::Run => json!(["run", "state", "submitted_at", "ended_at", "tasks"]),
        EvidenceKind::Build => json!(["kind", "name", "size", "source", "recipe"]),
        EvidenceKind::Abandonment => json!(["run", "at", "by", "reason", "given_up"]),
        EvidenceKind::Dataset => json!([
            "dataset", "tenant", "act", "at", "by", "decision", "before", "after"
        ]),
        EvidenceKind::Approval => json!([
            "act",
            "approval",
            "asked",
            "at",
            "by",
            "decision",
            "reason",
            "requester",
            "rules",
            "term"
        ]),
    }
}

/// The JSON Schema of statements. Predicates may gain members within a version, so they are open.
pub(crate) fn schema() -> Value {
    let by_kind: Vec<Value> = EvidenceKind::ALL
        .iter()
        .map(|kind| {
            json!({
                "if": { "properties": { "predicateType": { "const": kind.predicate_type() } } },
                "then": { "properties": { "predicate": { "required": required(*kind) } } },
            })
        })
        .collect();
    let types: Vec<&str> = EvidenceKind::ALL
        .iter()
        .map(|kind| kind.predicate_type())
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://barecount.dev/schemas/evidence.v1.schema.json",
        "title": "BareCount evidence",
        "description": "An entry of the ledger: an in-toto Statement (v1).",
        "type": "object",
        "properties": {
            "_type": { "const": STATEMENT_TYPE },
            "subject": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": { "type": "string" },
                        "digest": { "type": "object", "additionalProperties": { "type": "string" } },
                    },
                    "required": ["name", "digest"],
                },
            },
            "predicateType": { "enum": types },
            "predicate": {
                "type": "object",
                "description": "What is too long for an entry is an object `omitted` in its place, \
                                with the SHA-256 digest and the length of its canonical JSON.",
            },
        },
        "required": ["_type", "subject", "predicateType", "predicate"],
        "additionalProperties": false,
        "allOf": by_kind,
    })
}

/// Something a statement is about, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// Its digests by algorithm.
    pub digest: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
}

impl Subject {
    /// A subject from a digest written as `algorithm:hex`.
    pub fn new(name: impl Into<String>, digest: &str) -> Self {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
        Self {
            name: name.into(),
            digest: std::iter::once((algorithm.to_owned(), hex.to_owned())).collect(),
        }
    }
}

/// The statement of what was done to an approval: `act` by `signed`, by a decision that policies
/// made under `rules`; `run` is the run that goes on by it, where one does.
pub fn of_approval(
    approval: &Approval,
    act: &str,
    signed: &Signed,
    (decision, rules): (&impl Serialize, &Value),
    run: Option<&RunId>,
) -> Statement {
    let (id, asked) = (&approval.id, &approval.asked);
    let subjects = [
        Subject::new(format!("approval/{id}"), &asked.question.to_string()),
        Subject::new(format!("pipeline/{}", asked.pipeline), &asked.version),
    ];
    let predicate = json!({
        "act": act, "approval": id, "asked": asked, "at": signed.at, "by": signed.by,
        "decision": decision, "reason": signed.reason,
        "requester": approval.requested.by, "rules": rules, "run": run,
        "term": approval.term.filter(|_| act == ApprovalState::Granted.as_str()),
    });
    statement(EvidenceKind::Approval, &subjects, predicate)
}

/// The statement that a record of the state machine stands for. `text` is what was written of the
/// run's plan.
pub fn of_record(
    record: &Record,
    run: &Run,
    (plan, text): (&Plan, &PlanText),
    committed: &[CommittedDataset],
    now: Timestamp,
) -> Statement {
    let about = |text, outputs: &[(&str, &str)]| facts::subjects(plan, text, outputs);
    match record {
        Record::RunSubmitted => statement_with(EvidenceKind::Submission, text, |text| {
            (about(text, &[]), Submission::of(run, plan, text, now))
        }),
        Record::RunRefused => statement_with(EvidenceKind::Refusal, text, |text| {
            (about(text, &[]), Refusal::of(run, plan, now))
        }),
        Record::RunResumed { decision } => statement_with(EvidenceKind::Resumption, text, |text| {
            (about(text, &[]), Resumption::of(run, decision, now))
        }),
        Record::AttemptEnded { task, number } => {
            let task = &run.tasks[*task];
            let mut attempts = task.attempts.iter();
            let found = attempts.find(|attempt| attempt.number == *number);
            statement_with(EvidenceKind::Attempt, text, |text| {
                let facts = |attempt| AttemptFacts::of(run, plan, text, task, attempt);
                (about(text, &[]), found.map(facts))
            })
        }
        Record::TaskCommitted { task } => {
            let task = &run.tasks[*task];
            let outputs = digests(committed.iter().map(|of| (&of.dataset, &of.digest)));
            statement_with(EvidenceKind::Commit, text, |text| {
                (about(text, &outputs), Commit::of(run, task, committed, now))
            })
        }
        Record::RunAbandoned {
            struck,
            abandonment,
        } => {
            let tasks = struck.iter().filter_map(|(task, _)| run.tasks.get(*task));
            let outputs = tasks.flat_map(|task| task.current().and_then(|of| of.staged.as_ref()));
            let outputs = outputs.flat_map(|staged| &staged.datasets);
            let outputs = digests(outputs.map(|of| (&of.dataset, &of.digest)));
            statement_with(EvidenceKind::Abandonment, text, |text| {
                let facts = AbandonmentFacts::of(run, struck, abandonment, now);
                (about(text, &outputs), facts)
            })
        }
        Record::TaskAnswered { task } => {
            let task = &run.tasks[*task];
            let outputs = task.answered.iter().flat_map(|answered| &answered.outputs);
            let outputs = digests(outputs.map(|of| (&of.dataset, &of.digest)));
            statement_with(EvidenceKind::Answer, text, |text| {
                (about(text, &outputs), Answer::of(run, task, now))
            })
        }
        Record::RunEnded => statement_with(EvidenceKind::Run, text, |text| {
            (about(text, &[]), EndOfRun::of(run, plan))
        }),
    }
}

fn digests<'a>(
    datasets: impl Iterator<Item = (&'a String, &'a String)>,
) -> Vec<(&'a str, &'a str)> {
    let datasets = datasets.map(|(name, digest)| (&**name, &**digest));
    datasets.collect()
}

/// JSON with object keys sorted by code point and no white space. Numbers are as `serde_json`
/// writes them; evidence holds integers, and decimals as text.
pub fn canonical_json(value: &Value) -> String {
    canonical::text(value)
}

/// Writes JSON at the end of `into`, members in the order in which they come. Keys are text.
///
/// # Errors
/// Where it cannot be written as JSON; what was written of it stays.
pub fn append_json(into: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    canonical::append(into, value)
}
