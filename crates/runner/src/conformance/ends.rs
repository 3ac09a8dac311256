//! How an attempt ended, and what it used.

use super::{Behaviour, Check, Checking, Session, Verdict, lose_interest, promise, succeeded};
use crate::launch::End;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "wait_can_be_repeated_and_dropped",
        body: |session| -> Checking { Box::pin(wait_repeated(session)) },
    },
    Check {
        name: "exit_statuses_come_through",
        body: |session| -> Checking { Box::pin(exit_statuses(session)) },
    },
    Check {
        name: "a_signal_is_told_apart_from_an_exit_status",
        body: |session| -> Checking { Box::pin(signals(session)) },
    },
    Check {
        name: "memory_above_the_limit_ends_the_attempt_as_out_of_memory",
        body: |session| -> Checking { Box::pin(out_of_memory(session)) },
    },
    Check {
        name: "usage_is_reported_where_the_host_can_tell",
        body: |session| -> Checking { Box::pin(usage(session)) },
    },
];

async fn wait_repeated(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Burn(20)) else {
        return Ok(());
    };
    let handle = session.runner.launch(&launch).await?;
    lose_interest(session.runner.wait(&handle)).await;
    let (one, two) = tokio::join!(session.runner.wait(&handle), session.runner.wait(&handle));
    let (one, two) = (one?, two?);
    promise("it succeeds", succeeded(&one.end), &one)?;
    promise("two who wait hear the same", one == two, &(&one, &two))?;
    let again = session.runner.wait(&handle).await?;
    promise("waiting again hears the same", again == one, &again)?;
    session.finish([&launch.token]).await
}

async fn exit_statuses(session: Session) -> Verdict {
    for code in [1, 65, 75, 77, 78, 255] {
        let Some(launch) = session.prepare(&Behaviour::Exit(code)) else {
            return Ok(());
        };
        let (_, ended) = session.carry_out(&launch).await?;
        promise(
            "the exit status is the program's",
            ended.end == End::Exited { code },
            &(code, &ended),
        )?;
        session.finish([&launch.token]).await?;
    }
    Ok(())
}

async fn signals(session: Session) -> Verdict {
    const SIGABRT: i32 = 6;
    let Some(launch) = session.prepare(&Behaviour::Signal(SIGABRT)) else {
        return Ok(());
    };
    let (_, ended) = session.carry_out(&launch).await?;
    promise(
        "the signal is the one that ended it",
        ended.end == End::Signalled { signal: SIGABRT },
        &ended,
    )?;
    session.finish([&launch.token]).await
}

async fn out_of_memory(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::UseMemory) else {
        return Ok(());
    };
    let (_, ended) = session.carry_out(&launch).await?;
    promise("it is told so", ended.end == End::OutOfMemory, &ended)?;
    session.finish([&launch.token]).await
}

async fn usage(session: Session) -> Verdict {
    const MILLIS: u64 = 200;
    let Some(launch) = session.prepare(&Behaviour::Burn(MILLIS)) else {
        return Ok(());
    };
    let (_, ended) = session.carry_out(&launch).await?;
    promise("it succeeds", succeeded(&ended.end), &ended)?;
    let usage = &ended.usage;
    // Other work shares the processors, so a fraction of the time must do. At most: far more than
    // one core could give.
    let plausible = |micros: u64| (1_000 * MILLIS / 20..60_000_000).contains(&micros);
    promise(
        "processor time is plausible where known",
        usage.cpu_micros.is_none_or(plausible),
        usage,
    )?;
    promise(
        "peak memory lies within the limit where known",
        usage
            .memory_peak_bytes
            .is_none_or(|peak| peak > 0 && peak <= launch.limits.memory_bytes),
        usage,
    )?;
    session.finish([&launch.token]).await
}
