//! A run as a store has it, held against what was signed of it.
//!
//! A statement is a function of the run, its plan and what it committed. So what was signed is made
//! once more of what the store has, and has to be the same.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{EvidenceKind, PlanText, of_record};
use crate::{
    plan::Plan,
    run::{Record, Run, outcome::CommittedDataset},
};

/// So many are told.
const MOST: usize = 32;

/// Where a run is not what was signed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The entry; none where none says it.
    pub entry: Option<u64>,
    /// Which statement, and which member of it: `attempt: predicate/exit_code`.
    pub what: String,
    /// What was signed, as JSON; none where nothing was.
    pub signed: Option<String>,
    /// What the store has, as JSON; none where it has nothing.
    pub stored: Option<String>,
}

/// What a store has of a run.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The run.
    pub run: &'a Run,
    /// What it carries out.
    pub plan: &'a Plan,
    /// What its tasks made visible, each with its task's partition.
    pub outputs: &'a [(Option<String>, CommittedDataset)],
}

/// A statement that a run is held against.
struct Signed {
    entry: u64,
    kind: EvidenceKind,
    statement: Value,
}

/// Where a run is not what its statements say, in the order of the ledger. Each comes with its index;
/// `all` tells that there are no others, so that what none of them says was never signed.
///
/// # Errors
/// If a statement is not JSON.
pub fn differences<'s>(
    shown: Shown<'_>,
    statements: impl IntoIterator<Item = (u64, &'s [u8])>,
    all: bool,
) -> Result<Vec<Difference>, serde_json::Error> {
    let mut found = Vec::new();
    let mut latest: BTreeMap<String, Signed> = BTreeMap::new();
    for (entry, bytes) in statements {
        let statement: Value = serde_json::from_slice(bytes)?;
        let kind = EvidenceKind::ALL
            .into_iter()
            .find(|kind| statement["predicateType"] == kind.predicate_type());
        if let Some(kind) = kind {
            let signed = Signed {
                entry,
                kind,
                statement,
            };
            // What was decided on anew stands as it was signed last.
            latest.insert(about(&signed), signed);
        }
    }
    let text = PlanText::of(shown.plan);
    let mut latest_in_order: Vec<&Signed> = latest.values().collect();
    latest_in_order.sort_by_key(|signed| signed.entry);
    for signed in latest_in_order {
        shown.hold(signed, &text, &mut found);
    }
    if all {
        shown.unsigned(&latest, &mut found);
    }
    found.truncate(MOST);
    Ok(found)
}

/// What a statement is about: the run itself, or one of its tasks and attempts.
fn about(signed: &Signed) -> String {
    let predicate = &signed.statement["predicate"];
    match signed.kind {
        EvidenceKind::Attempt => attempt_key(
            predicate["task"]["id"].as_str().unwrap_or_default(),
            predicate["attempt"].as_u64().unwrap_or_default(),
        ),
        EvidenceKind::Commit | EvidenceKind::Answer => {
            let task = predicate["task"]["id"].as_str().unwrap_or_default();
            format!("{} {task}", signed.kind.as_str())
        }
        kind => kind.as_str().to_owned(),
    }
}

fn attempt_key(task: &str, number: u64) -> String {
    format!("attempt {task} {number}")
}

impl Shown<'_> {
    /// Holds the run against one statement.
    fn hold(self, signed: &Signed, text: &PlanText, found: &mut Vec<Difference>) {
        let Shown { run, plan, outputs } = self;
        let predicate = &signed.statement["predicate"];
        let task = || {
            let id = predicate["task"]["id"].as_str();
            run.tasks
                .iter()
                .position(|task| id == Some(&*task.id.to_string()))
        };
        let mut committed = Vec::new();
        let record = match signed.kind {
            EvidenceKind::Submission => Some(Record::RunSubmitted),
            EvidenceKind::Refusal => Some(Record::RunRefused),
            // It may have been taken up again since.
            EvidenceKind::Run if !run.state.is_final() => return,
            EvidenceKind::Run => Some(Record::RunEnded),
            EvidenceKind::Attempt => task().and_then(|task| {
                let number = u32::try_from(predicate["attempt"].as_u64()?).ok()?;
                let mut attempts = run.tasks[task].attempts.iter();
                attempts.find(|attempt| attempt.number == number)?;
                Some(Record::AttemptEnded { task, number })
            }),
            EvidenceKind::Commit => task().map(|task| {
                let of = &run.tasks[task];
                let own = |partition: &Option<String>, dataset: &str| {
                    let mut outputs = plan.stage(&of.stage).into_iter().flat_map(|of| &of.outputs);
                    *partition == of.partition
                        && outputs.any(|output| output.dataset.as_str() == dataset)
                };
                let all = outputs.iter();
                let of_task = all.filter(|(partition, output)| own(partition, &output.dataset));
                committed = of_task.map(|(_, output)| output.clone()).collect();
                Record::TaskCommitted { task }
            }),
            EvidenceKind::Answer => task().map(|task| Record::TaskAnswered { task }),
            // Acts, of which the run keeps nothing.
            _ => return,
        };
        let name = signed.kind.as_str();
        let Some(record) = record else {
            return found.push(Difference {
                entry: Some(signed.entry),
                what: name.to_owned(),
                signed: Some(short(predicate)),
                stored: None,
            });
        };
        let at = predicate["at"].as_str().and_then(|at| at.parse().ok());
        let now = at.unwrap_or(Timestamp::UNIX_EPOCH);
        let again = of_record(&record, run, (plan, text), &committed, now);
        let mut again: Value = serde_json::from_slice(&again.bytes).unwrap_or_default();
        let mut statement = signed.statement.clone();
        for side in [&mut again, &mut statement] {
            sort_outputs(side);
            // Which work a task does is told anew with each attempt, and forgotten between two.
            if signed.kind == EvidenceKind::Attempt
                && let Some(predicate) = side["predicate"].as_object_mut()
            {
                predicate.remove("work");
            }
        }
        let path = format!("{name}: ");
        compare(signed.entry, &path, &statement, &again, found);
    }

    /// What the run has that nobody signed.
    fn unsigned(self, signed: &BTreeMap<String, Signed>, found: &mut Vec<Difference>) {
        let run = self.run;
        let has = |kind: EvidenceKind| signed.contains_key(kind.as_str());
        let mut never = |what: String, stored: String| {
            found.push(Difference {
                entry: None,
                what,
                signed: None,
                stored: Some(stored),
            });
        };
        if !has(EvidenceKind::Submission) && !has(EvidenceKind::Refusal) {
            never("submission".to_owned(), run.id.to_string());
        }
        let ended = run.state.is_final() && !has(EvidenceKind::Refusal);
        if ended && !has(EvidenceKind::Run) {
            never("run".to_owned(), run.state.as_str().to_owned());
        }
        for task in &run.tasks {
            let id = task.id.to_string();
            for attempt in task.attempts.iter().filter(|of| of.ended_at.is_some()) {
                if !signed.contains_key(&attempt_key(&id, attempt.number.into())) {
                    never(
                        "attempt".to_owned(),
                        format!("attempt {} of {}", attempt.number, task.stage),
                    );
                }
            }
        }
        for (_, output) in self.outputs {
            let says = |signed: &Signed| {
                let outputs = signed.statement["predicate"]["outputs"].as_array();
                let mut outputs = outputs.into_iter().flatten();
                signed.kind == EvidenceKind::Commit
                    && outputs.any(|of| of["dataset"] == output.dataset.as_str())
            };
            if !signed.values().any(says) {
                never(
                    "commit".to_owned(),
                    format!("{} version {}", output.dataset, output.version),
                );
            }
        }
    }
}

/// A store has no order of what a task committed.
fn sort_outputs(statement: &mut Value) {
    let name = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    if let Some(outputs) = statement["predicate"]["outputs"].as_array_mut() {
        outputs.sort_by_key(|output| name(output, "dataset"));
    }
    if let Some(subjects) = statement["subject"].as_array_mut() {
        subjects.sort_by_key(|subject| name(subject, "name"));
    }
}

fn compare(entry: u64, path: &str, signed: &Value, stored: &Value, found: &mut Vec<Difference>) {
    if found.len() >= MOST || signed == stored {
        return;
    }
    match (signed, stored) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let only_theirs = theirs.keys().filter(|key| !ours.contains_key(*key));
            for key in ours.keys().chain(only_theirs) {
                let (signed, stored) = (&signed[key.as_str()], &stored[key.as_str()]);
                compare(entry, &member(path, key), signed, stored, found);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (index, (signed, stored)) in ours.iter().zip(theirs).enumerate() {
                compare(
                    entry,
                    &member(path, &index.to_string()),
                    signed,
                    stored,
                    found,
                );
            }
        }
        _ => found.push(Difference {
            entry: Some(entry),
            what: path.to_owned(),
            signed: Some(short(signed)),
            stored: Some(short(stored)),
        }),
    }
}

fn member(path: &str, key: &str) -> String {
    match path.ends_with(' ') {
        true => format!("{path}{key}"),
        false => format!("{path}/{key}"),
    }
}

/// A value as JSON, cut where it is long.
fn short(value: &Value) -> String {
    const LONG: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
