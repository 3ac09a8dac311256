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
    run::{Attempt, AttemptState, Record, Run, outcome::CommittedDataset},
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
    let abandoned = latest.contains_key(EvidenceKind::Abandonment.as_str());
    let mut latest_in_order: Vec<&Signed> = latest.values().collect();
    latest_in_order.sort_by_key(|signed| signed.entry);
    for signed in latest_in_order {
        shown.hold(signed, (&text, abandoned), &mut found);
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

/// What a statement is to be made of once more.
enum Again {
    /// What the run has.
    Of(Record, Vec<CommittedDataset>),
    /// The run has nothing of the kind.
    Missing,
    /// The run keeps nothing of it, or what it keeps is newer.
    Past,
}

impl Shown<'_> {
    /// Holds the run against one statement; `abandoned` says that another one strikes some of it.
    fn hold(
        self,
        signed: &Signed,
        (text, abandoned): (&PlanText, bool),
        found: &mut Vec<Difference>,
    ) {
        let Shown { run, plan, .. } = self;
        let predicate = &signed.statement["predicate"];
        let name = signed.kind.as_str();
        let (record, committed) = match self.again(signed) {
            Again::Of(record, committed) => (record, committed),
            Again::Past => return,
            Again::Missing => {
                return found.push(Difference {
                    entry: Some(signed.entry),
                    what: name.to_owned(),
                    signed: Some(short(predicate)),
                    stored: None,
                });
            }
        };
        let at = predicate["at"].as_str().and_then(|at| at.parse().ok());
        let now = at.unwrap_or(Timestamp::UNIX_EPOCH);
        let again = of_record(&record, run, (plan, text), &committed, now);
        let mut again: Value = serde_json::from_slice(&again.bytes).unwrap_or_default();
        let mut statement = signed.statement.clone();
        let given_up = abandoned && self.is_given_up(&record);
        for side in [&mut again, &mut statement] {
            sort_outputs(side);
            let Some(predicate) = side["predicate"].as_object_mut() else {
                continue;
            };
            if signed.kind == EvidenceKind::Attempt {
                // Which work a task does is told anew with each attempt, and forgotten between two.
                predicate.remove("work");
            }
            if given_up {
                // It had come to something, and that was struck: there is an entry that says so.
                predicate.remove("state");
                predicate.remove("failure");
            }
        }
        compare(
            signed.entry,
            &format!("{name}: "),
            &statement,
            &again,
            found,
        );
    }

    fn again(self, signed: &Signed) -> Again {
        let run = self.run;
        let predicate = &signed.statement["predicate"];
        let id = predicate["task"]["id"].as_str();
        let mut tasks = run.tasks.iter();
        let task = tasks.position(|task| id == Some(&*task.id.to_string()));
        let plain = |record| Again::Of(record, Vec::new());
        match (signed.kind, task) {
            (EvidenceKind::Submission, _) => plain(Record::RunSubmitted),
            (EvidenceKind::Refusal, _) => plain(Record::RunRefused),
            // It may have been taken up again since.
            (EvidenceKind::Run, _) if !run.state.is_final() => Again::Past,
            (EvidenceKind::Run, _) => plain(Record::RunEnded),
            (EvidenceKind::Attempt, Some(task)) => {
                let number = predicate["attempt"].as_u64().unwrap_or_default();
                let mut attempts = run.tasks[task].attempts.iter();
                match attempts.find(|attempt| u64::from(attempt.number) == number) {
                    Some(&Attempt { number, .. }) => plain(Record::AttemptEnded { task, number }),
                    None => Again::Missing,
                }
            }
            (EvidenceKind::Commit, Some(task)) => {
                Again::Of(Record::TaskCommitted { task }, self.outputs_of(task))
            }
            // It may have been decided on anew since.
            (EvidenceKind::Answer, Some(task)) if run.tasks[task].answered.is_none() => Again::Past,
            (EvidenceKind::Answer, Some(task)) => plain(Record::TaskAnswered { task }),
            (EvidenceKind::Attempt | EvidenceKind::Commit | EvidenceKind::Answer, None) => {
                Again::Missing
            }
            // Acts, of which the run keeps nothing.
            _ => Again::Past,
        }
    }

    /// What a task made visible.
    fn outputs_of(self, task: usize) -> Vec<CommittedDataset> {
        let task = &self.run.tasks[task];
        let stage = self.plan.stage(&task.stage);
        let declares = |dataset: &str| {
            let mut outputs = stage.into_iter().flat_map(|stage| &stage.outputs);
            outputs.any(|output| output.dataset.as_str() == dataset)
        };
        let all = self.outputs.iter();
        let of_task = all.filter(|(of, output)| *of == task.partition && declares(&output.dataset));
        of_task.map(|(_, output)| output.clone()).collect()
    }

    fn is_given_up(self, record: &Record) -> bool {
        let Record::AttemptEnded { task, number } = record else {
            return false;
        };
        let mut attempts = self.run.tasks[*task].attempts.iter();
        attempts.any(|of| of.number == *number && of.state == AttemptState::Abandoned)
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
