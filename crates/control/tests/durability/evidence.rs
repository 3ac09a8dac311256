//! What is queued for the ledger.

use barecount_control::{Fenced, governance::Action, store::reader::Reader};
use barecount_ledger::MAX_ENTRY_BYTES;
use barecount_model::{
    digest::Digest,
    evidence::{MAX_STATEMENT_BYTES, OMITTED, canonical_json},
    id::TaskId,
    run::RunState,
};
use serde_json::{Value, json};

use crate::fixture::*;

#[tokio::test]
async fn evidence_is_queued_until_a_checkpoint_covers_it() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut opened = open(folder.path())?;
    opened
        .control
        .submit(submission(1, "one", "sha256:aa"))
        .await?;
    opened
        .control
        .submit(submission(2, "two", "sha256:aa"))
        .await?;
    let first = opened.entries.recv().await.ok_or("entries are announced")?;
    assert_eq!((first.first, first.bytes.len()), (0, 1));
    opened.control.ledger_port().integrated(1).await?;
    close(opened).await;

    let mut opened = open(folder.path())?;
    let again = opened
        .entries
        .recv()
        .await
        .ok_or("uncovered entries are announced again")?;
    assert_eq!((again.first, again.bytes.len()), (1, 1));
    assert_eq!(*opened.control.ledger_length().borrow(), 2);
    close(opened).await;
    Ok(())
}

const _: () = assert!(
    MAX_STATEMENT_BYTES <= MAX_ENTRY_BYTES,
    "a statement fits an entry"
);

/// An entry that the ledger cannot take would stop it, and with it the pipeline's every later run.
#[tokio::test]
async fn no_run_is_so_large_that_its_evidence_does_not_fit_the_ledger() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut opened = open(folder.path())?;
    let mut submitted = submission(1, "large", "sha256:aa");
    let first = submitted.run.tasks[0].clone();
    for number in 1..1_200_u16 {
        let mut task = first.clone();
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        task.id = TaskId::from_bytes(id);
        task.partition = Some(format!("{number:04}-01"));
        submitted.run.tasks.push(task);
    }
    let attempt = Fenced {
        run: submitted.run.id.clone(),
        task: 0,
        number: 1,
    };
    let control = &opened.control;
    control.submit(submitted).await?;
    control.place(&attempt.run, 0).await?;
    let path: Value = (0..5_000)
        .map(|number| json!({ "address": format!("10.0.0.{number}") }))
        .collect();
    let mut outcome = done();
    outcome.detail = json!({ "path": path, "log": "kept" });
    control.report(&attempt, outcome, vec![]).await?;
    let last = control.committed(&attempt, vec![output()]).await?;
    assert_eq!(last.run.state, RunState::Running);
    let permit = permit_to(Action::Cancel, "local", "sha256:aa");
    control.cancel(&attempt.run, &permit).await?;

    let told = Reader::open(folder.path())?
        .ok_or("the store exists")?
        .ledger_entries(None)?;
    let mut entries = Vec::new();
    while entries.len() < told.len() {
        let announced = opened.entries.recv().await;
        entries.extend(announced.ok_or("entries are announced")?.bytes);
    }
    let sizes: Vec<usize> = entries.iter().map(Vec::len).collect();
    assert!(
        sizes.iter().all(|size| *size <= MAX_ENTRY_BYTES),
        "{sizes:?}"
    );
    let kinds: Vec<&str> = told.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["submission", "attempt", "commit", "run"]);
    let attempt: Value = serde_json::from_slice(&entries[1])?;
    let ended: Value = serde_json::from_slice(&entries[3])?;
    assert!(ended["predicate"]["tasks"][OMITTED].is_object(), "{ended}");
    let detail = &attempt["predicate"]["detail"];
    assert_eq!(detail["log"], "kept");
    assert_eq!(
        detail["path"][OMITTED]["digest"],
        json!(Digest::of(canonical_json(&path).as_bytes()))
    );
    close(opened).await;
    Ok(())
}
