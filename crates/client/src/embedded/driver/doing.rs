//! Carrying out what was decided: looking at tasks, giving attempts to the agent, committing.

use std::sync::Arc;

use barecount_api::assignment::{Assignment, Order};
use barecount_control::{
    Fenced, Update,
    reconcile::{Found, Input, Unrolled},
};
use barecount_model::{codes, id::RunId};
use barecount_network::health::PathHealth;
use serde_json::json;

use super::{Done, Driver, Gates};
use crate::{
    embedded::answers::{Asked, Judgement},
    failure::chain,
};

impl Driver {
    /// Finds out what stands in a task's way.
    pub(super) fn look(&self, run: RunId, task: usize) {
        let Some(update) = self.reconciler.run(&run).cloned() else {
            return;
        };
        let gates = Arc::clone(&self.gates);
        let done = self.done.clone();
        tokio::spawn(async move {
            let (found, path) = look(&gates, &update, task).await;
            let input = Input::Looked { run, task, found };
            // The loop has ended only if the program is ending.
            let _ = done.send(Done { input, path });
        });
    }

    /// Gives the agent an attempt, to be launched or to be gone on with.
    pub(super) fn give(&mut self, fenced: Fenced, order: impl FnOnce(Box<Assignment>) -> Order) {
        let Some(update) = self.reconciler.run(&fenced.run).cloned() else {
            return;
        };
        let refused = |reason| Input::NotGiven {
            attempt: fenced.clone(),
            reason,
        };
        let identity = match self.control.identify(&fenced, self.clock.now()) {
            Ok(identity) => identity,
            Err(error) => return self.tell(refused(chain(&error))),
        };
        let path = self.measured.remove(&(fenced.run.clone(), fenced.task));
        let path = path.map(|path| json!(path));
        match update.assignment(&fenced, identity) {
            Some(assignment) => {
                let assignment = Assignment { path, ..assignment };
                self.agent.order(order(Box::new(assignment)));
            }
            None => {
                let text = format!("the plan of {} lacks one of its stages", fenced.run);
                self.tell(refused(text));
            }
        }
    }

    pub(super) fn roll_forward(&self, attempt: Fenced) {
        let Some(update) = self.reconciler.run(&attempt.run) else {
            return;
        };
        let current = update.run.tasks[attempt.task].current();
        let tenant = update.run.tenant.clone();
        let decided = current.and_then(|found| Some((found.staged.clone()?, found.ended_at?)));
        // An empty decision would be rolled forward to nothing, and the outputs were lost.
        let Some((staged, decided_at)) = decided else {
            let result = Err(Unrolled {
                code: codes::STATE_UNWRITABLE.id,
                reason: "there is no decision to commit".to_owned(),
            });
            return self.tell(Input::RolledForward { attempt, result });
        };
        let committer = Arc::clone(&self.committer);
        self.in_background(async move {
            let moment = decided_at.as_millisecond();
            let result = committer.roll_forward(&tenant, &staged, moment).await;
            let result = result.map_err(|error| {
                tracing::warn!(%error, "a commit decision was not rolled forward");
                Unrolled {
                    code: error.code(),
                    reason: error.to_string(),
                }
            });
            Input::RolledForward { attempt, result }
        });
    }
}

async fn look(gates: &Gates, update: &Update, task: usize) -> (Found, Option<PathHealth>) {
    let plan = &update.plan;
    let work = match gates
        .answers
        .judge(Asked::of(&update.run, plan, task))
        .await
    {
        Ok(Judgement::Unchanged(work, answered)) => {
            return (Found::Done(Box::new(work), answered), None);
        }
        Ok(Judgement::Run(work, _)) => work,
        Err(error) => return (Found::Unknown(chain(&error)), None),
    };
    let looked = match plan.stage(&update.run.tasks[task].stage) {
        Some(stage) => match gates.backends.takes(stage).await {
            Ok(()) => gates.paths.look(stage).await,
            Err(reason) => Err(reason),
        },
        // Its launch says so.
        None => Ok(None),
    };
    match looked {
        Ok(path) => (Found::Clear(work.map(Box::new)), path),
        Err(reason) => (Found::Blocked(reason), None),
    }
}
