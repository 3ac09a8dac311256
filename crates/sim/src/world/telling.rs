//! Who hears what, and when: the network, the control plane's listeners, its storage.

use barecount_api::assignment::{Event, Order};
use barecount_control::{
    desk::{Ask, Fault},
    reconcile::Input,
};
use barecount_model::run::RunState;

use super::{Happening, World};
use crate::control::For;

impl World {
    pub(super) fn agent_turns(&mut self, turns: u64) -> Result<(), String> {
        if turns == 0 {
            return Ok(());
        }
        let now = self.now();
        for number in 0..self.sites.len() {
            let site = &mut self.sites[number];
            let (session, cut) = (site.session, now < site.dumb_until);
            let Some(agent) = site.agent.as_mut().filter(|_| site.paused_until <= now) else {
                continue;
            };
            for event in agent.run(turns) {
                self.stirred = true;
                self.note(|| format!("the agent of site {number} tells {}", told(&event)));
                let site = &self.sites[number];
                let kept = site
                    .disk
                    .keeps(&site.folders.kept_end(&event.attempt().token()));
                self.witness.hear(&event, kept)?;
                if let Event::Ended { attempt, .. } = &event {
                    self.carried.insert(attempt.token(), number);
                }
                if cut {
                    continue;
                }
                self.send(|| Happening::ToControl {
                    site: number,
                    session,
                    event: Box::new(event.clone()),
                });
            }
        }
        Ok(())
    }

    /// Sends something over the network.
    pub(super) fn send(&mut self, message: impl Fn() -> Happening) {
        let unsafe_network = self.faults.network && !self.healed;
        let lost = unsafe_network && self.dice.chance(80);
        let copies = match lost {
            true => 0,
            false => 1 + u64::from(unsafe_network && self.dice.chance(80)),
        };
        for _ in 0..copies {
            let late = unsafe_network && self.dice.chance(70);
            let within = if late { 40_000 } else { 150 };
            self.soon(within, message());
        }
    }

    pub(super) fn reach_agent(&mut self, site: usize, session: u64, order: Order) {
        let site = &self.sites[site];
        if session == site.session
            && let Some(agent) = &site.agent
        {
            agent.order(order);
        }
    }

    pub(super) fn reach_control(&mut self, site: usize, session: u64, event: Event) {
        if session != self.sites[site].session {
            return;
        }
        let Some(life) = self.control.as_ref().map(|control| control.id) else {
            return;
        };
        self.tell(life, event.into());
    }

    /// Tells a reconciler what came to pass, and takes what it says is to be done.
    pub(super) fn tell(&mut self, life: u64, input: Input) {
        let world = self.clock.now_ms();
        let Some(control) = self.life(life) else {
            return;
        };
        let now = control.clock.stamp();
        let todo = control.reconciler.step(input, now);
        let due = control.reconciler.next_due().map(|due| {
            let wait = due.duration_since(now).as_millis_f64().ceil().max(0.0);
            world + wait as u64
        });
        self.wake_at(life, due);
        for todo in todo {
            let lost = self.faults.process && !self.healed && self.dice.chance(15);
            if !lost {
                let todo = Box::new(todo);
                self.soon(2, Happening::Do { life, todo });
            }
        }
    }

    /// The control plane hears that an agent is another process than before.
    pub(super) fn tell_that_an_agent_began(&mut self) {
        let sessions = self.sites.iter().map(|site| site.session).collect();
        if let Some(control) = &mut self.control {
            control.sessions = sessions;
            let life = control.id;
            self.tell(life, Input::AgentBegan);
        }
    }

    fn wake_at(&mut self, life: u64, due: Option<u64>) {
        let Some(due) = due else {
            return;
        };
        let Some(control) = self.life(life) else {
            return;
        };
        if control.alarm.is_none_or(|alarm| due < alarm) {
            control.alarm = Some(due);
            self.at(due, Happening::Alarm { life });
        }
    }

    /// Hears what became durable.
    pub(super) fn listen(&mut self) -> Result<(), String> {
        let lives = self.control.iter_mut().chain(&mut self.former);
        let mut heard = Vec::new();
        let mut entries = Vec::new();
        for control in lives {
            let updates = control.desk.updates();
            heard.extend(updates.into_iter().map(|update| (control.id, update)));
            entries.extend(control.desk.entries());
        }
        for entries in entries {
            self.witness.enter(entries)?;
        }
        for (life, update) in heard {
            self.stirred = true;
            if matches!(update.run.state, RunState::Failed | RunState::Cancelled) {
                self.may_resume(&update.run.id);
            }
            let input = Box::new(Input::Changed(update));
            self.soon(3, Happening::Back { life, input });
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, life: u64) {
        self.may_fail_next();
        // It may die just before its batch is durable, or just after, and nobody hears of it.
        let dies = self.faults.control && !self.healed && self.dice.chance(15);
        let before = dies && self.dice.chance(300);
        // The ledger has what it heard under a checkpoint.
        let integrated = self.witness.length();
        let tells = self.dice.chance(200);
        let Some(control) = self.life(life) else {
            return;
        };
        if tells {
            control.ask(Ask::Integrated(integrated), For::Nobody);
        }
        if before {
            return self.lose_control(life);
        }
        let answers = control.flush();
        let doubts = control.desk.is_in_doubt();
        self.flushed = true;
        if doubts && !dies {
            self.soon(200, Happening::Flush { life });
        }
        match dies {
            true => self.lose_control(life),
            false => self.answer(life, answers),
        }
    }

    fn may_fail_next(&mut self) {
        if !self.faults.storage || self.healed || !self.dice.chance(90) {
            return;
        }
        let unreadable = self.dice.below(3) as u32;
        let fault = match self.dice.below(3) {
            0 => Fault::Failed,
            1 => Fault::FailedAtTheEnd,
            _ => Fault::FailedButPersisted,
        };
        self.note(|| format!("the storage fails next: {fault:?}, {unreadable} unreadable"));
        self.memory.fail_next(fault, unreadable);
    }

    fn lose_control(&mut self, life: u64) {
        self.note(|| format!("control plane {life} dies at an append"));
        match self
            .control
            .as_ref()
            .is_some_and(|control| control.id == life)
        {
            true => self.end_control(),
            false => self.former = None,
        }
    }
}

fn told(event: &Event) -> String {
    let token = event.attempt().token();
    match event {
        Event::Provisioning { waits_for, .. } => format!("{token} waits for {waits_for}"),
        Event::Started { .. } => format!("{token} started"),
        Event::Ended { outcome, .. } => format!("{token} ended: {:?}", outcome.result),
        Event::Lost { .. } => format!("{token} is lost"),
        Event::Swept { .. } => format!("{token} is swept"),
    }
}
