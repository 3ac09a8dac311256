//! Placing tasks: within the caps, and only those whose work has not been done.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use barecount_control::{Control, Update};
use barecount_model::{class::RunnerClass, id::RunId, run::TaskState};

use super::{Done, Driver};
use crate::{
    embedded::{
        answers::{Answers, Asked, Judgement},
        path_gate::PathGate,
    },
    failure::chain,
};

impl Driver {
    /// Opens attempts for tasks that may be placed, within the caps, or answers them.
    pub(super) fn place(&mut self) {
        for (run, task) in self.choose() {
            let Some(update) = self.runs.get(&run).cloned() else {
                continue;
            };
            let (control, done) = (self.control.clone(), self.done.clone());
            let (gate, answers) = (Arc::clone(&self.gate), Arc::clone(&self.answers));
            tokio::spawn(async move {
                let finished = place(&control, &gate, &answers, &update, task).await;
                // The loop has ended only if the program is ending.
                let _ = done.send(finished);
            });
        }
    }

    fn choose(&mut self) -> Vec<(RunId, usize)> {
        let now = self.clock.now();
        let mut busy: HashMap<RunnerClass, usize> = HashMap::new();
        for update in self.runs.values() {
            for (index, task) in update.run.tasks.iter().enumerate() {
                let placing = self.placing.contains(&(update.run.id.clone(), index));
                if task.state == TaskState::Active || placing {
                    *busy.entry(task.class).or_default() += 1;
                }
            }
        }
        let mut chosen = Vec::new();
        for update in self.runs.values() {
            for index in update.run.placeable(now) {
                let class = update.run.tasks[index].class;
                let class_cap = self.caps.class.get(&class).copied().unwrap_or(usize::MAX);
                let total: usize = busy.values().sum();
                let of_class = busy.get(&class).copied().unwrap_or(0);
                let full = total >= self.caps.total || of_class >= class_cap;
                if full || stage_is_full(update, index, &self.placing) {
                    continue;
                }
                let key = (update.run.id.clone(), index);
                if self.placing.insert(key.clone()) {
                    *busy.entry(class).or_default() += 1;
                    chosen.push(key);
                }
            }
        }
        chosen
    }
}

async fn place(
    control: &Control,
    gate: &PathGate,
    answers: &Answers,
    update: &Update,
    task: usize,
) -> Done {
    let (run, plan) = (update.run.id.clone(), &update.plan);
    let work = match answers.judge(Asked::of(&update.run, plan, task)).await {
        Ok(Judgement::Unchanged(work, answered)) => {
            let result = control.answer(&run, task, work, answered).await;
            return Done::NotPlaced { run, task, result };
        }
        Ok(Judgement::Run(work, _)) => work,
        Err(error) => {
            let reason = chain(&error);
            return Done::Unjudged { run, task, reason };
        }
    };
    let looked = match plan.stage(&update.run.tasks[task].stage) {
        Some(stage) => gate.look(stage).await,
        // Its launch says so.
        None => Ok(None),
    };
    match looked {
        Ok(path) => {
            let result = match work {
                Some(work) => control.place_for(&run, task, work).await,
                None => control.place(&run, task).await,
            };
            Done::Placed {
                run,
                task,
                path,
                result,
            }
        }
        Err(reason) => {
            let result = control.hold(&run, task, reason).await;
            Done::NotPlaced { run, task, result }
        }
    }
}

/// Whether a task's stage has as many tasks under way as it may.
fn stage_is_full(update: &Update, index: usize, placing: &HashSet<(RunId, usize)>) -> bool {
    let stage = &update.run.tasks[index].stage;
    let limit = update
        .plan
        .stage(stage)
        .map_or(u32::MAX, |stage| stage.concurrency_limit);
    let under_way = update.run.tasks.iter().enumerate().filter(|(other, task)| {
        let busy = task.state == TaskState::Active;
        task.stage == *stage && (busy || placing.contains(&(update.run.id.clone(), *other)))
    });
    under_way.count() >= limit as usize
}
