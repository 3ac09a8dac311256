//! The world of a history: what is under way in it, and what goes wrong.
//!
//! Messages between control plane and agents are dropped, doubled, late and out of order, and the way
//! between them is cut in one direction or both; each of them dies, is paused and begins anew at any
//! moment, an agent also between two of its own steps; hosts lose power, their disks are full, their
//! clocks are set, and one of them goes for good; a second control plane takes over from one that
//! lives; the storage fails, also after it has written; what is to be done in a process, and its
//! answer, get lost. After a while everything heals: then all has to come to its end.

mod asking;
mod doing;
mod faults;
mod telling;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    ops::AddAssign,
    path::{Path, PathBuf},
};

use barecount_agent::IdentityVerifier;
use barecount_api::assignment::{Event, Order};
use barecount_control::{
    Update,
    desk::Memory,
    reconcile::{Input, Todo},
};
use barecount_model::id::RunId;
use barecount_runner::launch::AttemptToken;

use self::faults::Faults;
use crate::{
    agent::AgentLife, clock::WorldClock, cloud::Cloud, control::ControlLife, data::Tables,
    dice::Dice, invariants::Witness, plans, site::Site,
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
    /// Times that an agent or the control plane died.
    pub deaths: u64,
    /// Runs that were taken up again.
    pub resumed: u64,
    /// Runs of which something was not true any more when they were taken up.
    pub reopened: u64,
    /// Runs that were given up, with what was decided for.
    pub abandoned: u64,
    /// Tasks that work which was done before answered.
    pub answered: u64,
    /// Times that a host lost power.
    pub power_losses: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.batches += other.batches;
        self.attempts += other.attempts;
        self.deaths += other.deaths;
        self.resumed += other.resumed;
        self.reopened += other.reopened;
        self.abandoned += other.abandoned;
        self.answered += other.answered;
        self.power_losses += other.power_losses;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            steps,
            batches,
            attempts,
            deaths,
            resumed,
            reopened,
            abandoned,
            answered,
            power_losses,
        } = self;
        write!(
            f,
            "{steps} steps, {batches} batches, {attempts} attempts, {deaths} deaths, \
             {power_losses} losses of power; {resumed} runs resumed, {reopened} reopened, \
             {abandoned} given up, {answered} tasks answered"
        )
    }
}

/// What happens next in the world.
enum Happening {
    ToAgent {
        site: usize,
        session: u64,
        order: Box<Order>,
    },
    ToControl {
        site: usize,
        session: u64,
        event: Box<Event>,
    },
    Do {
        life: u64,
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
    Resume {
        client: usize,
    },
    GiveUp {
        run: RunId,
    },
    AgentDies {
        site: usize,
    },
    AgentBegins {
        site: usize,
    },
    PowerFails {
        site: usize,
    },
    SiteVanishes {
        site: usize,
    },
    SiteIsMissed {
        site: usize,
    },
    DiskFills {
        site: usize,
        full: bool,
    },
    ClockIsSet {
        site: Option<usize>,
    },
    Cut {
        site: usize,
    },
    Pause {
        site: Option<usize>,
    },
    StorageFills,
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
    /// So often it takes a run up again that did not succeed.
    resumes: u8,
    run: Option<RunId>,
}

pub(crate) struct World {
    dice: Dice,
    faults: Faults,
    clock: WorldClock,
    memory: Memory,
    cloud: Cloud,
    tables: Tables,
    sites: Vec<Site>,
    /// For what has to be on a real disk: removed with the history.
    _folder: Option<tempfile::TempDir>,
    /// The host whose agent has a run.
    placed: BTreeMap<RunId, usize>,
    /// The host on whose disk lies what an attempt staged.
    carried: BTreeMap<AttemptToken, usize>,
    giving_up: BTreeSet<RunId>,
    /// Runs that the control plane which begins follows with the rest.
    reopened: Vec<Update>,
    verifier: Option<IdentityVerifier>,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    control: Option<ControlLife>,
    /// One that another has taken over from, and that does not know yet.
    former: Option<ControlLife>,
    sessions: u64,
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
        let faults = Faults::of(&mut dice);
        let clients = clients(&mut dice);
        let real = clients
            .iter()
            .any(|client| plans::PLANS[client.shape].has_secrets());
        let folder = real.then(|| {
            // Secrets lie on a file system in memory, or nowhere.
            tempfile::tempdir_in("/dev/shm").expect("a folder in memory")
        });
        let root = folder.as_ref().map_or(Path::new("/world"), |at| at.path());
        let count = 1 + usize::from(dice.chance(400));
        let sites = (0..count).map(|number| {
            let folder: PathBuf = root.join(format!("site-{number}"));
            let ahead = faults.ahead(&mut dice);
            Site::new(dice.fork(), &clock, ahead, folder)
        });
        let sites = sites.collect();
        Self {
            memory: Memory::new(),
            cloud: Cloud::new(clock.clone(), dice.fork()),
            tables: Tables::new(dice.fork()),
            sites,
            _folder: folder,
            placed: BTreeMap::new(),
            carried: BTreeMap::new(),
            giving_up: BTreeSet::new(),
            reopened: Vec::new(),
            verifier: None,
            queue: BTreeMap::new(),
            queued: 0,
            control: None,
            former: None,
            sessions: 0,
            lives: 0,
            clients,
            witness: Witness::default(),
            checked: 0,
            flushed: false,
            healed: false,
            stirred: false,
            tally: Tally::default(),
            trace: trace.map(|kept| (kept, VecDeque::new())),
            faults,
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
        for site in 0..self.sites.len() {
            self.begin_agent(site)?;
        }
        while !self.is_over()? {
            self.step()?;
        }
        self.witness.at_the_end(&self.memory, &self.tables)?;
        self.tally.batches = self.memory.batches() as u64;
        self.tally.attempts = self.cloud.begun();
        Ok(self.tally)
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
            let agents = self.sites.iter().filter_map(|site| site.agent.as_ref());
            let under_way: Vec<_> = agents.map(AgentLife::under_way).collect();
            return Err(format!(
                "this waits for ever: {}; the agents have {under_way:?}",
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
            let left = self.left_over()?;
            waits.extend(left.into_iter().map(|name| format!("{name} is not swept")));
        }
        Ok(waits)
    }

    /// What is left of attempts, in the backend and on the hosts of agents.
    fn left_over(&self) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        for site in &self.sites {
            names.extend(site.left()?);
        }
        names.extend(self.cloud.held().iter().map(ToString::to_string));
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn step(&mut self) -> Result<(), String> {
        self.tally.steps += 1;
        let now = self.now();
        let at = self.next_at();
        // Before time goes on much, an agent that is not slow gets done with what it does.
        let turns = match (at > now + 20, self.dice.chance(30) && !self.healed) {
            (true, false) => 40,
            _ => self.dice.below(4),
        };
        self.agent_turns(turns)?;
        let at = self.next_at();
        self.clock.advance_to(at);
        if self.next_queued().is_some_and(|next| next <= at)
            && let Some((_, happening)) = self.queue.pop_first()
        {
            self.happen(happening)?;
        }
        self.agent_turns(1)?;
        self.listen()?;
        self.witness.of_world(&self.cloud, &self.tables)?;
        let batches = self.memory.batches();
        if self.checked != batches {
            self.checked = batches;
            self.witness.durable(&self.memory, &mut self.tally)?;
        }
        let flushed = std::mem::take(&mut self.flushed);
        let control = self.control.as_ref().filter(|_| flushed);
        if control.is_none_or(|control| control.desk.agrees_with(&self.memory)) {
            Ok(())
        } else {
            Err("the control plane's memory is not what is durable".to_owned())
        }
    }

    fn next_queued(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    fn next_at(&self) -> u64 {
        let (now, next) = (self.now(), self.next_queued());
        let next = next.into_iter().chain(self.clock.next_ms()).min();
        next.unwrap_or(now).max(now)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        if let Some(later) = self.paused(&happening) {
            self.at(later, happening);
            return Ok(());
        }
        match happening {
            Happening::ToAgent {
                site,
                session,
                order,
            } => self.reach_agent(site, session, *order),
            Happening::ToControl {
                site,
                session,
                event,
            } => self.reach_control(site, session, *event),
            Happening::Do { life, todo } => return self.carry_out(life, *todo),
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
            Happening::Resume { client } => self.resume(client),
            Happening::GiveUp { run } => self.give_up(&run)?,
            Happening::AgentBegins { site } => return self.begin_agent(site),
            Happening::ControlDies => self.end_control(),
            Happening::ControlBegins => return self.begin_control(),
            Happening::FormerEnds => self.former = None,
            Happening::Heals => return self.heal(),
            fault => self.go_wrong(fault),
        }
        Ok(())
    }

    /// Until when nothing comes of it, because who is to do it is paused.
    fn paused(&self, happening: &Happening) -> Option<u64> {
        let life = |life: u64| {
            let lives = self.control.iter().chain(&self.former);
            let found = lives.into_iter().find(|control| control.id == life)?;
            Some(found.paused_until)
        };
        let until = match happening {
            Happening::ToAgent { site, .. } => self.sites[*site].paused_until,
            Happening::ToControl { .. } => self.control.as_ref()?.paused_until,
            Happening::Do { life: of, .. }
            | Happening::Back { life: of, .. }
            | Happening::Flush { life: of }
            | Happening::Alarm { life: of } => life(*of)?,
            _ => return None,
        };
        (until > self.now()).then_some(until)
    }

    fn life(&mut self, life: u64) -> Option<&mut ControlLife> {
        let lives = self.control.iter_mut().chain(&mut self.former);
        lives.into_iter().find(|control| control.id == life)
    }
}

fn clients(dice: &mut Dice) -> Vec<Client> {
    let count = 1 + dice.below(3);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..count {
        // Several often want the same.
        let same = clients.first().filter(|_| dice.chance(350));
        let shape = match same {
            Some(first) => first.shape,
            None => dice.below(plans::PLANS.len() as u64) as usize,
        };
        clients.push(Client {
            shape,
            resumes: u8::try_from(dice.below(3)).unwrap_or(0),
            ..Client::default()
        });
    }
    clients
}
