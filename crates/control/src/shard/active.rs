//! One run in memory: what verbs make of it.

use std::sync::Arc;

use barecount_model::run::{Effects, Moment, Run};

use super::{Shard, Verb, draft::Touched};
use crate::{
    authority::{self, Authority, PlanRecord},
    error::CommandError,
    governance::Action,
    journal::{RunChange, Stored},
    told::Update,
};

/// A run that is in memory, with what it carries out and by whose leave.
pub(crate) struct Active {
    pub(crate) run: Arc<Run>,
    pub(crate) plan: Arc<PlanRecord>,
    pub(crate) authority: Option<Arc<Authority>>,
    /// The batch that changed it last; 0 of one that was read.
    pub(super) seq: u64,
}

impl Active {
    pub(crate) fn update(&self, shard: &Shard) -> Update {
        Update {
            run: Arc::clone(&self.run),
            plan: Arc::clone(&self.plan.plan),
            ledger_length: shard.next_entry,
            seq: shard.position.seq,
        }
    }

    pub(super) fn read(stored: Stored) -> Self {
        Self {
            run: stored.run,
            plan: stored.plan,
            authority: stored.authority,
            seq: 0,
        }
    }

    pub(super) fn change(&self, touched: Touched) -> RunChange {
        RunChange {
            run: Arc::clone(&self.run),
            plan: Arc::clone(&self.plan),
            authority: self.authority.clone(),
            is_new: touched.is_new,
            header: touched.header,
            tasks: touched.tasks,
        }
    }

    /// A transition that brings nothing but itself.
    pub(super) fn turn(&mut self, verb: Verb, moment: &Moment) -> Result<Effects, CommandError> {
        let allowed = match &verb {
            Verb::Cancel { by } | Verb::Abandon { by, .. } => {
                authority::covers(by, Action::Cancel, &self.plan.plan)
            }
            Verb::Stop { by } => authority::carries_out(by, &self.plan.plan),
            Verb::Resume { by, .. } | Verb::Reopen { by, .. } => {
                authority::covers(by, Action::Resume, &self.plan.plan)
            }
            _ => Ok(()),
        };
        allowed.map_err(|error| CommandError::NotPermitted(self.run.id.clone(), error))?;
        let run = Arc::make_mut(&mut self.run);
        Ok(match verb {
            Verb::Place { task, work: None } => run.place(task, moment)?,
            Verb::Place {
                task,
                work: Some(work),
            } => run.place_for(task, *work, moment)?,
            Verb::Answer {
                task,
                work,
                answered,
            } => run.answer(task, *work, answered, moment)?,
            Verb::Hold { task, reason } => run.hold(task, reason, moment)?,
            Verb::Provisioning {
                task,
                number,
                runner,
                waits_for,
            } => run.provisioning(task, number, &runner, &waits_for, moment)?,
            Verb::Started {
                task,
                number,
                runner,
            } => run.started(task, number, &runner, moment)?,
            Verb::Lost { task, number } => run.lost(task, number, moment)?,
            Verb::Cancel { .. } | Verb::Stop { .. } => run.cancel(moment)?,
            Verb::Abandon { abandonment, .. } => run.abandon(abandonment, moment)?,
            Verb::Resume { by, rules } => {
                let (authority, decision) = Authority::with_evidence(&by, rules, &self.plan.digest)
                    .map_err(|error| CommandError::NotPermitted(run.id.clone(), error))?;
                let effects = run.resume(decision, moment)?;
                self.authority = Some(Arc::new(authority));
                effects
            }
            Verb::Reopen { tasks, by, rules } => {
                let (authority, decision) = Authority::with_evidence(&by, rules, &self.plan.digest)
                    .map_err(|error| CommandError::NotPermitted(run.id.clone(), error))?;
                let mut effects = run.reopen(&tasks, decision, moment)?;
                // The permit is kept in the run's own row.
                effects.run_changed = true;
                self.authority = Some(Arc::new(authority));
                effects
            }
            // Both bring more than themselves, and are applied where that is kept.
            Verb::Report { .. } | Verb::Committed { .. } => Effects::default(),
        })
    }
}
