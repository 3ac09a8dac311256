//! What must hold of every history.

use std::collections::{BTreeMap, BTreeSet};

use barecount_api::assignment::Event;
use barecount_control::{Entries, desk::Memory};
use barecount_model::{
    codes,
    evidence::EvidenceKind,
    id::{RunId, TaskId},
    run::{
        Attempt, AttemptState, Run, Task, TaskState,
        outcome::{AttemptResult, Outcome},
    },
};
use barecount_runner::launch::AttemptToken;

use crate::{Tally, cloud::Cloud, data::Tables, plans};

/// What is remembered of a history, to hold the rest of it against.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// How attempts ended, as it was told; none where they were lost.
    ends: BTreeMap<AttemptToken, Option<Outcome>>,
    /// Tasks whose work is done, and by which attempt.
    done: BTreeMap<TaskId, u32>,
    /// The ledger, as it heard.
    ledger: Vec<Vec<u8>>,
    /// Tasks of which it is known that the work was done that answers them.
    answered: BTreeSet<TaskId>,
}

type Holds = Result<(), String>;

fn hold(holds: bool, what: impl FnOnce() -> String) -> Holds {
    if holds { Ok(()) } else { Err(what()) }
}

impl Witness {
    /// An attempt ends once: whatever is told of it again is the same, where its end is `kept` on the
    /// disk of its host. A failure that could not be kept is told all the same, and may be forgotten;
    /// a success is told only once it is kept.
    pub(crate) fn hear(&mut self, event: &Event, kept: bool) -> Holds {
        let token = event.attempt().token();
        let end = match event {
            Event::Ended { outcome, .. } => Some(Outcome::clone(outcome)),
            Event::Lost { .. } => None,
            Event::Provisioning { .. } | Event::Started { .. } | Event::Swept { .. } => {
                return Ok(());
            }
        };
        if let Some(AttemptResult::Failed(failure)) = end.as_ref().map(|end| &end.result) {
            hold(failure.code != codes::IDENTITY_INVALID.id, || {
                format!("the identity of {token} is refused: {}", failure.message)
            })?;
        }
        if let Some(before) = self.ends.get(&token) {
            return hold(*before == end, || {
                format!("attempt {token} ended in two ways: {before:?} and {end:?}")
            });
        }
        let done = |outcome: &Outcome| matches!(outcome.result, AttemptResult::Done(_));
        if end.is_some() && !kept {
            return hold(!end.as_ref().is_some_and(done), || {
                format!("attempt {token} is told as done, and its host may forget it")
            });
        }
        if end.as_ref().is_some_and(done) {
            self.done.insert(token.task.clone(), token.number);
        }
        self.ends.insert(token, end);
        Ok(())
    }

    /// The disk is gone that kept how an attempt ended.
    pub(crate) fn forget(&mut self, token: &AttemptToken) {
        self.ends.remove(token);
        if self.done.get(&token.task) == Some(&token.number) {
            self.done.remove(&token.task);
        }
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

    /// What holds at every moment outside of the control plane.
    pub(crate) fn of_world(&self, cloud: &Cloud, tables: &Tables) -> Holds {
        let twice = cloud
            .twice()
            .map(|token| format!("{token} began beside another attempt of its task, or twice"));
        twice.or_else(|| tables.wrong()).map_or(Ok(()), Err)
    }

    /// What holds whenever something has become durable.
    pub(crate) fn durable(&mut self, memory: &Memory, tally: &mut Tally) -> Holds {
        let caps = plans::caps();
        let mut total = 0;
        let mut classes = BTreeMap::new();
        let mut tokens = BTreeSet::new();
        let mut answers = Vec::new();
        memory.each_run(|run, plan| {
            hold(tokens.insert(run.token.clone()), || {
                format!("token {} has two runs", run.token)
            })?;
            let mut stages: BTreeMap<&String, u32> = BTreeMap::new();
            for task in &run.tasks {
                self.done_once(task)?;
                if let Some(answered) = &task.answered
                    && !self.answered.contains(&task.id)
                {
                    answers.push((task.id.clone(), answered.task.clone()));
                }
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
        for (task, by) in answers {
            tally.answered += 1;
            answered_by_work(memory, &task, &by)?;
            self.answered.insert(task);
        }
        Ok(())
    }

    fn done_once(&self, task: &Task) -> Holds {
        let done = self.done.get(&task.id).copied();
        let current = task.current().map_or(0, |attempt| attempt.number);
        let given_up = task.attempts.iter();
        let mut given_up = given_up.filter(|attempt| attempt.state == AttemptState::Abandoned);
        let holds = done
            .is_none_or(|done| current <= done || given_up.any(|attempt| attempt.number == done));
        hold(holds, || {
            format!(
                "{} was done, and is done again by attempt {current}",
                task.id
            )
        })?;
        let standing = |attempt: &&Attempt| {
            attempt.staged.is_some() && attempt.state != AttemptState::Abandoned
        };
        let decided = task.attempts.iter().filter(standing).count();
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
        let mut committed = BTreeSet::new();
        for (dataset, versions) in tables.versions() {
            for writer in versions {
                let new = committed.insert((dataset.clone(), writer.clone()));
                hold(new, || format!("{writer} was committed to {dataset} twice"))?;
            }
        }
        memory.each_run(|run, _| {
            recorded(run, &evidence)?;
            for (index, task) in run.tasks.iter().enumerate() {
                let visible = outputs
                    .iter()
                    .filter(|(of, at, _)| (of, *at) == (&run.id, index))
                    .count();
                let own = task.state == TaskState::Succeeded && task.answered.is_none();
                hold(visible == usize::from(own), || {
                    format!("{} is {:?} with {visible} outputs", task.id, task.state)
                })?;
                one_outcome(task, &committed)?;
            }
            Ok(())
        })
    }
}

/// What answers a task is work that was done, and of which a table has what it wrote.
fn answered_by_work(memory: &Memory, task: &TaskId, by: &TaskId) -> Holds {
    let (mut of, mut done) = (None, None);
    memory.each_run(|run, _| {
        of = of
            .take()
            .or_else(|| run.tasks.iter().find(|at| at.id == *task).cloned());
        done = done
            .take()
            .or_else(|| run.tasks.iter().find(|at| at.id == *by).cloned());
        Ok::<(), String>(())
    })?;
    let key = |task: &Option<Task>| Some(task.as_ref()?.work.as_ref()?.key);
    let committed = done.as_ref().and_then(Task::current);
    let committed = committed.is_some_and(|attempt| attempt.committed_at.is_some());
    hold(
        key(&of).is_some() && key(&of) == key(&done) && committed,
        || format!("{task} is answered by {by}, which did not do its work"),
    )
}

/// A task that succeeded has what its last attempt wrote in its table, and no other has anything.
fn one_outcome(task: &Task, committed: &BTreeSet<(String, String)>) -> Holds {
    let name = |number| {
        let task = task.id.clone();
        AttemptToken { task, number }.to_string()
    };
    for attempt in &task.attempts {
        let writer = name(attempt.number);
        let in_tables = committed.iter().filter(|(_, by)| *by == writer).count();
        let last = Some(attempt.number) == task.current().map(|current| current.number);
        let own = task.state == TaskState::Succeeded && task.answered.is_none();
        let wanted = usize::from(last && own);
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
    let answered = run.tasks.iter().filter(|task| task.answered.is_some());
    let answered = answered.count();
    let succeeded = run.tasks.iter();
    let succeeded = succeeded.filter(|task| task.state == TaskState::Succeeded);
    let ends = kinds
        .iter()
        .filter(|kind| matches!(kind, EvidenceKind::Run | EvidenceKind::Resumption));
    // It ends, is taken up again, ends again, and so on.
    let in_turns = ends
        .enumerate()
        .all(|(at, kind)| (at % 2 == 0) == (*kind == EvidenceKind::Run));
    let whole = kinds.first() == Some(&EvidenceKind::Submission)
        && kinds.last() == Some(&EvidenceKind::Run)
        && in_turns
        && count(EvidenceKind::Submission) == 1
        && count(EvidenceKind::Attempt) == attempts
        && count(EvidenceKind::Answer) == answered
        && count(EvidenceKind::Commit) + answered == succeeded.count();
    hold(whole, || format!("the evidence of {} is {kinds:?}", run.id))
}
