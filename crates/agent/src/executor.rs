//! Carrying orders out: each attempt is a task of its own, and tells its end exactly once.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barecount_model::{
    class::RunnerClass,
    codes,
    id::RunId,
    plan::WorkPlan,
    run::outcome::{AttemptResult, Failure, FailureKind, Metrics, Outcome, Staged},
};
use barecount_network::record::{FlowLog, Verdict};
use barecount_runner::{
    Runner, RunnerError,
    launch::{End, Ended, HandlerProgram, Launch, ReuseKey, Root, Work},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::{
    access::{Gate, IdentityVerifier},
    assignment::{Assignment, Attempt, Event, Order},
    bounds, classify, contract,
    data::{Artifacts, DataError, DataPlane, Located, SetAside},
    places::{self, StagingFolders},
    secrets::{self, Given, SecretsService},
    words,
};

/// So many flows of an attempt are in its ledger entry; all of them are in the record beside it.
const SHOWN_FLOWS: usize = 32;

/// What an agent works with.
pub struct AgentConfig {
    /// The runner of each class that this agent serves.
    pub runners: HashMap<RunnerClass, Arc<dyn Runner>>,
    /// Datasets.
    pub data: Arc<dyn DataPlane>,
    /// Artifacts.
    pub artifacts: Arc<dyn Artifacts>,
    /// Where attempts' folders are.
    pub folders: StagingFolders,
    /// Where secrets come from; nowhere if absent.
    pub secrets: Option<SecretsService>,
    /// Checks identities: nothing is carried out, read or written without one.
    pub identities: IdentityVerifier,
}

/// Owns attempts. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<AgentConfig>,
    events: mpsc::UnboundedSender<Event>,
    orders: TaskTracker,
}

impl Agent {
    /// An agent that tells what happens through `events`.
    pub fn new(config: AgentConfig, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            inner: Arc::new(config),
            events,
            orders: TaskTracker::new(),
        }
    }

    /// Resolves when every order given so far is carried out. Cancel-safe.
    pub async fn idle(&self) {
        self.orders.close();
        self.orders.wait().await;
        self.orders.reopen();
    }

    /// Takes an order and carries it out in the background; the end of an attempt is an [`Event`].
    pub fn order(&self, order: Order) {
        let agent = self.clone();
        self.orders.spawn(async move {
            match order {
                Order::Launch(assignment) => agent.attempt(&assignment).await,
                Order::Recover(attempt) => agent.recover(attempt).await,
                Order::Stop { attempt, grace } => agent.stop(&attempt, grace).await,
                Order::Sweep(attempt) => agent.sweep(&attempt).await,
                Order::Release(run) => agent.release(&run).await,
            }
        });
    }

    /// Ends and cleans up everything that the runners still hold of an attempt.
    async fn sweep(&self, attempt: &Attempt) {
        for runner in self.inner.runners.values() {
            if let Err(error) = runner.destroy(&attempt.token()).await {
                warn(attempt, "an attempt could not be cleaned up", &error);
            }
        }
        if let Err(error) = self.inner.folders.sweep(&attempt.token()) {
            warn(attempt, "an attempt's folder could not be removed", &error);
        }
    }

    /// Ends what runners keep warm for a run that has ended.
    async fn release(&self, run: &RunId) {
        for runner in self.inner.runners.values() {
            runner.release(run).await;
        }
    }

    async fn recover(&self, attempt: Attempt) {
        for runner in self.inner.runners.values() {
            // Whatever comes back, the attempt is given up and done again: a local one died with its
            // agent, and one that ended had not been accepted. Asking lets the runner clean up.
            if let Err(error) = runner.recover(&attempt.token()).await {
                warn(
                    &attempt,
                    "a runner could not say what became of an attempt",
                    &error,
                );
            }
        }
        self.sweep(&attempt).await;
        self.tell(Event::Lost { attempt });
    }

    async fn stop(&self, attempt: &Attempt, grace: Duration) {
        let token = attempt.token();
        for runner in self.inner.runners.values() {
            let native = String::new();
            let handle = barecount_runner::Handle {
                token: token.clone(),
                native,
            };
            match runner.stop(&handle, grace).await {
                Ok(()) | Err(RunnerError::Unknown(_)) => {}
                Err(error) => warn(attempt, "an attempt could not be stopped", &error),
            }
        }
    }

    async fn attempt(&self, assignment: &Assignment) {
        let (outcome, set_aside) = self.carry_out(assignment).await;
        let attempt = assignment.attempt.clone();
        self.tell(Event::Ended {
            attempt,
            outcome: Box::new(outcome),
            set_aside,
        });
    }

    async fn carry_out(&self, assignment: &Assignment) -> (Outcome, Vec<SetAside>) {
        let opened = self.inner.identities.open(assignment, &*self.inner.data);
        let gate = match opened {
            Ok(gate) => gate,
            Err(error) => {
                warn(
                    &assignment.attempt,
                    "an attempt has no valid identity",
                    &error,
                );
                return (failed(error.into(), json!({})), Vec::new());
            }
        };
        let (mut outcome, set_aside) = self.carry_out_as(assignment, &gate).await;
        let (identity, whole) = gate.evidence();
        outcome.detail["identity"] = identity;
        if let Some(lines) = whole {
            let record = self.inner.folders.objects(&assignment.attempt.token());
            self.keep(record, lines).await;
        }
        (outcome, set_aside)
    }

    async fn carry_out_as(
        &self,
        assignment: &Assignment,
        gate: &Gate<'_>,
    ) -> (Outcome, Vec<SetAside>) {
        let AgentConfig {
            secrets, folders, ..
        } = &*self.inner;
        let mut detail = json!({});
        if let Err(refused) = gate.fetch(assignment.stage.secrets.values()) {
            return (failed(refused.into(), detail), Vec::new());
        }
        let record = folders.accesses(&assignment.attempt.token());
        let given = secrets::give(secrets.as_ref(), assignment, record, &mut detail).await;
        let given = match given {
            Ok(given) => given,
            Err(failure) => return (failed(failure, detail), Vec::new()),
        };
        let ended = self.launch_and_wait(assignment, gate, given.as_ref(), &mut detail);
        let ended = ended.await;
        // Nothing of its work runs any more, or it never did.
        let redactor = given.map(Given::take_back);
        let (mut outcome, mut set_aside) = match ended {
            Ok((mut ended, overdue)) => {
                if let Some(redactor) = &redactor {
                    secrets::redact_end(redactor, &mut ended.end);
                }
                let ended = self.conclude(assignment, gate, ended, overdue, detail);
                ended.await
            }
            Err(failure) => (failed(failure, detail), Vec::new()),
        };
        if let Some(redactor) = redactor {
            secrets::redact(&redactor, &mut outcome, &mut set_aside);
        }
        (outcome, set_aside)
    }

    /// What an attempt came to whose work has ended: what it wrote is staged, or it has failed.
    async fn conclude(
        &self,
        assignment: &Assignment,
        gate: &Gate<'_>,
        mut ended: Ended,
        overdue: Option<Failure>,
        mut detail: Value,
    ) -> (Outcome, Vec<SetAside>) {
        let log = self.inner.folders.log(&assignment.attempt.token());
        let told = words::told(&assignment.stage, &log, &ended.end, &mut ended.log);
        detail["enforcement"] = ended.enforcement.clone();
        detail["log"] = json!(ended.log);
        detail["warm"] = json!(ended.warm);
        if let Some(path) = &assignment.path {
            detail["path"] = json!(path);
        }
        if let Some(flows) = &ended.flows {
            detail["network"] = self.keep_flows(&assignment.attempt, flows).await;
        }
        let kind = match assignment.stage.work {
            WorkPlan::Job { .. } => classify::Kind::Job,
            _ => classify::Kind::Program,
        };
        let (failure, exit_code) =
            classify::failure(&told, kind, assignment.stage.resources.memory_bytes);
        // Whatever it did when it was told to stop: what ended it is that it was late.
        let failure = overdue.or(failure);
        let mut outcome = Outcome {
            result: AttemptResult::Stopped,
            exit_code,
            metrics: classify::metrics(&ended),
            detail,
        };
        let mut set_aside = Vec::new();
        outcome.result = match failure {
            Some(mut failure) => {
                let has_log = matches!(ended.end, End::Exited { .. } | End::Signalled { .. });
                if has_log && !words::are_kept(&assignment.stage) {
                    failure.message.push_str(&words::last(&log));
                }
                if failure.code == codes::TRY_AGAIN.id || ended.saved {
                    failure = self.handed_on(assignment, gate, failure).await;
                }
                AttemptResult::Failed(failure)
            }
            None if ended.end == End::Stopped => {
                if ended.saved {
                    self.keep_for_resuming(assignment, gate).await;
                }
                AttemptResult::Stopped
            }
            None => match self
                .stage(assignment, gate, &mut outcome.detail, &mut set_aside)
                .await
            {
                Ok(staged) => AttemptResult::Done(staged),
                Err(error) => AttemptResult::Failed(error.into()),
            },
        };
        (outcome, set_aside)
    }

    /// Carries the work out; the failure beside its end says that it took too long and was stopped.
    /// What it reached and printed until then is in the end as in any other.
    async fn launch_and_wait(
        &self,
        assignment: &Assignment,
        gate: &Gate<'_>,
        given: Option<&Given>,
        detail: &mut Value,
    ) -> Result<(Ended, Option<Failure>), Failure> {
        let runner = self.runner(assignment)?;
        let mut launch = self.prepare(assignment, gate, detail).await?;
        if let Some(given) = given {
            launch.reuse = Some(given.reuse(assignment));
            launch.secrets = Some(given.launch());
        }
        let handle = runner
            .launch(&launch)
            .await
            .map_err(|error| infrastructure(&error))?;
        let attempt = assignment.attempt.clone();
        self.tell(Event::Started {
            attempt,
            runner: handle.native.clone(),
        });
        let ended = tokio::time::timeout(launch.timeout, runner.wait(&handle)).await;
        if let Ok(ended) = ended {
            return Ok((ended.map_err(|error| infrastructure(&error))?, None));
        }
        runner
            .stop(&handle, assignment.grace())
            .await
            .map_err(|error| infrastructure(&error))?;
        let ended = runner.wait(&handle).await;
        let ended = ended.map_err(|error| infrastructure(&error))?;
        let overdue = Failure {
            kind: FailureKind::Timeout,
            code: codes::TIMEOUT.id.to_owned(),
            message: format!(
                "the attempt took longer than its {} s; raise `timeout`, or choose a larger size",
                launch.timeout.as_secs_f64()
            ),
        };
        Ok((ended, Some(overdue)))
    }

    fn runner(&self, assignment: &Assignment) -> Result<Arc<dyn Runner>, Failure> {
        let class = assignment.stage.class;
        self.inner
            .runners
            .get(&class)
            .cloned()
            .ok_or_else(|| Failure {
                kind: FailureKind::Infrastructure,
                code: "BC0610".to_owned(),
                message: format!("no runner here serves the class `{class}`"),
            })
    }

    /// Everything before the launch: artifacts, folders, inputs.
    async fn prepare(
        &self,
        assignment: &Assignment,
        gate: &Gate<'_>,
        detail: &mut Value,
    ) -> Result<Launch, Failure> {
        let AgentConfig {
            artifacts, folders, ..
        } = &*self.inner;
        let stage = &assignment.stage;
        gate.reach(&stage.egress)?;
        let located = artifacts.locate(&stage.work, &stage.drivers).await?;
        let token = assignment.attempt.token();
        let places = folders
            .prepare(&token, Some(&assignment.reuse), located.drivers.clone())
            .map_err(|error| host("the attempt's folders cannot be made", &error))?;
        let mut inputs = Vec::new();
        for input in &stage.inputs {
            inputs.push(gate.provide(input, &places.input).await?);
        }
        detail["inputs"] = Value::Array(inputs);
        let found = gate.provide_checkpoint(&places.checkpoint).await?;
        detail["checkpoint"] = json!(found);
        let work = self.work(assignment, gate, &located).await?;
        let deadline = Timestamp::now()
            .as_millisecond()
            .saturating_add_unsigned(stage.timeout_ms);
        Ok(Launch {
            token: token.clone(),
            size: stage.size,
            work,
            limits: bounds::limits(assignment),
            places,
            env: contract::variables(assignment, deadline),
            isolation: bounds::isolation(&stage.isolation),
            secrets: None,
            network: Some(bounds::policy(stage)?),
            reuse: Some(ReuseKey::of_any_run(&assignment.reuse)),
            timeout: assignment.timeout(),
            log: folders.log(&token),
        })
    }

    async fn work(
        &self,
        assignment: &Assignment,
        gate: &Gate<'_>,
        located: &Located,
    ) -> Result<Work, Failure> {
        let artifact = located.artifact.clone();
        Ok(match &assignment.stage.work {
            WorkPlan::Image {
                command,
                working_dir,
                ..
            } => Work::Command {
                root: Root::Image(artifact),
                argv: command.clone(),
                working_dir: Path::new(working_dir).to_owned(),
            },
            WorkPlan::Package { command, .. } => Work::Command {
                root: Root::Package(artifact),
                argv: command.clone(),
                working_dir: Path::new("/").to_owned(),
            },
            WorkPlan::Handler { event, .. } => Work::Handler {
                program: HandlerProgram::Package(artifact),
                event: event.clone(),
            },
            WorkPlan::ImageHandler {
                command,
                working_dir,
                event,
                ..
            } => Work::Handler {
                program: HandlerProgram::Image {
                    root: artifact,
                    argv: command.clone(),
                    working_dir: Path::new(working_dir).to_owned(),
                },
                event: event.clone(),
            },
            WorkPlan::Job { .. } => Work::Job {
                spec: gate.job(&artifact).await?,
            },
        })
    }

    async fn stage(
        &self,
        assignment: &Assignment,
        gate: &Gate<'_>,
        detail: &mut Value,
        set_aside: &mut Vec<SetAside>,
    ) -> Result<Staged, DataError> {
        let folders = &self.inner.folders;
        let token = assignment.attempt.token();
        let written = folders.of(&token).join("output");
        let staging = folders.staged(&token);
        let mut staged = Staged::default();
        let mut tests = Vec::new();
        let (own, count) = gate.dead_letters(&written).await?;
        set_aside.extend(own);
        staged.dead_letters += count;
        for output in &assignment.stage.outputs {
            let done = gate.stage(output, &written, &staging).await?;
            staged.dead_letters += done.set_aside_count;
            staged.datasets.push(done.dataset);
            set_aside.extend(done.set_aside);
            tests.push(done.tests);
        }
        detail["tests"] = Value::Array(tests);
        let saved = folders.of(&token).join("checkpoint");
        staged.checkpoint = gate.stage_checkpoint(&saved, &staging).await?;
        Ok(staged)
    }

    /// Writes the record of an attempt's flows beside the ledger, if there were any, and answers with
    /// what evidence has of it: sums, the digest of the whole, and its beginning.
    async fn keep_flows(&self, attempt: &Attempt, flows: &FlowLog) -> Value {
        if !flows.records.is_empty() {
            let record = self.inner.folders.flows(&attempt.token());
            self.keep(record, flows.to_json_lines()).await;
        }
        // Refusals first, lest work that makes many connections push them out of sight.
        let (refused, others): (Vec<_>, Vec<_>) = flows
            .records
            .iter()
            .partition(|record| record.verdict == Verdict::Refused);
        let shown: Vec<_> = refused.iter().chain(&others).take(SHOWN_FLOWS).collect();
        json!({
            "totals": flows.totals,
            "digest": flows.digest(),
            "left_out": flows.records.len() - shown.len(),
            "records": shown,
        })
    }

    /// Writes a record beside the ledger, whose digest goes into evidence.
    async fn keep(&self, record: PathBuf, lines: String) {
        let path = record.clone();
        let kept = tokio::task::spawn_blocking(move || places::keep_record(&path, &lines));
        if let Err(error) = kept.await.unwrap_or_else(|error| Err(error.into())) {
            // The digest in evidence then tells of a record that is missing.
            let record = record.display();
            tracing::error!(%error, %record, "a record of an attempt was not kept");
        }
    }

    /// Keeps the checkpoint of an attempt that asks to be tried again. Where that fails the attempt
    /// has failed by it: another try would begin where it should not.
    async fn handed_on(
        &self,
        assignment: &Assignment,
        gate: &Gate<'_>,
        failure: Failure,
    ) -> Failure {
        let folders = &self.inner.folders;
        let saved = folders.of(&assignment.attempt.token()).join("checkpoint");
        match gate.hand_on_checkpoint(&saved).await {
            Ok(()) => failure,
            Err(error) => error.into(),
        }
    }

    /// Keeps the checkpoint of an attempt that was stopped. Where that fails, a run that is resumed
    /// begins from the one before, which is as right.
    async fn keep_for_resuming(&self, assignment: &Assignment, gate: &Gate<'_>) {
        let attempt = &assignment.attempt;
        let saved = self.inner.folders.of(&attempt.token()).join("checkpoint");
        if let Err(error) = gate.hand_on_checkpoint(&saved).await {
            warn(
                attempt,
                "the checkpoint of a stopped attempt is lost",
                &error,
            );
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listens only while the program ends; the state that recovery finds says the rest.
        let _ = self.events.send(event);
    }
}

fn failed(failure: Failure, detail: Value) -> Outcome {
    Outcome {
        result: AttemptResult::Failed(failure),
        exit_code: None,
        metrics: Metrics::default(),
        detail,
    }
}

fn infrastructure(error: &RunnerError) -> Failure {
    let message = match error {
        RunnerError::Unlaunchable { remedy, .. } => format!("{}; {remedy}", chain(error)),
        _ => chain(error),
    };
    Failure {
        kind: FailureKind::Infrastructure,
        code: "BC0611".to_owned(),
        message,
    }
}

fn host(what: &str, error: &std::io::Error) -> Failure {
    Failure {
        kind: FailureKind::Infrastructure,
        code: "BC0612".to_owned(),
        message: format!("{what}: {error}"),
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn warn(attempt: &Attempt, what: &'static str, error: &dyn std::error::Error) {
    tracing::warn!(attempt = %attempt.token(), error = chain(error), "{what}");
}

#[cfg(test)]
mod tests;
