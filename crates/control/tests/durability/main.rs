//! What the control plane holds to when its process ends at any point.

mod evidence;
mod fixture;
mod identity;

use barecount_control::{
    Authorised, CommandError, Fenced, NotCovered, Submitted,
    governance::Action,
    store::{OpenError, reader::Reader},
};
use barecount_model::{
    class::Size,
    run::{
        Pending, RunState,
        outcome::{AttemptResult, Staged, StagedDataset},
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};

use fixture::*;

#[tokio::test]
async fn what_was_answered_is_there_after_every_restart() -> TestResult {
    let folder = tempfile::tempdir()?;
    let submitted = submission(1, "token", "sha256:aa");
    let id = submitted.run.id.clone();
    let attempt = Fenced {
        run: id.clone(),
        task: 0,
        number: 1,
    };

    let opened = open(folder.path())?;
    let answer = opened.control.submit(submitted).await?;
    assert!(matches!(answer, Submitted::New(_)));
    close(opened).await;

    let opened = open(folder.path())?;
    opened.control.place(&id, 0).await?;
    close(opened).await;

    let mut opened = open(folder.path())?;
    let update = opened
        .updates
        .recv()
        .await
        .ok_or("an unfinished run is announced at the start")?;
    assert_eq!(
        update.run.pending(),
        [Pending::Launch { task: 0, number: 1 }]
    );
    opened.control.started(&attempt, "sandbox").await?;
    opened.control.report(&attempt, done(), vec![]).await?;
    close(opened).await;

    let mut opened = open(folder.path())?;
    let update = opened
        .updates
        .recv()
        .await
        .ok_or("an unfinished run is announced at the start")?;
    assert_eq!(
        update.run.pending(),
        [Pending::RollForward { task: 0, number: 1 }]
    );
    let update = opened.control.committed(&attempt, vec![output()]).await?;
    assert_eq!(update.run.state, RunState::Succeeded);
    close(opened).await;

    let mut opened = open(folder.path())?;
    assert!(
        opened.updates.try_recv().is_err(),
        "a finished run is not taken up again"
    );
    let reader = Reader::open(folder.path())?.ok_or("the store exists")?;
    let kinds: Vec<String> = reader
        .ledger_entries(Some(&*id.printed()))?
        .into_iter()
        .map(|entry| entry.kind)
        .collect();
    assert_eq!(kinds, ["submission", "attempt", "commit", "run"]);
    assert_eq!(reader.outputs_of(&id.printed())?.len(), 1);
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn a_report_of_a_dataset_that_the_stage_does_not_write_commits_nothing() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let submitted = submission(1, "token", "sha256:aa");
    let attempt = Fenced {
        run: submitted.run.id.clone(),
        task: 0,
        number: 1,
    };
    opened.control.submit(submitted).await?;
    opened.control.place(&attempt.run, 0).await?;
    let mut foreign = done();
    foreign.result = AttemptResult::Done(Staged {
        datasets: vec![StagedDataset {
            dataset: "raw.other".into(),
            rows: 3,
            bytes: 30,
            digest: "lthash:00".into(),
            commit: Value::Null,
        }],
        ..Staged::default()
    });
    let refused = opened.control.report(&attempt, foreign, vec![]).await;
    assert!(
        matches!(refused, Err(CommandError::OutOfPlan { .. })),
        "{refused:?}"
    );
    let update = opened.control.report(&attempt, done(), vec![]).await?;
    assert_eq!(
        update.run.pending(),
        [Pending::RollForward { task: 0, number: 1 }]
    );
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn what_is_placed_with_its_submission_is_there_with_it_or_not_at_all() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut opened = open(folder.path())?;
    let mut impossible = submission(1, "impossible", "sha256:aa");
    impossible.place = vec![0, 0];
    let refused = opened.control.submit(impossible).await;
    assert!(
        matches!(refused, Err(CommandError::Rejected(_))),
        "{refused:?}"
    );
    let mut placed = submission(2, "placed", "sha256:aa");
    placed.place = vec![0];
    opened.control.submit(placed).await?;
    let update = opened.updates.recv().await.ok_or("it is announced")?;
    assert_eq!(update.run.token, "placed", "nothing is left of the other");
    close(opened).await;

    let mut opened = open(folder.path())?;
    let update = opened.updates.recv().await.ok_or("it is announced")?;
    assert_eq!(
        update.run.pending(),
        [Pending::Launch { task: 0, number: 1 }]
    );
    assert!(opened.updates.try_recv().is_err(), "there is one run");
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn a_token_answers_with_its_first_run_also_after_that_has_ended() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let first = submission(1, "token", "sha256:aa");
    let attempt = Fenced {
        run: first.run.id.clone(),
        task: 0,
        number: 1,
    };
    opened.control.submit(first).await?;
    opened.control.place(&attempt.run, 0).await?;
    opened.control.report(&attempt, done(), vec![]).await?;
    opened.control.committed(&attempt, vec![]).await?;
    let second = opened
        .control
        .submit(submission(2, "token", "sha256:aa"))
        .await?;
    let Submitted::Existing(update) = second else {
        return Err("the token was used".into());
    };
    assert_eq!(update.run.id, attempt.run);
    let other = opened
        .control
        .submit(submission(3, "token", "sha256:bb"))
        .await;
    assert!(
        matches!(other, Err(CommandError::TokenConflict { .. })),
        "{other:?}"
    );
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn many_callers_share_group_commits_and_each_hears_of_its_own() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let mut calls = tokio::task::JoinSet::new();
    for seed in 0..200u8 {
        let control = opened.control.clone();
        calls.spawn(async move {
            let submission = submission(seed, &format!("token-{seed}"), "sha256:aa");
            let id = submission.run.id.clone();
            control.submit(submission).await?;
            let update = control.place(&id, 0).await?;
            Ok::<_, CommandError>((id, update))
        });
    }
    while let Some(call) = calls.join_next().await {
        let (id, update) = call??;
        assert_eq!(update.run.id, id);
        assert_eq!(update.run.state, RunState::Running);
    }
    let reader = Reader::open(folder.path())?.ok_or("the store exists")?;
    assert_eq!(reader.runs(1000)?.len(), 200);
    let indices: Vec<u64> = reader
        .ledger_entries(None)?
        .into_iter()
        .map(|entry| entry.index)
        .collect();
    assert_eq!(indices, (0..200).collect::<Vec<u64>>());
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn a_second_process_is_told_that_the_folder_is_in_use() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let second = open(folder.path()).err().ok_or("the folder is locked")?;
    assert!(matches!(second, OpenError::Locked { .. }), "{second}");
    close(opened).await;
    Ok(())
}

#[test]
fn a_store_of_a_newer_program_is_refused() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = rusqlite::Connection::open(folder.path().join("control.sqlite"))?;
    file.pragma_update(None, "user_version", 999)?;
    drop(file);
    let refused = open(folder.path()).err().ok_or("the format is unknown")?;
    assert!(
        matches!(refused, OpenError::Newer { found: 999, .. }),
        "{refused}"
    );
    Ok(())
}

#[tokio::test]
async fn a_permit_for_something_else_lets_nothing_in() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let (_, plan) = work(1, "token", "sha256:aa");
    let foreign = Authorised::mint(plan.clone(), &permit("sha256:bb"));
    assert!(matches!(foreign, Err(NotCovered::OtherWork)), "{foreign:?}");
    let mut larger = plan;
    larger.stages[0].size = Size::Large;
    let larger = Authorised::mint(larger, &permit("sha256:aa"));
    assert!(matches!(larger, Err(NotCovered::Stage(_))), "{larger:?}");
    let mut other = submission(1, "token", "sha256:aa");
    other.run.environment = "live".to_owned();
    let answer = opened.control.submit(other).await;
    assert!(
        matches!(answer, Err(CommandError::NotPermitted(..))),
        "{answer:?}"
    );
    assert!(
        Reader::open(folder.path())?
            .expect("there is a store")
            .runs(10)?
            .is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn a_run_is_cancelled_and_resumed_by_a_permit_for_that_alone() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let control = &opened.control;
    let submitted = submission(1, "token", "sha256:aa");
    let id = submitted.run.id.clone();
    control.submit(submitted).await?;
    let to = |action, environment| permit_to(action, environment, "sha256:aa");
    for foreign in [to(Action::Run, "local"), to(Action::Cancel, "live")] {
        let refused = control.cancel(&id, &foreign).await;
        assert!(
            matches!(refused, Err(CommandError::NotPermitted(..))),
            "{refused:?}"
        );
    }
    let update = control.cancel(&id, &to(Action::Cancel, "local")).await?;
    assert_eq!(update.run.state, RunState::Cancelled);
    let refused = control
        .resume(&id, &to(Action::Cancel, "local"), Value::Null)
        .await;
    assert!(
        matches!(refused, Err(CommandError::NotPermitted(..))),
        "{refused:?}"
    );
    let update = control
        .resume(
            &id,
            &to(Action::Resume, "local"),
            json!({ "question": "q" }),
        )
        .await?;
    assert_eq!(update.run.state, RunState::Waiting);
    let attempt = Fenced {
        run: id,
        task: 0,
        number: 1,
    };
    assert!(control.identify(&attempt, Timestamp::UNIX_EPOCH).is_ok());
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn who_may_run_may_stop_what_he_runs_and_nothing_else() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let control = &opened.control;
    let submitted = submission(1, "token", "sha256:aa");
    let id = submitted.run.id.clone();
    control.submit(submitted).await?;
    for foreign in [
        permit_to(Action::Run, "live", "sha256:aa"),
        permit_to(Action::Resume, "local", "sha256:bb"),
        permit_to(Action::RefreshLock, "local", "sha256:aa"),
    ] {
        let refused = control.stop(&id, &foreign).await;
        assert!(
            matches!(refused, Err(CommandError::NotPermitted(..))),
            "{refused:?}"
        );
    }
    let own = permit_to(Action::Run, "local", "sha256:aa");
    let update = control.stop(&id, &own).await?;
    assert_eq!(update.run.state, RunState::Cancelled);
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn what_was_sent_before_the_end_is_carried_out_and_nothing_after() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut opened = open(folder.path())?;
    let kept = opened.control.clone();
    let port = opened.control.ledger_port();
    let mut calls = tokio::task::JoinSet::new();
    for seed in 0..50u8 {
        let control = opened.control.clone();
        let submission = submission(seed, &format!("token-{seed}"), "sha256:aa");
        calls.spawn(async move { control.submit(submission).await });
    }
    let first = calls.join_next().await.ok_or("there are calls")??;
    assert!(matches!(first, Ok(Submitted::New(_))));
    opened.control.clone().close().await;
    let mut accepted = 1;
    while let Some(call) = calls.join_next().await {
        match call? {
            Ok(_) => accepted += 1,
            Err(CommandError::Closed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let late = kept.submit(submission(99, "late", "sha256:aa")).await;
    assert!(matches!(late, Err(CommandError::Closed)), "{late:?}");
    assert!(matches!(
        port.integrated(1).await,
        Err(CommandError::Closed)
    ));
    let mut announced = 0;
    while opened.updates.recv().await.is_some() {
        announced += 1;
    }
    assert_eq!(announced, accepted, "everything was told before the end");
    // The folder is free although handles are left.
    let again = open(folder.path())?;
    let reader = Reader::open(folder.path())?.ok_or("the store exists")?;
    assert_eq!(reader.runs(100)?.len(), accepted);
    close(again).await;
    Ok(())
}
