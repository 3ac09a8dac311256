//! What a run's state asks for: attempts given to the agent, stopped, committed and cleaned up after.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use barecount_model::{
    id::RunId,
    run::{Pending, TaskState, outcome::CommittedDataset},
};
use jiff::Timestamp;

use super::{
    Reconciler, Report, ReportKind, Todo, Trouble, Unrolled,
    capacity::Busy,
    place::{Placing, placed},
};
use crate::told::{Fenced, Update};

/// What the agent was told and shows no effect is said again after so long. It costs nothing there.
const AGENT_AGAIN: Duration = Duration::from_secs(30);
/// A roll-forward of which nobody has heard for so long got lost.
const ROLL_FORWARD_AGAIN: Duration = Duration::from_secs(600);
/// After so many roll-forwards that failed, those who watch are told.
const ROLL_FORWARD_PATIENCE: u32 = 5;
/// The first pause between two of them is twice as long; each is twice the one before.
const ROLL_FORWARD_PAUSE: Duration = Duration::from_millis(100);
/// The longest of these pauses.
const ROLL_FORWARD_PAUSE_AT_MOST: Duration = Duration::from_secs(30);

/// A run that is worked on.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) update: Update,
    /// The how manieth that somebody asked for.
    pub(super) order: u64,
    /// Attempts that others may have begun: they are looked for rather than launched.
    inherited: BTreeSet<(usize, u32)>,
    begun: BTreeMap<Want, Begun>,
    swept: BTreeSet<(usize, u32)>,
    pub(super) placing: BTreeMap<usize, Placing>,
    /// Tasks that could be placed and are not being.
    pub(super) ready: BTreeSet<usize>,
    /// What it has under way, or is about to.
    pub(super) busy: Busy,
    alarm: Option<Timestamp>,
    released: bool,
}

/// What a run's state asks for. A stop goes before the launch that it may overtake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    Stop(usize, u32),
    Give(usize, u32),
    RollForward(usize, u32),
    Sweep(usize, u32),
}

#[derive(Debug)]
struct Begun {
    again: Timestamp,
    failed: u32,
}

/// A moment after another; the last that can be told where there is no later one.
pub(super) fn after(now: Timestamp, pause: Duration) -> Timestamp {
    now.checked_add(pause).unwrap_or(Timestamp::MAX)
}

impl Watched {
    fn new(update: Update, order: u64) -> Self {
        Self {
            update,
            order,
            inherited: BTreeSet::new(),
            begun: BTreeMap::new(),
            swept: BTreeSet::new(),
            placing: BTreeMap::new(),
            ready: BTreeSet::new(),
            busy: Busy::default(),
            alarm: None,
            released: false,
        }
    }

    fn open_attempts(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        let tasks = self.update.run.tasks.iter().enumerate();
        tasks.filter_map(|(index, task)| {
            let current = task.current()?;
            current.state.is_open().then_some((index, current.number))
        })
    }

    /// Everything that its state asks for.
    fn wants(&self) -> BTreeSet<Want> {
        let run = &self.update.run;
        let mut wants = BTreeSet::new();
        for pending in run.pending() {
            let (task, number) = (pending.task(), pending.number());
            match pending {
                Pending::Launch { .. } | Pending::Await { .. } => {
                    wants.insert(Want::Give(task, number));
                }
                // Who has never heard of the attempt would have nothing to tell the end of.
                Pending::Stop { .. } => {
                    wants.extend([Want::Stop(task, number), Want::Give(task, number)]);
                }
                Pending::RollForward { .. } => {
                    wants.insert(Want::RollForward(task, number));
                }
            }
        }
        for (index, task) in run.tasks.iter().enumerate() {
            let committing = task.state == TaskState::Committing;
            let current = task.current().map(|attempt| attempt.number);
            let ended = task.attempts.iter().filter(|attempt| {
                let kept = committing && Some(attempt.number) == current;
                !attempt.state.is_open() && !kept
            });
            let unswept = ended
                .map(|attempt| (index, attempt.number))
                .filter(|attempt| !self.swept.contains(attempt));
            wants.extend(unswept.map(|(task, number)| Want::Sweep(task, number)));
        }
        wants
    }

    fn name(&self, task: usize, number: u32) -> Fenced {
        let run = self.update.run.id.clone();
        Fenced { run, task, number }
    }

    fn todo(&self, want: Want) -> Todo {
        match want {
            Want::Stop(task, number) => {
                let stage = self.update.plan.stage(&self.update.run.tasks[task].stage);
                let grace = Duration::from_millis(stage.map_or(0, |stage| stage.grace_ms));
                let attempt = self.name(task, number);
                Todo::Stop { attempt, grace }
            }
            Want::Give(task, number) if self.inherited.contains(&(task, number)) => {
                Todo::Recover(self.name(task, number))
            }
            Want::Give(task, number) => Todo::Launch(self.name(task, number)),
            Want::RollForward(task, number) => Todo::RollForward(self.name(task, number)),
            Want::Sweep(task, number) => Todo::Sweep(self.name(task, number)),
        }
    }

    /// What is left to do and was not begun, or shows no effect.
    fn due(&mut self, now: Timestamp) -> Vec<Want> {
        let wants = self.wants();
        self.begun.retain(|want, _| wants.contains(want));
        let begun = &self.begun;
        let due = |want: &Want| begun.get(want).is_none_or(|begun| begun.again <= now);
        let due: Vec<Want> = wants.into_iter().filter(due).collect();
        for want in &due {
            let pause = match want {
                Want::RollForward(..) => ROLL_FORWARD_AGAIN,
                _ => AGENT_AGAIN,
            };
            let again = after(now, pause);
            let new = Begun { again, failed: 0 };
            self.begun.entry(*want).or_insert(new).again = again;
        }
        due
    }

    fn count(&mut self, now: Timestamp) {
        let run = &self.update.run;
        let mut busy = Busy::default();
        self.ready.clear();
        let mut next = self.begun.values().map(|begun| begun.again).min();
        let mut sooner = |at: Timestamp| next = Some(next.map_or(at, |next| next.min(at)));
        for (index, task) in run.tasks.iter().enumerate() {
            let placing = self.placing.get(&index);
            if task.state == TaskState::Active || placing.is_some() {
                busy.add(task.class, 1);
            } else if task.state == TaskState::Ready && !run.cancel_requested {
                self.ready.insert(index);
                if let Some(at) = task.not_before.filter(|at| *at > now) {
                    sooner(at);
                }
            }
            if let Some(placing) = placing {
                sooner(placing.again);
            }
        }
        self.busy = busy;
        self.alarm = next;
    }

    fn is_over(&self) -> bool {
        self.update.run.state.is_final() && self.begun.is_empty()
    }
}

impl Reconciler {
    pub(super) fn follow(&mut self, update: Update, new: bool, now: Timestamp) {
        let id = update.run.id.clone();
        if !self.runs.contains_key(&id) {
            self.asked += 1;
            let mut watched = Watched::new(update.clone(), self.asked);
            if !new {
                watched.inherited = watched.open_attempts().collect();
            }
            self.runs.insert(id.clone(), watched);
            self.turn(&id, now);
            // At the end: who hears that a run is over finds everything ordered that is left to do.
            self.todo.push(Todo::Announce(update));
        } else {
            self.see(update, now);
        }
    }

    /// Takes a run as it is now. What was overtaken on the way changes nothing.
    pub(super) fn see(&mut self, update: Update, now: Timestamp) {
        let id = update.run.id.clone();
        let Some(watched) = self.runs.get_mut(&id) else {
            return;
        };
        if update.seq <= watched.update.seq {
            return;
        }
        watched.update = update.clone();
        let run = &update.run;
        watched
            .placing
            .retain(|task, placing| !placed(&run.tasks[*task], placing));
        watched.released &= run.state.is_final();
        self.turn(&id, now);
        self.todo.push(Todo::Announce(update));
    }

    pub(super) fn agent_began(&mut self, now: Timestamp) {
        for watched in self.runs.values_mut() {
            watched.inherited = watched.open_attempts().collect();
            watched
                .begun
                .retain(|want, _| matches!(want, Want::RollForward(..)));
        }
        let runs: Vec<RunId> = self.runs.keys().cloned().collect();
        runs.iter().for_each(|run| self.turn(run, now));
    }

    pub(super) fn swept(&mut self, attempt: &Fenced, now: Timestamp) {
        if let Some(watched) = self.runs.get_mut(&attempt.run) {
            watched.swept.insert((attempt.task, attempt.number));
            self.turn(&attempt.run, now);
        }
    }

    /// Says what a run's state asks for, and when to look again.
    pub(super) fn turn(&mut self, id: &RunId, now: Timestamp) {
        let Some(watched) = self.runs.get_mut(id) else {
            return;
        };
        for want in watched.due(now) {
            let committed = match want {
                Want::RollForward(task, number) => {
                    let attempt = watched.name(task, number);
                    self.reports.has(&attempt, ReportKind::Commit)
                }
                _ => false,
            };
            if !committed {
                self.todo.push(watched.todo(want));
            }
        }
        if watched.update.run.state.is_final() && !watched.released {
            watched.released = true;
            self.todo.push(Todo::Release(id.clone()));
        }
        self.place_again(id, now);
        self.account(id, now);
    }

    /// Brings what is counted over all runs up to date with one of them.
    pub(super) fn account(&mut self, id: &RunId, now: Timestamp) {
        let Some(watched) = self.runs.get_mut(id) else {
            return;
        };
        self.busy.take(&watched.busy);
        if let Some(alarm) = watched.alarm.take() {
            self.alarms.remove(&(alarm, id.clone()));
        }
        watched.count(now);
        if watched.is_over() {
            self.waiting.remove(&watched.order);
            self.runs.remove(id);
            return;
        }
        self.busy.merge(&watched.busy);
        self.alarms
            .extend(watched.alarm.map(|alarm| (alarm, id.clone())));
        if watched.ready.is_empty() {
            self.waiting.remove(&watched.order);
        } else {
            self.waiting.insert(watched.order, id.clone());
        }
    }

    /// Looks at everything that is due.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some((at, run)) = self.alarms.first().cloned() {
            if at > now {
                break;
            }
            self.turn(&run, now);
        }
        self.record_again(now);
    }

    pub(super) fn rolled_forward(
        &mut self,
        attempt: Fenced,
        result: Result<Vec<CommittedDataset>, Unrolled>,
        now: Timestamp,
    ) {
        let want = Want::RollForward(attempt.task, attempt.number);
        let Some(watched) = self.runs.get_mut(&attempt.run) else {
            return;
        };
        let Some(begun) = watched.begun.get_mut(&want) else {
            return;
        };
        match result {
            Ok(outputs) => self.told(attempt, Report::Committed(outputs), now),
            Err(error) => {
                begun.failed = begun.failed.saturating_add(1);
                let doubled = ROLL_FORWARD_PAUSE * (1 << begun.failed.min(16));
                begun.again = after(now, doubled.min(ROLL_FORWARD_PAUSE_AT_MOST));
                let patient = begun.failed < ROLL_FORWARD_PATIENCE;
                let run = attempt.run.clone();
                if !patient {
                    self.complain(Trouble::NotRolledForward { attempt, error });
                }
                self.account(&run, now);
            }
        }
    }
}
