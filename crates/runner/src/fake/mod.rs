//! A runner that only pretends: every attempt follows a [`Script`] on a clock that the test owns.
//!
//! It starts no process and no task, so that a no-op attempt costs microseconds; and it is
//! deterministic: what an attempt does depends on its script and on the clock alone.

mod script;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use barecount_model::{
    class::{NetworkProfile, RunnerClass},
    id::RunId,
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

pub use script::{OnLaunch, OnStop, Playbook, Script};

use crate::{
    Capabilities, Handle, Health, Phase, Recovered, Runner, RunnerError,
    clock::Clock,
    launch::{AttemptToken, End, Ended, Launch, LogSummary, cut_notice, tail_bytes},
    local::{Bounds, host},
};

const BACKEND: &str = "fake";
/// As much as an ordinary host gives.
const BOUNDS: Bounds = Bounds {
    open_files: 1 << 20,
    pids: 1 << 22,
};

/// The scriptable fake. Clones are the same runner; [`restarted`](Fake::restarted) is what a later
/// process of the agent sees.
#[derive(Debug, Clone)]
pub struct Fake {
    class: RunnerClass,
    clock: Arc<dyn Clock>,
    world: Arc<World>,
    survives_agent: bool,
}

/// What outlives the agent: a cloud, so to speak.
#[derive(Debug)]
struct World {
    state: Mutex<State>,
    /// Told of every stop and destroy, so that those who wait look again.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    playbook: Playbook,
    health: Health,
    attempts: HashMap<AttemptToken, Attempt>,
    /// How often a launch failed, by token, for those whose script has it fail some times.
    failed: HashMap<AttemptToken, u32>,
    started: u64,
    released: Vec<RunId>,
}

#[derive(Debug, Clone)]
struct Attempt {
    /// Its work runs from then on.
    runs_at: Duration,
    /// On the fake's clock; `None`: not before it is stopped.
    ends_at: Option<Duration>,
    ended: Ended,
    on_stop: OnStop,
    lost: bool,
}

impl Fake {
    /// A healthy fake for `class` whose attempts follow `playbook`.
    pub fn new(class: RunnerClass, clock: Arc<dyn Clock>, playbook: Playbook) -> Self {
        let state = State {
            playbook,
            health: Health::Healthy,
            attempts: HashMap::new(),
            failed: HashMap::new(),
            started: 0,
            released: Vec::new(),
        };
        Self {
            class,
            clock,
            world: Arc::new(World {
                state: Mutex::new(state),
                changes: watch::Sender::new(0),
            }),
            survives_agent: false,
        }
    }

    /// The same, but its attempts go on when the agent dies, as on a cloud.
    #[must_use]
    pub fn surviving_the_agent(self) -> Self {
        Self {
            survives_agent: true,
            ..self
        }
    }

    /// What the next process of the agent finds after this one died: the attempts that ended, and
    /// those that run only if they survive the agent.
    #[must_use]
    pub fn restarted(&self) -> Self {
        let now = self.clock.now();
        if !self.survives_agent {
            self.state()
                .attempts
                .retain(|_, attempt| attempt.has_ended(now));
            self.changed();
        }
        self.clone()
    }

    /// What the next probes answer.
    pub fn set_health(&self, health: Health) {
        self.state().health = health;
    }

    /// Changes the playbook for the launches to come.
    pub fn direct(&self, change: impl FnOnce(&mut Playbook)) {
        change(&mut self.state().playbook);
    }

    /// How many attempts were started so far. Launching twice with one token starts one.
    pub fn started(&self) -> u64 {
        self.state().started
    }

    /// The runs that were released, in order.
    pub fn released(&self) -> Vec<RunId> {
        self.state().released.clone()
    }

    /// The attempts that have been launched and not yet destroyed, in order.
    pub fn held(&self) -> Vec<AttemptToken> {
        let mut tokens: Vec<_> = self.state().attempts.keys().cloned().collect();
        tokens.sort();
        tokens
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together, so a poisoned state is sound.
        self.world
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves at that time, or when something has changed. Cancel-safe.
    async fn wait_until(&self, at: Option<Duration>, changes: &mut watch::Receiver<u64>) {
        let time = async {
            match at {
                Some(at) => self.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => {}
            // The sender lives in `self.world`, so this can only tell of a change.
            _ = changes.changed() => {}
        }
    }

    fn changed(&self) {
        self.world
            .changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn known(&self, token: &AttemptToken) -> Result<Attempt, RunnerError> {
        self.state()
            .attempts
            .get(token)
            .filter(|attempt| !attempt.lost)
            .cloned()
            .ok_or_else(|| RunnerError::Unknown(token.clone()))
    }
}

impl Attempt {
    fn begin(script: &Script, launch: &Launch, now: Duration) -> std::io::Result<Self> {
        write_files(&launch.places.output, &script.output)?;
        write_files(&launch.places.checkpoint, &script.checkpoint)?;
        let runs_at = now.saturating_add(script.provisions_for);
        Ok(Self {
            runs_at,
            ends_at: script
                .run_for
                .map(|duration| runs_at.saturating_add(duration)),
            ended: Ended {
                end: script.end.clone(),
                usage: script.usage.clone(),
                metered: script.metered.clone(),
                enforcement: serde_json::Value::Null,
                log: write_log(&launch.log, &script.prints, launch.limits.log_bytes)?,
                warm: false,
                flows: None,
                saved: false,
            },
            on_stop: script.on_stop,
            lost: script.lost,
        })
    }

    fn has_ended(&self, now: Duration) -> bool {
        self.ends_at.is_some_and(|at| at <= now)
    }

    /// The phase to be told to somebody who has seen this one, if there is news; else when there is.
    fn phase(&self, seen: Option<&Phase>, now: Duration) -> Result<Phase, Option<Duration>> {
        match seen {
            Some(Phase::Running { .. } | Phase::Ended) if self.has_ended(now) => Ok(Phase::Ended),
            Some(Phase::Running { .. } | Phase::Ended) => Err(self.ends_at),
            _ if self.runs_at <= now || self.has_ended(now) => Ok(Phase::Running {
                on: BACKEND.to_owned(),
            }),
            None => Ok(Phase::Provisioning {
                waits_for: "the time that its script says".into(),
            }),
            Some(Phase::Provisioning { .. }) => {
                let stopped = self.ends_at.filter(|at| *at < self.runs_at);
                Err(stopped.or(Some(self.runs_at)))
            }
        }
    }

    fn stop(&mut self, now: Duration, grace: Duration) {
        if self.has_ended(now) {
            return;
        }
        let delay = match self.on_stop {
            OnStop::Stops => Duration::ZERO,
            OnStop::StopsAfter(delay) => delay.min(grace),
            OnStop::Ignores => grace,
        };
        let stopped_at = now.saturating_add(delay);
        self.ends_at = Some(self.ends_at.map_or(stopped_at, |at| at.min(stopped_at)));
        self.ended.end = End::Stopped;
    }
}

#[async_trait]
impl Runner for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            class: self.class,
            backend: BACKEND.to_owned(),
            most: BOUNDS.most(),
            architectures: vec![host::architecture().to_owned()],
            network_profiles: NetworkProfile::ALL.to_vec(),
            bare_processes: true,
            graceful_stop: true,
            survives_agent: self.survives_agent,
        }
    }

    async fn probe(&self) -> Health {
        self.state().health.clone()
    }

    async fn launch(&self, launch: &Launch) -> Result<Handle, RunnerError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let handle = handle(&launch.token);
        if state.attempts.contains_key(&launch.token) {
            return Ok(handle);
        }
        let script = state.playbook.script(launch);
        match script.launch {
            OnLaunch::Starts | OnLaunch::StartsButFails => {}
            OnLaunch::Fails { times } => {
                let failed = state.failed.entry(launch.token.clone()).or_default();
                if *failed < times {
                    *failed = failed.saturating_add(1);
                    return Err(backend_error("start an attempt", Scripted));
                }
            }
            OnLaunch::Unlaunchable => {
                return Err(RunnerError::Unlaunchable {
                    reason: "its script says so".to_owned(),
                    remedy: "Change the script.".to_owned(),
                });
            }
        }
        BOUNDS.admit(&launch.limits)?;
        // The lock is held while files are written: the fake is for tests, and most write none.
        let attempt = Attempt::begin(script, launch, self.clock.now())
            .map_err(|error| backend_error("write what the script says", error))?;
        let answer_lost = script.launch == OnLaunch::StartsButFails;
        state.attempts.insert(launch.token.clone(), attempt);
        state.started = state.started.saturating_add(1);
        if answer_lost {
            return Err(backend_error("hear of a started attempt", Scripted));
        }
        Ok(handle)
    }

    async fn progress(&self, handle: &Handle, seen: Option<&Phase>) -> Result<Phase, RunnerError> {
        let mut changes = self.world.changes.subscribe();
        loop {
            let attempt = self.known(&handle.token)?;
            match attempt.phase(seen, self.clock.now()) {
                Ok(phase) => return Ok(phase),
                Err(at) => self.wait_until(at, &mut changes).await,
            }
        }
    }

    async fn wait(&self, handle: &Handle) -> Result<Ended, RunnerError> {
        // Without a subscription for what has ended already: that is the benchmark's path.
        let attempt = self.known(&handle.token)?;
        if attempt.has_ended(self.clock.now()) {
            return Ok(attempt.ended);
        }
        let mut changes = self.world.changes.subscribe();
        loop {
            let attempt = self.known(&handle.token)?;
            if attempt.has_ended(self.clock.now()) {
                return Ok(attempt.ended);
            }
            self.wait_until(attempt.ends_at, &mut changes).await;
        }
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Result<(), RunnerError> {
        let now = self.clock.now();
        self.known(&handle.token)?;
        if let Some(attempt) = self.state().attempts.get_mut(&handle.token) {
            attempt.stop(now, grace);
        }
        self.changed();
        self.wait(handle).await.map(drop)
    }

    async fn destroy(&self, token: &AttemptToken) -> Result<(), RunnerError> {
        let mut state = self.state();
        let running = state
            .attempts
            .remove(token)
            .is_some_and(|attempt| !attempt.has_ended(self.clock.now()));
        state.failed.remove(token);
        drop(state);
        if running {
            self.changed();
        }
        Ok(())
    }

    async fn recover(&self, token: &AttemptToken) -> Result<Recovered, RunnerError> {
        let Ok(attempt) = self.known(token) else {
            self.destroy(token).await?;
            return Ok(Recovered::Gone);
        };
        if attempt.has_ended(self.clock.now()) {
            return Ok(Recovered::Ended(Box::new(attempt.ended)));
        }
        Ok(Recovered::Running(handle(token)))
    }

    async fn release(&self, run: &RunId) {
        self.state().released.push(run.clone());
    }
}

/// A failure that a script asked for.
#[derive(Debug, thiserror::Error)]
#[error("the script says so")]
struct Scripted;

fn backend_error(
    operation: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> RunnerError {
    RunnerError::Backend {
        backend: BACKEND.to_owned(),
        operation,
        source: Box::new(source),
    }
}

fn handle(token: &AttemptToken) -> Handle {
    Handle {
        token: token.clone(),
        native: BACKEND.to_owned(),
    }
}

fn write_files<'a>(
    folder: &Path,
    files: impl IntoIterator<Item = (&'a std::path::PathBuf, &'a String)>,
) -> std::io::Result<()> {
    for (path, contents) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::write(path, contents)?;
    }
    Ok(())
}

fn write_log(path: &Path, text: &str, limit: u64) -> std::io::Result<LogSummary> {
    if text.is_empty() {
        return Ok(LogSummary::default());
    }
    let all = text.as_bytes();
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let dropped = all.len().saturating_sub(size(limit));
    let (head, tail) = match dropped {
        0 => (all, &[][..]),
        dropped => {
            let tail = all.len().min(size(tail_bytes(limit)));
            let (rest, tail) = all.split_at(all.len() - tail);
            (&rest[..rest.len() - dropped], tail)
        }
    };
    let dropped_bytes = dropped as u64;
    let mut log = head.to_vec();
    if dropped_bytes > 0 {
        log.extend(cut_notice(dropped_bytes).into_bytes());
        log.extend(tail);
    }
    fs_err::write(path, &log)?;
    Ok(LogSummary {
        bytes: (head.len() + tail.len()) as u64,
        dropped_bytes,
        sha256: hex::encode(Sha256::digest(&log)),
    })
}

#[cfg(test)]
mod tests;
