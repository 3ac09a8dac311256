//! Functions that crash, hang, use up what they have, or do not keep to the Runtime API: each ends
//! in a way that says what happened, and its sandbox serves nobody else.

use std::{sync::Arc, time::Duration};

use barecount_runner::{
    Runner,
    conformance::Behaviour,
    launch::{End, Ended, Launch, cut_notice},
};
use serde_json::json;

use crate::{
    function::{Misbehaviour, REFUSED, REPORT, REPORTED},
    functions::{Bench, Test, TestResult, answer, check},
    shared::Shared,
};

/// Names and bodies.
pub(crate) const TESTS: &[(&str, Test)] = &[
    ("one_that_crashes_before_it_asks_has_failed", |shared| {
        Box::pin(crashes_at_once(shared))
    }),
    (
        "one_that_ends_well_without_answering_has_failed",
        |shared| {
            Box::pin(fails(
                shared,
                Misbehaviour::ExitsAtOnce,
                "Runtime.ExitError",
                "status 0 without answering",
            ))
        },
    ),
    (
        "one_that_cannot_initialise_fails_in_its_own_words",
        |shared| {
            Box::pin(fails(
                shared,
                Misbehaviour::InitError,
                "NoModel",
                "the model is missing",
            ))
        },
    ),
    ("one_that_crashes_at_work_has_failed", |shared| {
        Box::pin(crashes_at_work(shared))
    }),
    ("one_that_hangs_before_it_asks_can_be_stopped", |shared| {
        Box::pin(hangs_at_once(shared))
    }),
    ("one_that_hangs_at_work_can_be_stopped", |shared| {
        Box::pin(hangs_at_work(shared))
    }),
    (
        "a_warm_sandbox_whose_attempt_was_stopped_or_destroyed_serves_nobody_else",
        |shared| Box::pin(stopped_warm(shared)),
    ),
    (
        "a_fork_bomb_is_held_within_its_limit_and_ended_whole",
        |shared| Box::pin(fork_bomb(shared)),
    ),
    ("one_that_eats_its_memory_ends_as_out_of_memory", |shared| {
        Box::pin(eats_memory(shared))
    }),
    (
        "one_that_prints_a_gigabyte_answers_with_a_log_that_says_it_was_cut",
        |shared| Box::pin(prints_a_gigabyte(shared)),
    ),
    (
        "a_second_answer_is_refused_and_the_first_one_stands",
        |shared| Box::pin(answers_twice(shared)),
    ),
    (
        "one_that_asks_again_without_answering_has_failed",
        |shared| {
            Box::pin(fails(
                shared,
                Misbehaviour::NeverAnswers,
                "Runtime.NoAnswer",
                "without answering this one",
            ))
        },
    ),
    ("an_answer_to_another_invocation_is_refused", |shared| {
        Box::pin(still_answers(shared, Misbehaviour::WrongId, json!(400)))
    }),
    (
        "an_answer_above_six_mebibytes_is_refused_and_told",
        |shared| {
            Box::pin(fails(
                shared,
                Misbehaviour::TooLarge,
                "Function.ResponseSizeTooLarge",
                "larger than 6291456 bytes",
            ))
        },
    ),
    ("an_answer_that_is_not_json_is_a_failure", |shared| {
        Box::pin(fails(
            shared,
            Misbehaviour::NotJson,
            "Runtime.InvalidResponse",
            "not JSON",
        ))
    }),
    ("rubbish_on_the_interface_harms_nobody", |shared| {
        Box::pin(fails(
            shared,
            Misbehaviour::Rubbish,
            "Runtime.ExitError",
            "without answering",
        ))
    }),
    ("rubbish_beside_an_answer_leaves_the_answer", |shared| {
        Box::pin(still_answers(
            shared,
            Misbehaviour::RubbishThenAnswers,
            json!("all the same"),
        ))
    }),
    (
        "an_output_folder_replaced_by_a_link_leads_nowhere",
        |shared| Box::pin(replaced_output(shared)),
    ),
    (
        "an_error_that_the_published_client_reports_keeps_its_type_and_message",
        |shared| Box::pin(reports(shared)),
    ),
];

/// Carries the same out twice: the second attempt, of an equal key, must get a fresh sandbox.
async fn twice(
    bench: &Bench,
    launch: impl Fn(u32) -> Launch,
) -> Result<Ended, Box<dyn std::error::Error + Send + Sync>> {
    let first = bench.carry_out(&launch(1)).await?;
    let second = bench.carry_out(&launch(2)).await?;
    check(!second.warm, &"a sandbox served again after a fault")?;
    check(first.end == second.end, &(&first.end, &second.end))?;
    Ok(first)
}

async fn fails(
    shared: Arc<Shared>,
    misbehaviour: Misbehaviour,
    expected: &str,
    words: &str,
) -> TestResult {
    let bench = Bench::new(shared)?;
    let ended = twice(&bench, |number| bench.misbehave(number, misbehaviour)).await?;
    match &ended.end {
        End::HandlerError {
            error_type,
            message,
        } => {
            check(error_type.raw() == expected, &ended)?;
            check(message.raw().contains(words), &ended)?;
        }
        _ => check(false, &ended)?,
    }
    bench.clean().await
}

async fn still_answers(
    shared: Arc<Shared>,
    misbehaviour: Misbehaviour,
    expected: serde_json::Value,
) -> TestResult {
    let bench = Bench::new(shared)?;
    let ended = twice(&bench, |number| bench.misbehave(number, misbehaviour)).await?;
    check(*answer(&ended)? == expected, &ended)?;
    bench.clean().await
}

async fn crashes_at_once(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let ended = twice(&bench, |number| {
        bench.misbehave(number, Misbehaviour::CrashesAtOnce)
    })
    .await?;
    check(ended.end == End::Exited { code: 3 }, &ended)?;
    bench.clean().await
}

async fn crashes_at_work(shared: Arc<Shared>) -> TestResult {
    for (behaviour, end) in [
        (Behaviour::Exit(3), End::Exited { code: 3 }),
        (Behaviour::Signal(6), End::Signalled { signal: 6 }),
    ] {
        let bench = Bench::new(shared.clone())?;
        let ended = twice(&bench, |number| bench.behave(number, &behaviour)).await?;
        check(ended.end == end, &ended)?;
        bench.clean().await?;
    }
    Ok(())
}

/// Stops an attempt that hangs, once `ready` is in its log: nothing of it is left, and no sandbox.
async fn stopped(bench: Bench, launch: &Launch, ready: &str) -> TestResult {
    let handle = bench.runner.launch(launch).await?;
    let mut tries = tokio::time::interval(Duration::from_millis(5));
    // What has printed nothing has no log.
    let log = || fs_err::read_to_string(&launch.log).unwrap_or_default();
    while !log().contains(ready) {
        tries.tick().await;
    }
    let groups = bench.ground.control_groups()?;
    check(!groups.is_empty(), &"the sandbox is in no control group")?;
    let processes = bench.ground.processes()?;
    check(processes.len() <= launch.limits.pids as usize, &processes)?;
    bench.runner.stop(&handle, Duration::from_secs(2)).await?;
    let ended = bench.runner.wait(&handle).await?;
    check(ended.end == End::Stopped, &ended)?;
    let processes = bench.ground.processes()?;
    check(processes.is_empty(), &processes)?;
    check(bench.runner.class().warm() == 0, &"it was kept warm")?;
    bench.clean().await?;
    let left = crate::ground::remaining(&groups).await;
    check(left.is_empty(), &left)
}

async fn hangs_at_once(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let launch = bench.misbehave(1, Misbehaviour::HangsAtOnce);
    stopped(bench, &launch, "").await
}

async fn hangs_at_work(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let launch = bench.misbehave(1, Misbehaviour::HangsAtWork);
    stopped(bench, &launch, "hanging").await
}

async fn stopped_warm(shared: Arc<Shared>) -> TestResult {
    for (number, grace) in [(1, Some(Duration::from_secs(2))), (4, None)] {
        let bench = Bench::new(shared.clone())?;
        bench.carry_out(&bench.echo(number)).await?;
        let launch = bench.behave(number + 1, &Behaviour::Hang);
        let handle = bench.runner.launch(&launch).await?;
        check(bench.runner.class().warm() == 0, &"another sandbox is warm")?;
        match grace {
            Some(grace) => bench.runner.stop(&handle, grace).await?,
            None => bench.runner.destroy(&launch.token).await?,
        }
        check(bench.runner.class().warm() == 0, &"it was kept warm")?;
        let next = bench.carry_out(&bench.echo(number + 2)).await?;
        check(!next.warm, &next)?;
        bench.clean().await?;
    }
    Ok(())
}

async fn fork_bomb(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let launch = bench.misbehave(1, Misbehaviour::ForkBomb);
    stopped(bench, &launch, REFUSED).await
}

async fn eats_memory(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let ended = twice(&bench, |number| bench.behave(number, &Behaviour::UseMemory)).await?;
    check(ended.end == End::OutOfMemory, &ended)?;
    bench.clean().await
}

async fn prints_a_gigabyte(shared: Arc<Shared>) -> TestResult {
    const GIGABYTE: u64 = 1 << 30;
    let bench = Bench::new(shared)?;
    let launch = bench.behave(1, &Behaviour::Print(GIGABYTE));
    let ended = bench.carry_out(&launch).await?;
    answer(&ended)?;
    let limit = launch.limits.log_bytes;
    check(ended.log.bytes == limit, &ended.log)?;
    check(ended.log.dropped_bytes == GIGABYTE - limit, &ended.log)?;
    let log = fs_err::read_to_string(&launch.log)?;
    let notice = cut_notice(GIGABYTE - limit);
    check(log.contains(&notice), &notice)?;
    check(log.len() as u64 == limit + notice.len() as u64, &log.len())?;
    let next = bench.carry_out(&bench.echo(2)).await?;
    check(!next.warm, &"what it printed may still be on its way")?;
    bench.clean().await
}

async fn answers_twice(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let launch = |number| bench.misbehave(number, Misbehaviour::AnswersTwice);
    let ended = twice(&bench, launch).await?;
    check(*answer(&ended)? == json!("first"), &ended)?;
    bench.clean().await
}

async fn replaced_output(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let launch = bench.misbehave(1, Misbehaviour::ReplacesOutput);
    let ended = bench.carry_out(&launch).await?;
    let output = fs_err::symlink_metadata(&launch.places.output)?;
    check(output.is_dir(), &output)?;
    // Where the agent is root the function cannot; elsewhere it can, and has failed by it.
    match &ended.end {
        End::Answered { response } => check(*response == json!(false), &ended)?,
        End::HandlerError { error_type, .. } => {
            check(error_type.raw() == "Runtime.FolderReplaced", &ended)?;
        }
        _ => check(false, &ended)?,
    }
    bench.clean().await
}

async fn reports(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    for (number, error_type) in [(1, "EX_DATAERR"), (2, "EX_CONFIG"), (3, "ValueError")] {
        let launch = bench.event(number, json!({ REPORT: error_type }));
        let ended = bench.carry_out(&launch).await?;
        let expected = End::HandlerError {
            error_type: error_type.into(),
            message: REPORTED.into(),
        };
        check(ended.end == expected, &ended)?;
        // To report an error is to keep to the protocol.
        check(ended.warm == (number > 1), &ended)?;
    }
    bench.clean().await
}
