//! A run as its agent is told of it, and what an agent tells as the reconciler hears it: the same
//! wherever the agent is.

use barecount_api::{
    assignment::{Assignment, Event, Order, SetAside},
    attempt::AttemptRef,
};
use barecount_model::identity::SignedIdentity;

use crate::{
    reconcile::{Input, Report},
    store::DeadLetter,
    told::{Fenced, Update},
};

impl Update {
    /// What the agent calls an attempt.
    pub fn attempt(&self, fenced: &Fenced) -> Option<AttemptRef> {
        Some(AttemptRef {
            run: fenced.run.clone(),
            index: fenced.task,
            task: self.run.tasks.get(fenced.task)?.id.clone(),
            number: fenced.number,
        })
    }

    /// An attempt as it is assigned to an agent; none if the plan lacks its stage.
    pub fn assignment(&self, fenced: &Fenced, identity: SignedIdentity) -> Option<Assignment> {
        let (run, plan) = (&self.run, &self.plan);
        let task = run.tasks.get(fenced.task)?;
        let stage = plan.stage(&task.stage)?.clone();
        let work = task.work.as_ref();
        Some(Assignment {
            attempt: self.attempt(fenced)?,
            run_token: run.token.clone(),
            tenant: run.tenant.clone(),
            pipeline: run.pipeline.clone(),
            version: run.version.clone(),
            partition: task.partition.clone(),
            identity,
            window: run.window.clone(),
            reuse: plan.reuse_key(&stage)?,
            path: None,
            reads: work.map_or_else(Default::default, |work| work.reads.clone()),
            stage,
        })
    }

    /// The order to clean up after an attempt.
    pub fn sweep(&self, fenced: &Fenced) -> Option<Order> {
        let task = self.run.tasks.get(fenced.task)?;
        let stage = self.plan.stage(&task.stage);
        Some(Order::Sweep {
            attempt: self.attempt(fenced)?,
            class: task.class,
            // Without its stage nothing was ever launched.
            backend: stage.map_or_else(String::new, |stage| stage.backend.clone()),
        })
    }
}

impl From<&AttemptRef> for Fenced {
    fn from(attempt: &AttemptRef) -> Self {
        Self {
            run: attempt.run.clone(),
            task: attempt.index,
            number: attempt.number,
        }
    }
}

impl From<Event> for Input {
    fn from(event: Event) -> Self {
        let attempt = Fenced::from(event.attempt());
        let report = match event {
            Event::Swept { .. } => return Self::Swept(attempt),
            Event::Provisioning {
                runner, waits_for, ..
            } => Report::Provisioning { runner, waits_for },
            Event::Started { runner, .. } => Report::Started { runner },
            Event::Ended {
                outcome, set_aside, ..
            } => Report::Ended {
                outcome,
                dead_letters: set_aside.into_iter().map(letter).collect(),
            },
            Event::Lost { .. } => Report::Lost,
        };
        Self::Told { attempt, report }
    }
}

fn letter(group: SetAside) -> DeadLetter {
    DeadLetter {
        dataset: group.dataset,
        reason: group.reason,
        count: group.count,
        record: group.record,
        error: group.error,
        schema_hash: group.schema_hash,
        digest: group.digest,
    }
}
