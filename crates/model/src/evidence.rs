//! Evidence: what the ledger holds of a run, as in-toto Statements.
//!
//! Each entry is an [in-toto Statement v1](https://in-toto.io/Statement/v1) in canonical JSON
//! (object keys sorted, no white space), so that the same facts give the same bytes. Subjects are
//! what the statement is about: the pipeline version, and the content digests of outputs. Record
//! payloads, secrets and personal data never enter. No statement is longer than an entry may be:
//! what makes it so is [omitted](OMITTED), with its digest in its place.

mod fit;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    digest::Digest,
    plan::{Plan, StagePlan},
    run::{
        Abandonment, Attempt, Record, Run, Task,
        outcome::{CommittedDataset, Failure},
    },
};

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
}

impl EvidenceKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
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
        }
    }

    /// The in-toto predicate type.
    pub fn predicate_type(self) -> String {
        format!("https://barecount.dev/evidence/{}/v1", self.as_str())
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

/// Makes a statement of any kind, of at most [`MAX_STATEMENT_BYTES`].
pub fn statement(kind: EvidenceKind, subjects: &[Subject], predicate: Value) -> Statement {
    let document = json!({
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": kind.predicate_type(),
        "predicate": predicate,
    });
    Statement {
        kind,
        bytes: fit::fitting(document, MAX_STATEMENT_BYTES).into_bytes(),
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
    let types: Vec<String> = EvidenceKind::ALL
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
    /// Its name.
    pub name: String,
    /// Its digests by algorithm.
    pub digest: std::collections::BTreeMap<String, String>,
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

/// The statement that a record of the state machine stands for.
pub fn of_record(
    record: &Record,
    run: &Run,
    plan: &Plan,
    committed: &[CommittedDataset],
    now: Timestamp,
) -> Statement {
    let mut subjects = vec![Subject::new(
        format!("pipeline/{}", run.pipeline),
        &run.version,
    )];
    match record {
        Record::RunSubmitted => statement(
            EvidenceKind::Submission,
            &subjects,
            submission(run, plan, now),
        ),
        Record::RunResumed => {
            let predicate = json!({ "run": run_facts(run), "at": now });
            statement(EvidenceKind::Resumption, &subjects, predicate)
        }
        Record::AttemptEnded { task, number } => {
            let task = &run.tasks[*task];
            let found = task
                .attempts
                .iter()
                .find(|attempt| attempt.number == *number);
            let predicate = found.map_or(Value::Null, |attempt| {
                attempt_facts(run, plan, task, attempt)
            });
            statement(EvidenceKind::Attempt, &subjects, predicate)
        }
        Record::TaskCommitted { task } => {
            let task = &run.tasks[*task];
            subjects.extend(
                committed
                    .iter()
                    .map(|output| Subject::new(&output.dataset, &output.digest)),
            );
            let predicate = json!({
                "run": run_facts(run),
                "task": task_facts(task),
                "attempt": task.current().map(|attempt| attempt.number),
                "outputs": committed,
                "at": now,
            });
            statement(EvidenceKind::Commit, &subjects, predicate)
        }
        Record::RunAbandoned {
            struck,
            abandonment,
        } => {
            let (outputs, predicate) = abandoned(run, struck, abandonment, now);
            subjects.extend(outputs);
            statement(EvidenceKind::Abandonment, &subjects, predicate)
        }
        Record::TaskAnswered { task } => {
            let task = &run.tasks[*task];
            let (subjects, predicate) = answer(run, task, subjects, now);
            statement(EvidenceKind::Answer, &subjects, predicate)
        }
        Record::RunEnded => statement(EvidenceKind::Run, &subjects, end_of_run(run, plan)),
    }
}

/// What was given up with an abandoned run: its outputs, and the predicate that tells of them.
fn abandoned(
    run: &Run,
    struck: &[(usize, u32)],
    abandonment: &Abandonment,
    now: Timestamp,
) -> (Vec<Subject>, Value) {
    let attempts = struck
        .iter()
        .filter_map(|(task, _)| run.tasks.get(*task)?.current());
    let outputs = attempts
        .filter_map(|attempt| attempt.staged.as_ref())
        .flat_map(|staged| &staged.datasets)
        .map(|output| Subject::new(&output.dataset, &output.digest))
        .collect();
    let given_up: Vec<Value> = struck
        .iter()
        .filter_map(|(task, number)| {
            let task = run.tasks.get(*task)?;
            Some(json!({
                "task": task_facts(task), "attempt": number,
                "outputs": task.current().map(staged_facts),
            }))
        })
        .collect();
    let predicate = json!({
        "run": run_facts(run),
        "at": now,
        "by": abandonment.by,
        "reason": abandonment.reason,
        "given_up": given_up,
    });
    (outputs, predicate)
}

/// That a task's work had been done, by whom, and what of it stands.
fn answer(
    run: &Run,
    task: &Task,
    mut subjects: Vec<Subject>,
    now: Timestamp,
) -> (Vec<Subject>, Value) {
    let answered = task.answered.as_ref();
    let outputs = answered.map_or(&[][..], |answered| &answered.outputs);
    subjects.extend(
        outputs
            .iter()
            .map(|output| Subject::new(&output.dataset, &output.digest)),
    );
    let predicate = json!({
        "run": run_facts(run),
        "task": task_facts(task),
        "work": task.work.as_ref().map(|work| work.key),
        "answered_by": answered.map(|answered| json!({
            "run": answered.run, "task": answered.task,
        })),
        "outputs": outputs,
        "at": now,
    });
    (subjects, predicate)
}

fn submission(run: &Run, plan: &Plan, now: Timestamp) -> Value {
    json!({
        "run": run_facts(run),
        "at": now,
        "requester": plan.requester,
        "owner": plan.owner,
        "classification": plan.classification,
        "manifest": plan.manifest_digest,
        "lock": plan.lock_digest,
        "decision": plan.decision,
        "event": plan.event,
        "forced": plan.forced,
        "stages": plan.stages.iter().map(stage_facts).collect::<Vec<_>>(),
    })
}

fn run_facts(run: &Run) -> Value {
    json!({
        "id": run.id,
        "token": run.token,
        "tenant": run.tenant,
        "pipeline": run.pipeline,
        "version": run.version,
        "environment": run.environment,
        "window": run.window,
    })
}

fn task_facts(task: &Task) -> Value {
    json!({
        "id": task.id,
        "stage": task.stage,
        "partition": task.partition,
        "class": task.class,
        "size": task.size,
        "network_profile": task.network_profile,
    })
}

fn stage_facts(stage: &StagePlan) -> Value {
    json!({
        "name": stage.name,
        "class": stage.class,
        "size": stage.size,
        "network_profile": stage.network_profile,
        "boundary": stage.boundary,
        "crossings": stage.crossings,
        "egress": stage.egress,
        "egress_mode": stage.egress_mode,
        "backend": stage.backend,
        "isolation": stage.isolation,
        "resources": stage.resources,
        "artifact": stage.work.artifact(),
        "drivers": stage.drivers,
        "secrets": stage.secrets,
    })
}

fn attempt_facts(run: &Run, plan: &Plan, task: &Task, attempt: &Attempt) -> Value {
    let staged = attempt.staged.as_ref();
    json!({
        "run": run_facts(run),
        "task": task_facts(task),
        "configuration": plan.stage(&task.stage).map(stage_facts),
        "work": task.work.as_ref().map(|work| work.key),
        "attempt": attempt.number,
        "state": attempt.state,
        "runner": attempt.runner,
        "intended_at": attempt.intended_at,
        "held": attempt.held,
        "started_at": attempt.started_at,
        "work_ended_at": attempt.work_ended_at,
        "staged_at": attempt.staged_at,
        "ended_at": attempt.ended_at,
        "exit_code": attempt.exit_code,
        "failure": attempt.failure.as_ref().map(failure_facts),
        "metrics": attempt.metrics,
        "staged": staged_facts(attempt),
        "dead_letters": staged.map_or(0, |staged| staged.dead_letters),
        "checkpoint": staged.and_then(|staged| staged.checkpoint.as_ref()).map(|saved| json!({
            "digest": saved.digest, "files": saved.files, "bytes": saved.bytes,
        })),
        "detail": attempt.detail,
    })
}

/// What an attempt handed over.
fn staged_facts(attempt: &Attempt) -> Vec<Value> {
    let staged = attempt.staged.iter();
    let outputs = staged.flat_map(|staged| &staged.datasets);
    outputs
        .map(|output| {
            json!({
                "dataset": output.dataset, "rows": output.rows,
                "bytes": output.bytes, "digest": output.digest,
            })
        })
        .collect()
}

/// A failure without its message, which may quote what the work said, and that may quote its data:
/// the message is in the run, here is its digest.
fn failure_facts(failure: &Failure) -> Value {
    json!({
        "kind": failure.kind,
        "code": failure.code,
        "message_digest": Digest::of(failure.message.as_bytes()),
    })
}

/// So many crossings are in the entry of a run's end; the submission has all.
const SHOWN_CROSSINGS: usize = 32;

fn end_of_run(run: &Run, plan: &Plan) -> Value {
    let stages = plan.stages.iter();
    let crossings: Vec<Value> = stages
        .flat_map(|stage| {
            let of_stage = stage.crossings.iter();
            of_stage.map(|crossing| {
                json!({
                    "stage": stage.name, "dataset": crossing.dataset, "from": crossing.from,
                    "to": crossing.to, "reason": crossing.reason,
                })
            })
        })
        .collect();
    let shown = crossings.len().min(SHOWN_CROSSINGS);
    json!({
        "crossings": crossings[..shown],
        "crossings_left_out": crossings.len() - shown,
        "run": run_facts(run),
        "state": run.state,
        "submitted_at": run.submitted_at,
        "ended_at": run.ended_at,
        "tasks": run.tasks.iter().map(|task| json!({
            "id": task.id, "stage": task.stage, "partition": task.partition,
            "state": task.state, "attempts": task.attempts.len(),
            "answered_by": task.answered.as_ref().map(|answered| &answered.run),
        })).collect::<Vec<_>>(),
    })
}

/// JSON with object keys sorted by code point and no white space. Numbers are as `serde_json`
/// writes them; evidence holds integers, and decimals as text.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut keys: Vec<&String> = members.keys().collect();
            keys.sort();
            text.push('{');
            for (position, key) in keys.into_iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(&members[key], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        leaf => text.push_str(&leaf.to_string()),
    }
}
