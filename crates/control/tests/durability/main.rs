//! What the control plane holds to when its process ends at any point.

mod evidence;
mod fixture;
mod identity;

use barecount_control::{
    CommandError, Fenced, Submitted,
    store::{OpenError, reader::Reader},
};
use barecount_model::run::{
    Pending, RunState,
    outcome::{AttemptResult, Staged, StagedDataset},
};
use serde_json::Value;

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
    let permit = permit("sha256:aa");
    let answer = opened.control.submit(submitted, &permit).await?;
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
        .ledger_entries(Some(id.as_str()))?
        .into_iter()
        .map(|entry| entry.kind)
        .collect();
    assert_eq!(kinds, ["submission", "attempt", "commit", "run"]);
    assert_eq!(reader.outputs_of(id.as_str())?.len(), 1);
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
    opened
        .control
        .submit(submitted, &permit("sha256:aa"))
        .await?;
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
    let permit = permit("sha256:aa");
    let mut opened = open(folder.path())?;
    let mut impossible = submission(1, "impossible", "sha256:aa");
    impossible.place = vec![0, 0];
    let refused = opened.control.submit(impossible, &permit).await;
    assert!(
        matches!(refused, Err(CommandError::Rejected(_))),
        "{refused:?}"
    );
    let mut placed = submission(2, "placed", "sha256:aa");
    placed.place = vec![0];
    opened.control.submit(placed, &permit).await?;
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
    opened.control.submit(first, &permit("sha256:aa")).await?;
    opened.control.place(&attempt.run, 0).await?;
    opened.control.report(&attempt, done(), vec![]).await?;
    opened.control.committed(&attempt, vec![]).await?;
    let second = opened
        .control
        .submit(submission(2, "token", "sha256:aa"), &permit("sha256:aa"))
        .await?;
    let Submitted::Existing(update) = second else {
        return Err("the token was used".into());
    };
    assert_eq!(update.run.id, attempt.run);
    let other = opened
        .control
        .submit(submission(3, "token", "sha256:bb"), &permit("sha256:bb"))
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
            control.submit(submission, &permit("sha256:aa")).await?;
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
    assert_eq!(
        refused.to_string(),
        "the state is of format 999, and this program knows up to 1"
    );
    Ok(())
}

#[tokio::test]
async fn a_permit_for_something_else_lets_nothing_in() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let answer = opened
        .control
        .submit(submission(1, "token", "sha256:aa"), &permit("sha256:bb"))
        .await;
    assert!(
        matches!(answer, Err(CommandError::NotPermitted(_))),
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
