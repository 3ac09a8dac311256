//! Carrying out what was decided: looking at tasks, giving attempts to the agent, committing.

use std::sync::Arc;

use barecount_api::{
    assignment::{Assignment, Order},
    attempt::AttemptRef,
};
use barecount_control::{
    Fenced, Update,
    reconcile::{Found, Input, Reconciler, Unrolled},
};
use barecount_model::{codes, digest::Digest, id::RunId, identity::SignedIdentity};
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
        match assignment(&update, &fenced, identity) {
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

    pub(super) fn sweep(&self, fenced: &Fenced) {
        let Some(update) = self.reconciler.run(&fenced.run) else {
            return;
        };
        let task = &update.run.tasks[fenced.task];
        let stage = update.plan.stage(&task.stage);
        let backend = stage.map_or_else(String::new, |stage| stage.backend.clone());
        self.agent.order(Order::Sweep {
            attempt: attempt(update, fenced),
            class: task.class,
            backend,
        });
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

fn assignment(update: &Update, fenced: &Fenced, identity: SignedIdentity) -> Option<Assignment> {
    let (run, plan) = (&update.run, &update.plan);
    let task = &run.tasks[fenced.task];
    let stage = plan.stage(&task.stage)?.clone();
    // The boundary too: what a warm process or a cache holds is of the data that it worked on.
    let boundary = serde_json::to_string(&stage.boundary).ok()?;
    let shared = [
        &plan.tenant,
        &plan.pipeline,
        &plan.lock_digest,
        &stage.name,
        &boundary,
    ]
    .map(String::as_str);
    Some(Assignment {
        attempt: attempt(update, fenced),
        run_token: run.token.clone(),
        tenant: run.tenant.clone(),
        pipeline: run.pipeline.clone(),
        version: run.version.clone(),
        partition: task.partition.clone(),
        identity,
        window: run.window.clone(),
        reuse: Digest::of(shared.join("\n").as_bytes()).hex(),
        path: None,
        reads: task
            .work
            .as_ref()
            .map_or_else(Default::default, |work| work.reads.clone()),
        stage,
    })
}

/// What the agent calls an attempt, if its run is worked on.
pub(super) fn agents_name(reconciler: &Reconciler, fenced: &Fenced) -> Option<AttemptRef> {
    Some(attempt(reconciler.run(&fenced.run)?, fenced))
}

fn attempt(update: &Update, fenced: &Fenced) -> AttemptRef {
    AttemptRef {
        run: fenced.run.clone(),
        index: fenced.task,
        task: update.run.tasks[fenced.task].id.clone(),
        number: fenced.number,
    }
}

pub(super) fn fenced(attempt: &AttemptRef) -> Fenced {
    Fenced {
        run: attempt.run.clone(),
        task: attempt.index,
        number: attempt.number,
    }
}
