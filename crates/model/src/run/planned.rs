//! The run of a plan, before anything of it has begun.

use jiff::Timestamp;

use super::{RetryBudget, Run, RunState, StageName, Task, TaskState, Window};
use crate::{
    digest::Digest,
    id::{RunId, TaskId},
    plan::{Plan, StagePlan},
};

/// How often a task may be interrupted by the end of the platform's own process.
const INTERRUPTIONS: u32 = 100;

impl Run {
    /// A run of a plan: a task for each stage, or for each partition of it, each of which needs all
    /// tasks of the stages before.
    pub fn planned(
        id: RunId,
        token: String,
        plan: &Plan,
        window: Option<Window>,
        now: Timestamp,
    ) -> Self {
        Self {
            token,
            tenant: plan.tenant.clone(),
            pipeline: plan.pipeline.clone(),
            version: plan.version.clone(),
            environment: plan.environment.clone(),
            window,
            state: RunState::Waiting,
            cancel_requested: false,
            submitted_at: now,
            ended_at: None,
            tasks: tasks(&id, plan),
            id,
        }
    }
}

fn tasks(run: &RunId, plan: &Plan) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for stage in &plan.stages {
        let needs: Vec<usize> = (0..tasks.len())
            .filter(|index| stage.needs.iter().any(|need| *need == tasks[*index].stage))
            .collect();
        let partitions: Vec<Option<String>> = if stage.partition_column.is_some() {
            stage.partitions.iter().cloned().map(Some).collect()
        } else {
            vec![None]
        };
        let name = StageName::from(&*stage.name);
        for partition in partitions {
            tasks.push(task(run, (stage, &name), partition, needs.clone()));
        }
    }
    tasks
}

fn task(
    run: &RunId,
    (stage, name): (&StagePlan, &StageName),
    partition: Option<String>,
    needs: Vec<usize>,
) -> Task {
    let text = format!(
        "{run}\n{}\n{}",
        stage.name,
        partition.as_deref().unwrap_or_default()
    );
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Digest::of(text.as_bytes()).as_bytes()[..16]);
    Task {
        id: TaskId::from_bytes(bytes),
        stage: name.clone(),
        partition,
        class: stage.class,
        size: stage.size,
        network_profile: stage.network_profile,
        needs,
        state: TaskState::Waiting,
        budget: RetryBudget {
            application: stage.application_retries,
            infrastructure: stage.infrastructure_retries,
            interruptions: INTERRUPTIONS,
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
    }
}
