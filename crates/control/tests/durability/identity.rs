//! Who gets an identity, and for what.

use std::os::unix::fs::PermissionsExt;

use barecount_control::{Fenced, IdentityError, Submitted};
use barecount_model::id::RunId;
use ed25519_dalek::Signature;
use jiff::Timestamp;

use crate::fixture::*;

#[tokio::test]
async fn what_was_permitted_is_launched_by_whoever_starts_again() -> TestResult {
    let folder = tempfile::tempdir()?;
    let submitted = submission(1, "token", "sha256:aa");
    let attempt = Fenced {
        run: submitted.run.id.clone(),
        task: 0,
        number: 1,
    };
    let unknown = Err(IdentityError::NotPermitted(attempt.run.clone()));
    let now = Timestamp::UNIX_EPOCH;

    let mut opened = open(folder.path())?;
    let control = &opened.control;
    assert_eq!(control.identify(&attempt, now), unknown);
    control.submit(submitted).await?;
    control.place(&attempt.run, 0).await?;
    let first = control.identify(&attempt, now)?;
    let signature = Signature::from_bytes(&first.signature);
    let signed = first.identity.signed_bytes();
    control.identity_key().verify_strict(&signed, &signature)?;
    assert_eq!(first.identity.workload.stage, "only");
    let beyond = Fenced {
        task: 1,
        ..attempt.clone()
    };
    assert!(control.identify(&beyond, now).is_err());
    let heard = opened.updates.recv().await.ok_or("the run is announced")?;
    assert_eq!(heard.run.id, attempt.run);
    close(opened).await;

    let mut opened = open(folder.path())?;
    let heard = opened.updates.recv().await.ok_or("the run is announced")?;
    assert_eq!(heard.run.id, attempt.run);
    let control = &opened.control;
    control.identity_key().verify_strict(&signed, &signature)?;
    let again = control.identify(&attempt, now)?;
    assert_eq!(again.identity.workload, first.identity.workload);
    control.report(&attempt, done(), vec![]).await?;
    control.committed(&attempt, vec![output()]).await?;
    assert_eq!(control.identify(&attempt, now), unknown, "it has ended");
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn a_run_of_which_no_permit_is_known_gets_an_identity_with_one_that_covers_it() -> TestResult
{
    let folder = tempfile::tempdir()?;
    let first = submission(1, "token", "sha256:aa");
    let attempt = Fenced {
        run: first.run.id.clone(),
        task: 0,
        number: 1,
    };
    let now = Timestamp::UNIX_EPOCH;
    let opened = open(folder.path())?;
    opened.control.submit(first).await?;
    close(opened).await;
    // As an older program left it.
    let file = rusqlite::Connection::open(folder.path().join("control.sqlite"))?;
    file.execute("UPDATE runs SET permit = NULL", [])?;
    drop(file);

    let opened = open(folder.path())?;
    let control = &opened.control;
    let unknown = Err(IdentityError::NotPermitted(attempt.run.clone()));
    assert_eq!(control.identify(&attempt, now), unknown);
    let mut taken_up = submission(1, "token", "sha256:aa");
    taken_up.run.id = RunId::from_bytes([9; 16]);
    let again = control.submit(taken_up).await?;
    assert!(matches!(again, Submitted::Existing(_)));
    assert!(control.identify(&attempt, now).is_ok());
    close(opened).await;

    let opened = open(folder.path())?;
    assert!(opened.control.identify(&attempt, now).is_ok(), "it is kept");
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn a_permit_for_another_plan_gives_a_stored_run_no_identity() -> TestResult {
    let folder = tempfile::tempdir()?;
    let first = submission(1, "token", "sha256:aa");
    let attempt = Fenced {
        run: first.run.id.clone(),
        task: 0,
        number: 1,
    };
    let opened = open(folder.path())?;
    opened.control.submit(first).await?;
    close(opened).await;
    let file = rusqlite::Connection::open(folder.path().join("control.sqlite"))?;
    file.execute(
        "UPDATE runs SET permit = json_set(permit, '$.plan', 'another')",
        [],
    )?;
    drop(file);
    let opened = open(folder.path())?;
    let identity = opened.control.identify(&attempt, Timestamp::UNIX_EPOCH);
    assert_eq!(identity, Err(IdentityError::NotPermitted(attempt.run)));
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn a_key_of_identities_that_others_can_read_is_not_used() -> TestResult {
    let folder = tempfile::tempdir()?;
    close(open(folder.path())?).await;
    let key = folder.path().join("identity.key");
    let mode = std::fs::metadata(&key)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    assert!(open(folder.path()).is_err());
    Ok(())
}
