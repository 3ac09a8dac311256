use async_trait::async_trait;
use barecount_model::plan::Pin;
use barecount_runner::{
    clock::VirtualClock,
    fake::{Fake, Playbook},
};

use super::*;
use crate::access::tests::{Asked, verifier};

/// Nothing is launched here, so that nothing is looked for.
struct NoArtifacts;

#[async_trait]
impl Artifacts for NoArtifacts {
    async fn locate(&self, _: &WorkPlan, _: &[Pin]) -> Result<Located, DataError> {
        Err(DataError::Host {
            code: "BC0504",
            message: "there are none".to_owned(),
        })
    }
}

#[tokio::test]
async fn every_runner_hears_that_a_run_has_ended() {
    let clock = Arc::new(VirtualClock::at(0));
    let classes = [RunnerClass::Serverless, RunnerClass::Container];
    let fakes = classes.map(|class| Fake::new(class, clock.clone(), Playbook::default()));
    let runners = fakes.iter().zip(classes).map(|(fake, class)| {
        let runner: Arc<dyn Runner> = Arc::new(fake.clone());
        (class, runner)
    });
    let (events, _told) = mpsc::unbounded_channel();
    let config = AgentConfig {
        runners: runners.collect(),
        data: Arc::new(Asked::default()),
        artifacts: Arc::new(NoArtifacts),
        folders: StagingFolders::new(Path::new("/nonexistent")),
        secrets: None,
        identities: verifier(),
    };
    let agent = Agent::new(config, events);
    let run = RunId::from_bytes([1; 16]);
    agent.order(Order::Release(run.clone()));
    agent.idle().await;
    for fake in fakes {
        assert_eq!(fake.released(), std::slice::from_ref(&run));
    }
}
