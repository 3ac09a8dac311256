//! What backends say while an attempt is theirs, and which of them an attempt is given to.

use barecount_model::meter::{Metered, Unit};

use super::*;

#[test]
fn an_attempt_that_has_to_be_provisioned_says_so_and_is_timed_from_when_it_runs() -> TestResult {
    let world = World::new(Script {
        run_for: Some(Duration::from_secs(3)),
        ..Script::provisions_for(Duration::from_secs(60))
    })?;
    let mut life = world.begin()?;
    life.order(launch(1));
    let told = life.next();
    assert!(
        matches!(&told, Some(Event::Provisioning { waits_for, .. }) if !waits_for.is_empty()),
        "{told:?}"
    );
    let phases = life.agent.activities();
    assert_eq!(phases.len(), 1);
    assert_eq!(phases[0].phase, Phase::Provisioning);
    world.clock.advance(Duration::from_secs(60));
    life.started();
    world.clock.advance(Duration::from_secs(3));
    let Some(Event::Ended { outcome, .. }) = life.end_of() else {
        return Err("its end was not told".into());
    };
    assert!(matches!(outcome.result, AttemptResult::Done(_)));
    let (begun, over) = (outcome.timeline.started_at, outcome.timeline.work_ended_at);
    let took = over
        .ok_or("no end")?
        .duration_since(begun.ok_or("no beginning")?);
    assert_eq!(took.as_secs(), 3, "what it waited for is not its own time");
    Ok(())
}

#[test]
fn an_attempt_that_is_stopped_while_it_is_provisioned_holds_nothing() -> TestResult {
    let world = World::new(Script::provisions_for(Duration::from_secs(60)))?;
    let mut life = world.begin()?;
    life.order(launch(1));
    assert!(matches!(life.next(), Some(Event::Provisioning { .. })));
    life.order(stop(1));
    let end = life.end_of();
    assert!(matches!(result(end), Some(AttemptResult::Stopped)));
    assert_eq!(world.cloud.held(), Vec::<AttemptToken>::new());
    Ok(())
}

#[test]
fn what_a_backend_was_billed_is_told_with_the_end() -> TestResult {
    let metered = Metered::over(Unit::ContainerCpuMillis, 500, 61_500);
    let world = World::new(Script {
        metered: vec![metered],
        ..Script::default()
    })?;
    let mut life = world.begin()?;
    life.order(launch(1));
    let Some(Event::Ended { outcome, .. }) = life.end_of() else {
        return Err("its end was not told".into());
    };
    assert_eq!(outcome.metrics.metered, [metered]);
    Ok(())
}

#[test]
fn work_that_no_backend_here_can_carry_out_fails_with_what_to_do_and_is_never_launched()
-> TestResult {
    let world = World::new(Script::default())?;
    let mut life = world.begin()?;
    let mut beyond = assignment(1);
    beyond.stage.resources.open_files = u32::MAX;
    life.order(Order::Launch(Box::new(beyond)));
    let Some(AttemptResult::Failed(failure)) = result(life.end_of()) else {
        return Err("it did not fail".into());
    };
    assert_eq!(failure.code, "BC0614");
    assert_eq!(failure.kind, FailureKind::Policy, "another try cannot help");
    assert!(
        failure.message.raw().contains("LimitNOFILE="),
        "{}",
        failure.message
    );
    assert_eq!(world.cloud.started(), 0);
    Ok(())
}

#[test]
fn an_attempt_that_this_host_can_never_launch_fails_for_good_with_the_remedy() -> TestResult {
    let world = World::new(Script {
        launch: OnLaunch::Unlaunchable,
        ..Script::default()
    })?;
    let mut life = world.begin()?;
    life.order(launch(1));
    let Some(AttemptResult::Failed(failure)) = result(life.end_of()) else {
        return Err("it did not fail".into());
    };
    assert_eq!(failure.code, "BC0614");
    assert_eq!(failure.kind, FailureKind::Policy, "another try cannot help");
    assert!(
        failure.message.raw().ends_with("; Change the script."),
        "{}",
        failure.message
    );
    Ok(())
}
