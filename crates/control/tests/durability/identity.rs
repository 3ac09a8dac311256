//! Who gets an identity, and for what.

use barecount_control::{Fenced, IdentityError, Submitted};
use barecount_model::id::RunId;
use ed25519_dalek::Signature;
use jiff::Timestamp;

use crate::fixture::*;

#[tokio::test]
async fn an_attempt_has_an_identity_only_where_its_run_was_permitted_in_this_process() -> TestResult
{
    let folder = tempfile::tempdir()?;
    let submitted = submission(1, "token", "sha256:aa");
    let attempt = Fenced {
        run: submitted.run.id.clone(),
        task: 0,
        number: 1,
    };
    let unknown = Err(IdentityError::NotPermitted(attempt.run.clone()));
    let now = Timestamp::UNIX_EPOCH;

    let opened = open(folder.path())?;
    let control = &opened.control;
    assert_eq!(control.identify(&attempt, now), unknown);
    let other = permit("sha256:bb");
    assert!(control.submit(submitted.clone(), &other).await.is_err());
    assert_eq!(control.identify(&attempt, now), unknown);
    control
        .submit(submitted.clone(), &permit("sha256:aa"))
        .await?;
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
    close(opened).await;

    // Another process has another key, and asks governance again.
    let opened = open(folder.path())?;
    let control = &opened.control;
    assert!(
        control
            .identity_key()
            .verify_strict(&signed, &signature)
            .is_err()
    );
    assert_eq!(control.identify(&attempt, now), unknown);
    let mut taken_up = submitted;
    taken_up.run.id = RunId::from_bytes([9; 16]);
    let again = control.submit(taken_up, &permit("sha256:aa")).await?;
    assert!(matches!(again, Submitted::Existing(_)));
    assert!(control.identify(&attempt, now).is_ok());
    close(opened).await;
    Ok(())
}

#[tokio::test]
async fn a_permit_for_one_environment_gives_a_run_of_another_no_identity() -> TestResult {
    let folder = tempfile::tempdir()?;
    let opened = open(folder.path())?;
    let first = submission(1, "token", "sha256:aa");
    let attempt = Fenced {
        run: first.run.id.clone(),
        task: 0,
        number: 1,
    };
    opened
        .control
        .submit(first.clone(), &permit("sha256:aa"))
        .await?;
    close(opened).await;

    let opened = open(folder.path())?;
    let mut elsewhere = first;
    elsewhere.run.id = RunId::from_bytes([9; 16]);
    elsewhere.run.environment = "live".to_owned();
    let permitted = permit_in("live", "sha256:aa");
    let answer = opened.control.submit(elsewhere, &permitted).await?;
    assert!(
        matches!(answer, Submitted::Existing(_)),
        "the token names it"
    );
    let identity = opened.control.identify(&attempt, Timestamp::UNIX_EPOCH);
    assert_eq!(identity, Err(IdentityError::NotPermitted(attempt.run)));
    close(opened).await;
    Ok(())
}
