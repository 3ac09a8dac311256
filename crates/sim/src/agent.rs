//! One life of the agent: the real one, on a thread that is not its own.

use std::sync::Arc;

use async_trait::async_trait;
use barecount_agent::{Agent, AgentConfig, Disk, Hints, IdentityVerifier, SecretsService};
use barecount_api::assignment::{Event, Order};
use barecount_model::class::RunnerClass;
use barecount_runner::Runner;
use barecount_secrets::{Lease, Permitted, ProviderError, Reference, Secret, SecretsProvider};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

use crate::{
    cloud::Cloud,
    data::{SiteTables, Tables},
    site::Site,
};

/// It ends when this is dropped, wherever it is then.
pub(crate) struct AgentLife {
    agent: Agent,
    told: mpsc::UnboundedReceiver<Event>,
    runtime: Runtime,
}

/// Lends the same value to everybody whom the gate lets ask.
struct Lender;

#[async_trait]
impl SecretsProvider for Lender {
    async fn fetch(&self, request: Permitted<'_>) -> Result<Lease, ProviderError> {
        let reference = Reference::exact(request.reference().name.clone(), 1);
        let lasts = request.scope().lasts.max(SignedDuration::ZERO);
        let until = request.now().checked_add(lasts).unwrap_or(Timestamp::MAX);
        let value = Secret::new(b"what nobody may ever read");
        Ok(Lease::new(value, reference, until))
    }
}

impl AgentLife {
    pub(crate) fn begin(
        site: &Site,
        cloud: &Cloud,
        tables: &Tables,
        identities: IdentityVerifier,
    ) -> Result<Self, String> {
        let (events, told) = mpsc::unbounded_channel();
        let classes = [RunnerClass::Container, RunnerClass::Serverless];
        let here = Arc::new(SiteTables {
            tables: tables.clone(),
            disk: site.disk.clone(),
        });
        let secrets = SecretsService {
            provider: Arc::new(Lender),
            memory: site.memory.clone(),
            hints: Hints::default(),
        };
        let config = AgentConfig {
            runners: classes
                .map(|class| Arc::new(cloud.serving(class)) as Arc<dyn Runner>)
                .into_iter()
                .collect(),
            data: Arc::clone(&here) as _,
            artifacts: here,
            folders: site.folders.clone(),
            secrets: Some(secrets),
            identities,
            clock: Arc::new(site.clock.clone()),
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
        if self.runtime.metrics().num_alive_tasks() > 0 {
            self.runtime.block_on(async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            });
        }
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
