//! Stopping and destroying.

use std::time::{Duration, Instant};

use super::{Behaviour, Check, Checking, IGNORING, Session, Verdict, promise, succeeded};
use crate::launch::{End, Launch};

/// Long enough that nothing ends by it in a check about work that stops when asked.
const AMPLE: Duration = Duration::from_secs(50);

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "stop_lets_the_work_end_before_the_grace_is_over",
        body: |session| -> Checking { Box::pin(graceful(session)) },
    },
    Check {
        name: "work_that_ignores_a_stop_is_ended_after_the_grace_and_not_before",
        body: |session| -> Checking { Box::pin(ignored(session)) },
    },
    Check {
        name: "stopping_what_has_ended_changes_nothing",
        body: |session| -> Checking { Box::pin(stop_ended(session)) },
    },
    Check {
        name: "destroy_ends_running_work_at_once",
        body: |session| -> Checking { Box::pin(destroy_running(session)) },
    },
    Check {
        name: "a_process_left_in_the_background_does_not_outlive_the_attempt",
        body: |session| -> Checking { Box::pin(background(session)) },
    },
];

async fn graceful(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Hang) else {
        return Ok(());
    };
    let handle = session.runner.launch(&launch).await?;
    let begin = Instant::now();
    session.runner.stop(&handle, AMPLE).await?;
    let took = begin.elapsed();
    promise("it ends before the grace is over", took < AMPLE, &took)?;
    let ended = session.runner.wait(&handle).await?;
    promise("its end is a stop", ended.end == End::Stopped, &ended)?;
    session.finish([&launch.token]).await
}

async fn ignored(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::IgnoreStop) else {
        return Ok(());
    };
    let grace = Duration::from_millis(300);
    let handle = session.runner.launch(&launch).await?;
    printed(&launch, IGNORING).await;
    let begin = Instant::now();
    session.runner.stop(&handle, grace).await?;
    let took = begin.elapsed();
    promise("it has the whole grace", took >= grace, &took)?;
    let ended = session.runner.wait(&handle).await?;
    promise("its end is a stop", ended.end == End::Stopped, &ended)?;
    session.finish([&launch.token]).await
}

/// Resolves once the attempt has printed this. The check as a whole is bounded.
async fn printed(launch: &Launch, text: &str) {
    let mut tries = tokio::time::interval(Duration::from_millis(5));
    while !fs_err::read_to_string(&launch.log).is_ok_and(|log| log.contains(text)) {
        tries.tick().await;
    }
}

async fn stop_ended(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Succeed) else {
        return Ok(());
    };
    let (handle, before) = session.carry_out(&launch).await?;
    session.runner.stop(&handle, AMPLE).await?;
    let after = session.runner.wait(&handle).await?;
    promise("it succeeded", succeeded(&after.end), &after)?;
    promise("its end stays", after == before, &after)?;
    session.finish([&launch.token]).await
}

async fn destroy_running(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::IgnoreStop) else {
        return Ok(());
    };
    session.runner.launch(&launch).await?;
    session.finish([&launch.token, &launch.token]).await
}

async fn background(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::LeaveProcess) else {
        return Ok(());
    };
    let (_, ended) = session.carry_out(&launch).await?;
    promise("it succeeds", succeeded(&ended.end), &ended)?;
    session.finish([&launch.token]).await
}
