//! What becomes of tasks that could be placed: within the caps, and only where nothing stands in
//! their way.

use std::{collections::HashMap, time::Duration};

use barecount_model::{
    id::RunId,
    run::{StageName, Task, TaskState},
};
use jiff::Timestamp;

use super::{
    Decision, Found, Reconciler, Todo, Trouble,
    capacity::stage_cap,
    turn::{Watched, after},
};
use crate::{error::CommandError, told::Update};

/// An answer that has not come by then got lost.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// So long a task rests of which the control plane said that it cannot be placed, unless what it
/// knows better is told before.
const REST: Duration = Duration::from_secs(1);
/// So long a task rests of which nobody can tell what stands in its way.
const UNKNOWN_REST: Duration = Duration::from_secs(30);
/// After so many tries, which take about half a minute, those who watch are told.
const PATIENCE: u32 = 10;
/// The first pause between two tries is twice as long; each is twice the one before, up to 64 times
/// this.
const FIRST_PAUSE: Duration = Duration::from_millis(80);

/// A task that is being placed. It counts as under way: whether it is, is known only at the end.
#[derive(Debug)]
pub(super) struct Placing {
    step: Step,
    tries: u32,
    pub(super) again: Timestamp,
}

#[derive(Debug)]
enum Step {
    Looking,
    Deciding(Decision),
    Resting,
}

/// Whether a task is not being placed any more, as it is now.
pub(super) fn placed(task: &Task, placing: &Placing) -> bool {
    task.state != TaskState::Ready || matches!(placing.step, Step::Resting)
}

impl Placing {
    fn new(step: Step, again: Timestamp) -> Self {
        let tries = 1;
        Self { step, tries, again }
    }
}

impl Reconciler {
    /// Looks at tasks that could be placed, those of runs that were asked for earlier first.
    pub(super) fn place(&mut self, now: Timestamp) {
        let mut chosen = Vec::new();
        for id in self.waiting.values() {
            if self.busy.is_full(&self.caps) {
                break;
            }
            let Some(watched) = self.runs.get_mut(id) else {
                continue;
            };
            let mut of_stage = under_way(watched);
            for task in watched.ready.clone() {
                let found = &watched.update.run.tasks[task];
                let due = found.not_before.is_none_or(|at| at <= now);
                if !due || !self.busy.leaves_room(&self.caps, found.class) {
                    continue;
                }
                let in_stage = of_stage.entry(found.stage.clone()).or_default();
                if *in_stage >= stage_cap(watched.update.plan.stage(&found.stage)) {
                    continue;
                }
                *in_stage += 1;
                let class = found.class;
                let placing = Placing::new(Step::Looking, after(now, ANSWERED_WITHIN));
                watched.placing.insert(task, placing);
                watched.ready.remove(&task);
                watched.busy.add(class, 1);
                self.busy.add(class, 1);
                chosen.push((id.clone(), task));
            }
        }
        for (run, task) in chosen {
            self.account(&run, now);
            self.todo.push(Todo::Look { run, task });
        }
    }

    pub(super) fn looked(&mut self, run: &RunId, task: usize, found: Found, now: Timestamp) {
        let Some(placing) = self.placing(run, task) else {
            return;
        };
        if !matches!(placing.step, Step::Looking) {
            return;
        }
        let decision = match found {
            Found::Clear(work) => Decision::Place(work),
            Found::Done(work, answered) => Decision::Answer(work, answered),
            Found::Blocked(reason) => Decision::Hold(reason),
            Found::Unknown(reason) => {
                *placing = Placing::new(Step::Resting, after(now, UNKNOWN_REST));
                let run = run.clone();
                self.account(&run, now);
                return self.complain(Trouble::NotPlaced { run, task, reason });
            }
        };
        let step = Step::Deciding(decision.clone());
        *placing = Placing::new(step, after(now, ANSWERED_WITHIN));
        let run = run.clone();
        self.account(&run, now);
        self.todo.push(Todo::Decide {
            run,
            task,
            decision,
        });
    }

    pub(super) fn decided(
        &mut self,
        run: &RunId,
        task: usize,
        result: Result<Update, CommandError>,
        now: Timestamp,
    ) {
        match result {
            Ok(update) => {
                if let Some(watched) = self.runs.get_mut(run)
                    && update.seq >= watched.update.seq
                {
                    watched.placing.remove(&task);
                }
                self.see(update, now);
                self.account(run, now);
            }
            Err(error) => {
                let Some(placing) = self.placing(run, task) else {
                    return;
                };
                let trouble = match error {
                    // Something has come in between, and is told.
                    CommandError::Rejected(_) => {
                        *placing = Placing::new(Step::Resting, after(now, REST));
                        None
                    }
                    // It may have been opened for all we know: the same is tried again.
                    error @ (CommandError::Store(_) | CommandError::Unknown(_)) => {
                        placing.again = after(now, FIRST_PAUSE * (1 << placing.tries.min(6)));
                        (placing.tries == PATIENCE).then_some(error)
                    }
                    error => {
                        *placing = Placing::new(Step::Resting, after(now, UNKNOWN_REST));
                        Some(error)
                    }
                };
                self.account(run, now);
                if let Some(error) = trouble {
                    self.complain(Trouble::NotDurable(error));
                }
            }
        }
    }

    /// Says again what is due to be of tasks that are being placed.
    pub(super) fn place_again(&mut self, id: &RunId, now: Timestamp) {
        let Some(watched) = self.runs.get_mut(id) else {
            return;
        };
        watched
            .placing
            .retain(|_, placing| placing.again > now || !matches!(placing.step, Step::Resting));
        for (task, placing) in &mut watched.placing {
            if placing.again > now {
                continue;
            }
            placing.tries = placing.tries.saturating_add(1);
            placing.again = after(now, ANSWERED_WITHIN);
            let (run, task) = (id.clone(), *task);
            match &placing.step {
                Step::Looking => self.todo.push(Todo::Look { run, task }),
                Step::Deciding(decision) => self.todo.push(Todo::Decide {
                    run,
                    task,
                    decision: decision.clone(),
                }),
                Step::Resting => {}
            }
        }
    }

    fn placing(&mut self, run: &RunId, task: usize) -> Option<&mut Placing> {
        self.runs.get_mut(run)?.placing.get_mut(&task)
    }
}

/// How many tasks of each stage a run has under way, or is about to.
fn under_way(watched: &Watched) -> HashMap<StageName, usize> {
    let mut of_stage = HashMap::new();
    for (index, task) in watched.update.run.tasks.iter().enumerate() {
        if task.state == TaskState::Active || watched.placing.contains_key(&index) {
            *of_stage.entry(task.stage.clone()).or_default() += 1;
        }
    }
    of_stage
}
