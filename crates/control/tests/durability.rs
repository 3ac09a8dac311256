//! What the control plane holds to when its process ends at any point.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use barecount_control::{
    CommandError, Control, Entries, Fenced, IdentityError, Submission, Submitted, Update,
    clock::SystemClock,
    governance::{
        Action, Allowed, EnvironmentFacts, EnvironmentKind, Governance, Isolation, Matrix,
        MatrixRow, Permit, PipelineFacts, Question, StageFacts, Verdict,
    },
    store::{OpenError, reader::Reader},
};
use barecount_model::{
    class::{NetworkProfile, Phase, RunnerClass, Size},
    id::{RunId, TaskId},
    manifest::{EgressMode, Format, WriteMode},
    pipeline::Output,
    plan::{EgressLimits, Pin, Plan, Resources, StagePlan, WorkPlan},
    run::{
        Pending, RetryBudget, Run, RunState, Task, TaskState,
        outcome::{AttemptResult, CommittedDataset, Metrics, Outcome, Staged, StagedDataset},
    },
};
use ed25519_dalek::Signature;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;

type TestResult = Result<(), Box<dyn std::error::Error>>;

struct Opened {
    control: Control,
    updates: mpsc::UnboundedReceiver<Update>,
    entries: mpsc::UnboundedReceiver<Entries>,
}

fn open(folder: &Path) -> Result<Opened, OpenError> {
    let (updates_in, updates) = mpsc::unbounded_channel();
    let (entries_in, entries) = mpsc::unbounded_channel();
    let control = Control::open(folder, Arc::new(SystemClock), updates_in, entries_in)?;
    Ok(Opened {
        control,
        updates,
        entries,
    })
}

/// Ends the writer and waits until it has let go of the folder, as a process's end would.
async fn close(opened: Opened) {
    let Opened {
        control,
        mut updates,
        entries,
    } = opened;
    drop((control, entries));
    while updates.recv().await.is_some() {}
}

fn submission(seed: u8, token: &str, version: &str) -> Submission {
    let plan = Plan {
        pipeline: "example".into(),
        tenant: "demo".into(),
        owner: "owner@example.com".into(),
        version: version.into(),
        manifest_digest: "sha256:01".into(),
        lock_digest: "sha256:02".into(),
        environment: "local".into(),
        classification: "public".into(),
        requester: "tester".into(),
        decision: Value::Null,
        event: None,
        stages: vec![],
    };
    let task = Task {
        id: TaskId::from_bytes([seed; 16]),
        stage: "only".into(),
        partition: None,
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        needs: vec![],
        state: TaskState::Waiting,
        budget: RetryBudget {
            application: 1,
            infrastructure: 1,
            interruptions: 10,
            initial_backoff_ms: 1,
            max_backoff_ms: 1,
            application_spent: 0,
            infrastructure_spent: 0,
            interruptions_spent: 0,
        },
        not_before: None,
        held: None,
        attempts: vec![],
    };
    let run = Run {
        id: RunId::from_bytes([seed; 16]),
        token: token.into(),
        tenant: "demo".into(),
        pipeline: "example".into(),
        version: version.into(),
        environment: "local".into(),
        window: None,
        state: RunState::Waiting,
        cancel_requested: false,
        submitted_at: Timestamp::UNIX_EPOCH,
        ended_at: None,
        tasks: vec![task],
    };
    with_stage(Submission {
        run,
        plan: Arc::new(plan),
        place: vec![],
    })
}

/// Governance's permit to run version `version` of the example.
fn permit(version: &str) -> Permit {
    permit_in("local", version)
}

fn permit_in(environment: &str, version: &str) -> Permit {
    let row = MatrixRow {
        name: "everything".to_owned(),
        classes: Allowed::ANY,
        sizes: Allowed::ANY,
        network_profiles: Allowed::ANY,
    };
    let question = Question {
        action: Action::Run,
        tenant: "demo".to_owned(),
        environment: EnvironmentFacts {
            name: environment.to_owned(),
            kind: EnvironmentKind::Development,
        },
        requester: "tester".to_owned(),
        pipeline: PipelineFacts {
            name: "example".to_owned(),
            version: version.to_owned(),
            owner: "owner@example.com".to_owned(),
            classification: "public".to_owned(),
        },
        stages: vec![StageFacts {
            name: "only".to_owned(),
            class: RunnerClass::Container,
            size: Size::Small,
            network_profile: NetworkProfile::PrivateVpc,
            isolation: Isolation::Sandbox,
            classification: "public".to_owned(),
            drivers: vec![],
            has_secrets: false,
            has_secret_variables: false,
            debug_logging: false,
            residency: None,
            privately_reachable: vec![],
            crossings: Vec::new(),
        }],
        matrix: Matrix {
            tenants: [("demo".to_owned(), vec![row])].into(),
            ..Matrix::default()
        },
        approvals: vec![],
        now: Timestamp::UNIX_EPOCH,
    };
    let governance = Governance::load(&[]).expect("the default policies load");
    match governance.decide(&question) {
        Verdict::Permitted(permit) => permit,
        Verdict::Refused(refusal) => panic!("{refusal}"),
    }
}

fn done() -> Outcome {
    Outcome {
        result: AttemptResult::Done(Staged {
            datasets: vec![StagedDataset {
                dataset: "raw.example".into(),
                rows: 3,
                bytes: 30,
                digest: "lthash:00".into(),
                commit: Value::Null,
            }],
            ..Staged::default()
        }),
        exit_code: Some(0),
        metrics: Metrics::default(),
        detail: Value::Null,
    }
}

fn output() -> CommittedDataset {
    CommittedDataset {
        dataset: "raw.example".into(),
        uri: "file:///nowhere".into(),
        version: 0,
        rows: 3,
        bytes: 30,
        digest: "lthash:00".into(),
    }
}

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

/// A plan in which the task's stage reads nothing, and writes what [`done`] stages.
fn with_stage(mut submission: Submission) -> Submission {
    let stage = StagePlan {
        name: "only".into(),
        phase: Phase::Utility,
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        egress: vec![],
        egress_mode: EgressMode::Enforce,
        egress_limits: EgressLimits::default(),
        boundary: None,
        secrets: BTreeMap::new(),
        crossings: vec![],
        backend: "local".into(),
        isolation: "sandbox".into(),
        resources: Resources {
            cpu_millis: 1,
            memory_bytes: 1,
            pids: 1,
            open_files: 1,
            scratch_bytes: 1,
            log_bytes: 1,
            workers: 1,
        },
        concurrency_limit: 1,
        work: WorkPlan::Package {
            package: Pin {
                name: "p".into(),
                digest: "sha256:00".into(),
            },
            command: vec![],
        },
        drivers: vec![],
        inputs: vec![],
        outputs: vec![Output {
            dataset: "raw.example".parse().expect("it is a name"),
            format: Format::Csv,
            mode: WriteMode::Append,
            partition_by: vec![],
            columns: vec![],
            tests: vec![],
        }],
        needs: vec![],
        partition_column: None,
        partitions: vec![],
        application_retries: 0,
        infrastructure_retries: 0,
        initial_backoff_ms: 0,
        max_backoff_ms: 0,
        timeout_ms: 1_000,
        grace_ms: 1_000,
        env: BTreeMap::new(),
    };
    let mut plan = Plan::clone(&submission.plan);
    plan.stages.push(stage);
    submission.plan = Arc::new(plan);
    submission
}

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
async fn evidence_is_queued_until_a_checkpoint_covers_it() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut opened = open(folder.path())?;
    opened
        .control
        .submit(submission(1, "one", "sha256:aa"), &permit("sha256:aa"))
        .await?;
    opened
        .control
        .submit(submission(2, "two", "sha256:aa"), &permit("sha256:aa"))
        .await?;
    let first = opened.entries.recv().await.ok_or("entries are announced")?;
    assert_eq!((first.first, first.bytes.len()), (0, 1));
    opened.control.integrated(1).await?;
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
