//! From a manifest, an environment and a lock to the run that they mean.

use std::{collections::BTreeMap, path::Path};

use barecount_artifact::{
    Limits, Store, image,
    image::spec::{Platform, RunConfig},
};
use barecount_model::{
    class::NetworkProfile,
    codes,
    digest::Digest,
    environment::Environment,
    id::{RunId, TaskId},
    lock::{ArtifactKind, Lock},
    manifest,
    pipeline::{CommandRoot, Event, HandlerProgram, Input, Partitions, Pipeline, Stage, Work},
    plan::{EgressLimits, InputPlan, Pin, Plan, Resources, StagePlan, WorkPlan},
    run::{RetryBudget, Run, RunState, Task, TaskState, Window},
    text::{ByteSize, ImageSource},
    version,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{files, policy};
use crate::failure::{Failure, Status};

/// How often a task may be interrupted by the end of the platform's own process.
const INTERRUPTIONS: u32 = 100;

/// Stands for every stage where stages are named to be done again.
pub(crate) const EVERY_STAGE: &str = "all";

/// What somebody asks to be run.
pub(crate) struct Request<'a> {
    /// The manifest as it is written.
    pub(crate) manifest: &'a manifest::Manifest,
    /// The manifest as it runs.
    pub(crate) pipeline: &'a Pipeline,
    /// The folder of the manifest.
    pub(crate) folder: &'a Path,
    /// Where.
    pub(crate) environment: &'a Environment,
    /// What exactly.
    pub(crate) lock: &'a Lock,
    /// For which logical time.
    pub(crate) window: Option<Window>,
    /// Under which token; derived from the work if absent.
    pub(crate) token: Option<String>,
    /// Only this stage.
    pub(crate) stage: Option<String>,
    /// Stages whose work is done again although nothing has changed; [`EVERY_STAGE`] for all.
    pub(crate) force: Vec<String>,
    /// Who asks.
    pub(crate) requester: String,
}

impl Request<'_> {
    /// The version that would run.
    pub(crate) fn version(&self) -> String {
        version::of(self.manifest, self.lock).to_string()
    }

    /// The plan, with governance's answer as evidence keeps it.
    pub(crate) fn plan(&self, store: &Store, decision: Value) -> Result<Plan, Failure> {
        let stages = self
            .stages()?
            .into_iter()
            .map(|stage| self.stage_plan(stage, store))
            .collect::<Result<Vec<_>, _>>()?;
        let event = stages.iter().find_map(|stage| stage.work.event().cloned());
        let manifest = serde_json::to_value(self.manifest).unwrap_or_default();
        Ok(Plan {
            pipeline: self.pipeline.name.to_string(),
            tenant: self.pipeline.tenant.to_string(),
            owner: self.pipeline.owner.clone(),
            version: self.version(),
            manifest_digest: Digest::of(version::canonical(&manifest).as_bytes()).to_string(),
            lock_digest: Digest::of(self.lock.to_json().as_bytes()).to_string(),
            environment: self.environment.name.to_string(),
            classification: policy::classification(self.pipeline),
            requester: self.requester.clone(),
            decision,
            event,
            named: self.token.clone(),
            forced: self.forced(&stages)?,
            stages,
        })
    }

    /// The stages that are done again, of those that run.
    fn forced(&self, stages: &[StagePlan]) -> Result<Vec<String>, Failure> {
        for name in self.force.iter().filter(|name| *name != EVERY_STAGE) {
            if self.pipeline.stage(name).is_none() {
                return Err(self.unknown_stage(name));
            }
        }
        let all = self.force.iter().any(|name| name == EVERY_STAGE);
        let names = stages.iter().map(|stage| &stage.name);
        Ok(names
            .filter(|name| all || self.force.contains(name))
            .cloned()
            .collect())
    }

    fn stages(&self) -> Result<Vec<&Stage>, Failure> {
        let Some(name) = &self.stage else {
            return Ok(self.pipeline.stages.iter().collect());
        };
        let stage = self.pipeline.stage(name);
        Ok(vec![stage.ok_or_else(|| self.unknown_stage(name))?])
    }

    fn unknown_stage(&self, name: &str) -> Failure {
        let stages = self.pipeline.stages.iter();
        let names: Vec<&str> = stages.map(|stage| stage.name.as_str()).collect();
        let what = format!("the pipeline has no stage `{name}`");
        Failure::new(Status::NotFound, what)
            .with_help(format!("Its stages are {}.", names.join(", ")))
    }

    fn stage_plan(&self, stage: &Stage, store: &Store) -> Result<StagePlan, Failure> {
        let profile = self.environment.catalog.profile_of(stage).ok_or_else(|| {
            let what = format!("the catalog has no size {} of {}", stage.size, stage.class);
            Failure::new(Status::Usage, what).with_code("BC0305")
        })?;
        let backend = self.environment.backends.get(&stage.class).ok_or_else(|| {
            let what = format!(
                "environment `{}` serves no {}",
                self.environment.name, stage.class
            );
            Failure::new(Status::Usage, what).with_code("BC0304")
        })?;
        let mut inputs = stage
            .inputs
            .iter()
            .map(|input| self.input(input))
            .collect::<Result<Vec<_>, _>>()?;
        let event = self.event(stage, &mut inputs)?;
        let only = self.stage.is_some();
        Ok(StagePlan {
            name: stage.name.to_string(),
            phase: stage.phase,
            class: stage.class,
            size: stage.size,
            network_profile: stage.network_profile,
            egress: stage.egress.clone(),
            egress_mode: stage.egress_mode,
            egress_limits: egress_limits(stage, self.environment),
            boundary: Some(stage.boundary()),
            crossings: stage.crossings.clone(),
            backend: backend.as_str().to_owned(),
            isolation: isolation(stage).to_owned(),
            resources: Resources::of_profile(&profile),
            concurrency_limit: profile.concurrency,
            work: self.work(stage, store, event)?,
            drivers: stage
                .drivers
                .iter()
                .map(|driver| self.pin(stage, ArtifactKind::Driver, driver.to_string()))
                .collect::<Result<_, _>>()?,
            inputs,
            outputs: stage.outputs.clone(),
            needs: if only {
                Vec::new()
            } else {
                stage.depends_on.iter().map(ToString::to_string).collect()
            },
            partition_column: stage
                .partitions
                .map(|partitions| partitions.column().to_owned()),
            partitions: self.partitions(stage)?,
            application_retries: stage.retries.application,
            infrastructure_retries: stage.retries.infrastructure,
            initial_backoff_ms: stage.retries.initial_backoff.as_millis(),
            max_backoff_ms: stage.retries.max_backoff.as_millis(),
            timeout_ms: stage.timeout.as_millis(),
            grace_ms: profile.grace_period.as_millis(),
            env: stage.env.clone(),
            secrets: stage.secrets.clone(),
        })
    }

    /// The partitions of a stage that the run is for.
    fn partitions(&self, stage: &Stage) -> Result<Vec<String>, Failure> {
        let keys = stage.partition_keys_within(self.window.as_ref());
        if stage.partitions.is_none() || (1..=Partitions::MAX).contains(&keys.len()) {
            return Ok(keys.into_iter().flatten().collect());
        }
        let name = &stage.name;
        let (what, help) = match (&self.window, keys.is_empty()) {
            (None, _) => (
                format!("stage `{name}` has the partitions of the window, and the run has none"),
                "Say with `--window` what the run is for, as with `--window 2024`.",
            ),
            (Some(window), true) => (
                format!(
                    "stage `{name}` has no partition between {} and {}",
                    window.start, window.end
                ),
                "Choose a window that overlaps its partitions, or another stage with `--stage`.",
            ),
            (Some(_), false) => (
                format!("the window has more than {} partitions", Partitions::MAX),
                "Choose a shorter window.",
            ),
        };
        Err(Failure::new(Status::Usage, what)
            .with_code(codes::INVALID_PARTITIONS.id)
            .with_help(help))
    }

    fn pin(&self, stage: &Stage, kind: ArtifactKind, name: String) -> Result<Pin, Failure> {
        let pin = self
            .lock
            .pin(stage.name.as_str(), kind, &name)
            .ok_or_else(|| {
                let what = format!("the lock file does not pin {} `{name}`", kind.as_str());
                Failure::new(Status::Usage, what).with_code("BC0502")
            })?;
        Ok(Pin {
            name,
            digest: pin.digest.to_string(),
        })
    }

    fn work(&self, stage: &Stage, store: &Store, event: Value) -> Result<WorkPlan, Failure> {
        Ok(match &stage.work {
            Work::Handler {
                program: HandlerProgram::Package(package),
                ..
            } => WorkPlan::Handler {
                package: self.pin(stage, ArtifactKind::Package, package.to_string())?,
                event,
            },
            Work::Handler {
                program:
                    HandlerProgram::Image {
                        image,
                        command,
                        args,
                    },
                ..
            } => {
                let program = self.program(stage, store, image, command, args)?;
                WorkPlan::ImageHandler {
                    image: program.image,
                    command: program.command,
                    env: program.env,
                    working_dir: program.working_dir,
                    event,
                }
            }
            Work::Command {
                root: CommandRoot::Package(package),
                ..
            } => WorkPlan::Package {
                package: self.pin(stage, ArtifactKind::Package, package.to_string())?,
                command: stage.work.argv(),
            },
            Work::Command {
                root: CommandRoot::Image(image),
                command,
                args,
            } => {
                let program = self.program(stage, store, image, command, args)?;
                WorkPlan::Image {
                    image: program.image,
                    command: program.command,
                    env: program.env,
                    working_dir: program.working_dir,
                }
            }
            Work::Job { job, .. } => WorkPlan::Job {
                job: self.pin(stage, ArtifactKind::Job, job.to_string())?,
                shuffle_partitions: stage.shuffle_partition_hint,
            },
        })
    }

    /// The program of an image: what the manifest says of it, and else what the image does.
    fn program(
        &self,
        stage: &Stage,
        store: &Store,
        image: &ImageSource,
        command: &[String],
        args: &[String],
    ) -> Result<ImageProgram, Failure> {
        let image = self.pin(stage, ArtifactKind::Image, image.to_string())?;
        let config = configuration(store, &image)?;
        let command = if command.is_empty() {
            entry_point(&config, &image, args)?
        } else {
            stage.work.argv()
        };
        Ok(ImageProgram {
            image,
            command,
            env: variables(&config),
            working_dir: working_dir(&config),
        })
    }

    fn input(&self, input: &Input) -> Result<InputPlan, Failure> {
        match input {
            Input::Dataset {
                dataset,
                format,
                partitions,
            } => {
                let writer = self.pipeline.writer_of(dataset);
                Ok(InputPlan::Dataset {
                    dataset: dataset.clone(),
                    format: *format,
                    partitions: partitions.clone(),
                    columns: writer
                        .map(|(_, output)| output.columns.clone())
                        .unwrap_or_default(),
                })
            }
            Input::File { path, name } => {
                let path = self.folder.join(path.as_str());
                let (digest, bytes) = described(&path)?;
                let path = path.display().to_string();
                Ok(InputPlan::File {
                    name: name.to_string(),
                    path,
                    digest,
                    bytes,
                })
            }
        }
    }

    /// The event that starts a handler, and the file that comes with it.
    fn event(&self, stage: &Stage, inputs: &mut Vec<InputPlan>) -> Result<Value, Failure> {
        let Work::Handler {
            event: Some(event), ..
        } = &stage.work
        else {
            return Ok(Value::Null);
        };
        match event {
            Event::FileArrival { path } => {
                let path = self.folder.join(path.as_str());
                let (digest, bytes) = described(&path)?;
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let event = json!({
                    "type": "file_arrival", "name": name, "path": format!("event/{name}"),
                    "bytes": bytes, "digest": digest,
                });
                let path = path.display().to_string();
                inputs.push(InputPlan::File {
                    name: "event".to_owned(),
                    path,
                    digest,
                    bytes,
                });
                Ok(event)
            }
            Event::Timer { every } => {
                Ok(json!({ "type": "timer", "every_ms": every.as_millis(), "window": self.window }))
            }
            Event::Webhook { .. } | Event::Message { .. } => {
                let what = format!(
                    "stage `{}` is started by an event that only a server receives",
                    stage.name
                );
                Err(Failure::new(Status::Usage, what).with_code("BC0228").with_help(
                    "`barecount run` starts stages by files, timers, and the end of other stages.",
                ))
            }
        }
    }

    /// The run of a plan.
    pub(crate) fn run(&self, plan: &Plan, now: Timestamp) -> Result<Run, Failure> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            Failure::new(Status::Unavailable, "the host has no random numbers").because(&error)
        })?;
        let id = RunId::from_bytes(bytes);
        let token = match &self.token {
            Some(token) => token.clone(),
            None => token(plan, self.window.as_ref()),
        };
        let tasks = tasks(&id, plan);
        Ok(Run {
            token,
            tenant: plan.tenant.clone(),
            pipeline: plan.pipeline.clone(),
            version: plan.version.clone(),
            environment: plan.environment.clone(),
            window: self.window.clone(),
            state: RunState::Waiting,
            cancel_requested: false,
            submitted_at: now,
            ended_at: None,
            tasks,
            id,
        })
    }
}

/// A program of an image, with everything decided.
struct ImageProgram {
    image: Pin,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    working_dir: String,
}

/// The token of the logical work: what runs, on which window, on which files.
fn token(plan: &Plan, window: Option<&Window>) -> String {
    let files: Vec<&String> = plan
        .stages
        .iter()
        .flat_map(|stage| &stage.inputs)
        .filter_map(|input| match input {
            InputPlan::File { digest, .. } => Some(digest),
            InputPlan::Dataset { .. } => None,
        })
        .collect();
    let stages: Vec<&String> = plan.stages.iter().map(|stage| &stage.name).collect();
    let mut work = json!({
        "tenant": plan.tenant, "pipeline": plan.pipeline, "version": plan.version,
        "window": window, "files": files, "stages": stages, "environment": plan.environment,
    });
    if !plan.forced.is_empty() {
        work["forced"] = json!(plan.forced);
    }
    Digest::of(version::canonical(&work).as_bytes()).hex()[..32].to_owned()
}

/// The token of a run that does the work of earlier runs again, `latest` being the last of them:
/// the work's own token, and how many runs it has had before.
pub(crate) fn successor(work: &str, latest: &str) -> String {
    let before = latest.strip_prefix(work).unwrap_or_default();
    let before: u64 = before.trim_start_matches('.').parse().unwrap_or(0);
    format!("{work}.{}", before.saturating_add(1))
}

/// The work's own token, of that of any run of it: see [`successor`].
pub(crate) fn first_token(token: &str) -> &str {
    token.split_once('.').map_or(token, |(work, _)| work)
}

/// A task for each stage, or for each partition of it; each needs all tasks of the stages before.
fn tasks(run: &RunId, plan: &Plan) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for stage in &plan.stages {
        let needs: Vec<usize> = (0..tasks.len())
            .filter(|index| stage.needs.contains(&tasks[*index].stage))
            .collect();
        let partitions: Vec<Option<String>> = if stage.partition_column.is_some() {
            stage.partitions.iter().cloned().map(Some).collect()
        } else {
            vec![None]
        };
        for partition in partitions {
            tasks.push(task(run, stage, partition, needs.clone()));
        }
    }
    tasks
}

fn task(run: &RunId, stage: &StagePlan, partition: Option<String>, needs: Vec<usize>) -> Task {
    let text = format!(
        "{run}\n{}\n{}",
        stage.name,
        partition.as_deref().unwrap_or_default()
    );
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Digest::of(text.as_bytes()).as_bytes()[..16]);
    Task {
        id: TaskId::from_bytes(bytes),
        stage: stage.name.clone(),
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

/// What the environment allows over public networks; private ones are their owners' to limit.
fn isolation(stage: &Stage) -> &'static str {
    match stage.isolation {
        manifest::Isolation::Sandbox => "sandbox",
        manifest::Isolation::Process => "process",
    }
}

fn egress_limits(stage: &Stage, environment: &Environment) -> EgressLimits {
    match (
        &environment.networks.public_vpc_egress,
        stage.network_profile,
    ) {
        (Some(network), NetworkProfile::PublicVpcEgress) => EgressLimits {
            connections_per_second: network.connections_per_second,
            bytes_per_second: network.bytes_per_second.map(ByteSize::as_bytes),
        },
        _ => EgressLimits::default(),
    }
}

/// What an image says about the program in it.
fn configuration(store: &Store, pin: &Pin) -> Result<RunConfig, Failure> {
    let failed = |what: String| Failure::new(Status::Usage, what).with_code("BC0504");
    let digest: Digest = pin
        .digest
        .parse()
        .map_err(|error| failed(format!("{}: {error}", pin.name)))?;
    let platform = Platform::of_this_program();
    image::open(store, &digest, &platform, &Limits::default())
        .map(|image| image.config)
        .map_err(|error| failed(format!("image `{}` cannot be used", pin.name)).because(&error))
}

/// An image's own program, which runs where the manifest names none.
fn entry_point(config: &RunConfig, pin: &Pin, args: &[String]) -> Result<Vec<String>, Failure> {
    let mut command = config.entrypoint.clone();
    command.extend_from_slice(if args.is_empty() { &config.cmd } else { args });
    if command.is_empty() {
        let what = format!("image `{}` names no program to run", pin.name);
        return Err(Failure::new(Status::Usage, what)
            .with_code("BC0504")
            .with_help("Give the stage a `command`."));
    }
    Ok(command)
}

/// The variables that an image sets.
fn variables(config: &RunConfig) -> BTreeMap<String, String> {
    let pairs = config.env.iter().filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The folder that an image's program starts in; the image specification has the root if it names
/// none.
fn working_dir(config: &RunConfig) -> String {
    if config.working_dir.is_empty() {
        "/".to_owned()
    } else {
        config.working_dir.clone()
    }
}

fn described(path: &Path) -> Result<(String, u64), Failure> {
    files::describe(path).map_err(|error| {
        Failure::new(
            Status::Usage,
            format!("the file {} cannot be read", path.display()),
        )
        .because(&error)
        .with_code("BC0702")
    })
}
