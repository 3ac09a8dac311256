//! What statements say, borrowed from what they are about, and so written without being built.
//!
//! Fields are in the order of their names, in which they are written: nothing is left to be sorted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Subject, canonical::Written};
use crate::{
    boundary::{Boundary, Crossing},
    class::{NetworkProfile, RunnerClass, Size},
    cost::{self, Money},
    digest::Digest,
    id::{RunId, TaskId},
    manifest::{Egress, EgressMode, SecretSpec},
    plan::{Pin, Plan, Resources, StagePlan},
    run::{
        Abandonment, Attempt, AttemptState, Held, Run, RunState, StandingOutput, Task, TaskState,
        Window,
        outcome::{
            CommittedDataset, Failure, FailureKind, Metrics, StagedCheckpoint, StagedDataset,
        },
    },
    text::{DatasetName, Name},
};

/// What statements say of a plan, written once for all statements of its runs.
#[derive(Debug)]
pub struct PlanText {
    /// The pipeline version, as a subject.
    pipeline: Written,
    decision: Written,
    stages: Written,
    /// Of each stage, in their order.
    configurations: Vec<Written>,
}

impl PlanText {
    /// Writes it.
    pub fn of(plan: &Plan) -> Self {
        let stages: Vec<_> = plan.stages.iter().map(StageFacts::of).collect();
        Self {
            pipeline: Written::of(&pipeline_of(plan)),
            decision: Written::of(&plan.decision),
            configurations: stages.iter().map(Written::of).collect(),
            stages: Written::of(&stages),
        }
    }
}

fn pipeline_of(plan: &Plan) -> Subject {
    Subject::new(format!("pipeline/{}", plan.pipeline), &plan.version)
}

/// What a statement of a plan's run is about: the pipeline version, and datasets by their digests.
pub(super) fn subjects<'a>(
    plan: &Plan,
    text: Option<&'a PlanText>,
    datasets: &[(&str, &str)],
) -> Vec<OfPlan<'a, Subject>> {
    let pipeline = match text {
        Some(text) => OfPlan::Written(&text.pipeline),
        None => OfPlan::Plain(pipeline_of(plan)),
    };
    let datasets = datasets.iter();
    let datasets = datasets.map(|&(name, digest)| OfPlan::Plain(Subject::new(name, digest)));
    std::iter::once(pipeline).chain(datasets).collect()
}

/// What a plan has for all its runs: as it was written before, or as it is.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum OfPlan<'a, T> {
    Written(&'a Written),
    Plain(T),
}

#[derive(Serialize)]
pub(super) struct Refusal<'a> {
    at: Timestamp,
    decision: &'a Value,
    rules: &'a Value,
    run: RunFacts<'a>,
}

impl<'a> Refusal<'a> {
    pub(super) fn of(run: &'a Run, plan: &'a Plan, now: Timestamp) -> Self {
        Self {
            at: now,
            decision: &plan.decision,
            rules: &plan.decision["rules"],
            run: RunFacts::of(run),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Submission<'a> {
    at: Timestamp,
    classification: &'a str,
    decision: OfPlan<'a, &'a Value>,
    event: &'a Option<Value>,
    forced: &'a [String],
    lock: &'a str,
    manifest: &'a str,
    owner: &'a str,
    requester: &'a str,
    run: RunFacts<'a>,
    stages: OfPlan<'a, Vec<StageFacts<'a>>>,
}

impl<'a> Submission<'a> {
    pub(super) fn of(
        run: &'a Run,
        plan: &'a Plan,
        text: Option<&'a PlanText>,
        at: Timestamp,
    ) -> Self {
        Self {
            at,
            classification: &plan.classification,
            decision: match text {
                Some(text) => OfPlan::Written(&text.decision),
                None => OfPlan::Plain(&plan.decision),
            },
            event: &plan.event,
            forced: &plan.forced,
            lock: &plan.lock_digest,
            manifest: &plan.manifest_digest,
            owner: &plan.owner,
            requester: &plan.requester,
            run: RunFacts::of(run),
            stages: match text {
                Some(text) => OfPlan::Written(&text.stages),
                None => OfPlan::Plain(plan.stages.iter().map(StageFacts::of).collect()),
            },
        }
    }
}

#[derive(Serialize)]
pub(super) struct Resumption<'a> {
    at: Timestamp,
    decision: &'a Value,
    run: RunFacts<'a>,
}

impl<'a> Resumption<'a> {
    pub(super) fn of(run: &'a Run, decision: &'a Value, at: Timestamp) -> Self {
        let run = RunFacts::of(run);
        Self { at, decision, run }
    }
}

/// How an attempt ended.
#[derive(Serialize)]
pub(super) struct AttemptFacts<'a> {
    attempt: u32,
    checkpoint: Option<CheckpointFacts<'a>>,
    configuration: Option<OfPlan<'a, StageFacts<'a>>>,
    dead_letters: u64,
    detail: &'a Value,
    ended_at: Option<Timestamp>,
    exit_code: Option<i32>,
    failure: Option<FailureFacts<'a>>,
    held: &'a Option<Box<Held>>,
    intended_at: Timestamp,
    metrics: &'a Metrics,
    run: RunFacts<'a>,
    runner: &'a Option<String>,
    staged: Vec<OutputFacts<'a>>,
    staged_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    state: AttemptState,
    task: TaskFacts<'a>,
    work: Option<Digest>,
    work_ended_at: Option<Timestamp>,
}

impl<'a> AttemptFacts<'a> {
    pub(super) fn of(
        run: &'a Run,
        plan: &'a Plan,
        text: Option<&'a PlanText>,
        task: &'a Task,
        attempt: &'a Attempt,
    ) -> Self {
        let stage = plan
            .stages
            .iter()
            .position(|stage| stage.name == task.stage);
        let configuration = stage.map(|stage| match text {
            Some(text) => OfPlan::Written(&text.configurations[stage]),
            None => OfPlan::Plain(StageFacts::of(&plan.stages[stage])),
        });
        let staged = attempt.staged.as_ref();
        let checkpoint = staged.and_then(|staged| staged.checkpoint.as_ref());
        Self {
            attempt: attempt.number,
            checkpoint: checkpoint.map(CheckpointFacts::of),
            configuration,
            dead_letters: staged.map_or(0, |staged| staged.dead_letters),
            detail: &attempt.detail,
            ended_at: attempt.ended_at,
            exit_code: attempt.exit_code,
            failure: attempt.failure.as_ref().map(FailureFacts::of),
            held: &attempt.held,
            intended_at: attempt.intended_at,
            metrics: &attempt.metrics,
            run: RunFacts::of(run),
            runner: &attempt.runner,
            staged: OutputFacts::staged(attempt),
            staged_at: attempt.staged_at,
            started_at: attempt.started_at,
            state: attempt.state,
            task: TaskFacts::of(task),
            work: task.work.as_ref().map(|work| work.key),
            work_ended_at: attempt.work_ended_at,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Commit<'a> {
    at: Timestamp,
    attempt: Option<u32>,
    outputs: &'a [CommittedDataset],
    run: RunFacts<'a>,
    task: TaskFacts<'a>,
}

impl<'a> Commit<'a> {
    pub(super) fn of(
        run: &'a Run,
        task: &'a Task,
        outputs: &'a [CommittedDataset],
        at: Timestamp,
    ) -> Self {
        Self {
            at,
            attempt: task.current().map(|attempt| attempt.number),
            outputs,
            run: RunFacts::of(run),
            task: TaskFacts::of(task),
        }
    }
}

/// That a task's work had been done, by whom, and what of it stands.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    answered_by: Option<AnsweredBy<'a>>,
    at: Timestamp,
    outputs: &'a [StandingOutput],
    run: RunFacts<'a>,
    task: TaskFacts<'a>,
    work: Option<Digest>,
}

#[derive(Serialize)]
struct AnsweredBy<'a> {
    run: &'a RunId,
    task: &'a TaskId,
}

impl<'a> Answer<'a> {
    pub(super) fn of(run: &'a Run, task: &'a Task, at: Timestamp) -> Self {
        let answered = task.answered.as_ref();
        Self {
            answered_by: answered.map(|answered| AnsweredBy {
                run: &answered.run,
                task: &answered.task,
            }),
            at,
            outputs: answered.map_or(&[], |answered| &answered.outputs),
            run: RunFacts::of(run),
            task: TaskFacts::of(task),
            work: task.work.as_ref().map(|work| work.key),
        }
    }
}

/// What was given up with a run, and by whom.
#[derive(Serialize)]
pub(super) struct AbandonmentFacts<'a> {
    at: Timestamp,
    by: &'a str,
    given_up: Vec<GivenUp<'a>>,
    reason: &'a str,
    run: RunFacts<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    standing: &'a [CommittedDataset],
}

#[derive(Serialize)]
struct GivenUp<'a> {
    attempt: u32,
    outputs: Option<Vec<OutputFacts<'a>>>,
    task: TaskFacts<'a>,
}

impl<'a> AbandonmentFacts<'a> {
    pub(super) fn of(
        run: &'a Run,
        struck: &[(usize, u32)],
        abandonment: &'a Abandonment,
        at: Timestamp,
    ) -> Self {
        let given_up = struck.iter().filter_map(|&(task, attempt)| {
            let task = run.tasks.get(task)?;
            Some(GivenUp {
                attempt,
                outputs: task.current().map(OutputFacts::staged),
                task: TaskFacts::of(task),
            })
        });
        Self {
            at,
            by: &abandonment.by,
            given_up: given_up.collect(),
            reason: &abandonment.reason,
            run: RunFacts::of(run),
            standing: &abandonment.standing,
        }
    }
}

/// So many crossings are in the entry of a run's end; the submission has all.
const SHOWN_CROSSINGS: usize = 32;

/// How a run ended.
#[derive(Serialize)]
pub(super) struct EndOfRun<'a> {
    cost: Money,
    crossings: Vec<CrossingFacts<'a>>,
    crossings_left_out: usize,
    ended_at: Option<Timestamp>,
    run: RunFacts<'a>,
    state: RunState,
    submitted_at: Timestamp,
    tasks: Vec<EndOfTask<'a>>,
}

#[derive(Serialize)]
struct CrossingFacts<'a> {
    dataset: &'a DatasetName,
    from: &'a Boundary,
    reason: &'a str,
    stage: &'a str,
    to: &'a Boundary,
}

#[derive(Serialize)]
struct EndOfTask<'a> {
    answered_by: Option<&'a RunId>,
    attempts: usize,
    id: &'a TaskId,
    partition: &'a Option<String>,
    stage: &'a str,
    state: TaskState,
}

impl<'a> EndOfRun<'a> {
    pub(super) fn of(run: &'a Run, plan: &'a Plan) -> Self {
        let declared: usize = plan.stages.iter().map(|stage| stage.crossings.len()).sum();
        let crossings = plan.stages.iter().flat_map(|stage| {
            let of_stage = stage.crossings.iter();
            of_stage.map(|crossing| CrossingFacts {
                dataset: &crossing.dataset,
                from: &crossing.from,
                reason: &crossing.reason,
                stage: &stage.name,
                to: &crossing.to,
            })
        });
        let tasks = run.tasks.iter().map(|task| EndOfTask {
            answered_by: task.answered.as_ref().map(|answered| &answered.run),
            attempts: task.attempts.len(),
            id: &task.id,
            partition: &task.partition,
            stage: &task.stage,
            state: task.state,
        });
        Self {
            cost: cost::of_run(run, plan),
            crossings: crossings.take(SHOWN_CROSSINGS).collect(),
            crossings_left_out: declared.saturating_sub(SHOWN_CROSSINGS),
            ended_at: run.ended_at,
            run: RunFacts::of(run),
            state: run.state,
            submitted_at: run.submitted_at,
            tasks: tasks.collect(),
        }
    }
}

#[derive(Serialize)]
struct RunFacts<'a> {
    environment: &'a str,
    id: &'a RunId,
    pipeline: &'a str,
    tenant: &'a str,
    token: &'a str,
    version: &'a str,
    window: &'a Option<Window>,
}

impl<'a> RunFacts<'a> {
    fn of(run: &'a Run) -> Self {
        Self {
            environment: &run.environment,
            id: &run.id,
            pipeline: &run.pipeline,
            tenant: &run.tenant,
            token: &run.token,
            version: &run.version,
            window: &run.window,
        }
    }
}

#[derive(Serialize)]
struct TaskFacts<'a> {
    class: RunnerClass,
    id: &'a TaskId,
    network_profile: NetworkProfile,
    partition: &'a Option<String>,
    size: Size,
    stage: &'a str,
}

impl<'a> TaskFacts<'a> {
    fn of(task: &'a Task) -> Self {
        Self {
            class: task.class,
            id: &task.id,
            network_profile: task.network_profile,
            partition: &task.partition,
            size: task.size,
            stage: &task.stage,
        }
    }
}

#[derive(Serialize)]
struct StageFacts<'a> {
    artifact: &'a Pin,
    backend: &'a str,
    boundary: &'a Option<Boundary>,
    class: RunnerClass,
    crossings: &'a [Crossing],
    drivers: &'a [Pin],
    egress: &'a [Egress],
    egress_mode: EgressMode,
    isolation: &'a str,
    name: &'a str,
    network_profile: NetworkProfile,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reads_from: Vec<ReadFacts<'a>>,
    resources: &'a Resources,
    secrets: &'a BTreeMap<Name, SecretSpec>,
    size: Size,
}

/// A version of another pipeline's dataset that a run was accepted with.
#[derive(Serialize)]
struct ReadFacts<'a> {
    dataset: &'a DatasetName,
    pipeline: &'a Name,
    version: u64,
}

impl<'a> StageFacts<'a> {
    fn of(stage: &'a StagePlan) -> Self {
        let reads_from = stage.pinned().map(|(dataset, pinned)| ReadFacts {
            dataset,
            pipeline: &pinned.pipeline,
            version: pinned.version,
        });
        Self {
            artifact: stage.work.artifact(),
            backend: &stage.backend,
            boundary: &stage.boundary,
            class: stage.class,
            crossings: &stage.crossings,
            drivers: &stage.drivers,
            egress: &stage.egress,
            egress_mode: stage.egress_mode,
            isolation: &stage.isolation,
            name: &stage.name,
            network_profile: stage.network_profile,
            reads_from: reads_from.collect(),
            resources: &stage.resources,
            secrets: &stage.secrets,
            size: stage.size,
        }
    }
}

/// A dataset that an attempt handed over.
#[derive(Serialize)]
struct OutputFacts<'a> {
    bytes: u64,
    dataset: &'a str,
    digest: &'a str,
    rows: u64,
}

impl<'a> OutputFacts<'a> {
    fn staged(attempt: &'a Attempt) -> Vec<Self> {
        let staged = attempt.staged.iter();
        let of = |output: &'a StagedDataset| Self {
            bytes: output.bytes,
            dataset: &output.dataset,
            digest: &output.digest,
            rows: output.rows,
        };
        staged.flat_map(|staged| &staged.datasets).map(of).collect()
    }
}

#[derive(Serialize)]
struct CheckpointFacts<'a> {
    bytes: u64,
    digest: &'a str,
    files: u64,
}

impl<'a> CheckpointFacts<'a> {
    fn of(saved: &'a StagedCheckpoint) -> Self {
        Self {
            bytes: saved.bytes,
            digest: &saved.digest,
            files: saved.files,
        }
    }
}

/// A failure without its message, which may quote what the work said, and that may quote its data:
/// the message is in the run, here is its digest.
#[derive(Serialize)]
struct FailureFacts<'a> {
    code: &'a str,
    kind: FailureKind,
    message_digest: Digest,
}

impl<'a> FailureFacts<'a> {
    fn of(failure: &'a Failure) -> Self {
        Self {
            code: &failure.code,
            kind: failure.kind,
            message_digest: Digest::of(failure.message.raw().as_bytes()),
        }
    }
}
