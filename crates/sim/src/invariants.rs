//! What must hold of every history.

use std::collections::{BTreeMap, BTreeSet};

use barecount_agent::StagingFolders;
use barecount_api::assignment::Event;
use barecount_control::{Entries, desk::Memory};
use barecount_model::{
    evidence::EvidenceKind,
    id::{RunId, TaskId},
    run::{
        Run, Task, TaskState,
        outcome::{AttemptResult, Outcome},
    },
};
use barecount_runner::launch::AttemptToken;

use crate::{cloud::Cloud, data::Tables, plans};

/// What is remembered of a history, to hold the rest of it against.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// How attempts ended, as it was told; none where they were lost.
    ends: BTreeMap<AttemptToken, Option<Outcome>>,
    /// Tasks whose work is done, and by which attempt.
    done: BTreeMap<TaskId, u32>,
    /// The ledger, as it heard.
    ledger: Vec<Vec<u8>>,
}

type Holds = Result<(), String>;

fn hold(holds: bool, what: impl FnOnce() -> String) -> Holds {
    if holds { Ok(()) } else { Err(what()) }
}

impl Witness {
    /// An attempt ends once: whatever is told of it again is the same.
    pub(crate) fn hear(&mut self, event: &Event) -> Holds {
        let token = event.attempt().token();
        let end = match event {
            Event::Ended { outcome, .. } => Some(Outcome::clone(outcome)),
            Event::Lost { .. } => None,
            Event::Started { .. } | Event::Swept { .. } => return Ok(()),
        };
        if let Some(outcome) = &end
            && matches!(outcome.result, AttemptResult::Done(_))
        {
            self.done.insert(token.task.clone(), token.number);
        }
        let before = self.ends.entry(token.clone()).or_insert(end.clone());
        hold(*before == end, || {
            format!("attempt {token} ended in two ways: {before:?} and {end:?}")
        })
    }

    /// The ledger takes what it hears: the next entries, or again what it has.
    pub(crate) fn enter(&mut self, entries: Entries) -> Holds {
        let Entries { first, bytes } = entries;
        for (index, bytes) in (first..).zip(bytes) {
            let at = usize::try_from(index).map_err(|error| error.to_string())?;
            match self.ledger.get(at) {
                Some(known) => hold(*known == bytes, || {
                    format!("entry {index} of the ledger is told as two")
                })?,
                None => {
                    hold(at == self.ledger.len(), || {
                        let length = self.ledger.len();
                        format!("the ledger has {length} entries and hears of entry {index}")
                    })?;
                    self.ledger.push(bytes);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn length(&self) -> u64 {
        self.ledger.len() as u64
    }

    /// What holds whenever something has become durable.
    pub(crate) fn durable(&self, memory: &Memory) -> Holds {
        let caps = plans::caps();
        let mut total = 0;
        let mut classes = BTreeMap::new();
        let mut tokens = BTreeSet::new();
        memory.each_run(|run, plan| {
            hold(tokens.insert(run.token.clone()), || {
                format!("token {} has two runs", run.token)
            })?;
            let mut stages: BTreeMap<&String, u32> = BTreeMap::new();
            for task in &run.tasks {
                self.done_once(task)?;
                if task.state != TaskState::Active {
                    continue;
                }
                total += 1;
                *classes.entry(task.class.as_str()).or_insert(0_usize) += 1;
                let in_stage = stages.entry(&task.stage).or_default();
                *in_stage += 1;
                let cap = plan.stage(&task.stage).map_or(0, |s| s.concurrency_limit);
                hold(*in_stage <= cap, || {
                    format!("{in_stage} tasks of stage {} at once", task.stage)
                })?;
            }
            Ok::<(), String>(())
        })?;
        hold(total <= caps.total, || format!("{total} tasks at once"))?;
        for (class, cap) in &caps.class {
            let of_class = classes.get(class.as_str()).copied().unwrap_or(0);
            hold(of_class <= *cap, || {
                format!("{of_class} tasks of class {class} at once")
            })?;
        }
        Ok(())
    }

    fn done_once(&self, task: &Task) -> Holds {
        let done = self.done.get(&task.id).copied();
        let current = task.current().map_or(0, |attempt| attempt.number);
        hold(done.is_none_or(|done| current <= done), || {
            format!(
                "{} was done, and is done again by attempt {current}",
                task.id
            )
        })?;
        let decided = task.attempts.iter().filter(|a| a.staged.is_some()).count();
        hold(decided <= 1, || format!("{} was decided twice", task.id))
    }

    /// What holds when everything is over.
    pub(crate) fn at_the_end(&self, memory: &Memory, tables: &Tables) -> Holds {
        hold(memory.is_as_rebuilt(), || {
            "what can be asked is not what the journal says".to_owned()
        })?;
        hold(self.ledger == memory.entries(), || {
            "the ledger has not heard everything".to_owned()
        })?;
        let (evidence, outputs) = (memory.evidence(), memory.outputs());
        let mut committed = BTreeMap::new();
        for (dataset, versions) in tables.versions() {
            for writer in versions {
                let before = committed.insert((dataset.clone(), writer.clone()), ());
                hold(before.is_none(), || {
                    format!("{writer} was committed to {dataset} twice")
                })?;
            }
        }
        memory.each_run(|run, _| {
            recorded(run, &evidence)?;
            for (index, task) in run.tasks.iter().enumerate() {
                let visible = outputs
                    .iter()
                    .filter(|(of, at, _)| (of, *at) == (&run.id, index))
                    .count();
                let succeeded = usize::from(task.state == TaskState::Succeeded);
                hold(visible == succeeded, || {
                    format!("{} is {:?} with {visible} outputs", task.id, task.state)
                })?;
                one_outcome(task, &committed)?;
            }
            Ok(())
        })
    }
}

/// A task that succeeded has what its last attempt wrote in its table, and no other has anything.
fn one_outcome(task: &Task, committed: &BTreeMap<(String, String), ()>) -> Holds {
    let name = |number| {
        let task = task.id.clone();
        AttemptToken { task, number }.to_string()
    };
    for attempt in &task.attempts {
        let writer = name(attempt.number);
        let in_tables = committed.keys().filter(|(_, by)| *by == writer).count();
        let last = Some(attempt.number) == task.current().map(|current| current.number);
        let wanted = usize::from(last && task.state == TaskState::Succeeded);
        hold(in_tables == wanted, || {
            format!("{writer} has {in_tables} versions in tables, of {wanted}")
        })?;
    }
    Ok(())
}

/// Every run has its evidence: once, and in order.
fn recorded(run: &Run, evidence: &[(EvidenceKind, Option<RunId>)]) -> Holds {
    let of_run = evidence
        .iter()
        .filter(|(_, of)| of.as_ref() == Some(&run.id));
    let kinds: Vec<EvidenceKind> = of_run.map(|(kind, _)| *kind).collect();
    let count = |wanted| kinds.iter().filter(|kind| **kind == wanted).count();
    let attempts: usize = run.tasks.iter().map(|task| task.attempts.len()).sum();
    let succeeded = run.tasks.iter();
    let succeeded = succeeded.filter(|task| task.state == TaskState::Succeeded);
    let whole = kinds.first() == Some(&EvidenceKind::Submission)
        && kinds.last() == Some(&EvidenceKind::Run)
        && count(EvidenceKind::Submission) == 1
        && count(EvidenceKind::Run) == 1
        && count(EvidenceKind::Attempt) == attempts
        && count(EvidenceKind::Commit) == succeeded.count();
    hold(whole, || format!("the evidence of {} is {kinds:?}", run.id))
}

/// What holds at every moment of the backend.
pub(crate) fn of_backend(cloud: &Cloud) -> Holds {
    cloud.twice().map_or(Ok(()), |token| {
        Err(format!(
            "{token} began beside another attempt of its task, or twice"
        ))
    })
}

/// What is left of attempts, in the backend and on the agent's disk.
pub(crate) fn left_over(cloud: &Cloud, folders: &StagingFolders) -> Result<Vec<String>, String> {
    let mut names = folders.names().map_err(|error| error.to_string())?;
    names.extend(cloud.held().iter().map(ToString::to_string));
    names.sort();
    names.dedup();
    Ok(names)
}
