//! One life of the agent: the real one, on a thread that is not its own.

use std::sync::Arc;

use barecount_agent::{Agent, AgentConfig, Disk, IdentityVerifier, StagingFolders};
use barecount_api::assignment::{Event, Order};
use barecount_model::class::RunnerClass;
use barecount_runner::Runner;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

use crate::{clock::WorldClock, cloud::Cloud, data::Tables};

/// It ends when this is dropped, wherever it is then.
pub(crate) struct AgentLife {
    agent: Agent,
    told: mpsc::UnboundedReceiver<Event>,
    runtime: Runtime,
}

impl AgentLife {
    pub(crate) fn begin(
        cloud: &Cloud,
        tables: &Tables,
        folders: &StagingFolders,
        identities: IdentityVerifier,
        clock: &WorldClock,
    ) -> Result<Self, String> {
        let (events, told) = mpsc::unbounded_channel();
        let classes = [RunnerClass::Container, RunnerClass::Serverless];
        let config = AgentConfig {
            runners: classes
                .map(|class| Arc::new(cloud.serving(class)) as Arc<dyn Runner>)
                .into_iter()
                .collect(),
            data: Arc::new(tables.clone()),
            artifacts: Arc::new(tables.clone()),
            folders: folders.clone(),
            secrets: None,
            identities,
            clock: Arc::new(clock.clone()),
            disk: Disk::Inline,
        };
        let runtime = Builder::new_current_thread().build();
        Ok(Self {
            agent: Agent::new(config, events),
            told,
            runtime: runtime.map_err(|error| error.to_string())?,
        })
    }

    pub(crate) fn order(&self, order: Order) {
        let _inside = self.runtime.enter();
        self.agent.order(order);
    }

    /// Lets everything that it does go on by so many turns, and hears what it tells.
    pub(crate) fn run(&mut self, turns: u64) -> Vec<Event> {
        self.runtime.block_on(async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        });
        std::iter::from_fn(|| self.told.try_recv().ok()).collect()
    }

    /// What it has under way, for a person.
    pub(crate) fn under_way(&self) -> Vec<String> {
        let mut activities: Vec<String> = self
            .agent
            .activities()
            .iter()
            .map(|activity| format!("{} {:?}", activity.attempt.token(), activity.phase))
            .collect();
        activities.sort();
        activities
    }
}
