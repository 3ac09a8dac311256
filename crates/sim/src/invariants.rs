//! What must hold of every history.

use std::collections::{BTreeMap, BTreeSet};

use barecount_api::assignment::Event;
use barecount_control::{Entries, desk::Memory};
use barecount_model::{
    codes,
    evidence::{self, EvidenceKind, Shown},
    id::{RunId, TaskId},
    plan::Plan,
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
    /// Tasks that were to be decided on anew, with the last attempt that does not count any more.
    reopened: BTreeMap<TaskId, u32>,
    /// How often tasks of a run were to be.
    reopenings: BTreeMap<RunId, usize>,
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

    /// A task of a run, and all that need it, are to be decided on anew: work that is done is done
    /// again.
    pub(crate) fn reopens(&mut self, run: &Run, task: usize) {
        *self.reopenings.entry(run.id.clone()).or_default() += 1;
        let mut open = BTreeSet::from([task]);
        for (index, task) in run.tasks.iter().enumerate() {
            if task.needs.iter().any(|need| open.contains(need)) {
                open.insert(index);
            }
            if open.contains(&index) && task.state == TaskState::Succeeded {
                let last = task.current().map_or(0, |attempt| attempt.number);
                self.reopened.insert(task.id.clone(), last);
            }
        }
    }

    /// Whether an attempt's task was to be decided on anew since.
    fn is_superseded(&self, task: &TaskId, number: u32) -> bool {
        self.reopened.get(task).is_some_and(|last| number <= *last)
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
            let mut stages: BTreeMap<&str, u32> = BTreeMap::new();
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
        let holds = done.is_none_or(|done| {
            current <= done
                || self.is_superseded(&task.id, done)
                || given_up.any(|attempt| attempt.number == done)
        });
        hold(holds, || {
            format!(
                "{} was done, and is done again by attempt {current}",
                task.id
            )
        })?;
        let standing = |attempt: &&Attempt| {
            attempt.staged.is_some()
                && attempt.state != AttemptState::Abandoned
                && !self.is_superseded(&task.id, attempt.number)
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
        memory.each_run(|run, plan| {
            self.recorded(run, &evidence)?;
            self.as_signed(run, plan, &evidence)?;
            for (index, task) in run.tasks.iter().enumerate() {
                let visible = outputs
                    .iter()
                    .filter(|(of, at, _)| (of, *at) == (&run.id, index))
                    .count();
                let own = task.state == TaskState::Succeeded && task.answered.is_none();
                let superseded = task.attempts.iter().filter(|attempt| {
                    let current = Some(attempt.number) == task.current().map(|at| at.number);
                    attempt.committed_at.is_some() && !(own && current)
                });
                let superseded = superseded
                    .filter(|attempt| self.is_superseded(&task.id, attempt.number))
                    .count();
                hold(visible == usize::from(own) + superseded, || {
                    format!("{} is {:?} with {visible} outputs", task.id, task.state)
                })?;
                self.one_outcome(task, &committed)?;
            }
            Ok(())
        })
    }

    /// A task that succeeded has what its last attempt wrote in its table, and no other has anything,
    /// but for those that were committed before the task was decided on anew.
    fn one_outcome(&self, task: &Task, committed: &BTreeSet<(String, String)>) -> Holds {
        let own = task.state == TaskState::Succeeded && task.answered.is_none();
        let last = task.current().map(|current| current.number);
        for attempt in &task.attempts {
            let number = attempt.number;
            let token = AttemptToken {
                task: task.id.clone(),
                number,
            };
            let writer = token.to_string();
            let in_tables = committed.iter().filter(|(_, by)| *by == writer).count();
            let before = attempt.committed_at.is_some() && self.is_superseded(&task.id, number);
            let wanted = usize::from(own && last == Some(number) || before);
            hold(in_tables == wanted, || {
                format!("{writer} has {in_tables} versions in tables, of {wanted}")
            })?;
        }
        Ok(())
    }

    /// What was signed of a run can be told from what there is of it, member by member. What it
    /// committed is not told here: tables have it.
    fn as_signed(
        &self,
        run: &Run,
        plan: &Plan,
        evidence: &[(EvidenceKind, Option<RunId>)],
    ) -> Holds {
        let of_run = |(kind, of): &(EvidenceKind, Option<RunId>)| {
            of.as_ref() == Some(&run.id) && *kind != EvidenceKind::Commit
        };
        let entries = (0..).zip(&self.ledger).zip(evidence);
        let of_run = entries.filter(|(_, what)| of_run(what));
        let statements = of_run.map(|((index, bytes), _)| (index, &**bytes));
        let shown = Shown {
            run,
            plan,
            outputs: &[],
        };
        let differences = evidence::differences(shown, statements, true);
        let differences = differences.map_err(|error| error.to_string())?;
        hold(differences.is_empty(), || {
            format!("{} is not what was signed: {differences:#?}", run.id)
        })
    }

    /// Every run has its evidence: once, and in order.
    fn recorded(&self, run: &Run, evidence: &[(EvidenceKind, Option<RunId>)]) -> Holds {
        let of_run = evidence
            .iter()
            .filter(|(_, of)| of.as_ref() == Some(&run.id));
        let kinds: Vec<EvidenceKind> = of_run.map(|(kind, _)| *kind).collect();
        let count = |wanted| kinds.iter().filter(|kind| **kind == wanted).count();
        let attempts = || run.tasks.iter().flat_map(|task| &task.attempts);
        let answered = run.tasks.iter().filter(|task| task.answered.is_some());
        let answered = answered.count();
        let succeeded = run.tasks.iter();
        let succeeded = succeeded.filter(|task| task.state == TaskState::Succeeded);
        let reopenings = self.reopenings.get(&run.id).copied().unwrap_or(0);
        let results = if reopenings == 0 {
            count(EvidenceKind::Answer) == answered
                && count(EvidenceKind::Commit) + answered == succeeded.count()
        } else {
            // What does not count any more stays in evidence.
            let committed = attempts().filter(|attempt| attempt.committed_at.is_some());
            count(EvidenceKind::Answer) >= answered
                && count(EvidenceKind::Commit) == committed.count()
        };
        let whole = kinds.first() == Some(&EvidenceKind::Submission)
            && kinds.last() == Some(&EvidenceKind::Run)
            && in_turns(&kinds, reopenings)
            && count(EvidenceKind::Submission) == 1
            && count(EvidenceKind::Attempt) == attempts().count()
            && results;
        hold(whole, || format!("the evidence of {} is {kinds:?}", run.id))
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
    // It may be that it is done anew by now.
    let mut attempts = done.iter().flat_map(|task| &task.attempts);
    let committed = attempts.any(|attempt| attempt.committed_at.is_some());
    hold(
        key(&of).is_some() && key(&of) == key(&done) && committed,
        || format!("{task} is answered by {by}, which did not do its work"),
    )
}

/// A run ends, is taken up again, ends again, and so on. While it is open it may be taken up so often
/// besides.
fn in_turns(kinds: &[EvidenceKind], besides: usize) -> bool {
    let (mut open, mut taken_up) = (true, 0);
    for kind in kinds {
        match kind {
            EvidenceKind::Run if open => open = false,
            EvidenceKind::Run => return false,
            EvidenceKind::Resumption if open => taken_up += 1,
            EvidenceKind::Resumption => open = true,
            _ => {}
        }
    }
    taken_up <= besides
}
