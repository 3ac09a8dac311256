//! What is run: a few pipelines, permitted by the default policies.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use barecount_control::{
    Authorised, Submission,
    governance::{
        Action, Allowed, EnvironmentFacts, EnvironmentKind, Governance, Isolation, Matrix,
        MatrixRow, Permit, PipelineFacts, Question, StageFacts,
    },
    reconcile::Caps,
};
use barecount_model::{
    class::{NetworkProfile, Phase, RunnerClass, Size},
    id::{RunId, TaskId},
    manifest::{DeadLetterLimits, EgressMode, Format, SchemaEvolution, SecretSpec, WriteMode},
    pipeline::Output,
    plan::{EgressLimits, Pin, Plan, Resources, StagePlan, WorkPlan},
    run::{RetryBudget, Run, RunState, Task, TaskState},
    text::Name,
    work::Work,
};
use jiff::Timestamp;

/// A pipeline, and what may be done with it.
pub(crate) struct Shape {
    pub(crate) plan: Authorised,
    pub(crate) cancel: Arc<Permit>,
    pub(crate) resume: Arc<Permit>,
    /// Of each task, in order.
    pub(crate) works: Vec<Work>,
}

impl Shape {
    pub(crate) fn has_secrets(&self) -> bool {
        let mut stages = self.plan.plan().stages.iter();
        stages.any(|stage| !stage.secrets.is_empty())
    }
}

/// A stage: its class, how many partitions it has, so many of them at once, and whether it is given
/// secrets.
#[derive(Debug, Clone, Copy)]
struct Of(RunnerClass, usize, u32, bool);

type Stages = &'static [Of];

const SHAPES: [Stages; 5] = [
    &[Of(RunnerClass::Container, 1, 1, false)],
    &[
        Of(RunnerClass::Container, 3, 2, false),
        Of(RunnerClass::Serverless, 1, 1, false),
    ],
    &[
        Of(RunnerClass::Serverless, 1, 1, false),
        Of(RunnerClass::Serverless, 2, 2, false),
    ],
    &[
        Of(RunnerClass::Container, 1, 1, true),
        Of(RunnerClass::Serverless, 2, 1, false),
    ],
    &[
        Of(RunnerClass::Container, 1, 1, false),
        Of(RunnerClass::Container, 1, 1, false),
        Of(RunnerClass::Serverless, 1, 1, false),
    ],
];

/// The shape of a pipeline.
pub(crate) fn of(pipeline: &str) -> Option<&'static Shape> {
    let number = pipeline.strip_prefix("pipeline-")?;
    PLANS.get(number.parse::<usize>().ok()?)
}

pub(crate) static PLANS: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let governance = Governance::load(&[]).expect("the default policies load");
    let shapes = SHAPES.iter().enumerate();
    shapes
        .map(|(number, stages)| shape(&governance, number, stages))
        .collect()
});

/// How much may be under way at once.
pub(crate) fn caps() -> Caps {
    Caps {
        total: 3,
        class: HashMap::from([(RunnerClass::Container, 2), (RunnerClass::Serverless, 2)]),
    }
}

fn shape(governance: &Governance, number: usize, stages: Stages) -> Shape {
    let plan = plan(number, stages);
    let permit = |action| {
        let verdict = governance.decide(&question(action, &plan));
        verdict
            .into_permit()
            .expect("the default policies permit it in development")
    };
    let works = plan.stages.iter().flat_map(|stage| {
        let many = stage.partitions.len() > 1;
        let partitions = stage.partitions.iter();
        partitions.map(move |part| (stage, many.then_some(part.as_str())))
    });
    Shape {
        cancel: Arc::new(permit(Action::Cancel)),
        resume: Arc::new(permit(Action::Resume)),
        works: works
            .map(|(stage, partition)| Work::of(&plan, stage, partition, None, &[]))
            .collect(),
        plan: Authorised::mint(plan.clone(), &permit(Action::Run)).expect("the permit is for it"),
    }
}

fn question(action: Action, plan: &Plan) -> Question {
    let row = MatrixRow {
        name: "everything".to_owned(),
        classes: Allowed::ANY,
        sizes: Allowed::ANY,
        network_profiles: Allowed::ANY,
    };
    let stages = plan.stages.iter().map(|stage| StageFacts {
        name: stage.name.clone(),
        class: stage.class,
        size: stage.size,
        custom_size: None,
        network_profile: stage.network_profile,
        isolation: Isolation::Sandbox,
        classification: plan.classification.clone(),
        drivers: Vec::new(),
        has_secrets: !stage.secrets.is_empty(),
        has_secret_variables: false,
        debug_logging: false,
        residency: None,
        privately_reachable: Vec::new(),
        crossings: Vec::new(),
    });
    Question {
        action,
        tenant: plan.tenant.clone(),
        environment: EnvironmentFacts {
            name: plan.environment.clone(),
            kind: EnvironmentKind::Development,
        },
        requester: plan.requester.clone(),
        pipeline: PipelineFacts {
            name: plan.pipeline.clone(),
            version: plan.version.clone(),
            owner: plan.owner.clone(),
            classification: plan.classification.clone(),
        },
        stages: stages.collect(),
        matrix: Matrix {
            tenants: [(plan.tenant.clone(), vec![row])].into(),
            ..Matrix::default()
        },
        approvals: Vec::new(),
        now: Timestamp::UNIX_EPOCH,
    }
}

fn plan(number: usize, stages: Stages) -> Plan {
    let planned = stages.iter().enumerate();
    Plan {
        pipeline: format!("pipeline-{number}"),
        tenant: "demo".to_owned(),
        owner: "owner@example.com".to_owned(),
        version: format!("sha256:{number:02}"),
        manifest_digest: "sha256:01".to_owned(),
        lock_digest: "sha256:02".to_owned(),
        environment: "local".to_owned(),
        classification: "public".to_owned(),
        requester: "data-engineer".to_owned(),
        decision: serde_json::Value::Null,
        event: None,
        named: None,
        forced: Vec::new(),
        stages: planned
            .map(|(index, of)| stage(number, index, *of))
            .collect(),
    }
}

fn stage(number: usize, index: usize, Of(class, partitions, at_once, secrets): Of) -> StagePlan {
    StagePlan {
        name: format!("stage-{index}"),
        phase: Phase::Utility,
        class,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        egress: Vec::new(),
        egress_mode: EgressMode::Enforce,
        egress_limits: EgressLimits::default(),
        boundary: None,
        secrets: secrets.then(secret).into_iter().collect(),
        crossings: Vec::new(),
        backend: "simulated".to_owned(),
        isolation: "sandbox".to_owned(),
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
        concurrency_limit: at_once,
        work: WorkPlan::Package {
            package: Pin {
                name: "work".to_owned(),
                digest: "sha256:00".to_owned(),
            },
            command: Vec::new(),
        },
        drivers: Vec::new(),
        inputs: Vec::new(),
        outputs: vec![output(&format!("raw.p{number}_s{index}"))],
        needs: (0..index).map(|need| format!("stage-{need}")).collect(),
        partition_column: (partitions > 1).then(|| "part".to_owned()),
        partitions: (0..partitions).map(|part| part.to_string()).collect(),
        application_retries: 2,
        infrastructure_retries: 4,
        initial_backoff_ms: 500,
        max_backoff_ms: 4_000,
        timeout_ms: 20_000,
        grace_ms: 1_000,
        env: BTreeMap::new(),
    }
}

fn secret() -> (Name, SecretSpec) {
    let spec = SecretSpec {
        from: "erp/token".parse().expect("it is a secret's name"),
        version: None,
        env: None,
    };
    ("token".parse().expect("it is a file's name"), spec)
}

fn output(name: &str) -> Output {
    Output {
        dataset: name.parse().expect("it is a dataset's name"),
        format: Format::Files,
        mode: WriteMode::Append,
        schema_evolution: SchemaEvolution::default(),
        dead_letters: DeadLetterLimits::default(),
        partition_by: Vec::new(),
        columns: Vec::new(),
        tests: Vec::new(),
    }
}

/// A run of a shape, under a token.
pub(crate) fn submission(
    shape: &Shape,
    id: [u8; 16],
    token: &str,
    caps: Option<&Caps>,
) -> Submission {
    let plan = shape.plan.plan();
    let run = Run {
        id: RunId::from_bytes(id),
        token: token.to_owned(),
        tenant: plan.tenant.clone(),
        pipeline: plan.pipeline.clone(),
        version: plan.version.clone(),
        environment: plan.environment.clone(),
        window: None,
        state: RunState::Waiting,
        cancel_requested: false,
        submitted_at: Timestamp::UNIX_EPOCH,
        ended_at: None,
        tasks: tasks(plan, id),
    };
    let place = caps.map_or_else(Vec::new, |caps| caps.first(&run, plan));
    let plan = shape.plan.clone();
    Submission { run, plan, place }
}

fn tasks(plan: &Plan, id: [u8; 16]) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for stage in &plan.stages {
        let needs: Vec<usize> = (0..tasks.len())
            .filter(|index| stage.needs.iter().any(|need| *need == tasks[*index].stage))
            .collect();
        for partition in &stage.partitions {
            let mut bytes = id;
            bytes[0] = u8::try_from(tasks.len()).unwrap_or(u8::MAX);
            tasks.push(Task {
                id: TaskId::from_bytes(bytes),
                stage: (&*stage.name).into(),
                partition: (stage.partitions.len() > 1).then(|| partition.clone()),
                class: stage.class,
                size: stage.size,
                network_profile: stage.network_profile,
                needs: needs.clone(),
                state: TaskState::Waiting,
                budget: RetryBudget {
                    application: stage.application_retries,
                    infrastructure: stage.infrastructure_retries,
                    interruptions: 8,
                    initial_backoff_ms: stage.initial_backoff_ms,
                    max_backoff_ms: stage.max_backoff_ms,
                    application_spent: 0,
                    infrastructure_spent: 0,
                    interruptions_spent: 0,
                },
                not_before: None,
                held: None,
                work: None,
                answered: None,
                attempts: Vec::new(),
            });
        }
    }
    tasks
}
