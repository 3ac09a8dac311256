//! What a backend can carry out, as data: tasks are placed by it, wherever the backend is.

use serde::{Deserialize, Serialize};

use crate::{
    class::{NetworkProfile, RunnerClass},
    codes::{self, Code},
    plan::StagePlan,
};

/// What a backend can carry out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The class of work served. A task is never placed on another class.
    pub class: RunnerClass,
    /// The backend's name in environments and evidence, such as `local`.
    pub backend: String,
    /// The most that one attempt can have.
    pub most: Most,
    /// Processors that it has, as OCI calls them: `amd64`.
    pub architectures: Vec<String>,
    /// Networks that its work can be put in.
    pub network_profiles: Vec<NetworkProfile>,
    /// Whether it runs work without a sandbox where that is asked for.
    pub bare_processes: bool,
    /// Whether a stop lets the work save a checkpoint first.
    pub graceful_stop: bool,
    /// Whether a running attempt survives the agent, and can be recovered running.
    pub survives_agent: bool,
}

/// Upper bounds of one attempt; none where the backend has no bound of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Most {
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time per time, in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Time, in milliseconds.
    pub time_ms: Option<u64>,
    /// Scratch space, in bytes.
    pub disk_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open files of a process.
    pub open_files: Option<u64>,
}

/// Why a backend can never carry a stage out as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Unfit {
    /// There is no such backend.
    #[error("no backend `{backend}` serves {class} here")]
    NoBackend {
        /// The class.
        class: RunnerClass,
        /// The backend.
        backend: String,
    },
    /// It asks for more than the backend gives.
    #[error("its limit of {asked} {what} is above the {most} that backend `{backend}` gives")]
    Above {
        /// The backend.
        backend: String,
        /// What there is too little of, with its unit.
        what: String,
        /// How much it asks for.
        asked: u64,
        /// The most that it could have.
        most: u64,
    },
    /// The backend cannot put work in the network.
    #[error("backend `{backend}` has no network of profile {profile}")]
    Profile {
        /// The backend.
        backend: String,
        /// The profile.
        profile: NetworkProfile,
    },
    /// The backend runs nothing without a sandbox.
    #[error("backend `{backend}` runs no {class} without a sandbox")]
    Sandboxed {
        /// The backend.
        backend: String,
        /// The class.
        class: RunnerClass,
    },
}

impl Unfit {
    /// The code, whose page says more.
    pub fn code(&self) -> Code {
        match self {
            Self::NoBackend { .. } => codes::NO_RUNNER,
            Self::Above { .. } | Self::Profile { .. } | Self::Sandboxed { .. } => {
                codes::RUNNER_UNFIT
            }
        }
    }

    /// What to do about it, as a whole sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoBackend { .. } => {
                "Name a backend of the class in the environment file that this agent has."
            }
            Self::Above { what, .. } => above(what),
            Self::Profile { .. } => "Choose another network profile, or another backend.",
            Self::Sandboxed { .. } => "Use `isolation: sandbox`, or another class.",
        }
    }
}

/// What [`Unfit::Above`] calls open files of a process.
pub const OPEN_FILES: &str = "open files";
/// What it calls processes and threads.
pub const PROCESSES: &str = "processes";

/// What to do where a backend gives less than a stage asks for, as a whole sentence.
pub fn above(what: &str) -> &'static str {
    match what {
        // No size has fewer by itself.
        OPEN_FILES => {
            "Raise the agent's hard limit of open files (ulimit -Hn; LimitNOFILE= in its unit), or \
             give the size fewer `open_files` in the environment's `catalog`."
        }
        PROCESSES => {
            "Choose a smaller size, give it fewer `pids` in the environment's `catalog`, or raise \
             the agent's hard limit of processes (ulimit -Hu; LimitNPROC= in its unit)."
        }
        _ => "Choose a smaller size, or a backend or host that gives more to one attempt.",
    }
}

impl Capabilities {
    /// Whether the stage can be carried out at all; whether it can be now is another question.
    ///
    /// # Errors
    /// The first reason why it never can.
    pub fn fits(&self, stage: &StagePlan) -> Result<(), Unfit> {
        let backend = || self.backend.clone();
        if (self.class, self.backend.as_str()) != (stage.class, stage.backend.as_str()) {
            return Err(Unfit::NoBackend {
                class: stage.class,
                backend: stage.backend.clone(),
            });
        }
        let (most, asked) = (&self.most, &stage.resources);
        let bounds = [
            ("bytes of memory", asked.memory_bytes, most.memory_bytes),
            (
                "thousandths of a processor",
                asked.cpu_millis.into(),
                most.cpu_millis,
            ),
            ("milliseconds", stage.timeout_ms, most.time_ms),
            ("bytes of scratch", asked.scratch_bytes, most.disk_bytes),
            (PROCESSES, asked.pids.into(), most.pids),
            (OPEN_FILES, asked.open_files.into(), most.open_files),
        ];
        for (what, asked, most) in bounds {
            if let Some(most) = most.filter(|most| asked > *most) {
                let (backend, what) = (backend(), what.to_owned());
                return Err(Unfit::Above {
                    backend,
                    what,
                    asked,
                    most,
                });
            }
        }
        let profile = stage.network_profile;
        if !self.network_profiles.contains(&profile) {
            let backend = backend();
            return Err(Unfit::Profile { backend, profile });
        }
        if stage.isolation == "process" && !self.bare_processes {
            let (backend, class) = (backend(), self.class);
            return Err(Unfit::Sandboxed { backend, class });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
