//! The shard: what commands change, as data. Pure: no input or output, and no clock.
//!
//! [`Shard::step`] applies commands in their order and answers with the [`Batch`] that has to be
//! durable before anybody is told. Runs that a command is about and that are not in memory are
//! given to it first ([`Shard::missing`], [`Shard::recall`]). Where a batch did not become durable,
//! the shard's memory is void and is made anew.

mod active;
mod approve;
mod draft;
mod report;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use barecount_model::{
    approval::{Act, Approval},
    evidence::Statement,
    id::{ApprovalId, RunId},
    run::{
        Abandonment, Answered, Moment, Run, WaitingReason,
        outcome::{CommittedDataset, Outcome},
    },
    untrusted::Message,
    work::Work,
};
use jiff::Timestamp;
use serde_json::Value;

pub(crate) use self::active::Active;
use self::draft::Draft;
use crate::{
    authority::{self, Authorised, Authority, PlanRecord},
    error::CommandError,
    governance::{Action, Explanation},
    journal::{Batch, Entry, Position, Published, Stored},
    store::DeadLetter,
    told::Submission,
};

pub(crate) enum Command {
    Submit(Box<Submission>),
    Refuse {
        run: Box<Run>,
        plan: Arc<PlanRecord>,
    },
    Apply {
        run: RunId,
        verb: Verb,
    },
    /// Asks for an approval.
    Request {
        approval: Box<Approval>,
        by: Arc<Explanation>,
        rules: Value,
    },
    /// Does something to an approval.
    Approve {
        id: ApprovalId,
        act: Act,
        reason: Message,
        by: Arc<Explanation>,
        rules: Value,
    },
    Enter(Statement),
    Integrated {
        size: u64,
    },
}

pub(crate) enum Verb {
    Place {
        task: usize,
        work: Option<Box<Work>>,
    },
    Answer {
        task: usize,
        work: Box<Work>,
        answered: Answered,
    },
    Reopen {
        tasks: Vec<usize>,
        by: Arc<Explanation>,
        rules: Value,
    },
    Hold {
        task: usize,
        reason: WaitingReason,
    },
    Provisioning {
        task: usize,
        number: u32,
        runner: String,
        waits_for: Message,
    },
    Started {
        task: usize,
        number: u32,
        runner: String,
    },
    Report {
        task: usize,
        number: u32,
        outcome: Box<Outcome>,
        dead_letters: Vec<DeadLetter>,
    },
    Committed {
        task: usize,
        number: u32,
        outputs: Vec<CommittedDataset>,
    },
    Lost {
        task: usize,
        number: u32,
    },
    Cancel {
        by: Arc<Explanation>,
    },
    Stop {
        by: Arc<Explanation>,
    },
    Abandon {
        by: Arc<Explanation>,
        abandonment: Abandonment,
    },
    Resume {
        by: Arc<Explanation>,
        rules: Value,
    },
}

/// What a step makes: to be written, and then to be answered.
pub(crate) struct Stepped {
    pub(crate) batch: Batch,
    /// For each command the run that it was about.
    pub(crate) answers: Vec<Result<Option<RunId>, CommandError>>,
}

/// What a command is about that may not be in memory.
pub(crate) enum Missing<'c> {
    Run(&'c RunId),
    Token { tenant: &'c str, token: &'c str },
}

/// Every run that has not ended, and where the journal stands.
pub(crate) struct Shard {
    active: HashMap<RunId, Active>,
    /// By tenant and token.
    tokens: HashMap<String, HashMap<String, RunId>>,
    /// Those that something can be done to still.
    approvals: BTreeMap<ApprovalId, Approval>,
    /// Of the last batch.
    position: Position,
    next_entry: u64,
    /// The ledger's length under a durable checkpoint, if no batch has told it yet.
    integrated: Option<u64>,
    entropy: u64,
    /// Runs that ended or were looked up, by the batch from which on they may be asked for: forgotten
    /// then.
    passing: VecDeque<(u64, RunId)>,
}

impl Shard {
    pub(crate) fn new(
        position: Position,
        next_entry: u64,
        open: Vec<Stored>,
        approvals: Vec<Approval>,
        entropy: u64,
    ) -> Self {
        let by_id = |approval: Approval| (approval.id.clone(), approval);
        let mut shard = Self {
            active: HashMap::new(),
            tokens: HashMap::new(),
            approvals: approvals.into_iter().map(by_id).collect(),
            position,
            next_entry,
            integrated: None,
            entropy,
            passing: VecDeque::new(),
        };
        for stored in open {
            shard.remember(Active::read(stored));
        }
        shard
    }

    pub(crate) fn entropy(&self) -> u64 {
        self.entropy
    }

    pub(crate) fn next_entry(&self) -> u64 {
        self.next_entry
    }

    /// Runs that have not ended.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Active> {
        let active = self.active.values();
        active.filter(|active| !active.run.state.is_final())
    }

    pub(crate) fn get(&self, id: &RunId) -> Option<&Active> {
        self.active.get(id)
    }

    /// What has to be looked for before a command is applied.
    pub(crate) fn missing<'c>(&self, command: &'c Command) -> Option<Missing<'c>> {
        match command {
            Command::Submit(submission) => {
                let (tenant, token) = (&submission.run.tenant, &submission.run.token);
                let known = self.by_token(tenant, token).is_some();
                (!known).then_some(Missing::Token { tenant, token })
            }
            Command::Apply { run, .. } => {
                (!self.active.contains_key(run)).then_some(Missing::Run(run))
            }
            Command::Refuse { .. }
            | Command::Request { .. }
            | Command::Approve { .. }
            | Command::Enter(_)
            | Command::Integrated { .. } => None,
        }
    }

    /// Takes a stored run into memory for one step, longer if that opens it again.
    pub(crate) fn recall(&mut self, stored: Stored) {
        self.passing.push_back((0, stored.run.id.clone()));
        self.remember(Active::read(stored));
    }

    fn remember(&mut self, active: Active) {
        let run = &active.run;
        self.tokens
            .entry(run.tenant.clone())
            .or_default()
            .insert(run.token.clone(), run.id.clone());
        self.active.insert(run.id.clone(), active);
    }

    fn by_token(&self, tenant: &str, token: &str) -> Option<&RunId> {
        self.tokens.get(tenant)?.get(token)
    }

    /// Applies commands in their order. `None` in the place of a command is one that was answered
    /// before.
    pub(crate) fn step(&mut self, commands: Vec<Command>, now: Timestamp) -> Stepped {
        let mut draft = Draft::new(self.position.next(), self.next_entry, now);
        let answers = commands
            .into_iter()
            .map(|command| self.apply(command, now, &mut draft))
            .collect();
        let Draft { mut batch, touched } = draft;
        for (id, touched) in touched {
            let Some(active) = self.active.get_mut(&id) else {
                continue;
            };
            active.seq = batch.position.seq;
            if active.run.state.is_final() {
                self.passing.push_back((active.seq, id.clone()));
            }
            batch.runs.insert(id, active.change(touched));
        }
        if !batch.is_empty() {
            self.position = batch.position;
            self.next_entry += batch.entries.len() as u64;
            // What the ledger has taken over is forgotten in passing: that never waits for the
            // disk, and nothing waits for it. If it is lost, those entries are integrated again, to
            // no effect.
            batch.integrated = self.integrated.take();
        }
        Stepped { batch, answers }
    }

    /// Forgets runs that have ended, once everybody was told, and once they can be asked for: of
    /// batches up to `seen`.
    pub(crate) fn settle(&mut self, seen: u64) {
        while let Some((_, id)) = self.passing.pop_front_if(|(seq, _)| *seq <= seen) {
            let over = |active: &&Active| active.run.state.is_final() && active.seq <= seen;
            let Some(active) = self.active.get(&id).filter(over) else {
                continue;
            };
            let run = Arc::clone(&active.run);
            self.active.remove(&id);
            if let Some(of_tenant) = self.tokens.get_mut(&run.tenant) {
                of_tenant.remove(&run.token);
                if of_tenant.is_empty() {
                    self.tokens.remove(&run.tenant);
                }
            }
        }
    }

    /// What the ledger has taken over and no batch has told.
    pub(crate) fn take_integrated(&mut self) -> Option<u64> {
        self.integrated.take()
    }

    fn apply(
        &mut self,
        command: Command,
        now: Timestamp,
        draft: &mut Draft,
    ) -> Result<Option<RunId>, CommandError> {
        match command {
            Command::Submit(submission) => self.submit(*submission, now, draft).map(Some),
            Command::Refuse { run, plan } => Ok(Some(self.refuse(*run, plan, now, draft))),
            Command::Apply { run, verb } => {
                self.transition(&run, verb, now, draft)?;
                Ok(Some(run))
            }
            Command::Request {
                approval,
                by,
                rules,
            } => {
                self.request(*approval, &by, &rules, now, &mut draft.batch)?;
                Ok(None)
            }
            Command::Approve {
                id,
                act,
                reason,
                by,
                rules,
            } => {
                let signed = self.signed(&by, reason, now, &draft.batch);
                self.approve(&id, act, signed, (&by, &rules), &mut draft.batch)?;
                Ok(None)
            }
            Command::Enter(statement) => {
                draft.batch.entries.push(Entry {
                    kind: statement.kind,
                    run: None,
                    bytes: statement.bytes,
                });
                Ok(None)
            }
            Command::Integrated { size } => {
                self.integrated = self.integrated.max(Some(size));
                Ok(None)
            }
        }
    }

    fn submit(
        &mut self,
        submission: Submission,
        now: Timestamp,
        draft: &mut Draft,
    ) -> Result<RunId, CommandError> {
        let Submission {
            mut run,
            plan,
            place,
        } = submission;
        if let Some(existing) = self.by_token(&run.tenant, &run.token).cloned() {
            return self.take_up(existing, &run, &plan, draft);
        }
        let used = self.used(&plan.explanation, &run.id, now)?;
        let mut effects = run.submit(&self.moment(now))?;
        for task in place {
            let placed = run.place(task, &self.moment(now))?;
            effects.records.extend(placed.records);
        }
        draft.enter(&effects.records, &run, &plan.record, &[]);
        used.into_iter()
            .for_each(|approval| self.keep_approval(approval, &mut draft.batch));
        let id = run.id.clone();
        let active = Active {
            run: Arc::new(run),
            plan: plan.record,
            authority: Some(plan.authority),
            seq: 0,
        };
        draft.touch(&id).is_new = true;
        self.remember(active);
        Ok(id)
    }

    /// Keeps a run that was refused. No permit is known of it, and none can make it start.
    fn refuse(
        &mut self,
        mut run: Run,
        plan: Arc<PlanRecord>,
        now: Timestamp,
        draft: &mut Draft,
    ) -> RunId {
        let effects = run.refuse(&self.moment(now));
        draft.enter(&effects.records, &run, &plan, &[]);
        let id = run.id.clone();
        let active = Active {
            run: Arc::new(run),
            plan,
            authority: None,
            seq: 0,
        };
        draft.touch(&id).is_new = true;
        self.remember(active);
        id
    }

    /// Answers with the run that has the token. A run that no permit is known of gets this one, if
    /// it covers what the run carries out.
    fn take_up(
        &mut self,
        id: RunId,
        asked: &Run,
        by: &Authorised,
        draft: &mut Draft,
    ) -> Result<RunId, CommandError> {
        let Some(active) = self.active.get_mut(&id) else {
            return Err(CommandError::UnknownRun(id));
        };
        if active.run.version != asked.version {
            let version = active.run.version.clone();
            return Err(CommandError::TokenConflict { run: id, version });
        }
        let known = active.authority.as_ref();
        let lacks = !known.is_some_and(|authority| authority.lets(&active.plan));
        let covered = authority::covers(&by.explanation, Action::Run, &active.plan.plan).is_ok();
        if lacks && covered {
            let authority = Authority::new(&by.explanation, &active.plan.digest)
                .map_err(|error| CommandError::NotPermitted(id.clone(), error))?;
            active.authority = Some(Arc::new(authority));
            draft.touch(&id).header = true;
        }
        Ok(id)
    }

    fn transition(
        &mut self,
        id: &RunId,
        verb: Verb,
        now: Timestamp,
        draft: &mut Draft,
    ) -> Result<(), CommandError> {
        let moment = self.moment(now);
        let by = match &verb {
            Verb::Resume { by, rules } | Verb::Reopen { by, rules, .. } => {
                Some((Arc::clone(by), rules.clone()))
            }
            _ => None,
        };
        let used = by.as_ref().map(|(by, _)| self.used(by, id, now));
        let used = used.transpose()?;
        let active = self
            .active
            .get_mut(id)
            .ok_or_else(|| CommandError::UnknownRun(id.clone()))?;
        let mut committed = Vec::new();
        let effects = match verb {
            Verb::Committed {
                task,
                number,
                outputs,
            } => {
                let effects = Arc::make_mut(&mut active.run).committed(task, number, &moment)?;
                draft.batch.outputs.push(Published {
                    run: id.clone(),
                    task,
                    outputs: outputs.clone(),
                });
                committed = outputs;
                effects
            }
            Verb::Report {
                task,
                number,
                outcome,
                dead_letters,
            } => {
                let batch = &mut draft.batch;
                report::report(active, task, number, *outcome, dead_letters, &moment, batch)?
            }
            other => active.turn(other, &moment)?,
        };
        draft.enter(&effects.records, &active.run, &active.plan, &committed);
        draft.touch(id).merge(effects);
        if let Some(((by, rules), used)) = by.zip(used) {
            self.go_on_by(used, (&by, &rules), id, now, &mut draft.batch);
        }
        Ok(())
    }

    /// The time, and the next random bits (SplitMix64, Steele et al. 2014).
    fn moment(&mut self, now: Timestamp) -> Moment {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.entropy;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Moment {
            now,
            entropy: bits ^ (bits >> 31),
        }
    }
}

impl Batch {
    /// Whether there is nothing that anybody waits for.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.entries.is_empty() && self.approvals.is_empty()
    }
}
