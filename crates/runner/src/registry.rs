//! The backends that one agent has, by what they serve.

use std::{collections::BTreeMap, sync::Arc};

use barecount_model::{
    capability::{Capabilities, Unfit},
    class::RunnerClass,
    plan::StagePlan,
    run::WaitingReason,
};

use crate::{Health, Runner};

/// Backends by class and name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    runners: Arc<BTreeMap<(RunnerClass, String), Arc<dyn Runner>>>,
}

impl FromIterator<Arc<dyn Runner>> for Registry {
    /// Of two that serve the same class under the same name the later one counts.
    fn from_iter<I: IntoIterator<Item = Arc<dyn Runner>>>(runners: I) -> Self {
        let keyed = runners.into_iter().map(|runner| {
            let Capabilities { class, backend, .. } = runner.capabilities();
            ((class, backend), runner)
        });
        Self {
            runners: Arc::new(keyed.collect()),
        }
    }
}

impl Registry {
    /// The backend of this name that serves the class.
    pub fn get(&self, class: RunnerClass, backend: &str) -> Option<&Arc<dyn Runner>> {
        self.runners.get(&(class, backend.to_owned()))
    }

    /// All of them, by class and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Runner>> {
        self.runners.values()
    }

    /// What they can carry out.
    pub fn capabilities(&self) -> Vec<Capabilities> {
        self.iter().map(|runner| runner.capabilities()).collect()
    }

    /// The backend that carries a stage out.
    ///
    /// # Errors
    /// Why none here ever can.
    pub fn fit(&self, stage: &StagePlan) -> Result<&Arc<dyn Runner>, Unfit> {
        let runner = self.get(stage.class, &stage.backend);
        let runner = runner.ok_or_else(|| Unfit::NoBackend {
            class: stage.class,
            backend: stage.backend.clone(),
        })?;
        runner.capabilities().fits(stage)?;
        Ok(runner)
    }

    /// Whether a stage can be placed now. A backend that is busy takes it: its launch waits.
    ///
    /// # Errors
    /// What the stage has to wait for. Cancel-safe.
    pub async fn takes(&self, stage: &StagePlan) -> Result<(), WaitingReason> {
        let runner = self.fit(stage).map_err(|unfit| WaitingReason::Unfit {
            remedy: unfit.remedy().to_owned(),
            unfit,
        })?;
        match runner.probe().await {
            Health::Healthy | Health::Busy { .. } => Ok(()),
            Health::Unhealthy { reason, remedy } => Err(WaitingReason::BackendDown {
                class: stage.class,
                backend: stage.backend.clone(),
                found: reason,
                remedy,
            }),
        }
    }
}
