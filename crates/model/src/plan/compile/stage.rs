//! One stage, with everything decided.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Asked, CompileError, Facts, FileFact, ImageFact, Source};
use crate::{
    class::NetworkProfile,
    environment::Environment,
    lock::ArtifactKind,
    manifest::Isolation,
    pipeline::{CommandRoot, Event, HandlerProgram, Input, Partitions, Stage, Work},
    plan::{EgressLimits, InputPlan, Pin, Pinned, Resources, StagePlan, WorkPlan},
    text::{ByteSize, DatasetName, ImageSource, Name, RelativePath},
};

pub(super) fn compile(
    source: Source<'_>,
    asked: &Asked,
    facts: &Facts,
    stage: &Stage,
) -> Result<StagePlan, CompileError> {
    let compiler = Compiler {
        source,
        asked,
        facts,
        stage,
    };
    compiler.plan()
}

struct Compiler<'a> {
    source: Source<'a>,
    asked: &'a Asked,
    facts: &'a Facts,
    stage: &'a Stage,
}

/// A program of an image, with everything decided.
struct ImageProgram {
    image: Pin,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    working_dir: String,
}

impl Compiler<'_> {
    fn plan(&self) -> Result<StagePlan, CompileError> {
        let (stage, environment) = (self.stage, self.source.environment);
        let class = stage.class;
        let profile = environment.catalog.profile_of(stage);
        let profile = profile.ok_or(CompileError::NoSize {
            size: stage.size,
            class,
        })?;
        let backend = environment.backends.get(&class);
        let backend = backend.ok_or_else(|| CompileError::NotServed {
            environment: environment.name.clone(),
            class,
        })?;
        let inputs = stage.inputs.iter().map(|input| self.input(input));
        let mut inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let event = self.event(&mut inputs)?;
        let drivers = stage.drivers.iter().map(ToString::to_string);
        let drivers = drivers.map(|driver| self.pin(ArtifactKind::Driver, driver));
        let needs = stage.depends_on.iter().map(ToString::to_string);
        Ok(StagePlan {
            name: stage.name.to_string(),
            phase: stage.phase,
            class,
            size: stage.size,
            network_profile: stage.network_profile,
            egress: stage.egress.clone(),
            egress_mode: stage.egress_mode,
            egress_limits: egress_limits(stage, environment),
            boundary: Some(stage.boundary()),
            crossings: stage.crossings.clone(),
            backend: backend.as_str().to_owned(),
            isolation: isolation(stage).to_owned(),
            resources: Resources::of_profile(&profile),
            concurrency_limit: profile.concurrency,
            work: self.work(event)?,
            drivers: drivers.collect::<Result<_, _>>()?,
            inputs,
            outputs: stage.outputs.clone(),
            // A stage that runs alone waits for nobody.
            needs: match self.asked.stage {
                Some(_) => Vec::new(),
                None => needs.collect(),
            },
            partition_column: stage
                .partitions
                .map(|partitions| partitions.column().to_owned()),
            partitions: self.partitions()?,
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

    /// The partitions of the stage that the run is for.
    fn partitions(&self) -> Result<Vec<String>, CompileError> {
        let (stage, window) = (self.stage, self.asked.window.as_ref());
        let keys = stage.partition_keys_within(window);
        if stage.partitions.is_none() || (1..=Partitions::MAX).contains(&keys.len()) {
            return Ok(keys.into_iter().flatten().collect());
        }
        let name = stage.name.clone();
        Err(match window {
            None => CompileError::NoWindow { stage: name },
            Some(window) if keys.is_empty() => CompileError::OutsideWindow {
                stage: name,
                window: window.clone(),
            },
            Some(_) => CompileError::WindowTooLong,
        })
    }

    fn pin(&self, kind: ArtifactKind, name: String) -> Result<Pin, CompileError> {
        let digest = self.source.pin(self.stage, kind, &name)?.to_string();
        Ok(Pin { name, digest })
    }

    fn work(&self, event: Value) -> Result<WorkPlan, CompileError> {
        Ok(match &self.stage.work {
            Work::Handler {
                program: HandlerProgram::Package(package),
                ..
            } => WorkPlan::Handler {
                package: self.pin(ArtifactKind::Package, package.to_string())?,
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
                let program = self.program(image, command, args)?;
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
                package: self.pin(ArtifactKind::Package, package.to_string())?,
                command: self.stage.work.argv(),
            },
            Work::Command {
                root: CommandRoot::Image(image),
                command,
                args,
            } => {
                let program = self.program(image, command, args)?;
                WorkPlan::Image {
                    image: program.image,
                    command: program.command,
                    env: program.env,
                    working_dir: program.working_dir,
                }
            }
            Work::Job { job, .. } => {
                let name = job.to_string();
                let digest = self.source.pin(self.stage, ArtifactKind::Job, &name)?;
                WorkPlan::Job {
                    names_window: !self.facts.windowless.contains(&digest),
                    job: Pin {
                        name,
                        digest: digest.to_string(),
                    },
                    shuffle_partitions: self.stage.shuffle_partition_hint,
                }
            }
        })
    }

    /// The program of an image: what the manifest says of it, and else what the image does.
    fn program(
        &self,
        image: &ImageSource,
        command: &[String],
        args: &[String],
    ) -> Result<ImageProgram, CompileError> {
        let name = image.to_string();
        let digest = self.source.pin(self.stage, ArtifactKind::Image, &name)?;
        let Some(fact) = self.facts.images.get(&digest) else {
            return Err(CompileError::UnknownImage { image: name });
        };
        let command = match command.is_empty() {
            true => entry_point(fact, &name, args)?,
            false => self.stage.work.argv(),
        };
        let pairs = fact.env.iter().filter_map(|pair| pair.split_once('='));
        let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(ImageProgram {
            command,
            env: env.collect(),
            // The image specification has the root if it names none.
            working_dir: match fact.working_dir.as_str() {
                "" => "/".to_owned(),
                folder => folder.to_owned(),
            },
            image: Pin {
                name,
                digest: digest.to_string(),
            },
        })
    }

    fn input(&self, input: &Input) -> Result<InputPlan, CompileError> {
        match input {
            Input::Dataset {
                dataset,
                from,
                format,
                partitions,
            } => {
                let columns = self.source.pipeline.columns_of(dataset);
                let columns = columns.map(|(columns, _)| columns.to_vec());
                let from = from.as_ref().map(|from| self.pinned(dataset, from));
                Ok(InputPlan::Dataset {
                    dataset: dataset.clone(),
                    from: from.transpose()?,
                    format: *format,
                    partitions: partitions.clone(),
                    columns: columns.unwrap_or_default(),
                })
            }
            Input::File { path, name } => Ok(given(name.to_string(), self.file(path)?)),
        }
    }

    /// The version of another pipeline's dataset that was looked at.
    fn pinned(&self, dataset: &DatasetName, pipeline: &Name) -> Result<Pinned, CompileError> {
        let imported = self.source.pipeline.imports.get(dataset);
        let imported = imported.ok_or_else(|| CompileError::UnknownDataset {
            dataset: dataset.clone(),
            pipeline: pipeline.clone(),
        })?;
        Ok(Pinned {
            pipeline: pipeline.clone(),
            version: imported.version,
        })
    }

    fn file(&self, path: &RelativePath) -> Result<&FileFact, CompileError> {
        let found = self.facts.files.get(path);
        found.ok_or_else(|| CompileError::UnknownFile { path: path.clone() })
    }

    /// The event that starts a handler; the file that comes with it is an input.
    fn event(&self, inputs: &mut Vec<InputPlan>) -> Result<Value, CompileError> {
        let Work::Handler {
            event: Some(event), ..
        } = &self.stage.work
        else {
            return Ok(Value::Null);
        };
        match event {
            Event::FileArrival { path } => {
                let file = self.file(path)?;
                let name = path.as_str().rsplit('/').next().unwrap_or_default();
                inputs.push(given("event".to_owned(), file));
                Ok(json!({
                    "type": "file_arrival", "name": name, "path": format!("event/{name}"),
                    "bytes": file.bytes, "digest": file.digest,
                }))
            }
            Event::Timer { every } => Ok(json!({
                "type": "timer", "every_ms": every.as_millis(), "window": self.asked.window,
            })),
            Event::Webhook { .. } | Event::Message { .. } => Err(CompileError::ServersEvent {
                stage: self.stage.name.clone(),
            }),
        }
    }
}

fn given(name: String, file: &FileFact) -> InputPlan {
    InputPlan::File {
        name,
        path: file.path.clone(),
        digest: file.digest.clone(),
        bytes: file.bytes,
    }
}

/// An image's own program, which runs where the manifest names none.
fn entry_point(
    fact: &ImageFact,
    image: &str,
    args: &[String],
) -> Result<Vec<String>, CompileError> {
    let mut command = fact.entrypoint.clone();
    command.extend_from_slice(if args.is_empty() { &fact.cmd } else { args });
    match command.is_empty() {
        true => Err(CompileError::NoProgram {
            image: image.to_owned(),
        }),
        false => Ok(command),
    }
}

fn isolation(stage: &Stage) -> &'static str {
    match stage.isolation {
        Isolation::Sandbox => "sandbox",
        Isolation::Process => "process",
    }
}

/// What the environment allows over public networks; private ones are their owners' to limit.
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
