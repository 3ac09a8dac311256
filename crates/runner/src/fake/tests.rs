//! What only the fake does; what every runner does is the conformance suite's.

use std::{collections::BTreeMap, path::PathBuf};

use barecount_model::{class::Size, id::TaskId};

use super::*;
use crate::{
    clock::VirtualClock,
    launch::{Isolation, Limits, Places, Root, Work},
};

type TestResult = Result<(), RunnerError>;

fn launch(number: u32) -> Launch {
    let nowhere = PathBuf::from("/nonexistent");
    Launch {
        token: AttemptToken {
            task: TaskId::from_bytes([7; 16]),
            number,
        },
        size: Size::Small,
        work: Work::Command {
            root: Root::Package(nowhere.clone()),
            argv: vec!["/app/run".to_owned()],
            working_dir: PathBuf::from("/"),
        },
        limits: Limits {
            memory_bytes: 1 << 20,
            cpu_millis: 100,
            pids: 10,
            open_files: 10,
            scratch_bytes: 1 << 20,
            file_bytes: None,
            log_bytes: 1 << 20,
        },
        places: Places {
            input: nowhere.clone(),
            output: nowhere.clone(),
            checkpoint: nowhere.clone(),
            cache: None,
            drivers: BTreeMap::new(),
        },
        env: BTreeMap::from([("BARECOUNT_STAGE".to_owned(), "ingest".to_owned())]),
        isolation: Isolation::Sandbox,
        reuse: None,
        secrets: None,
        network: None,
        timeout: Duration::from_secs(1),
        log: nowhere,
    }
}

fn fake(script: Script) -> (Fake, Arc<VirtualClock>) {
    let clock = Arc::new(VirtualClock::at(0));
    let fake = Fake::new(
        RunnerClass::Container,
        clock.clone(),
        Playbook::always(script),
    );
    (fake, clock)
}

#[tokio::test]
async fn an_attempt_ends_when_its_virtual_time_is_over() -> TestResult {
    let (fake, clock) = fake(Script::runs_for(Duration::from_secs(3600)));
    let handle = fake.launch(&launch(1)).await?;
    clock.advance(Duration::from_secs(3599));
    assert_eq!(
        fake.recover(&handle.token).await?,
        Recovered::Running(handle.clone())
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(fake.wait(&handle).await?.end, End::Exited { code: 0 });
    Ok(())
}

#[tokio::test]
async fn a_stage_fails_twice_and_then_succeeds() -> TestResult {
    let (fake, _clock) = fake(Script::default());
    fake.direct(|playbook| {
        playbook.stage(
            "ingest",
            vec![Script::exits(75), Script::exits(1), Script::exits(0)],
        );
    });
    let mut codes = Vec::new();
    for number in 1..=4 {
        let handle = fake.launch(&launch(number)).await?;
        codes.push(fake.wait(&handle).await?.end);
    }
    let exited = |code| End::Exited { code };
    assert_eq!(codes, [exited(75), exited(1), exited(0), exited(0)]);
    Ok(())
}

#[tokio::test]
async fn a_launch_that_fails_twice_succeeds_the_third_time_and_starts_one_attempt() -> TestResult {
    let (fake, _clock) = fake(Script {
        launch: OnLaunch::Fails { times: 2 },
        ..Script::default()
    });
    assert!(fake.launch(&launch(1)).await.is_err());
    assert!(fake.launch(&launch(1)).await.is_err());
    fake.launch(&launch(1)).await?;
    assert_eq!(fake.started(), 1);
    Ok(())
}

#[tokio::test]
async fn a_launch_whose_answer_got_lost_is_found_by_the_second_call_and_by_recover() -> TestResult {
    let (fake, _clock) = fake(Script {
        launch: OnLaunch::StartsButFails,
        ..Script::hangs()
    });
    assert!(fake.launch(&launch(1)).await.is_err());
    let handle = fake.launch(&launch(1)).await?;
    assert_eq!(fake.started(), 1);
    assert_eq!(
        fake.recover(&handle.token).await?,
        Recovered::Running(handle)
    );
    Ok(())
}

#[tokio::test]
async fn a_lost_attempt_is_unknown_to_wait_and_gone_for_recover() -> TestResult {
    let (fake, _clock) = fake(Script {
        lost: true,
        ..Script::hangs()
    });
    let handle = fake.launch(&launch(1)).await?;
    assert!(matches!(
        fake.wait(&handle).await,
        Err(RunnerError::Unknown(_))
    ));
    assert_eq!(fake.recover(&handle.token).await?, Recovered::Gone);
    assert!(fake.held().is_empty());
    Ok(())
}

#[tokio::test]
async fn running_attempts_outlive_the_agent_only_where_that_is_promised() -> TestResult {
    for survives in [false, true] {
        let (mut fake, _clock) = fake(Script::hangs());
        if survives {
            fake = fake.surviving_the_agent();
        }
        let handle = fake.launch(&launch(1)).await?;
        let found = fake.restarted().recover(&handle.token).await?;
        let expected = if survives {
            Recovered::Running(handle)
        } else {
            Recovered::Gone
        };
        assert_eq!(found, expected);
    }
    Ok(())
}
