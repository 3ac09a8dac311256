//! What processes do in the world: begin, end, and carry out what was decided.

use std::sync::Arc;

use barecount_api::assignment::Order;
use barecount_control::{
    CommandError, Fenced,
    desk::Ask,
    reconcile::{Found, Input, Todo, Unrolled},
};
use barecount_model::{
    class::NetworkProfile,
    id::RunId,
    run::{WaitingReason, outcome::Staged},
};
use barecount_runner::launch::AttemptToken;

use super::{Happening, World};
use crate::{
    agent::AgentLife,
    control::{Answer, ControlLife, For},
    data::Unrolled as NotRolled,
    invariants, plans,
};

impl World {
    pub(super) fn end_agent(&mut self) {
        if self.agent.take().is_none() {
            return;
        }
        self.note(|| "the agent dies".to_owned());
        self.tally.deaths += 1;
        self.session += 1;
        self.soon(6_000, Happening::AgentBegins);
    }

    pub(super) fn begin_agent(&mut self) -> Result<(), String> {
        if self.agent.is_some() {
            return Ok(());
        }
        let Some(identities) = self.identities() else {
            self.soon(1_000, Happening::AgentBegins);
            return Ok(());
        };
        self.note(|| "an agent begins".to_owned());
        self.session += 1;
        let agent = AgentLife::begin(
            &self.cloud,
            &self.tables,
            &self.folders,
            identities,
            &self.clock,
        )?;
        self.agent = Some(agent);
        if let Some(life) = self.control.as_ref().map(|control| control.id) {
            self.tell(life, Input::AgentBegan);
        }
        Ok(())
    }

    pub(super) fn end_control(&mut self) {
        if self.control.take().is_none() {
            return;
        }
        self.note(|| "the control plane dies".to_owned());
        self.tally.deaths += 1;
        self.session += 1;
        self.soon(6_000, Happening::ControlBegins);
    }

    /// A control plane begins, and takes over from one that still lives.
    pub(super) fn begin_control(&mut self) -> Result<(), String> {
        let entropy = self.dice.bits();
        self.lives += 1;
        // A disk that cannot be read lets nobody begin.
        let unreadable = !self.healed && self.dice.chance(100);
        let life = match ControlLife::begin(self.lives, &self.memory, &self.clock, entropy) {
            Ok(life) if !unreadable => life,
            // It has taken over all the same: the one before changes nothing any more.
            _ => {
                self.soon(2_000, Happening::ControlBegins);
                return Ok(());
            }
        };
        self.note(|| format!("control plane {} begins", life.id));
        self.former = self.control.replace(life);
        if self.former.is_some() {
            self.soon(10_000, Happening::FormerEnds);
        }
        self.session += 1;
        self.take_stock()
    }

    /// A control plane that begins follows every run that is open, and those of which something is
    /// left where the agent is.
    fn take_stock(&mut self) -> Result<(), String> {
        let left = invariants::left_over(&self.cloud, &self.folders)?;
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        let (life, session) = (control.id, self.session);
        control.session = session;
        let mut updates = control.desk.updates();
        self.memory.each_run(|run, plan| {
            let mut tasks = run.tasks.iter();
            let is_left = tasks.any(|task| {
                let name = task.id.as_str().replace('_', "-");
                left.iter().any(|left| left.starts_with(&name))
            });
            if run.state.is_final() && is_left {
                updates.push(barecount_control::Update {
                    run: Arc::new(run.clone()),
                    plan: Arc::clone(plan),
                    ledger_length: 0,
                    seq: 0,
                });
            }
            Ok::<(), String>(())
        })?;
        updates.sort_by(|one, other| one.run.id.cmp(&other.run.id));
        let (runs, new) = (updates, false);
        self.tell(life, Input::Followed { runs, new });
        Ok(())
    }

    pub(super) fn submit(&mut self, client: usize) {
        let token = format!("token-{client}");
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.dice.bits().to_be_bytes());
        id[1] = u8::try_from(client).unwrap_or(u8::MAX);
        let caps = plans::caps();
        let Some(control) = &mut self.control else {
            self.soon(3_000, Happening::Submit { client });
            return;
        };
        let alone = self.clients.len() == 1 && control.reconciler.runs().next().is_none();
        let shape = &plans::PLANS[self.clients[client].shape];
        let caps = alone.then_some(&caps);
        let submission = plans::submission(shape, id, &token, caps);
        let run = submission.run.id.clone();
        self.clients[client].tries = self.clients[client].tries.saturating_add(1);
        let life = control.id;
        self.note(|| format!("client {client} submits {run}"));
        let ask = Ask::Submit(Box::new(submission));
        self.ask(life, ask, For::Client { client, run });
        if alone {
            // What is placed with a submission counts from that moment on.
            self.flush(life);
        }
    }

    pub(super) fn cancel(&mut self, client: usize) {
        let (Some(run), Some(control)) = (&self.clients[client].run, &self.control) else {
            return;
        };
        let (run, life) = (run.clone(), control.id);
        let permit = Arc::clone(&plans::PLANS[self.clients[client].shape].cancel);
        self.note(|| format!("client {client} cancels {run}"));
        self.ask(life, Ask::Cancel { run, permit }, For::Nobody);
    }

    fn ask(&mut self, life: u64, ask: Ask, of: For) {
        let Some(control) = self.life(life) else {
            return;
        };
        if control.ask(ask, of) {
            self.soon(4, Happening::Flush { life });
        }
    }

    /// Hands on what came of a batch.
    pub(super) fn answer(&mut self, life: u64, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Input(input) => {
                    if self.healed || !self.dice.chance(15) {
                        self.soon(3, Happening::Back { life, input });
                    }
                }
                Answer::Client {
                    client,
                    run,
                    result,
                } => self.answer_client(life, client, &run, result),
            }
        }
    }

    fn answer_client(
        &mut self,
        life: u64,
        client: usize,
        run: &RunId,
        result: Result<barecount_control::Update, CommandError>,
    ) {
        match result {
            Ok(update) => {
                self.clients[client].run = Some(update.run.id.clone());
                let new = update.run.id == *run;
                if !update.run.state.is_final() {
                    let runs = vec![update];
                    self.tell(life, Input::Followed { runs, new });
                }
            }
            Err(_) => self.soon(5_000, Happening::Submit { client }),
        }
    }

    pub(super) fn carry_out(&mut self, life: u64, session: u64, todo: Todo) -> Result<(), String> {
        if self.life(life).is_none() {
            return Ok(());
        }
        if !matches!(todo, Todo::Announce(_)) {
            self.note(|| format!("control plane {life}: {}", said(&todo)));
        }
        match todo {
            Todo::Look { run, task } => {
                let found = self.found();
                let input = Box::new(Input::Looked { run, task, found });
                self.soon(20, Happening::Back { life, input });
            }
            Todo::Decide {
                run,
                task,
                decision,
            } => {
                let of = For::Decision {
                    run: run.clone(),
                    task,
                };
                let ask = Ask::Decide {
                    run,
                    task,
                    decision,
                };
                self.ask(life, ask, of);
            }
            Todo::Record { attempt, report } => {
                let kind = report.kind();
                let of = For::Record {
                    attempt: attempt.clone(),
                    kind,
                };
                self.ask(life, Ask::Tell { attempt, report }, of);
            }
            Todo::RollForward(attempt) => return self.roll_forward(life, attempt),
            Todo::Announce(_) | Todo::Complain(_) => {}
            order => self.order(life, session, order),
        }
        Ok(())
    }

    fn found(&mut self) -> Found {
        match self.dice.below(100) {
            0..=4 if !self.healed => Found::Blocked(WaitingReason::PathDown {
                profile: NetworkProfile::Vpn,
                found: "nothing".to_owned(),
            }),
            5..=6 if !self.healed => Found::Unknown("the disk cannot be read".to_owned()),
            _ => Found::Clear(None),
        }
    }

    /// Sends the agent what it is told.
    fn order(&mut self, life: u64, session: u64, todo: Todo) {
        let now = self.clock.stamp();
        let Some(control) = self.life(life) else {
            return;
        };
        let given = |attempt: &Fenced, order: fn(_) -> Order| {
            let identity = control.desk.identify(attempt, now).ok()?;
            Some(order(control.assignment(attempt, identity)?))
        };
        let order = match &todo {
            Todo::Launch(attempt) => given(attempt, Order::Launch),
            Todo::Recover(attempt) => given(attempt, Order::Recover),
            Todo::Stop { attempt, grace } => {
                let grace = *grace;
                let attempt = control.attempt(attempt);
                attempt.map(|attempt| Order::Stop { attempt, grace })
            }
            Todo::Sweep(attempt) => control.sweep(attempt),
            Todo::Acknowledge(attempt) => control.attempt(attempt).map(Order::Acknowledge),
            Todo::Release(run) => Some(Order::Release(run.clone())),
            _ => None,
        };
        let Some(order) = order else {
            return;
        };
        self.send(|| Happening::ToAgent {
            session,
            order: Box::new(order.clone()),
        });
    }

    fn roll_forward(&mut self, life: u64, attempt: Fenced) -> Result<(), String> {
        let Some((token, staged)) = self.decision(life, &attempt) else {
            return Ok(());
        };
        let rolled = self.tables.roll_forward(&self.folders, &token, &staged);
        let result = match rolled {
            Ok(outputs) => Ok(outputs),
            Err(NotRolled::Failed(reason)) => Err(Unrolled {
                code: "BC0612",
                reason,
            }),
            Err(NotRolled::Gone(what)) => {
                return Err(format!("{what} is decided for, and gone"));
            }
        };
        if self.healed || !self.dice.chance(20) {
            let input = Box::new(Input::RolledForward { attempt, result });
            self.soon(200, Happening::Back { life, input });
        }
        Ok(())
    }

    fn decision(&mut self, life: u64, attempt: &Fenced) -> Option<(AttemptToken, Staged)> {
        let update = self.life(life)?.reconciler.run(&attempt.run)?;
        let task = &update.run.tasks[attempt.task];
        let staged = task.current()?.staged.clone()?;
        let token = AttemptToken {
            task: task.id.clone(),
            number: attempt.number,
        };
        Some((token, staged))
    }
}

fn said(todo: &Todo) -> String {
    let name = |attempt: &Fenced| format!("{}/{}#{}", attempt.run, attempt.task, attempt.number);
    match todo {
        Todo::Look { run, task } => format!("look at {run}/{task}"),
        Todo::Decide {
            run,
            task,
            decision,
        } => format!("decide on {run}/{task}: {decision:?}"),
        Todo::Launch(attempt) => format!("launch {}", name(attempt)),
        Todo::Recover(attempt) => format!("recover {}", name(attempt)),
        Todo::Stop { attempt, .. } => format!("stop {}", name(attempt)),
        Todo::Sweep(attempt) => format!("sweep {}", name(attempt)),
        Todo::Acknowledge(attempt) => format!("acknowledge {}", name(attempt)),
        Todo::Release(run) => format!("release {run}"),
        Todo::Record { attempt, report } => {
            format!("record {:?} of {}", report.kind(), name(attempt))
        }
        Todo::RollForward(attempt) => format!("roll {} forward", name(attempt)),
        Todo::Announce(update) => format!("announce {}", update.run.id),
        Todo::Complain(trouble) => format!("complain: {trouble:?}"),
    }
}
