//! What a fake attempt does, as data.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use barecount_model::meter::Metered;
use serde::{Deserialize, Serialize};

use crate::launch::{AttemptToken, End, Launch, Usage};

/// What one attempt does when it is launched on the fake. The default ends at once with exit
/// status 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// How the launch goes.
    pub launch: OnLaunch,
    /// How long it is provisioned before that, on the same clock; its launch is accepted at once.
    pub provisions_for: Duration,
    /// How long it runs on the clock of the fake. `None`: until it is stopped.
    pub run_for: Option<Duration>,
    /// How it ends if nobody stops it.
    pub end: End,
    /// What it does when it is asked to stop.
    pub on_stop: OnStop,
    /// Text that it prints; kept as far as the limits of the launch allow.
    pub prints: String,
    /// Files that it writes, by path below the output folder.
    pub output: BTreeMap<PathBuf, String>,
    /// Files that it writes, by path below the checkpoint folder.
    pub checkpoint: BTreeMap<PathBuf, String>,
    /// What it uses.
    pub usage: Usage,
    /// What is billed for it.
    pub metered: Vec<Metered>,
    /// The backend forgets the attempt as soon as it has started it: `wait` and `stop` do not know
    /// it, `recover` finds nothing.
    pub lost: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            launch: OnLaunch::Starts,
            provisions_for: Duration::ZERO,
            run_for: Some(Duration::ZERO),
            end: End::Exited { code: 0 },
            on_stop: OnStop::Stops,
            prints: String::new(),
            output: BTreeMap::new(),
            checkpoint: BTreeMap::new(),
            usage: Usage::default(),
            metered: Vec::new(),
            lost: false,
        }
    }
}

impl Script {
    /// Ends at once with this exit status.
    pub fn exits(code: i32) -> Self {
        Self {
            end: End::Exited { code },
            ..Self::default()
        }
    }

    /// Is provisioned for a while, and ends with exit status 0 at once then.
    pub fn provisions_for(duration: Duration) -> Self {
        Self {
            provisions_for: duration,
            ..Self::default()
        }
    }

    /// Ends with exit status 0 after a while.
    pub fn runs_for(duration: Duration) -> Self {
        Self {
            run_for: Some(duration),
            ..Self::default()
        }
    }

    /// Runs until it is stopped.
    pub fn hangs() -> Self {
        Self {
            run_for: None,
            ..Self::default()
        }
    }

    /// Runs until the grace of a stop is over.
    pub fn ignores_stop() -> Self {
        Self {
            run_for: None,
            on_stop: OnStop::Ignores,
            ..Self::default()
        }
    }
}

/// How the launch of a fake attempt goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLaunch {
    /// It starts.
    Starts,
    /// The first so many calls with this token fail, and nothing is started by them.
    Fails {
        /// How many.
        times: u32,
    },
    /// The first call starts the attempt, but the caller is told that it failed: what a backend
    /// looks like whose answer got lost.
    StartsButFails,
    /// Every call is refused for good.
    Unlaunchable,
}

/// What a fake attempt does when it is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// It stops at once.
    Stops,
    /// It takes this long, or the grace if that is shorter.
    StopsAfter(Duration),
    /// It goes on until the grace is over.
    Ignores,
}

/// Which attempt follows which script: by token, else by stage and number, else the default.
#[derive(Debug, Clone, Default)]
pub struct Playbook {
    tokens: HashMap<AttemptToken, Script>,
    stages: HashMap<String, Vec<Script>>,
    otherwise: Script,
}

impl Playbook {
    /// A playbook in which every attempt follows `script`.
    pub fn always(script: Script) -> Self {
        Self {
            otherwise: script,
            ..Self::default()
        }
    }

    /// The attempt with this token follows `script`.
    pub fn token(&mut self, token: AttemptToken, script: Script) {
        self.tokens.insert(token, script);
    }

    /// The first attempt of any task of `stage` (its variable `BARECOUNT_STAGE`) follows the first
    /// of `scripts`, the second attempt the second, and those after the last follow the last.
    pub fn stage(&mut self, stage: impl Into<String>, scripts: Vec<Script>) {
        self.stages.insert(stage.into(), scripts);
    }

    pub(super) fn script(&self, launch: &Launch) -> &Script {
        if let Some(script) = self.tokens.get(&launch.token) {
            return script;
        }
        let stage = || self.stages.get(launch.env.get("BARECOUNT_STAGE")?);
        // The common case of a benchmark has no stages: spare it the look-up.
        let scripts = if self.stages.is_empty() {
            None
        } else {
            stage()
        };
        scripts
            .and_then(|scripts| {
                let index = usize::try_from(launch.token.number.saturating_sub(1)).ok()?;
                scripts.get(index).or(scripts.last())
            })
            .unwrap_or(&self.otherwise)
    }
}
