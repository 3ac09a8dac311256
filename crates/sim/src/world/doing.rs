//! What processes do in the world: begin, end, and carry out what was decided.

use std::sync::Arc;

use barecount_agent::{IdentityVerifier, Swept};
use barecount_api::assignment::Order;
use barecount_control::{
    Fenced, Update,
    desk::Ask,
    reconcile::{Found, Input, Todo, Unrolled},
};
use barecount_model::{
    class::NetworkProfile,
    id::RunId,
    run::{Answered, TaskState, WaitingReason, outcome::Staged},
    work::Work,
};
use barecount_runner::launch::AttemptToken;

use super::{Happening, World};
use crate::{
    clock::HostClock,
    control::{ControlLife, For},
    data::Unrolled as NotRolled,
    plans,
};

impl World {
    pub(super) fn end_agent(&mut self, number: usize, how: &str) {
        let site = &mut self.sites[number];
        if site.agent.take().is_none() {
            return;
        }
        self.sessions += 1;
        site.session = self.sessions;
        self.note(|| format!("the agent of site {number} {how}"));
        self.tally.deaths += 1;
        self.soon(6_000, Happening::AgentBegins { site: number });
    }

    pub(super) fn begin_agent(&mut self, number: usize) -> Result<(), String> {
        let site = &mut self.sites[number];
        if site.agent.is_some() || site.gone {
            return Ok(());
        }
        let Some(identities) = self.verifier.clone() else {
            self.soon(1_000, Happening::AgentBegins { site: number });
            return Ok(());
        };
        let counts = self.counts()?;
        let site = &mut self.sites[number];
        // What came back with the power, or was never swept.
        let swept = site
            .folders
            .sweep_all_but(&counts, &barecount_tree::to_the_end);
        // What could be neither removed nor moved aside is tried again.
        let clean = |swept: &Swept| swept.left.iter().all(|left| left.now.is_some());
        if !swept.is_ok_and(|swept| clean(&swept)) {
            self.soon(1_000, Happening::AgentBegins { site: number });
            return Ok(());
        }
        self.sessions += 1;
        site.session = self.sessions;
        site.begin(&self.cloud, &self.tables, identities)?;
        self.note(|| format!("an agent begins on site {number}"));
        self.tell_that_an_agent_began();
        Ok(())
    }

    /// The attempts whose folders an agent that begins leaves alone: they are open, or decided for; as
    /// is durable, or as the control plane has it that lives and may not know yet what is durable.
    fn counts(&self) -> Result<Vec<AttemptToken>, String> {
        let mut counts = Vec::new();
        self.memory.each_run(|run, _| {
            let follows =
                |control: &ControlLife| Some(control.reconciler.run(&run.id)?.run.clone());
            let followed = self.control.as_ref().and_then(follows);
            let known = followed.iter().flat_map(|run| &run.tasks);
            for task in run.tasks.iter().chain(known) {
                let counting = matches!(task.state, TaskState::Active | TaskState::Committing);
                if let Some(current) = task.current().filter(|_| counting) {
                    counts.push(AttemptToken {
                        task: task.id.clone(),
                        number: current.number,
                    });
                }
            }
            Ok::<(), String>(())
        })?;
        Ok(counts)
    }

    pub(super) fn end_control(&mut self) {
        if self.control.take().is_none() {
            return;
        }
        self.note(|| "the control plane dies".to_owned());
        self.tally.deaths += 1;
        self.connect();
        self.soon(6_000, Happening::ControlBegins);
    }

    /// Every connection is another one than before.
    fn connect(&mut self) {
        for site in &mut self.sites {
            self.sessions += 1;
            site.session = self.sessions;
        }
    }

    /// A control plane begins, and takes over from one that still lives.
    pub(super) fn begin_control(&mut self) -> Result<(), String> {
        let entropy = self.dice.bits();
        self.lives += 1;
        let ahead = self.faults.ahead(&mut self.dice);
        let clock = HostClock::new(&self.clock, ahead);
        // A disk that cannot be read lets nobody begin.
        let unreadable = self.faults.storage && !self.healed && self.dice.chance(150);
        let life = match ControlLife::begin(self.lives, &self.memory, clock, entropy) {
            Ok(life) if !unreadable => life,
            // It has taken over all the same: the one before changes nothing any more.
            _ => {
                self.soon(2_000, Happening::ControlBegins);
                return Ok(());
            }
        };
        self.note(|| format!("control plane {} begins", life.id));
        if self.verifier.is_none() {
            self.verifier = Some(IdentityVerifier::new(life.desk.identity_key()));
        }
        self.former = self.control.replace(life);
        if self.former.is_some() {
            self.soon(10_000, Happening::FormerEnds);
        }
        self.connect();
        self.take_stock()
    }

    /// A control plane that begins follows every run that is open, and those of which something is
    /// left where the agents are.
    fn take_stock(&mut self) -> Result<(), String> {
        let left = self.left_over()?;
        let sessions = self.sites.iter().map(|site| site.session).collect();
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        control.sessions = sessions;
        let life = control.id;
        let mut updates = control.desk.updates();
        self.memory.each_run(|run, plan| {
            let mut tasks = run.tasks.iter();
            let is_left = tasks.any(|task| {
                let name = task.id.printed().replace('_', "-");
                left.iter().any(|left| left.starts_with(&name))
            });
            if run.state.is_final() && is_left {
                updates.push(Update {
                    run: Arc::new(run.clone()),
                    plan: Arc::clone(plan),
                    ledger_length: 0,
                    seq: 0,
                });
            }
            Ok::<(), String>(())
        })?;
        updates.sort_by(|one, other| one.run.id.cmp(&other.run.id));
        let all = updates.len();
        updates.retain(|update| !self.may_reopen(life, update));
        if updates.len() < all {
            // Nothing is followed before it is known.
            self.flush(life);
            updates.append(&mut self.reopened);
            if updates.len() < all {
                return Ok(());
            }
        }
        let (runs, new) = (updates, false);
        self.tell(life, Input::Followed { runs, new });
        Ok(())
    }

    pub(super) fn carry_out(&mut self, life: u64, todo: Todo) -> Result<(), String> {
        if self.life(life).is_none() {
            return Ok(());
        }
        if !matches!(todo, Todo::Announce(_)) {
            self.note(|| format!("control plane {life}: {}", said(&todo)));
        }
        match todo {
            Todo::Look { run, task } => {
                let found = self.found(life, &run, task);
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
            order => self.order(life, order),
        }
        Ok(())
    }

    fn found(&mut self, life: u64, run: &RunId, task: usize) -> Found {
        match self.dice.below(100) {
            0..=4 if !self.healed => Found::Blocked(WaitingReason::PathDown {
                profile: NetworkProfile::Vpn,
                found: "nothing".to_owned(),
            }),
            5..=6 if !self.healed => Found::Unknown("the disk cannot be read".to_owned()),
            // Tasks that are older than keys of work have none.
            7..=20 => Found::Clear(None),
            _ => match self.work(life, run, task) {
                None => Found::Clear(None),
                Some(work) => match self.done_before(&work) {
                    Some(answered) => Found::Done(Box::new(work), answered),
                    None => Found::Clear(Some(Box::new(work))),
                },
            },
        }
    }

    fn work(&mut self, life: u64, run: &RunId, task: usize) -> Option<Work> {
        let update = self.life(life)?.reconciler.run(run)?;
        plans::of(&update.run.pipeline)?.works.get(task).cloned()
    }

    /// The task that did the same work, if what it wrote stands.
    fn done_before(&self, work: &Work) -> Option<Answered> {
        let mut found = None;
        let looked = self.memory.each_run(|run, _| {
            for task in &run.tasks {
                let same = task.work.as_ref().is_some_and(|w| w.key == work.key);
                if same && task.state == TaskState::Succeeded && task.answered.is_none() {
                    found = Some(Answered {
                        run: run.id.clone(),
                        task: task.id.clone(),
                        outputs: Vec::new(),
                    });
                }
            }
            Ok::<(), std::convert::Infallible>(())
        });
        match looked {
            Ok(()) => found,
            Err(never) => match never {},
        }
    }

    /// The host whose agent has a run; it gets one that is there.
    fn place(&mut self, run: &RunId) -> usize {
        if let Some(site) = self.placed.get(run) {
            return *site;
        }
        let living: Vec<usize> = (0..self.sites.len())
            .filter(|site| !self.sites[*site].gone)
            .collect();
        let site = living[self.dice.below(living.len() as u64) as usize];
        self.placed.insert(run.clone(), site);
        site
    }

    /// The host on whose disk lies what an attempt staged.
    pub(super) fn carrier(&mut self, run: &RunId, token: &AttemptToken) -> usize {
        let carried = self.carried.get(token).copied();
        carried.unwrap_or_else(|| self.place(run))
    }

    /// Sends an agent what it is told.
    fn order(&mut self, life: u64, todo: Todo) {
        let run = match &todo {
            Todo::Launch(attempt)
            | Todo::Recover(attempt)
            | Todo::Stop { attempt, .. }
            | Todo::Sweep(attempt)
            | Todo::Acknowledge(attempt) => attempt.run.clone(),
            Todo::Release(run) => run.clone(),
            _ => return,
        };
        let site = self.place(&run);
        let deaf = self.sites[site].deaf_until > self.now();
        let Some(control) = self.life(life) else {
            return;
        };
        let now = control.clock.stamp();
        let session = control.sessions[site];
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
        let Some(order) = order.filter(|_| !deaf) else {
            return;
        };
        self.send(|| Happening::ToAgent {
            site,
            session,
            order: Box::new(order.clone()),
        });
    }

    fn roll_forward(&mut self, life: u64, attempt: Fenced) -> Result<(), String> {
        let Some((token, staged)) = self.decision(&attempt)? else {
            return Ok(());
        };
        let site = self.carrier(&attempt.run, &token);
        let rolled = self.tables.roll_forward(&self.sites[site], &token, &staged);
        let failed = |reason: String| {
            Err(Unrolled {
                code: "BC0612",
                reason,
            })
        };
        let result = match rolled {
            Ok(outputs) => Ok(outputs),
            Err(NotRolled::Failed(reason)) => failed(reason),
            Err(NotRolled::Gone(what)) if !self.sites[site].gone => {
                return Err(format!("{what} is decided for, and gone"));
            }
            Err(NotRolled::Gone(what)) => {
                self.will_give_up(&attempt.run);
                failed(format!("{what} is gone with its host"))
            }
            Err(NotRolled::Stuck) => {
                self.will_give_up(&attempt.run);
                failed("its schema does not fit".to_owned())
            }
        };
        let lost = self.faults.process && !self.healed && self.dice.chance(30);
        if !lost {
            let input = Box::new(Input::RolledForward { attempt, result });
            self.soon(200, Happening::Back { life, input });
        }
        Ok(())
    }

    /// What is durably decided of an attempt, and not committed.
    fn decision(&self, attempt: &Fenced) -> Result<Option<(AttemptToken, Staged)>, String> {
        let mut decided = None;
        self.memory.each_run(|run, _| {
            let task = run
                .tasks
                .get(attempt.task)
                .filter(|_| run.id == attempt.run);
            let Some(task) = task.filter(|task| task.state == TaskState::Committing) else {
                return Ok(());
            };
            let current = task.current().filter(|at| at.number == attempt.number);
            if let Some(staged) = current.and_then(|current| current.staged.clone()) {
                let token = AttemptToken {
                    task: task.id.clone(),
                    number: attempt.number,
                };
                decided = Some((token, staged));
            }
            Ok::<(), String>(())
        })?;
        Ok(decided)
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
