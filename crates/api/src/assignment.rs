//! What an agent is told, and what it tells. Two enums, and nothing else passes between the
//! outside world and the attempts.

use std::{collections::BTreeMap, time::Duration};

use barecount_model::{
    class::RunnerClass,
    id::RunId,
    identity::SignedIdentity,
    plan::{Pin, StagePlan},
    run::{Window, outcome::Outcome},
    untrusted::{Label, Message, Reason, Sample},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attempt::AttemptRef;

/// One attempt to be carried out. Its intent is durable before the agent sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assignment {
    /// Which attempt.
    pub attempt: AttemptRef,
    /// The run's token.
    pub run_token: String,
    /// The tenant.
    pub tenant: String,
    /// The pipeline.
    pub pipeline: String,
    /// The pipeline's version.
    pub version: String,
    /// The stage, with everything decided.
    pub stage: StagePlan,
    /// The partition of it.
    pub partition: Option<String>,
    /// Who the attempt is, and what it may reach.
    pub identity: SignedIdentity,
    /// The window worked on.
    pub window: Option<Window>,
    /// How the path to its destinations was when it was placed, as evidence has it; none where that
    /// was not looked at.
    pub path: Option<Value>,
    /// The versions of datasets that it reads, as they were when it was placed; the newest of those
    /// that are not here.
    pub reads: BTreeMap<String, u64>,
    /// Digest over everything that a warm process must have in common with its next attempt, but
    /// for secrets.
    pub reuse: String,
}

impl Assignment {
    /// How long the attempt may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.stage.timeout_ms)
    }

    /// How long it may take to stop.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.stage.grace_ms)
    }

    /// The artifact that runs.
    pub fn artifact(&self) -> &Pin {
        self.stage.work.artifact()
    }
}

/// What an agent is told. An order that comes twice, or after what overtook it, changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Carry this attempt out.
    Launch(Box<Assignment>),
    /// An earlier process had this attempt under way: find out what became of it, and go on with it
    /// from there if that can be.
    Recover(Box<Assignment>),
    /// Stop this attempt, whatever part of it is under way: its work with `SIGTERM`, and `SIGKILL`
    /// after the grace period.
    Stop {
        /// The attempt.
        attempt: AttemptRef,
        /// The grace period.
        grace: Duration,
    },
    /// The end of this attempt is durable where it was told: it is not kept here any longer.
    Acknowledge(AttemptRef),
    /// Remove what this attempt left: it is committed, or was not decided for.
    Sweep {
        /// The attempt.
        attempt: AttemptRef,
        /// The class that carried it out.
        class: RunnerClass,
        /// The backend of the class.
        backend: String,
    },
    /// This run has ended: what is kept warm for it alone is not needed any more.
    Release(RunId),
}

/// What an agent tells. Every attempt that it was told to launch or to recover ends in one
/// [`Ended`](Event::Ended) or [`Lost`](Event::Lost), which is told again, as it was, to whoever
/// orders that attempt again before it is acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A backend has accepted the attempt, whose work does not run yet. Told only where that takes
    /// a while, and again where it waits for something else.
    Provisioning {
        /// The attempt.
        attempt: AttemptRef,
        /// What the runner calls it.
        runner: String,
        /// What is waited for, for a person.
        waits_for: Message,
    },
    /// A runner has started the attempt.
    Started {
        /// The attempt.
        attempt: AttemptRef,
        /// What the runner calls it.
        runner: String,
    },
    /// The attempt has ended, and what it staged is durable.
    Ended {
        /// The attempt.
        attempt: AttemptRef,
        /// How.
        outcome: Box<Outcome>,
        /// Records that it set aside.
        set_aside: Vec<SetAside>,
    },
    /// Nothing of the attempt runs any more, and nobody knows how it ended.
    Lost {
        /// The attempt.
        attempt: AttemptRef,
    },
    /// Nothing is left of an attempt that was to be swept. Where that fails nothing is told, and
    /// another [`Order::Sweep`] tries it again.
    Swept {
        /// The attempt.
        attempt: AttemptRef,
    },
}

impl Event {
    /// The attempt that it is about.
    pub fn attempt(&self) -> &AttemptRef {
        match self {
            Self::Provisioning { attempt, .. }
            | Self::Started { attempt, .. }
            | Self::Ended { attempt, .. }
            | Self::Lost { attempt }
            | Self::Swept { attempt } => attempt,
        }
    }
}

/// Records of an attempt that were set aside for one reason. All of them are in a file beside the
/// attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// The dataset they were meant for, if that is known.
    pub dataset: Option<Label>,
    /// What they were set aside for, in words that all of them share.
    #[serde(default)]
    pub reason: Reason,
    /// The first of them, or a bounded sample of it.
    pub record: Sample,
    /// Why the first was set aside.
    pub error: Reason,
    /// A hash of the schema that they did not fit.
    pub schema_hash: Option<Label>,
    /// How many they are.
    #[serde(default = "one")]
    pub count: u64,
    /// The digest of the file that has all letters of the attempt.
    #[serde(default)]
    pub digest: Option<String>,
}

/// How many an end tells of that was kept before records were grouped.
fn one() -> u64 {
    1
}
