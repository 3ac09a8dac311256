//! Runs as they are listed and shown.

use std::collections::BTreeMap;

use barecount_agent::StagingFolders;
use barecount_api::{
    ledger::LedgerEntry,
    page::{Cursor, Page, PageRequest},
    records::{Records, Selection},
    run::{
        AttemptView, Cost, EntryRef, Log, OutputView, RunSummary, RunView, TaskView, Undeclared,
    },
};
use barecount_control::{governance::Explanation, store::OutputVersion};
use barecount_model::{
    cost::{self, Money},
    manifest::Egress,
    plan::Plan,
    run::{Attempt, AttemptState, Held, Run, RunState, Task, TaskState, outcome::Staged},
    untrusted::{Message, Transcript},
};

use serde_json::Value;

use super::{Embedded, working::Worker};
use crate::{
    client::Runs,
    details::{
        self, Signed, attempt,
        logs::{self, Expected, LogFile},
    },
    failure::{Failure, Status, chain},
    log::Log as Ledger,
    reporter::Reporter,
    state,
};

/// More of one log is not read at once.
const MAX_LOG_BYTES: u64 = 64 << 20;

impl Runs for Embedded {
    fn runs(&self, tenant: Option<&str>, page: &PageRequest) -> Result<Page<RunSummary>, Failure> {
        let Some(reader) = state::reader(&self.state)? else {
            return Ok(Page::empty());
        };
        let (after, limit) = (page.after.as_ref(), page.limit);
        let after = after.map(|Cursor(last)| last.as_str());
        let found = reader.runs_of(tenant, after, limit.saturating_add(1));
        let found = found.map_err(state::store_failure)?;
        let worker = self.worker()?;
        let summaries = found.iter().map(|(run, _)| summary(run, worker.as_ref()));
        Ok(Page::cut(summaries.collect(), limit, |last| {
            last.id.to_string()
        }))
    }

    fn show(&self, run: &str) -> Result<RunView, Failure> {
        let (reader, run, plan) = state::find_run(&self.state, run)?;
        let id = run.id.printed();
        let outputs = reader.outputs_of(&id).map_err(state::store_failure)?;
        let evidence = reader.ledger_entries(Some(&*id));
        let found = Found {
            outputs: &outputs,
            evidence: &evidence.map_err(state::store_failure)?,
            interrupted: is_interrupted(&run, self.worker()?.as_ref()),
        };
        let mut view = found.view(&run, &plan);
        match Ledger::open(self).and_then(|log| details::run::hold(&log, (&run, &plan), &found)) {
            Ok(differences) => view.differences = differences,
            Err(failure) => view.unchecked = Some(failure.problem().detail.raw().into()),
        }
        Ok(view)
    }

    fn logs(&self, run: &str, stage: Option<&str>) -> Result<Vec<Log>, Failure> {
        let (reader, run, _) = state::find_run(&self.state, run)?;
        let stage = stage_of(&run, stage)?;
        let signed = Ledger::open(self).and_then(|log| Signed::of_run(&log, &reader, &run));
        let mut signed = signed.map_err(|failure| failure.problem().detail.raw().to_owned());
        let mut logs = Vec::new();
        for task in run
            .tasks
            .iter()
            .filter(|task| stage.is_none_or(|stage| task.stage == stage))
        {
            logs.extend(self.logs_of(task, &mut signed)?);
        }
        Ok(logs)
    }

    fn flows(&self, selection: &Selection, reporter: &dyn Reporter) -> Result<Records, Failure> {
        self.flows_of(selection, reporter)
    }

    fn accesses(&self, selection: &Selection, reporter: &dyn Reporter) -> Result<Records, Failure> {
        self.accesses_of(selection, reporter)
    }

    fn egress_advice(&self, run: &str) -> Result<BTreeMap<String, Vec<Egress>>, Failure> {
        self.advice_of(run)
    }

    fn cancel(
        &self,
        run: &str,
        tenant: Option<&str>,
        reporter: &dyn Reporter,
    ) -> Result<RunView, Failure> {
        self.end(run, tenant, None, reporter)
    }

    fn abandon(
        &self,
        run: &str,
        tenant: Option<&str>,
        reason: &str,
        reporter: &dyn Reporter,
    ) -> Result<RunView, Failure> {
        self.end(run, tenant, Some(reason.to_owned()), reporter)
    }
}

impl Embedded {
    fn logs_of(
        &self,
        task: &Task,
        signed: &mut Result<Signed, String>,
    ) -> Result<Vec<Log>, Failure> {
        let folders = StagingFolders::new(&self.state);
        let mut logs = Vec::new();
        for attempt in &task.attempts {
            let path = folders.log(&details::token(task, attempt));
            let (expected, unchecked) = expected(task, attempt, signed);
            let found = logs::read(&path, MAX_LOG_BYTES, expected).map_err(|error| {
                let what = format!("the log {} cannot be read", path.display());
                Failure::new(Status::Unavailable, what).because(&error)
            })?;
            let Some(LogFile { bytes, problem }) = found else {
                continue;
            };
            logs.push(Log {
                task: task.id.clone(),
                stage: task.stage.to_string(),
                partition: task.partition.clone(),
                attempt: attempt.number,
                log: Transcript::of_bytes(&bytes),
                problem: problem.map(|problem| chain(&problem).into()),
                unchecked: unchecked.map(Into::into),
            });
        }
        Ok(logs)
    }
}

/// What the log of an attempt has to be; or else, of one that has ended, why that is not known.
fn expected(
    task: &Task,
    attempt: &Attempt,
    signed: &mut Result<Signed, String>,
) -> (Option<Expected>, Option<String>) {
    if attempt.state.is_open() {
        return (None, None);
    }
    match signed {
        Ok(signed) => match signed.take(task, attempt) {
            Ok(entry) => (entry.log(), None),
            Err(failure) => (None, Some(failure.problem().detail.raw().to_owned())),
        },
        Err(why) => (None, Some(why.clone())),
    }
}

fn is_interrupted(run: &Run, worker: Option<&Worker>) -> bool {
    !run.state.is_final() && !worker.is_some_and(|worker| worker.has(&run.id))
}

fn summary(run: &Run, worker: Option<&Worker>) -> RunSummary {
    RunSummary {
        id: run.id.clone(),
        token: run.token.clone(),
        tenant: run.tenant.clone(),
        pipeline: run.pipeline.clone(),
        version: run.version.clone(),
        state: run.state,
        interrupted: is_interrupted(run, worker),
        window: run.window.clone(),
        submitted_at: run.submitted_at,
        ended_at: run.ended_at,
        task_count: run.tasks.len(),
    }
}

/// The stage that was asked for, which the run has.
///
/// # Errors
/// If it has none of that name.
pub(super) fn stage_of<'a>(run: &Run, stage: Option<&'a str>) -> Result<Option<&'a str>, Failure> {
    match stage {
        Some(name) if run.tasks.iter().all(|task| task.stage != name) => {
            let mut names: Vec<&str> = run.tasks.iter().map(|task| &*task.stage).collect();
            // A stage with partitions has many tasks.
            names.dedup();
            let what = format!("the run has no stage `{name}`");
            Err(Failure::new(Status::NotFound, what)
                .with_help(format!("Its stages are {}.", names.join(", "))))
        }
        stage => Ok(stage),
    }
}

/// What the store has of a run beside itself.
pub(crate) struct Found<'a> {
    pub(crate) outputs: &'a [OutputVersion],
    pub(crate) evidence: &'a [LedgerEntry],
    interrupted: bool,
}

impl Found<'_> {
    fn view(&self, run: &Run, plan: &Plan) -> RunView {
        RunView {
            schema: "barecount/run/v1".to_owned(),
            id: run.id.clone(),
            token: run.token.clone(),
            tenant: run.tenant.clone(),
            pipeline: run.pipeline.clone(),
            version: run.version.clone(),
            environment: run.environment.clone(),
            window: run.window.clone(),
            state: run.state,
            interrupted: self.interrupted,
            waiting_reason: self.waiting_reason(run).map(Message::from),
            refusal: refusal(run, plan),
            submitted_at: run.submitted_at,
            ended_at: run.ended_at,
            tasks: run.tasks.iter().map(|task| task_view(task, plan)).collect(),
            outputs: self.outputs.iter().map(output).collect(),
            dead_letters: decided(run).map(|(_, staged)| staged.dead_letters).sum(),
            undeclared: undeclared(run),
            undeclared_left_out: decided(run)
                .map(|(_, staged)| staged.undeclared_left_out)
                .sum(),
            cost: Cost {
                amount: cost::of_run(run, plan).to_string(),
                currency: Money::CURRENCY.to_owned(),
            },
            evidence: self.evidence.iter().map(entry).collect(),
            tree_size: self.evidence.iter().map(|entry| entry.index + 1).max(),
            differences: Vec::new(),
            unchecked: None,
        }
    }

    /// What it waits for, if nothing of it is under way.
    fn waiting_reason(&self, run: &Run) -> Option<String> {
        if self.interrupted {
            return Some(way_on(run));
        }
        let active = |task: &Task| matches!(task.state, TaskState::Active | TaskState::Committing);
        if run.state.is_final() || run.tasks.iter().any(active) {
            return None;
        }
        if let Some(held) = run.tasks.iter().find_map(|task| task.held.as_ref()) {
            let Held {
                reason,
                since,
                times,
            } = &**held;
            return Some(format!("{reason} (looked {times} times since {since})"));
        }
        let due = run.next_due()?;
        Some(format!("a retry is due at {due}"))
    }
}

/// Why a run was refused, if it was.
fn refusal(run: &Run, plan: &Plan) -> Option<Value> {
    let refused = run.state == RunState::Refused;
    let decision = refused.then(|| plan.decision.clone())?;
    let explanation: Explanation = serde_json::from_value(decision).ok()?;
    serde_json::to_value(explanation).ok()
}

/// How a run goes on, or ends, that nobody works on.
fn way_on(run: &Run) -> String {
    let id = &run.id;
    let decided = run
        .tasks
        .iter()
        .filter(|task| task.state == TaskState::Committing);
    let mut text = format!(
        "no process works on it; `barecount run` of the manifest of pipeline `{}` takes it up, \
         `barecount runs cancel {id}` ends it",
        run.pipeline
    );
    if decided.count() > 0 {
        text.push_str(&format!(
            "; its outputs are decided for: if they cannot be committed, \
             `barecount runs abandon {id} --reason TEXT` gives them up"
        ));
    }
    text
}

fn task_view(task: &Task, plan: &Plan) -> TaskView {
    let stage = plan.stage(&task.stage);
    let digest = stage.map(|stage| stage.work.artifact().digest.as_str());
    TaskView {
        id: task.id.clone(),
        stage: task.stage.to_string(),
        partition: task.partition.clone(),
        class: task.class,
        size: task.size,
        network_profile: task.network_profile,
        backend: stage.map(|stage| stage.backend.clone()),
        state: task.state,
        held: task.held.as_deref().cloned(),
        work: task.work.as_ref().map(|work| work.key),
        answered_by: task.answered.as_deref().cloned(),
        attempts: task
            .attempts
            .iter()
            .map(|tried| attempt_view(tried, digest))
            .collect(),
    }
}

fn attempt_view(tried: &Attempt, digest: Option<&str>) -> AttemptView {
    AttemptView {
        number: tried.number,
        runner: tried.runner.clone(),
        digest: digest.map(str::to_owned),
        state: tried.state,
        exit_code: tried.exit_code,
        failure: tried.failure.clone(),
        intended_at: tried.intended_at,
        provisioning: tried.provisioning.as_deref().cloned(),
        started_at: tried.started_at,
        work_ended_at: tried.work_ended_at,
        staged_at: tried.staged_at,
        ended_at: tried.ended_at,
        committed_at: tried.committed_at,
        work_seconds: tried.work_time().map(|time| time.as_secs_f64()),
        platform_seconds: tried.platform_time().map(|time| time.as_secs_f64()),
        metrics: tried.metrics.clone(),
        network: attempt::network(tried),
        secrets: attempt::secrets(tried),
    }
}

fn output(output: &OutputVersion) -> OutputView {
    OutputView {
        dataset: output.dataset.clone(),
        partition: output.partition.clone(),
        uri: output.uri.clone(),
        version: output.version,
        rows: output.rows,
        bytes: output.bytes,
        digest: output.digest.clone(),
    }
}

fn entry(entry: &LedgerEntry) -> EntryRef {
    EntryRef {
        index: entry.index,
        kind: entry.kind.clone(),
        leaf_hash: entry.leaf_hash.clone(),
    }
}

/// What each task's decided attempt handed over.
fn decided(run: &Run) -> impl Iterator<Item = (&Task, &Staged)> {
    run.tasks.iter().filter_map(|task| {
        let mut attempts = task.attempts.iter();
        let decided = attempts.find(|attempt| attempt.state == AttemptState::Succeeded)?;
        Some((task, decided.staged.as_ref()?))
    })
}

fn undeclared(run: &Run) -> Vec<Undeclared> {
    let of = |(task, staged): (&Task, &Staged)| {
        let (stage, partition) = (task.stage.to_string(), task.partition.clone());
        let names = staged.undeclared.clone().into_iter();
        names.map(move |name| Undeclared {
            stage: stage.clone(),
            partition: partition.clone(),
            name,
        })
    };
    decided(run).flat_map(of).collect()
}
