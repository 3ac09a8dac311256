//! What is to be done for the runs that somebody asks for, decided from what is known of them.
//!
//! Pure: no input or output, and no clock. [`Reconciler::step`] is told what came to pass and
//! answers with what is to be done ([`Todo`]). Nothing that it remembers matters for long: what is
//! left to do follows from the runs' states, and a thing that was to be done and shows no effect is
//! said again after a while, so that any of them may be lost, or done twice.
//!
//! One decision, one file: `place`, what becomes of tasks that could be placed; `turn`, what a
//! run's state asks for; `record`, what attempts told, until it is durable.

mod capacity;
mod place;
mod record;
#[cfg(test)]
mod tests;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use barecount_model::{
    id::RunId,
    run::{Answered, WaitingReason, outcome::CommittedDataset},
    work::Work,
};
use jiff::Timestamp;

use self::{capacity::Busy, record::Reports, turn::Watched};
pub use self::{
    capacity::{Caps, is_guarded},
    record::{Report, ReportKind},
};
use crate::{
    error::CommandError,
    shard::Verb,
    told::{Fenced, Update},
};

/// What came to pass.
#[derive(Debug, Clone)]
pub enum Input {
    /// Somebody asks for runs: they are worked on from now on, until they have ended. What several
    /// have under way has to be known before anything more is placed, so a process that begins asks
    /// for all of them at once.
    Followed {
        /// The runs.
        runs: Vec<Update>,
        /// Whether the same process has submitted them: then nobody else has begun their attempts.
        new: bool,
    },
    /// A run has changed; nothing follows from that where nobody asked for it.
    Changed(Update),
    /// The agent is another process than before, and knows of no attempt: those that are open have
    /// to be looked for.
    AgentBegan,
    /// An attempt has told something.
    Told {
        /// The attempt.
        attempt: Fenced,
        /// What.
        report: Report,
    },
    /// What came of [`Todo::Record`].
    Recorded {
        /// The attempt.
        attempt: Fenced,
        /// Which report of it.
        kind: ReportKind,
        /// The control plane's answer.
        result: Result<(), CommandError>,
    },
    /// Nothing is left of an attempt that has ended.
    Swept(Fenced),
    /// An attempt could not be given to the agent.
    NotGiven {
        /// The attempt.
        attempt: Fenced,
        /// Why, for a person.
        reason: String,
    },
    /// What came of [`Todo::Look`].
    Looked {
        /// The run.
        run: RunId,
        /// The task's index.
        task: usize,
        /// What was found.
        found: Found,
    },
    /// What came of [`Todo::Decide`].
    Decided {
        /// The run.
        run: RunId,
        /// The task's index.
        task: usize,
        /// The control plane's answer.
        result: Result<Update, CommandError>,
    },
    /// What came of [`Todo::RollForward`].
    RolledForward {
        /// The attempt.
        attempt: Fenced,
        /// What the decision became, or why it became nothing.
        result: Result<Vec<CommittedDataset>, Unrolled>,
    },
    /// Time has passed: what was due by now is looked at.
    Passed,
}

/// What was found out about a task that could be placed.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing stands in its way, and this is its work, where that can be told.
    Clear(Option<Box<Work>>),
    /// Its work has been done, and stands.
    Done(Box<Work>, Answered),
    /// Something outside of the platform is not ready.
    Blocked(WaitingReason),
    /// Nobody can tell, for this reason.
    Unknown(String),
}

/// Why a commit decision was not rolled forward.
#[derive(Debug, Clone)]
pub struct Unrolled {
    /// The code of what happened.
    pub code: &'static str,
    /// What happened, for a person.
    pub reason: String,
}

/// What becomes of a task that could be placed.
#[derive(Debug, Clone)]
pub enum Decision {
    /// Its next attempt is opened, for this work where it is known.
    Place(Option<Box<Work>>),
    /// It is put off.
    Hold(WaitingReason),
    /// It is complete: its work has been done.
    Answer(Box<Work>, Answered),
}

impl Decision {
    pub(crate) fn verb(self, task: usize) -> Verb {
        match self {
            Self::Place(work) => Verb::Place { task, work },
            Self::Hold(reason) => Verb::Hold { task, reason },
            Self::Answer(work, answered) => Verb::Answer {
                task,
                work,
                answered,
            },
        }
    }
}

/// One thing to be done. Doing it twice does no harm; where it is not done, it is said again.
#[derive(Debug, Clone)]
pub enum Todo {
    /// Find out what stands in a task's way; told by [`Input::Looked`].
    Look {
        /// The run.
        run: RunId,
        /// The task's index.
        task: usize,
    },
    /// Make this decision about a task durable; told by [`Input::Decided`].
    Decide {
        /// The run.
        run: RunId,
        /// The task's index.
        task: usize,
        /// The decision.
        decision: Decision,
    },
    /// Have the agent carry an attempt out. It has been told of it by nobody but the same agent's
    /// own control plane.
    Launch(Fenced),
    /// Have the agent find out what became of an attempt, and go on with it.
    Recover(Fenced),
    /// Have the agent stop an attempt.
    Stop {
        /// The attempt.
        attempt: Fenced,
        /// How long its work may take to stop.
        grace: Duration,
    },
    /// Have the agent clean up after an attempt; told by [`Input::Swept`].
    Sweep(Fenced),
    /// Tell the agent that an attempt's end is durable.
    Acknowledge(Fenced),
    /// Tell the agent that a run has ended.
    Release(RunId),
    /// Make what an attempt told durable; told by [`Input::Recorded`].
    Record {
        /// The attempt.
        attempt: Fenced,
        /// What it told.
        report: Report,
    },
    /// Roll an attempt's commit decision forward; told by [`Input::RolledForward`].
    RollForward(Fenced),
    /// Tell those who watch that a run has changed.
    Announce(Update),
    /// Tell those who watch that the platform itself fails. It is tried again all the same.
    Complain(Trouble),
}

/// The platform itself fails; nothing is lost, but something does not go on.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// What was decided, or what an attempt told, cannot be written down.
    NotDurable(CommandError),
    /// What stands in a task's way cannot be told.
    NotPlaced {
        /// The run.
        run: RunId,
        /// The task's index.
        task: usize,
        /// Why.
        reason: String,
    },
    /// An attempt cannot be given to the agent.
    NotGiven {
        /// The attempt.
        attempt: Fenced,
        /// Why.
        reason: String,
    },
    /// A task's outputs are decided for but not committed.
    NotRolledForward {
        /// The attempt.
        attempt: Fenced,
        /// Why.
        error: Unrolled,
    },
}

/// Decides what is to be done.
#[derive(Debug)]
pub struct Reconciler {
    caps: Caps,
    runs: BTreeMap<RunId, Watched>,
    /// Runs with tasks that could be placed, in the order in which they were asked for.
    waiting: BTreeMap<u64, RunId>,
    asked: u64,
    busy: Busy,
    alarms: BTreeSet<(Timestamp, RunId)>,
    reports: Reports,
    todo: Vec<Todo>,
}

impl Reconciler {
    /// One that nobody has asked for anything.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            runs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asked: 0,
            busy: Busy::default(),
            alarms: BTreeSet::new(),
            reports: Reports::default(),
            todo: Vec::new(),
        }
    }

    /// Takes in what came to pass, and says what is to be done, in order.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Todo> {
        match input {
            Input::Followed { runs, new } => {
                for update in runs {
                    self.follow(update, new, now);
                }
            }
            Input::Changed(update) => {
                if self.runs.contains_key(&update.run.id) {
                    self.see(update, now);
                }
            }
            Input::AgentBegan => self.agent_began(now),
            Input::Told { attempt, report } => self.told(attempt, report, now),
            Input::Recorded {
                attempt,
                kind,
                result,
            } => self.recorded(&attempt, kind, result, now),
            Input::Swept(attempt) => self.swept(&attempt, now),
            Input::NotGiven { attempt, reason } => {
                self.complain(Trouble::NotGiven { attempt, reason });
            }
            Input::Looked { run, task, found } => self.looked(&run, task, found, now),
            Input::Decided { run, task, result } => self.decided(&run, task, result, now),
            Input::RolledForward { attempt, result } => self.rolled_forward(attempt, result, now),
            Input::Passed => {}
        }
        self.wake(now);
        self.place(now);
        std::mem::take(&mut self.todo)
    }

    /// When something is due, if nothing else comes to pass: [`Input::Passed`] is to be said then.
    pub fn next_due(&self) -> Option<Timestamp> {
        let of_runs = self.alarms.first().map(|(at, _)| *at);
        of_runs.into_iter().chain(self.reports.next_due()).min()
    }

    /// A run that is worked on, as it was last seen.
    pub fn run(&self, id: &RunId) -> Option<&Update> {
        Some(&self.runs.get(id)?.update)
    }

    /// The runs that are worked on, or still cleaned up after.
    pub fn runs(&self) -> impl Iterator<Item = &Update> {
        self.runs.values().map(|watched| &watched.update)
    }

    fn complain(&mut self, trouble: Trouble) {
        self.todo.push(Todo::Complain(trouble));
    }
}
