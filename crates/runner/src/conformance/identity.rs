//! Launching once per token, and finding out later what became of it.

use super::{Behaviour, Check, Checking, Session, Verdict, Violation, lose_interest, promise};
use crate::{Handle, Recovered, RunnerError, launch::Launch};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "a_second_launch_with_the_same_token_starts_nothing",
        body: |session| -> Checking { Box::pin(second_launch(session)) },
    },
    Check {
        name: "two_launches_at_once_with_the_same_token_start_one_attempt",
        body: |session| -> Checking { Box::pin(launches_at_once(session)) },
    },
    Check {
        name: "a_launch_whose_caller_lost_interest_is_found_by_the_next",
        body: |session| -> Checking { Box::pin(launch_dropped(session)) },
    },
    Check {
        name: "a_launch_above_the_hosts_limits_says_which_and_can_be_corrected",
        body: |session| -> Checking { Box::pin(above_limits(session)) },
    },
    Check {
        name: "recover_finds_a_running_attempt_within_one_process",
        body: |session| -> Checking { Box::pin(recover_running(session)) },
    },
    Check {
        name: "recover_tells_how_an_attempt_ended_also_to_a_later_process",
        body: |session| -> Checking { Box::pin(recover_ended(session)) },
    },
    Check {
        name: "recover_after_a_restart_finds_what_survives_and_clears_what_does_not",
        body: |session| -> Checking { Box::pin(recover_after_restart(session)) },
    },
    Check {
        name: "what_was_never_launched_is_gone",
        body: |session| -> Checking { Box::pin(never_launched(session)) },
    },
    Check {
        name: "what_was_destroyed_is_gone_and_unknown",
        body: |session| -> Checking { Box::pin(destroyed(session)) },
    },
];

fn append() -> Behaviour {
    Behaviour::Append("lines".to_owned())
}

fn started_once(launch: &Launch) -> Verdict {
    let written = fs_err::read_to_string(launch.places.output.join("lines"))?;
    promise("one attempt is started", written == "line\n", &written)
}

async fn second_launch(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&append()) else {
        return Ok(());
    };
    let first = session.runner.launch(&launch).await?;
    let running = session.runner.launch(&launch).await?;
    promise(
        "a launch while it runs gives the first handle",
        running == first,
        &running,
    )?;
    session.runner.wait(&first).await?;
    let after = session.runner.launch(&launch).await?;
    promise(
        "a launch after the end gives the first handle",
        after == first,
        &after,
    )?;
    session.runner.wait(&after).await?;
    started_once(&launch)?;
    session.finish([&launch.token]).await
}

async fn launches_at_once(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&append()) else {
        return Ok(());
    };
    let (one, two) = tokio::join!(
        session.runner.launch(&launch),
        session.runner.launch(&launch)
    );
    let (one, two) = (one?, two?);
    promise("both get the same handle", one == two, &(&one, &two))?;
    session.runner.wait(&one).await?;
    started_once(&launch)?;
    session.finish([&launch.token]).await
}

async fn launch_dropped(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&append()) else {
        return Ok(());
    };
    lose_interest(session.runner.launch(&launch)).await;
    session.carry_out(&launch).await?;
    started_once(&launch)?;
    session.finish([&launch.token]).await
}

async fn above_limits(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&append()) else {
        return Ok(());
    };
    type Exceed = fn(&mut Launch);
    let exceeding: [(&str, Exceed); 2] = [
        ("open files", |launch| launch.limits.open_files = u32::MAX),
        ("processes", |launch| launch.limits.pids = u32::MAX),
    ];
    for (limit, exceed) in exceeding {
        let mut above = launch.clone();
        exceed(&mut above);
        match session.runner.launch(&above).await {
            Err(RunnerError::Unlaunchable { reason, remedy }) => promise(
                "the refusal names the limit and what to do",
                reason.contains(limit) && !remedy.is_empty(),
                &(reason, remedy),
            )?,
            other => promise("it is refused for good", false, &other)?,
        }
        unknown(&session, &launch).await?;
    }
    session.carry_out(&launch).await?;
    started_once(&launch)?;
    session.finish([&launch.token]).await
}

async fn recover_running(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Hang) else {
        return Ok(());
    };
    let handle = session.runner.launch(&launch).await?;
    let found = session.runner.recover(&launch.token).await?;
    promise(
        "a running attempt is found running",
        found == Recovered::Running(handle),
        &found,
    )?;
    session.finish([&launch.token]).await
}

async fn recover_ended(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Exit(65)) else {
        return Ok(());
    };
    let (handle, ended) = session.carry_out(&launch).await?;
    let expected = Recovered::Ended(Box::new(ended.clone()));
    let found = session.runner.recover(&launch.token).await?;
    promise("an ended attempt is found ended", found == expected, &found)?;

    let later = session.subject.open().await;
    let found = later.recover(&launch.token).await?;
    promise(
        "a later process finds the same end",
        found == expected,
        &found,
    )?;
    let waited = later.wait(&handle).await?;
    promise("a later process can wait", waited == ended, &waited)?;
    let relaunched = later.launch(&launch).await?;
    let waited = later.wait(&relaunched).await?;
    promise(
        "a later process launches nothing anew",
        waited == ended,
        &waited,
    )?;
    later.destroy(&launch.token).await?;
    session.finish([&launch.token]).await
}

async fn recover_after_restart(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Hang) else {
        return Ok(());
    };
    let handle = session.runner.launch(&launch).await?;
    let later = session.subject.open().await;
    let found = later.recover(&launch.token).await?;
    let expected = if later.capabilities().survives_agent {
        Recovered::Running(handle)
    } else {
        Recovered::Gone
    };
    promise(
        "recover keeps to the capabilities",
        found == expected,
        &found,
    )?;
    later.destroy(&launch.token).await?;
    session.finish([&launch.token]).await
}

async fn never_launched(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Succeed) else {
        return Ok(());
    };
    let found = session.runner.recover(&launch.token).await?;
    promise("it is gone", found == Recovered::Gone, &found)?;
    unknown(&session, &launch).await?;
    session.finish([&launch.token, &launch.token]).await
}

async fn destroyed(session: Session) -> Verdict {
    // One after the other: a backend may have room for no more.
    for behaviour in [Behaviour::Hang, Behaviour::Succeed] {
        let Some(launch) = session.prepare(&behaviour) else {
            return Ok(());
        };
        let handle = session.runner.launch(&launch).await?;
        if behaviour == Behaviour::Succeed {
            session.runner.wait(&handle).await?;
        }
        session.runner.destroy(&launch.token).await?;
        let found = session.runner.recover(&launch.token).await?;
        promise("it is gone", found == Recovered::Gone, &found)?;
        unknown(&session, &launch).await?;
        session.finish([&launch.token]).await?;
    }
    Ok(())
}

async fn unknown(session: &Session, launch: &Launch) -> Verdict {
    let handle = Handle {
        token: launch.token.clone(),
        native: "never".to_owned(),
    };
    match session.runner.wait(&handle).await {
        Err(RunnerError::Unknown(_)) => Ok(()),
        Err(error) => Err(Violation::Failed(error)),
        Ok(ended) => promise("nothing is known of it", false, &ended),
    }
}
