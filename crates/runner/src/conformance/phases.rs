//! How far an attempt has come, what a backend says it can do, and what it bills.

use super::{Behaviour, Check, Checking, Session, Verdict, lose_interest, promise, succeeded};
use crate::{Handle, Phase, Runner, RunnerError};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "phases_go_one_way_and_who_asks_later_hears_that_it_ran",
        body: |session| -> Checking { Box::pin(one_way(session)) },
    },
    Check {
        name: "phases_of_an_attempt_that_is_stopped_end_too",
        body: |session| -> Checking { Box::pin(stopped(session)) },
    },
    Check {
        name: "phases_of_what_was_destroyed_are_unknown",
        body: |session| -> Checking { Box::pin(destroyed(session)) },
    },
    Check {
        name: "capabilities_are_the_same_whenever_they_are_asked_for_and_admit_what_is_launched",
        body: |session| -> Checking { Box::pin(capabilities(session)) },
    },
    Check {
        name: "what_is_metered_could_be_billed_and_is_told_once",
        body: |session| -> Checking { Box::pin(metered(session)) },
    },
];

/// Every phase that is told, to the last.
async fn followed(runner: &dyn Runner, handle: &Handle) -> Result<Vec<Phase>, RunnerError> {
    let mut told: Vec<Phase> = Vec::new();
    while told.last() != Some(&Phase::Ended) {
        // Whoever loses interest half-way misses nothing.
        lose_interest(runner.progress(handle, told.last())).await;
        told.push(runner.progress(handle, told.last()).await?);
    }
    Ok(told)
}

fn in_order(told: &[Phase]) -> bool {
    let provisioning = |phase: &&Phase| matches!(phase, Phase::Provisioning { .. });
    let after: Vec<&Phase> = told.iter().skip_while(provisioning).collect();
    matches!(after.as_slice(), [Phase::Running { .. }, Phase::Ended])
}

async fn one_way(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Burn(20)) else {
        return Ok(());
    };
    let handle = session.runner.launch(&launch).await?;
    let told = followed(&*session.runner, &handle).await?;
    promise("it runs, and then it has ended", in_order(&told), &told)?;
    let ended = session.runner.wait(&handle).await?;
    promise("it succeeds", succeeded(&ended.end), &ended)?;
    let later = session.subject.open().await;
    let again = followed(&*later, &handle).await?;
    promise("a later process hears so too", in_order(&again), &again)?;
    let where_it_ran = |told: &[Phase]| told.iter().rev().nth(1).cloned();
    promise(
        "it ran where it ran",
        where_it_ran(&told) == where_it_ran(&again),
        &(&told, &again),
    )?;
    later.destroy(&launch.token).await?;
    session.finish([&launch.token]).await
}

async fn stopped(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Hang) else {
        return Ok(());
    };
    let handle = session.runner.launch(&launch).await?;
    let runner = &*session.runner;
    let stop = runner.stop(&handle, std::time::Duration::from_secs(10));
    let (told, stopped) = tokio::join!(followed(runner, &handle), stop);
    stopped?;
    let told = told?;
    promise("it ran, and has ended", in_order(&told), &told)?;
    session.finish([&launch.token]).await
}

async fn destroyed(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Succeed) else {
        return Ok(());
    };
    let (handle, _) = session.carry_out(&launch).await?;
    session.runner.destroy(&launch.token).await?;
    match session.runner.progress(&handle, None).await {
        Err(RunnerError::Unknown(_)) => {}
        other => promise("nothing is known of it", false, &other)?,
    }
    session.finish([&launch.token]).await
}

async fn capabilities(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Succeed) else {
        return Ok(());
    };
    let before = session.runner.capabilities();
    session.carry_out(&launch).await?;
    let after = session.runner.capabilities();
    promise("they do not change", before == after, &(&before, &after))?;
    promise(
        "they say who it is and on what it runs",
        !after.backend.is_empty() && !after.architectures.is_empty(),
        &after,
    )?;
    let (most, limits) = (&after.most, &launch.limits);
    let admitted = [
        (most.memory_bytes, limits.memory_bytes),
        (most.cpu_millis, limits.cpu_millis.into()),
        (most.disk_bytes, limits.scratch_bytes),
        (most.pids, limits.pids.into()),
        (most.open_files, limits.open_files.into()),
    ];
    let admits = admitted
        .iter()
        .all(|(most, asked)| most.is_none_or(|most| *asked <= most));
    promise("they admit what it carried out", admits, &admitted)?;
    session.finish([&launch.token]).await
}

async fn metered(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Burn(20)) else {
        return Ok(());
    };
    let (handle, ended) = session.carry_out(&launch).await?;
    let mut units: Vec<_> = ended.metered.iter().map(|metered| metered.unit).collect();
    units.sort();
    units.dedup();
    promise(
        "each unit is metered once",
        units.len() == ended.metered.len(),
        &ended.metered,
    )?;
    promise(
        "time is metered in increments, and not below the least",
        ended.metered.iter().all(|metered| metered.is_billable()),
        &ended.metered,
    )?;
    let again = session.runner.wait(&handle).await?;
    promise("it stays", again.metered == ended.metered, &again.metered)?;
    session.finish([&launch.token]).await
}
