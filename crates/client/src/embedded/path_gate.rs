//! Whether the way to a stage's destinations leads there, found out before the stage is placed.
//!
//! A tunnel or a private endpoint that is down is no fault of the work: rather than spend its
//! retries, the task is held until the path is up.

use std::time::Duration;

use barecount_control::reconcile::is_guarded;
use barecount_model::{plan::StagePlan, run::WaitingReason};
use barecount_network::{
    health::{PathHealth, probe},
    path::Paths,
    policy::Destination,
};

/// How long one destination may take to be reached.
const LIMIT: Duration = Duration::from_secs(3);

/// The paths of an environment, as a condition for placing tasks.
pub(crate) struct PathGate {
    paths: Paths,
}

impl PathGate {
    pub(crate) fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// Looks whether the stage's destinations are reached now. `None` if there is nothing to look
    /// at. Cancel-safe.
    ///
    /// # Errors
    /// What the task has to wait for.
    pub(crate) async fn look(
        &self,
        stage: &StagePlan,
    ) -> Result<Option<PathHealth>, WaitingReason> {
        if !is_guarded(stage) {
            return Ok(None);
        }
        let profile = stage.network_profile;
        let Some(path) = self.paths.get(&profile) else {
            return Ok(None);
        };
        let destinations: Vec<_> = stage.egress.iter().map(Destination::from).collect();
        let health = probe(path, &destinations, LIMIT).await;
        match &health.reason {
            None => Ok(Some(health)),
            Some(reason) => {
                let of = health
                    .destinations
                    .iter()
                    .find(|destination| destination.reason.is_some());
                let found = match of {
                    Some(to) => format!("{}:{}: {}", to.host, to.port, reason.text),
                    None => reason.text.to_string(),
                };
                Err(WaitingReason::PathDown { profile, found })
            }
        }
    }
}
