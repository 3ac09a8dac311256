//! A backend that outlives the agent, forgets what has ended, and fails at whatever it is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use barecount_model::class::{NetworkProfile, RunnerClass};
use barecount_runner::{
    Capabilities, Handle, Health, Most, Recovered, Runner, RunnerError,
    clock::Clock,
    launch::{AttemptToken, End, Ended, Launch, LogSummary, Usage},
};
use tokio::sync::Notify;

use crate::{clock::WorldClock, dice::Dice};

const BACKEND: &str = "simulated";

#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    class: RunnerClass,
    clock: WorldClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    healthy: bool,
    held: BTreeMap<AttemptToken, Instance>,
    begun: BTreeSet<AttemptToken>,
    twice: Option<AttemptToken>,
}

#[derive(Debug, Clone)]
struct Instance {
    /// None: not before it is stopped.
    ends_at: Option<Duration>,
    end: End,
    stops_in: Duration,
    /// It saves a checkpoint when it is stopped, or asks to be tried again.
    saves: bool,
    changed: Arc<Notify>,
}

impl Cloud {
    pub(crate) fn new(clock: WorldClock, dice: Dice) -> Self {
        let state = State {
            dice,
            healthy: false,
            held: BTreeMap::new(),
            begun: BTreeSet::new(),
            twice: None,
        };
        let state = Arc::new(Mutex::new(state));
        Self {
            class: RunnerClass::Container,
            clock,
            state,
        }
    }

    /// The same as it serves another class.
    pub(crate) fn serving(&self, class: RunnerClass) -> Self {
        Self {
            class,
            ..self.clone()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails at nothing from here on.
    pub(crate) fn heal(&self) {
        self.state().healthy = true;
    }

    pub(crate) fn held(&self) -> Vec<AttemptToken> {
        self.state().held.keys().cloned().collect()
    }

    /// An attempt that was begun twice, or while another of its task ran.
    pub(crate) fn twice(&self) -> Option<AttemptToken> {
        self.state().twice.clone()
    }

    /// How many attempts were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.state().begun.len() as u64
    }

    fn fails(&self, of_thousand: u64, operation: &'static str) -> Result<(), RunnerError> {
        let mut state = self.state();
        if !state.healthy && state.dice.chance(of_thousand) {
            return Err(RunnerError::Backend {
                backend: BACKEND.to_owned(),
                operation,
                source: "it was to fail".into(),
            });
        }
        Ok(())
    }

    fn known(&self, token: &AttemptToken) -> Result<Instance, RunnerError> {
        let found = self.state().held.get(token).cloned();
        found.ok_or_else(|| RunnerError::Unknown(token.clone()))
    }
}

impl State {
    /// Beginning twice begins once.
    fn begin(&mut self, token: &AttemptToken, now: Duration) {
        if !self.held.contains_key(token) {
            let mut others = self.held.iter();
            let beside = others.any(|(at, one)| at.task == token.task && !one.has_ended(now));
            if !self.begun.insert(token.clone()) || beside {
                self.twice = Some(token.clone());
            }
            let instance = self.instance(now);
            self.held.insert(token.clone(), instance);
        }
    }

    fn instance(&mut self, now: Duration) -> Instance {
        let dice = &mut self.dice;
        let runs_for = Duration::from_millis(dice.below(8_000));
        let hangs = dice.chance(40);
        let code = match dice.below(100) {
            0..=11 => 1,
            12..=14 => 75,
            _ => 0,
        };
        Instance {
            ends_at: (!hangs).then_some(now + runs_for),
            end: End::Exited { code },
            stops_in: Duration::from_millis(dice.below(1_500)),
            saves: dice.chance(500),
            changed: Arc::default(),
        }
    }
}

impl Instance {
    fn has_ended(&self, now: Duration) -> bool {
        self.ends_at.is_some_and(|at| at <= now)
    }

    fn ended(&self) -> Ended {
        Ended {
            end: self.end.clone(),
            saved: self.saves && self.end == End::Stopped,
            usage: Usage::default(),
            metered: Vec::new(),
            enforcement: serde_json::Value::Null,
            log: LogSummary::default(),
            warm: false,
            flows: None,
        }
    }
}

fn handle(token: &AttemptToken) -> Handle {
    Handle {
        token: token.clone(),
        native: BACKEND.to_owned(),
    }
}

#[async_trait]
impl Runner for Cloud {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            class: self.class,
            backend: BACKEND.to_owned(),
            most: Most::default(),
            architectures: Vec::new(),
            network_profiles: NetworkProfile::ALL.to_vec(),
            bare_processes: true,
            graceful_stop: true,
            survives_agent: true,
        }
    }

    async fn probe(&self) -> Health {
        Health::Healthy
    }

    async fn launch(&self, launch: &Launch) -> Result<Handle, RunnerError> {
        tokio::task::yield_now().await;
        self.fails(60, "launch")?;
        self.state().begin(&launch.token, self.clock.now());
        tokio::task::yield_now().await;
        // It runs, and the answer gets lost.
        self.fails(40, "answer")?;
        Ok(handle(&launch.token))
    }

    async fn wait(&self, handle: &Handle) -> Result<Ended, RunnerError> {
        loop {
            // Who asks cannot be told, and it goes on.
            self.fails(15, "wait")?;
            let instance = self.known(&handle.token)?;
            if instance.has_ended(self.clock.now()) {
                return Ok(instance.ended());
            }
            let changed = instance.changed.notified();
            match instance.ends_at {
                Some(at) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = self.clock.sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Result<(), RunnerError> {
        tokio::task::yield_now().await;
        self.fails(40, "stop")?;
        let now = self.clock.now();
        let instance = self.known(&handle.token)?;
        if let Some(found) = self.state().held.get_mut(&handle.token)
            && !found.has_ended(now)
        {
            let at = now + found.stops_in.min(grace);
            found.ends_at = Some(found.ends_at.map_or(at, |ends| ends.min(at)));
            found.end = End::Stopped;
        }
        instance.changed.notify_waiters();
        self.wait(handle).await.map(drop)
    }

    async fn destroy(&self, token: &AttemptToken) -> Result<(), RunnerError> {
        tokio::task::yield_now().await;
        self.fails(100, "destroy")?;
        if let Some(instance) = self.state().held.remove(token) {
            instance.changed.notify_waiters();
        }
        Ok(())
    }

    async fn recover(&self, token: &AttemptToken) -> Result<Recovered, RunnerError> {
        tokio::task::yield_now().await;
        self.fails(100, "recover")?;
        let now = self.clock.now();
        let mut state = self.state();
        let Some(instance) = state.held.get(token).cloned() else {
            return Ok(Recovered::Gone);
        };
        if !instance.has_ended(now) {
            return Ok(Recovered::Running(handle(token)));
        }
        // What has ended is not kept for ever.
        if !state.healthy && state.dice.chance(300) {
            state.held.remove(token);
            return Ok(Recovered::Gone);
        }
        Ok(Recovered::Ended(Box::new(instance.ended())))
    }
}
