//! Carrying one attempt out, from what it needs to what it came to.

mod conclude;

use std::{path::Path, sync::Arc, time::Duration};

use barecount_api::{
    activity,
    assignment::{Assignment, Event, SetAside},
};
use barecount_model::{
    codes,
    plan::WorkPlan,
    run::outcome::{AttemptResult, Failure, FailureKind, Metrics, Outcome, Timeline},
};
use barecount_runner::{
    Handle, Phase, Runner, RunnerError,
    launch::{Ended, HandlerProgram, Launch, ReuseKey, Root, Work},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    access::Gate,
    bounds,
    chain::{chain, warn},
    config::{Agent, AgentConfig},
    contract,
    data::Located,
    live::Live,
    secrets::{self, Given},
};

/// What there is of an attempt that an earlier process launched.
pub(crate) enum Found {
    /// It runs.
    Running {
        handle: Handle,
        launched_at: Timestamp,
    },
    /// Its work has ended, and what it left was not staged.
    Ended {
        ended: Box<Ended>,
        launched_at: Timestamp,
    },
}

/// How an attempt's work ended; the failure beside it says that it took too long and was stopped.
/// What it reached and printed until then is in the end as in any other.
pub(crate) struct Worked {
    ended: Ended,
    overdue: Option<Failure>,
}

/// One attempt while it is carried out.
pub(crate) struct Course<'a> {
    assignment: &'a Assignment,
    gate: &'a Gate<'a>,
    live: &'a Live,
    timeline: Timeline,
    detail: Value,
}

impl Agent {
    /// Carries an attempt out, or goes on with what was found of it.
    pub(crate) async fn carry_out(
        &self,
        assignment: &Assignment,
        live: &Live,
        found: Option<Found>,
    ) -> (Outcome, Vec<SetAside>) {
        let now = || self.inner.clock.timestamp();
        let opened = self
            .inner
            .identities
            .open(assignment, &*self.inner.data, &now);
        let gate = match opened {
            Ok(gate) => gate,
            Err(error) => {
                let attempt = &assignment.attempt;
                warn(attempt, "an attempt has no valid identity", &error);
                return (failed(error.into(), json!({})), Vec::new());
            }
        };
        let course = Course {
            assignment,
            gate: &gate,
            live,
            timeline: Timeline::default(),
            detail: json!({}),
        };
        let (mut outcome, set_aside) = self.carry_out_as(course, found).await;
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
        mut course: Course<'_>,
        found: Option<Found>,
    ) -> (Outcome, Vec<SetAside>) {
        let mut given = None;
        let worked = match found {
            Some(found) => {
                course.detail["recovered"] = json!(true);
                self.go_on(&mut course, found).await
            }
            None => match self.give(&mut course).await {
                Ok(secrets) => {
                    given = secrets;
                    self.launch_and_wait(&mut course, given.as_ref()).await
                }
                Err(failure) => Err(failure),
            },
        };
        // Nothing of its work runs any more, or it never did.
        let redactor = given.map(Given::take_back);
        let letters = self.letters(course.assignment, redactor.clone());
        let assignment = course.assignment;
        let mut set_aside = Vec::new();
        let mut outcome = match worked {
            Ok(Some(mut worked)) => {
                if let Some(redactor) = &redactor {
                    secrets::redact_end(redactor, &mut worked.ended.end);
                }
                let mut outcome = self.conclude(course, worked, &letters).await;
                set_aside = self.keep_letters(assignment, letters, &mut outcome).await;
                outcome
            }
            Ok(None) => stopped(course.detail),
            Err(failure) => {
                let outcome = failed(failure, course.detail);
                let timeline = course.timeline;
                Outcome {
                    timeline,
                    ..outcome
                }
            }
        };
        if let Some(redactor) = redactor {
            secrets::redact(&redactor, &mut outcome);
        }
        (outcome, set_aside)
    }

    /// Gives the attempt its secrets, if it has any.
    async fn give(&self, course: &mut Course<'_>) -> Result<Option<Given>, Failure> {
        let AgentConfig {
            secrets,
            folders,
            clock,
            disk,
            ..
        } = &*self.inner;
        let assignment = course.assignment;
        course.gate.fetch(assignment.stage.secrets.values())?;
        let record = folders.accesses(&assignment.attempt.token());
        let detail = &mut course.detail;
        let host = (clock, *disk);
        secrets::give(secrets.as_ref(), assignment, record, host, detail).await
    }

    /// Has the work done; none if it was stopped before it began.
    async fn launch_and_wait(
        &self,
        course: &mut Course<'_>,
        given: Option<&Given>,
    ) -> Result<Option<Worked>, Failure> {
        let runner = self.runner(course.assignment)?;
        let Some(mut launch) = self.prepare(course).await? else {
            return Ok(None);
        };
        if let Some(given) = given {
            launch.reuse = Some(given.reuse(course.assignment));
            launch.secrets = Some(given.launch());
        }
        let clock = &self.inner.clock;
        self.inner
            .folders
            .note_launch(&launch.token, clock.timestamp())
            .map_err(|error| host("the attempt's launch cannot be noted", &error))?;
        let launched = tokio::select! {
            biased;
            launched = runner.launch(&launch) => launched,
            // It may wait for something that others have, and has not begun for all we know.
            _ = course.live.stopped() => {
                self.end_for_certain(&*runner, &course.assignment.attempt).await;
                return Ok(None);
            }
        };
        let handle = match launched {
            Ok(handle) => handle,
            Err(error) => {
                // It may have started, and the answer got lost.
                self.end_for_certain(&*runner, &course.assignment.attempt)
                    .await;
                return Err(infrastructure(&error));
            }
        };
        if !self.provisioned(course, &*runner, &handle, None).await? {
            return Ok(None);
        }
        self.wait(course, &*runner, &handle, launch.timeout)
            .await
            .map(Some)
    }

    /// Follows an accepted attempt until its work runs, since `launched_at` if that is known. False
    /// if it was stopped before.
    async fn provisioned(
        &self,
        course: &mut Course<'_>,
        runner: &dyn Runner,
        handle: &Handle,
        launched_at: Option<Timestamp>,
    ) -> Result<bool, Failure> {
        let clock = &self.inner.clock;
        let mut seen = None;
        loop {
            let phase = tokio::select! {
                biased;
                phase = runner.progress(handle, seen.as_ref()) => phase,
                _ = course.live.stopped() => {
                    self.end_for_certain(runner, &course.assignment.attempt).await;
                    return Ok(false);
                }
            };
            match phase {
                Ok(Phase::Running { on }) => {
                    // Only one that ran from its launch on did so since then.
                    let since = launched_at.filter(|_| seen.is_none());
                    self.started(course, on, since.unwrap_or_else(|| clock.timestamp()));
                    return Ok(true);
                }
                Ok(Phase::Ended) => return Ok(true),
                Ok(Phase::Provisioning { waits_for }) => {
                    let now = clock.timestamp();
                    course.live.enter(activity::Phase::Provisioning, now);
                    self.tell(Event::Provisioning {
                        attempt: course.assignment.attempt.clone(),
                        runner: handle.native.clone(),
                        waits_for: waits_for.clone(),
                    });
                    seen = Some(Phase::Provisioning { waits_for });
                }
                Err(error) => {
                    self.end_for_certain(runner, &course.assignment.attempt)
                        .await;
                    return Err(infrastructure(&error));
                }
            }
        }
    }

    /// Goes on with an attempt where an earlier process left it.
    async fn go_on(
        &self,
        course: &mut Course<'_>,
        found: Found,
    ) -> Result<Option<Worked>, Failure> {
        match found {
            Found::Running {
                handle,
                launched_at,
            } => {
                let runner = self.runner(course.assignment)?;
                let since = Some(launched_at);
                if !self.provisioned(course, &*runner, &handle, since).await? {
                    return Ok(None);
                }
                let launched_at = course.timeline.started_at.unwrap_or(launched_at);
                let spent = self.inner.clock.timestamp().duration_since(launched_at);
                let spent = Duration::try_from(spent).unwrap_or_default();
                let left = course.assignment.timeout().saturating_sub(spent);
                self.wait(course, &*runner, &handle, left).await.map(Some)
            }
            Found::Ended { ended, launched_at } => {
                course.timeline.started_at = Some(launched_at);
                let (ended, overdue) = (*ended, None);
                Ok(Some(Worked { ended, overdue }))
            }
        }
    }

    fn started(&self, course: &mut Course<'_>, runner: String, at: Timestamp) {
        course.timeline.started_at = Some(at);
        course.live.enter(activity::Phase::Running, at);
        self.tell(Event::Started {
            attempt: course.assignment.attempt.clone(),
            runner,
        });
    }

    /// Waits for the end of the work, and brings it about if that takes longer than `left` or the
    /// attempt is stopped.
    async fn wait(
        &self,
        course: &mut Course<'_>,
        runner: &dyn Runner,
        handle: &Handle,
        left: Duration,
    ) -> Result<Worked, Failure> {
        let (assignment, clock) = (course.assignment, &self.inner.clock);
        let (grace, overdue) = tokio::select! {
            biased;
            ended = runner.wait(handle) => {
                course.timeline.work_ended_at = Some(clock.timestamp());
                let ended = self.known(ended, runner, assignment).await?;
                return Ok(Worked { ended, overdue: None });
            }
            grace = course.live.stopped() => (grace, None),
            () = clock.sleep(left) => (assignment.grace(), Some(overdue(assignment))),
        };
        let ended = match runner.stop(handle, grace).await {
            Ok(()) => runner.wait(handle).await,
            Err(error) => Err(error),
        };
        course.timeline.work_ended_at = Some(clock.timestamp());
        let ended = self.known(ended, runner, assignment).await?;
        Ok(Worked { ended, overdue })
    }

    /// How work ended. Where its runner cannot tell, it has failed, and nothing of it runs any more.
    async fn known(
        &self,
        ended: Result<Ended, RunnerError>,
        runner: &dyn Runner,
        assignment: &Assignment,
    ) -> Result<Ended, Failure> {
        match ended {
            Ok(ended) => Ok(ended),
            Err(error) => {
                self.end_for_certain(runner, &assignment.attempt).await;
                Err(infrastructure(&error))
            }
        }
    }

    fn runner(&self, assignment: &Assignment) -> Result<Arc<dyn Runner>, Failure> {
        let runner = self.inner.runners.fit(&assignment.stage);
        runner.cloned().map_err(|unfit| Failure {
            // Another try would meet the same backends.
            kind: FailureKind::Policy,
            code: unfit.code().id.to_owned(),
            message: format!("{unfit}; {}", unfit.remedy()).into(),
        })
    }

    /// Everything before the launch: artifacts, folders, inputs. None if it is stopped meanwhile.
    async fn prepare(&self, course: &mut Course<'_>) -> Result<Option<Launch>, Failure> {
        let AgentConfig {
            artifacts, folders, ..
        } = &*self.inner;
        let (assignment, gate) = (course.assignment, course.gate);
        let stage = &assignment.stage;
        gate.reach(&stage.egress)?;
        let located = artifacts.locate(&stage.work, &stage.drivers).await?;
        let token = assignment.attempt.token();
        let (made, name, reuse) = (folders.clone(), token.clone(), assignment.reuse.clone());
        let drivers = located.drivers.clone();
        let prepare = move || made.prepare(&name, Some(&reuse), drivers);
        let prepared = self.inner.disk.run(prepare).await;
        let places =
            prepared.map_err(|error| host("the attempt's folders cannot be made", &error))?;
        let mut inputs = Vec::new();
        for input in &stage.inputs {
            if course.live.is_stopped() {
                return Ok(None);
            }
            inputs.push(gate.provide(input, &places.input).await?);
        }
        course.detail["inputs"] = Value::Array(inputs);
        let found = gate.provide_checkpoint(&places.checkpoint).await?;
        course.detail["checkpoint"] = json!(found);
        let work = self.work(assignment, gate, &located).await?;
        if course.live.is_stopped() {
            return Ok(None);
        }
        let now = self.inner.clock.timestamp().as_millisecond();
        let deadline = now.saturating_add_unsigned(stage.timeout_ms);
        Ok(Some(Launch {
            token: token.clone(),
            size: stage.size,
            work,
            limits: bounds::limits(assignment),
            places,
            env: contract::variables(assignment, deadline),
            isolation: bounds::isolation(&stage.isolation),
            secrets: None,
            network: Some(bounds::policy(stage)),
            reuse: Some(ReuseKey::of_any_run(&assignment.reuse)),
            timeout: assignment.timeout(),
            log: folders.log(&token),
        }))
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
}

pub(crate) fn failed(failure: Failure, detail: Value) -> Outcome {
    Outcome {
        result: AttemptResult::Failed(failure),
        exit_code: None,
        metrics: Metrics::default(),
        timeline: Timeline::default(),
        detail,
    }
}

/// Stopped before its work began.
fn stopped(detail: Value) -> Outcome {
    Outcome {
        result: AttemptResult::Stopped,
        exit_code: None,
        metrics: Metrics::default(),
        timeline: Timeline::default(),
        detail,
    }
}

fn overdue(assignment: &Assignment) -> Failure {
    let seconds = assignment.timeout().as_secs_f64();
    Failure {
        kind: FailureKind::Timeout,
        code: codes::TIMEOUT.id.to_owned(),
        message: format!(
            "the attempt took longer than its {seconds} s; raise `timeout`, or choose a larger size"
        )
        .into(),
    }
}

fn infrastructure(error: &RunnerError) -> Failure {
    match error {
        // As a stage that does not fit: another try would meet the same host.
        RunnerError::Unlaunchable { remedy, .. } => Failure {
            kind: FailureKind::Policy,
            code: codes::RUNNER_UNFIT.id.to_owned(),
            message: format!("{}; {remedy}", chain(error).trim_end_matches('.')).into(),
        },
        _ => Failure {
            kind: FailureKind::Infrastructure,
            code: codes::LAUNCH_FAILED.id.to_owned(),
            message: chain(error).into(),
        },
    }
}

fn host(what: &str, error: &std::io::Error) -> Failure {
    Failure {
        kind: FailureKind::Infrastructure,
        code: "BC0612".to_owned(),
        message: format!("{what}: {error}").into(),
    }
}
