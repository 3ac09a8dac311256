//! Submissions, permits and outcomes to begin with, and a store that is opened and closed.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use barecount_control::{
    Authorised, Control, Entries, Submission, Update,
    clock::SystemClock,
    governance::{
        Action, Allowed, EnvironmentFacts, EnvironmentKind, Governance, Isolation, Matrix,
        MatrixRow, Permit, PipelineFacts, Question, StageFacts, Verdict,
    },
    store::{OpenError, Sealing, lock::FolderLock},
};
use barecount_model::{
    class::{NetworkProfile, Phase, RunnerClass, Size},
    id::{RunId, TaskId},
    manifest::{DeadLetterLimits, EgressMode, Format, SchemaEvolution, WriteMode},
    pipeline::Output,
    plan::{EgressLimits, Pin, Plan, Resources, StagePlan, WorkPlan},
    run::{
        RetryBudget, Run, RunState, Task, TaskState,
        outcome::{
            AttemptResult, CommittedDataset, Metrics, Outcome, Staged, StagedDataset, Timeline,
        },
    },
    seal::SealKey,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

pub(crate) struct Opened {
    pub(crate) control: Control,
    pub(crate) updates: mpsc::UnboundedReceiver<Update>,
    pub(crate) entries: mpsc::UnboundedReceiver<Entries>,
}

/// A folder that this process has to itself, and what seals its journal.
fn held(folder: &Path) -> Result<(FolderLock, Sealing), OpenError> {
    let sealing = Sealing::new(SealKey::new([7; 32].into()), 0);
    Ok((FolderLock::take(folder)?, sealing))
}

pub(crate) fn open(folder: &Path) -> Result<Opened, OpenError> {
    let (updates_in, updates) = mpsc::unbounded_channel();
    let (entries_in, entries) = mpsc::unbounded_channel();
    let control = Control::open(held(folder)?, Arc::new(SystemClock), updates_in, entries_in)?;
    Ok(Opened {
        control,
        updates,
        entries,
    })
}

/// Ends the writer, which has let go of the folder then, as at a process's end.
pub(crate) async fn close(opened: Opened) {
    opened.control.close().await;
}

/// A run of version `version`, by governance's permit for it.
pub(crate) fn submission(seed: u8, token: &str, version: &str) -> Submission {
    let (run, plan) = work(seed, token, version);
    let plan = Authorised::mint(plan, &permit(version)).expect("the permit covers the plan");
    Submission {
        run,
        plan,
        place: vec![],
    }
}

pub(crate) fn work(seed: u8, token: &str, version: &str) -> (Run, Plan) {
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
        named: None,
        forced: vec![],
        stages: vec![stage()],
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
        work: None,
        answered: None,
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
    (run, plan)
}

/// Governance's permit to run version `version` of the example.
pub(crate) fn permit(version: &str) -> Permit {
    permit_to(Action::Run, "local", version)
}

pub(crate) fn permit_to(action: Action, environment: &str, version: &str) -> Permit {
    let row = MatrixRow {
        name: "everything".to_owned(),
        classes: Allowed::ANY,
        sizes: Allowed::ANY,
        network_profiles: Allowed::ANY,
    };
    let question = Question {
        action,
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
            custom_size: None,
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

pub(crate) fn done() -> Outcome {
    Outcome {
        timeline: Timeline::default(),
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

pub(crate) fn output() -> CommittedDataset {
    CommittedDataset {
        dataset: "raw.example".into(),
        uri: "file:///nowhere".into(),
        version: 0,
        rows: 3,
        bytes: 30,
        digest: "lthash:00".into(),
    }
}

/// A stage that reads nothing, and writes what [`done`] stages.
fn stage() -> StagePlan {
    StagePlan {
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
            disk_bytes: None,
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
            schema_evolution: SchemaEvolution::default(),
            dead_letters: DeadLetterLimits::default(),
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
    }
}
