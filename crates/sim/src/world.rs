//! The world of a history: what is under way in it, and what goes wrong.
//!
//! Messages between control plane and agent are dropped, doubled, late and out of order; both die and
//! begin anew at any moment, the agent also between two of its own steps; a second control plane takes
//! over from one that lives; the storage fails, also after it has written; what is to be done in a
//! process, and its answer, get lost. After a while everything heals: then all has to come to its end.

mod doing;

use std::collections::{BTreeMap, VecDeque};

use barecount_agent::{IdentityVerifier, StagingFolders};
use barecount_api::assignment::{Event, Order};
use barecount_control::{
    desk::{Ask, Fault, Memory},
    reconcile::{Input, Report, Todo},
};
use barecount_model::id::RunId;

use crate::{
    agent::AgentLife,
    clock::WorldClock,
    cloud::Cloud,
    control::{ControlLife, For, fenced},
    data::Tables,
    dice::Dice,
    invariants::{self, Witness},
    plans,
};

/// From then on nothing fails any more, in milliseconds.
const HEALED_AT: u64 = 60_000;
/// By then everything has come to its end, or waits for ever.
const OVER_BY: u64 = HEALED_AT + 4 * 3_600_000;
/// Steps of a history at most: one that has more goes round in circles.
const STEPS: u64 = 100_000;

/// What a history was made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Steps.
    pub steps: u64,
    /// Batches that became durable.
    pub batches: u64,
    /// Attempts that were begun in the backend.
    pub attempts: u64,
    /// Times that the agent or the control plane died.
    pub deaths: u64,
}

/// What happens next in the world.
enum Happening {
    ToAgent {
        session: u64,
        order: Box<Order>,
    },
    ToControl {
        session: u64,
        event: Box<Event>,
    },
    Do {
        life: u64,
        session: u64,
        todo: Box<Todo>,
    },
    Back {
        life: u64,
        input: Box<Input>,
    },
    Flush {
        life: u64,
    },
    Alarm {
        life: u64,
    },
    Submit {
        client: usize,
    },
    Cancel {
        client: usize,
    },
    AgentDies,
    AgentBegins,
    ControlDies,
    ControlBegins,
    FormerEnds,
    Heals,
}

/// Somebody who wants some work done.
#[derive(Debug, Default)]
struct Client {
    shape: usize,
    tries: u8,
    run: Option<RunId>,
}

pub(crate) struct World {
    dice: Dice,
    clock: WorldClock,
    memory: Memory,
    cloud: Cloud,
    tables: Tables,
    folders: StagingFolders,
    _disk: tempfile::TempDir,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    control: Option<ControlLife>,
    /// One that another has taken over from, and that does not know yet.
    former: Option<ControlLife>,
    agent: Option<AgentLife>,
    session: u64,
    lives: u64,
    clients: Vec<Client>,
    witness: Witness,
    checked: usize,
    /// A batch was made since memory was last held against what is durable.
    flushed: bool,
    healed: bool,
    /// Something was told since it was last asked whether everything is over.
    stirred: bool,
    tally: Tally,
    trace: Option<(usize, VecDeque<String>)>,
}

impl World {
    pub(crate) fn new(seed: u64, trace: Option<usize>) -> Self {
        let mut dice = Dice::new(seed);
        let clock = WorldClock::default();
        // In memory where there is such a folder: no power is lost here.
        let disk = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a temporary folder");
        Self {
            memory: Memory::new(),
            cloud: Cloud::new(clock.clone(), dice.fork()),
            tables: Tables::new(dice.fork()),
            folders: StagingFolders::new(disk.path()),
            _disk: disk,
            queue: BTreeMap::new(),
            queued: 0,
            control: None,
            former: None,
            agent: None,
            session: 0,
            lives: 0,
            clients: Vec::new(),
            witness: Witness::default(),
            checked: 0,
            flushed: false,
            healed: false,
            stirred: false,
            tally: Tally::default(),
            trace: trace.map(|kept| (kept, VecDeque::new())),
            dice,
            clock,
        }
    }

    /// The last steps, where they are kept.
    pub(crate) fn steps(self) -> Vec<String> {
        self.trace
            .map(|(_, steps)| steps.into())
            .unwrap_or_default()
    }

    pub(crate) fn play(&mut self) -> Result<Tally, String> {
        self.foresee();
        self.begin_control()?;
        self.begin_agent()?;
        while !self.is_over()? {
            self.step()?;
        }
        self.witness.at_the_end(&self.memory, &self.tables)?;
        self.tally.batches = self.memory.batches() as u64;
        self.tally.attempts = self.cloud.begun();
        Ok(self.tally)
    }

    /// Decides what is wanted, and what dies when.
    fn foresee(&mut self) {
        let clients = 1 + self.dice.below(3) as usize;
        for client in 0..clients {
            let shape = self.dice.below(plans::PLANS.len() as u64) as usize;
            self.clients.push(Client {
                shape,
                ..Client::default()
            });
            let at = self.dice.below(8_000);
            self.at(at, Happening::Submit { client });
            if self.dice.chance(250) {
                let again = at + self.dice.below(20_000);
                self.at(again, Happening::Submit { client });
            }
            if self.dice.chance(300) {
                let then = at + self.dice.below(25_000);
                self.at(then, Happening::Cancel { client });
            }
        }
        for _ in 0..self.dice.below(4) {
            let at = self.dice.below(40_000);
            self.at(at, Happening::AgentDies);
        }
        for _ in 0..self.dice.below(4) {
            let at = self.dice.below(40_000);
            let dies = self.dice.chance(600);
            let how = if dies {
                Happening::ControlDies
            } else {
                Happening::ControlBegins
            };
            self.at(at, how);
        }
        self.at(HEALED_AT, Happening::Heals);
    }

    fn now(&self) -> u64 {
        self.clock.now_ms()
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    fn soon(&mut self, within: u64, happening: Happening) {
        let at = self.now() + self.dice.below(within + 1);
        self.at(at, happening);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.clock.now_ms();
        if let Some((kept, steps)) = &mut self.trace {
            if steps.len() == *kept {
                steps.pop_front();
            }
            steps.push_back(format!("{now:>7} ms  {}", what()));
        }
    }

    /// Whether nothing is left to do, or why that will never be so.
    fn is_over(&mut self) -> Result<bool, String> {
        if !self.healed {
            return Ok(false);
        }
        // Nothing has come to its end where nothing has happened.
        if !self.stirred && !self.queue.is_empty() && !self.tally.steps.is_multiple_of(512) {
            return Ok(false);
        }
        self.stirred = false;
        let waits = self.waits_for()?;
        if waits.is_empty() {
            return Ok(true);
        }
        let nothing_comes = self.queue.is_empty() && self.clock.next_ms().is_none();
        if nothing_comes || self.now() > OVER_BY || self.tally.steps > STEPS {
            let under_way = self.agent.as_ref().map(AgentLife::under_way);
            return Err(format!(
                "this waits for ever: {}; the agent has {under_way:?}",
                waits.join("; ")
            ));
        }
        Ok(false)
    }

    fn waits_for(&self) -> Result<Vec<String>, String> {
        let mut waits = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            if client.run.is_none() {
                waits.push(format!("client {number} has no run"));
            }
        }
        if !waits.is_empty() {
            return Ok(waits);
        }
        self.memory.each_run(|run, _| {
            if !run.state.is_final() {
                let states = run.tasks.iter().map(|task| {
                    let attempt = task.current();
                    format!(
                        "{:?} #{} {:?}",
                        task.state,
                        attempt.map_or(0, |a| a.number),
                        attempt.map(|a| a.state)
                    )
                });
                let states: Vec<String> = states.collect();
                waits.push(format!("{} {:?} {states:?}", run.id, run.state));
            }
            Ok::<(), String>(())
        })?;
        if waits.is_empty() {
            let left = invariants::left_over(&self.cloud, &self.folders)?;
            waits.extend(left.into_iter().map(|name| format!("{name} is not swept")));
        }
        Ok(waits)
    }

    fn step(&mut self) -> Result<(), String> {
        self.tally.steps += 1;
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        let wakes = self.clock.next_ms();
        let now = self.now();
        let at = next.into_iter().chain(wakes).min().unwrap_or(now).max(now);
        // Before time goes on much, an agent that is not slow gets done with what it does.
        let turns = match (at > now + 20, self.dice.chance(30) && !self.healed) {
            (true, false) => 40,
            _ => self.dice.below(4),
        };
        self.agent_turns(turns)?;
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        let wakes = self.clock.next_ms();
        let at = next.into_iter().chain(wakes).min().unwrap_or(now).max(now);
        self.clock.advance_to(at);
        if next.is_some_and(|next| next <= at)
            && let Some((_, happening)) = self.queue.pop_first()
        {
            self.happen(happening)?;
        }
        self.agent_turns(1)?;
        self.listen()?;
        invariants::of_backend(&self.cloud)?;
        let batches = self.memory.batches();
        if self.checked != batches {
            self.checked = batches;
            self.witness.durable(&self.memory)?;
        }
        let flushed = std::mem::take(&mut self.flushed);
        let control = self.control.as_ref().filter(|_| flushed);
        if control.is_none_or(|control| control.desk.agrees_with(&self.memory)) {
            Ok(())
        } else {
            Err("the control plane's memory is not what is durable".to_owned())
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::ToAgent { session, order } => {
                if session == self.session
                    && let Some(agent) = &self.agent
                {
                    agent.order(*order);
                }
            }
            Happening::ToControl { session, event } => self.reach_control(session, *event),
            Happening::Do {
                life,
                session,
                todo,
            } => return self.carry_out(life, session, *todo),
            Happening::Back { life, input } => self.tell(life, *input),
            Happening::Flush { life } => self.flush(life),
            Happening::Alarm { life } => {
                if let Some(control) = self.life(life) {
                    control.alarm = None;
                }
                self.tell(life, Input::Passed);
            }
            Happening::Submit { client } => self.submit(client),
            Happening::Cancel { client } => self.cancel(client),
            Happening::AgentDies => self.end_agent(),
            Happening::AgentBegins => return self.begin_agent(),
            Happening::ControlDies => self.end_control(),
            Happening::ControlBegins => return self.begin_control(),
            Happening::FormerEnds => self.former = None,
            Happening::Heals => return self.heal(),
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        self.note(|| "everything heals".to_owned());
        self.healed = true;
        self.memory.heal();
        self.cloud.heal();
        self.tables.heal();
        if self.control.is_none() {
            self.begin_control()?;
        }
        if self.agent.is_none() {
            self.begin_agent()?;
        }
        for client in 0..self.clients.len() {
            if self.clients[client].run.is_none() {
                self.soon(1_000, Happening::Submit { client });
            }
        }
        Ok(())
    }

    fn agent_turns(&mut self, turns: u64) -> Result<(), String> {
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        for event in agent.run(turns) {
            self.stirred = true;
            self.note(|| format!("the agent tells {}", told(&event)));
            self.witness.hear(&event)?;
            let session = self.session;
            self.send(|| Happening::ToControl {
                session,
                event: Box::new(event.clone()),
            });
        }
        Ok(())
    }

    /// Sends something over the network.
    fn send(&mut self, message: impl Fn() -> Happening) {
        let lost = !self.healed && self.dice.chance(60);
        let copies = if lost {
            0
        } else {
            1 + u64::from(self.dice.chance(60))
        };
        for _ in 0..copies {
            let late = !self.healed && self.dice.chance(50);
            let within = if late { 40_000 } else { 150 };
            self.soon(within, message());
        }
    }

    fn reach_control(&mut self, session: u64, event: Event) {
        if session != self.session {
            return;
        }
        let Some(life) = self.control.as_ref().map(|control| control.id) else {
            return;
        };
        let attempt = fenced(event.attempt());
        let report = match event {
            Event::Swept { .. } => return self.tell(life, Input::Swept(attempt)),
            Event::Started { runner, .. } => Report::Started { runner },
            Event::Ended { outcome, .. } => Report::Ended {
                outcome,
                dead_letters: Vec::new(),
            },
            Event::Lost { .. } => Report::Lost,
        };
        self.tell(life, Input::Told { attempt, report });
    }

    fn life(&mut self, life: u64) -> Option<&mut ControlLife> {
        let lives = self.control.iter_mut().chain(&mut self.former);
        lives.into_iter().find(|control| control.id == life)
    }

    /// Tells a reconciler what came to pass, and takes what it says is to be done.
    fn tell(&mut self, life: u64, input: Input) {
        let now = self.clock.stamp();
        let session = self.session;
        let Some(control) = self.life(life) else {
            return;
        };
        if matches!(input, Input::AgentBegan) {
            control.session = session;
        }
        let session = control.session;
        let todo = control.reconciler.step(input, now);
        let due = control.reconciler.next_due().map(|due| {
            let wait = due.duration_since(now).as_millis_f64().ceil().max(0.0);
            self.clock.now_ms() + wait as u64
        });
        self.wake_at(life, due);
        for todo in todo {
            let lost = !self.healed && self.dice.chance(10);
            if !lost {
                let todo = Box::new(todo);
                self.soon(
                    2,
                    Happening::Do {
                        life,
                        session,
                        todo,
                    },
                );
            }
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
    fn listen(&mut self) -> Result<(), String> {
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
            let input = Box::new(Input::Changed(update));
            self.soon(3, Happening::Back { life, input });
        }
        Ok(())
    }

    fn flush(&mut self, life: u64) {
        if !self.healed && self.dice.chance(60) {
            let unreadable = self.dice.below(3) as u32;
            let fault = match self.dice.below(3) {
                0 => Fault::Failed,
                1 => Fault::FailedAtTheEnd,
                _ => Fault::FailedButPersisted,
            };
            self.note(|| format!("the storage fails next: {fault:?}, {unreadable} unreadable"));
            self.memory.fail_next(fault, unreadable);
        }
        // The ledger has what it heard under a checkpoint.
        let integrated = self.witness.length();
        let tells = self.dice.chance(200);
        let Some(control) = self.life(life) else {
            return;
        };
        if tells {
            control.ask(Ask::Integrated(integrated), For::Nobody);
        }
        let answers = control.flush();
        self.flushed = true;
        self.answer(life, answers);
    }

    fn identities(&self) -> Option<IdentityVerifier> {
        let control = self.control.as_ref()?;
        Some(IdentityVerifier::new(control.desk.identity_key()))
    }
}

fn told(event: &Event) -> String {
    let token = event.attempt().token();
    match event {
        Event::Started { .. } => format!("{token} started"),
        Event::Ended { outcome, .. } => format!("{token} ended: {:?}", outcome.result),
        Event::Lost { .. } => format!("{token} is lost"),
        Event::Swept { .. } => format!("{token} is swept"),
    }
}
