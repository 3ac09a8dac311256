mod failing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    pin::pin,
    sync::LazyLock,
    time::Duration,
};

use async_trait::async_trait;
use barecount_model::{
    plan::{Pin, WorkPlan},
    run::outcome::{AttemptResult, FailureKind},
};
use barecount_runner::{
    Runner,
    clock::VirtualClock,
    fake::{Fake, OnLaunch, Playbook, Script},
    launch::AttemptToken,
};

use tokio::sync::mpsc;

use super::*;
use crate::{
    access::tests::{Asked, assignment_of, verifier},
    config::AgentConfig,
    data::{Artifacts, DataError, Located},
    disk::Disk,
    places::StagingFolders,
};
use barecount_api::activity::Phase;

mod backends;
mod budget;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// So long an agent that has time enough may take, on the host's clock, to come to an end.
const PATIENCE: Duration = Duration::from_secs(20);
/// So often, on the host's clock, time goes on while an agent is waited for.
const GLANCE: Duration = Duration::from_millis(1);

/// What is launched is a fake, which needs no artifact.
struct AnyArtifact;

#[async_trait]
impl Artifacts for AnyArtifact {
    async fn locate(&self, _: &WorkPlan, _: &[Pin]) -> Result<Located, DataError> {
        Ok(Located {
            artifact: PathBuf::from("/nonexistent"),
            drivers: BTreeMap::new(),
        })
    }
}

/// An agent on a fake cloud, whose attempts go on when the agent dies.
struct World {
    state: tempfile::TempDir,
    clock: Arc<VirtualClock>,
    cloud: Fake,
}

/// One life of the agent: it ends when this is dropped, wherever it is then.
struct Life {
    agent: Agent,
    told: mpsc::UnboundedReceiver<Event>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(script: Script) -> Result<Self, Box<dyn std::error::Error>> {
        let clock = Arc::new(VirtualClock::at(0));
        let playbook = Playbook::always(script);
        let cloud = Fake::new(RunnerClass::Container, clock.clone(), playbook);
        Ok(Self {
            // In memory where there is such a folder: no power is lost here, and thousands of ends
            // are made durable.
            state: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?,
            cloud: cloud.surviving_the_agent(),
            clock,
        })
    }

    fn folders(&self) -> StagingFolders {
        StagingFolders::new(self.state.path())
    }

    fn begin(&self) -> Result<Life, Box<dyn std::error::Error>> {
        self.begin_with(Arc::new(self.cloud.restarted()), self.folders())
    }

    fn begin_with(
        &self,
        cloud: Arc<dyn Runner>,
        folders: StagingFolders,
    ) -> Result<Life, Box<dyn std::error::Error>> {
        let (events, told) = mpsc::unbounded_channel();
        let config = AgentConfig {
            runners: [cloud].into_iter().collect(),
            data: Arc::new(Asked::default()),
            artifacts: Arc::new(AnyArtifact),
            folders,
            secrets: None,
            identities: verifier(),
            clock: self.clock.clone(),
            disk: Disk::Threads,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()?;
        let _inside = runtime.enter();
        let agent = Agent::new(config, events);
        drop(_inside);
        Ok(Life {
            agent,
            told,
            runtime,
        })
    }
}

impl Life {
    fn order(&self, order: Order) {
        let _inside = self.runtime.enter();
        self.agent.order(order);
    }

    /// Waits until the agent has told something; none when it has nothing more to do.
    fn next(&mut self) -> Option<Event> {
        let idle = self.agent.idle();
        self.runtime.block_on(async {
            let next = async {
                tokio::select! {
                    biased;
                    event = self.told.recv() => event,
                    () = idle => self.told.try_recv().ok(),
                }
            };
            let next = tokio::time::timeout(PATIENCE, next).await;
            next.expect("the agent tells something, or has nothing to do")
        })
    }

    fn end_of(&mut self) -> Option<Event> {
        loop {
            match self.next()? {
                Event::Started { .. } | Event::Swept { .. } => {}
                end => return Some(end),
            }
        }
    }

    fn started(&mut self) {
        while let Some(event) = self.next() {
            if matches!(event, Event::Started { .. }) {
                return;
            }
        }
    }

    fn idle(&self) {
        let idle = async { tokio::time::timeout(PATIENCE, self.agent.idle()).await };
        let idle = self.runtime.block_on(idle);
        idle.expect("the agent has nothing to do");
    }

    /// Lets time go on until the agent has nothing more to do, or tells what it still waits for. An
    /// order may be on its way to a launch while the clock is moved: one move is not enough.
    fn idle_as_time_goes_on(&self, clock: &VirtualClock) -> Result<(), String> {
        let given_up = std::time::Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            let mut idle = pin!(self.agent.idle());
            while tokio::time::timeout(GLANCE, &mut idle).await.is_err() {
                clock.advance(Duration::from_secs(1));
                if std::time::Instant::now() > given_up {
                    let waits = self.agent.activities();
                    return Err(format!("the agent never comes to an end with {waits:?}"));
                }
            }
            Ok(())
        })
    }
}

/// Made once: signing takes longer than all else that a history does.
static ASSIGNMENTS: LazyLock<[Assignment; 4]> = LazyLock::new(|| [0, 1, 2, 3].map(assignment_of));

fn assignment(task: u8) -> Assignment {
    ASSIGNMENTS[usize::from(task)].clone()
}

fn launch(task: u8) -> Order {
    Order::Launch(Box::new(assignment(task)))
}

fn recover(task: u8) -> Order {
    Order::Recover(Box::new(assignment(task)))
}

fn attempt(task: u8) -> AttemptRef {
    ASSIGNMENTS[usize::from(task)].attempt.clone()
}

fn stop(task: u8) -> Order {
    Order::Stop {
        attempt: attempt(task),
        grace: Duration::ZERO,
    }
}

fn sweep(task: u8) -> Order {
    Order::Sweep {
        attempt: attempt(task),
        class: RunnerClass::Container,
        backend: "fake".to_owned(),
    }
}

fn result(event: Option<Event>) -> Option<AttemptResult> {
    match event? {
        Event::Ended { outcome, .. } => Some(outcome.result),
        _ => None,
    }
}

#[test]
fn every_runner_hears_that_a_run_has_ended() -> TestResult {
    let world = World::new(Script::default())?;
    let life = world.begin()?;
    let run = RunId::from_bytes([1; 16]);
    life.order(Order::Release(run.clone()));
    life.idle();
    assert_eq!(world.cloud.released(), [run]);
    Ok(())
}

#[test]
fn a_launch_that_comes_twice_does_not_sweep_the_attempt_that_runs() -> TestResult {
    let world = World::new(Script::hangs())?;
    let mut life = world.begin()?;
    life.order(launch(1));
    life.started();
    let written = world.folders().of(&attempt(1).token()).join("output/row");
    std::fs::write(&written, "1")?;
    life.order(launch(1));
    life.order(sweep(1));
    life.order(recover(1));
    life.order(stop(1));
    let end = life.end_of();
    assert!(matches!(result(end), Some(AttemptResult::Stopped)));
    assert!(written.exists(), "what it wrote was swept");
    assert_eq!(world.cloud.started(), 1);
    Ok(())
}

#[test]
fn an_attempt_that_is_stopped_before_it_is_launched_is_never_launched() -> TestResult {
    let world = World::new(Script::hangs())?;
    let mut life = world.begin()?;
    life.order(stop(1));
    life.order(launch(1));
    let end = life.end_of();
    assert!(matches!(result(end), Some(AttemptResult::Stopped)));
    assert_eq!(world.cloud.started(), 0);
    Ok(())
}

#[test]
fn a_launch_whose_answer_got_lost_leaves_nothing_running() -> TestResult {
    let world = World::new(Script {
        launch: OnLaunch::StartsButFails,
        ..Script::hangs()
    })?;
    let mut life = world.begin()?;
    life.order(launch(1));
    let Some(AttemptResult::Failed(failure)) = result(life.end_of()) else {
        return Err("it did not fail".into());
    };
    assert_eq!(failure.kind, FailureKind::Infrastructure);
    assert_eq!(world.cloud.held(), Vec::<AttemptToken>::new());
    Ok(())
}

#[test]
fn an_attempt_that_outlived_its_agent_is_waited_for_and_its_end_told() -> TestResult {
    let world = World::new(Script::runs_for(Duration::from_secs(10)))?;
    let mut life = world.begin()?;
    life.order(launch(1));
    life.started();
    drop(life);
    let mut life = world.begin()?;
    life.order(recover(1));
    life.started();
    world.clock.advance(Duration::from_secs(10));
    let Some(Event::Ended { outcome, .. }) = life.end_of() else {
        return Err("its end was not told".into());
    };
    assert!(matches!(outcome.result, AttemptResult::Done(_)));
    let (begun, over) = (outcome.timeline.started_at, outcome.timeline.work_ended_at);
    let took = over
        .ok_or("no end")?
        .duration_since(begun.ok_or("no beginning")?);
    assert_eq!(
        took.as_secs(),
        10,
        "the work's time is counted from its launch"
    );
    assert_eq!(world.cloud.started(), 1);
    Ok(())
}

#[test]
fn an_attempt_that_outlived_its_agent_is_stopped_when_that_is_ordered() -> TestResult {
    let world = World::new(Script::hangs())?;
    let mut life = world.begin()?;
    life.order(launch(1));
    life.started();
    drop(life);
    let mut life = world.begin()?;
    life.order(recover(1));
    life.order(stop(1));
    assert!(matches!(
        result(life.end_of()),
        Some(AttemptResult::Stopped)
    ));
    Ok(())
}

#[test]
fn an_end_that_nobody_heard_of_is_told_by_the_next_agent_and_the_work_not_done_again() -> TestResult
{
    let world = World::new(Script::default())?;
    let mut life = world.begin()?;
    life.order(launch(1));
    let first = result(life.end_of());
    assert!(matches!(first, Some(AttemptResult::Done(_))));
    drop(life);
    // Even where the runner has forgotten it.
    let token = attempt(1).token();
    tokio::runtime::Runtime::new()?.block_on(world.cloud.destroy(&token))?;
    let mut life = world.begin()?;
    life.order(recover(1));
    assert_eq!(result(life.end_of()), first);
    life.order(Order::Acknowledge(attempt(1)));
    life.idle();
    drop(life);
    let mut life = world.begin()?;
    life.order(recover(1));
    assert!(matches!(life.end_of(), Some(Event::Lost { .. })));
    assert_eq!(world.cloud.started(), 1);
    Ok(())
}

#[test]
fn what_was_launched_before_the_host_lost_power_is_lost() -> TestResult {
    let world = World::new(Script::hangs())?;
    let mut life = world.begin()?;
    life.order(launch(1));
    life.started();
    drop(life);
    let note = world.folders().of(&attempt(1).token()).join("launch.json");
    std::fs::write(note, r#"{"boot":"another","at":"1970-01-01T00:00:00Z"}"#)?;
    let mut life = world.begin()?;
    life.order(recover(1));
    assert!(matches!(life.end_of(), Some(Event::Lost { .. })));
    assert_eq!(world.cloud.held(), Vec::<AttemptToken>::new());
    Ok(())
}

/// The control plane's side: what it was told, and what it may order next.
#[derive(Default)]
struct Ledger {
    sent: Vec<(u8, &'static str)>,
    ends: HashMap<u8, Event>,
    acknowledged: BTreeSet<u8>,
    swept: BTreeSet<u8>,
}

impl Ledger {
    /// Takes what the agent told, and holds it against what was told before.
    fn hear(&mut self, event: Event) {
        let task = &event.attempt().task;
        let task = u8::from_str_radix(&task.printed()[5..7], 16).expect("a task's name");
        if matches!(event, Event::Started { .. } | Event::Swept { .. }) {
            return;
        }
        if let Some(before) = self.ends.insert(task, event.clone()) {
            assert_eq!(
                format!("{before:?}"),
                format!("{event:?}"),
                "attempt {task} ended in two ways"
            );
        }
    }
}

/// A generator of choices, from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap_or(0) % sides
    }
}

fn order(task: u8, verb: &str) -> Order {
    match verb {
        "launch" => launch(task),
        "recover" => recover(task),
        "stop" => stop(task),
        "acknowledge" => Order::Acknowledge(attempt(task)),
        "sweep" => sweep(task),
        _ => Order::Release(attempt(task).run),
    }
}

/// What holds at every moment of a history.
fn holds(world: &World, life: &Life, launched: usize) {
    assert!(
        world.cloud.started() <= launched as u64,
        "an attempt was launched twice"
    );
    for activity in life.agent.activities() {
        let folder = world.folders().of(&activity.attempt.token());
        let running = activity.phase == Phase::Running;
        assert!(!running || folder.is_dir(), "a live attempt was swept");
    }
}

impl Ledger {
    /// Notes what is sent.
    fn send(&mut self, task: u8, verb: &'static str, launched: &mut BTreeSet<u8>) {
        match verb {
            "launch" => drop(launched.insert(task)),
            "acknowledge" => drop(self.acknowledged.insert(task)),
            "sweep" => drop(self.swept.insert(task)),
            _ => {}
        }
        self.sent.push((task, verb));
    }

    /// What may be sent about a task now, if the dice choose it.
    fn verb(&self, roll: usize, task: u8, launched: &BTreeSet<u8>) -> Option<&'static str> {
        let ended = self.ends.contains_key(&task);
        match roll {
            0..=2 if !ended => Some("launch"),
            3 if launched.contains(&task) => Some("stop"),
            4 if launched.contains(&task) && !ended => Some("recover"),
            5 | 6 if ended => Some("acknowledge"),
            7 if self.acknowledged.contains(&task) => Some("sweep"),
            _ => None,
        }
    }

    /// A new agent: what has not ended as far as anybody knows is asked for. What is known is not
    /// sent to it, which would not know it: the control plane fences it off.
    fn begin_again(&mut self, life: &Life, launched: &BTreeSet<u8>) {
        for task in launched.iter().filter(|task| !self.ends.contains_key(task)) {
            life.order(recover(*task));
        }
        let Self { sent, ends, .. } = self;
        sent.retain(|(task, _)| !ends.contains_key(task));
        self.acknowledged.extend(self.ends.keys());
    }
}

/// One history: orders are sent, sent again, late and lost; the clock goes on; the agent dies.
fn history(seed: u64) -> TestResult {
    const TASKS: usize = 3;
    let mut dice = Dice(seed);
    let world = World::new(Script::runs_for(Duration::from_secs(2)))?;
    let mut life = world.begin()?;
    let mut ledger = Ledger::default();
    let mut launched = BTreeSet::new();
    for _ in 0..60 {
        let task = u8::try_from(dice.roll(TASKS))? + 1;
        let roll = dice.roll(12);
        let verb = match roll {
            8 => {
                world.clock.advance(Duration::from_secs(1));
                continue;
            }
            9 if dice.roll(4) == 0 => {
                drop(life);
                life = world.begin()?;
                ledger.begin_again(&life, &launched);
                continue;
            }
            _ => match ledger.verb(roll, task, &launched) {
                Some(verb) => verb,
                None if !ledger.sent.is_empty() => {
                    // Something that was sent comes again.
                    let (task, verb) = ledger.sent[dice.roll(ledger.sent.len())];
                    life.order(order(task, verb));
                    "release"
                }
                None => continue,
            },
        };
        if verb == "launch" && ledger.acknowledged.contains(&task) {
            continue;
        }
        ledger.send(task, verb, &mut launched);
        // One in eight is lost on the way, and sent again some time.
        if dice.roll(8) > 0 {
            life.order(order(task, verb));
        }
        while let Ok(event) = life.told.try_recv() {
            ledger.hear(event);
        }
        holds(&world, &life, launched.len());
    }
    for task in launched
        .iter()
        .filter(|task| !ledger.ends.contains_key(task))
    {
        life.order(recover(*task));
    }
    life.idle_as_time_goes_on(&world.clock)?;
    while let Ok(event) = life.told.try_recv() {
        ledger.hear(event);
    }
    let ended: BTreeSet<u8> = ledger.ends.into_keys().collect();
    assert_eq!(ended, launched, "each attempt has one end");
    Ok(())
}

#[test]
fn orders_that_are_doubled_late_or_lost_and_agents_that_die_give_each_attempt_one_end() -> TestResult
{
    for seed in 0..200 {
        let one = std::panic::catch_unwind(|| history(seed).map_err(|error| error.to_string()));
        match one {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("seed {seed}: {error}").into()),
            Err(_) => return Err(format!("seed {seed}: see the panic above").into()),
        }
    }
    Ok(())
}
