//! From a manifest, an environment and a lock to what they mean in one run: a [`Plan`].
//!
//! Everything that it depends on comes as a value. What lies outside of the documents, files beside
//! the manifest and images, is said in [`Facts`]; [`named`] tells of which they have to be. The same
//! values give the same plan, here and wherever else it is compiled.

mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod stage;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub use self::error::CompileError;
use super::{Plan, StagePlan};
use crate::{
    digest::Digest,
    environment::Environment,
    lock::{ArtifactKind, Lock},
    manifest::Manifest,
    pipeline::{CommandRoot, Event, HandlerProgram, Input, JobLanguage, Pipeline, Stage, Work},
    run::Window,
    text::{ImageSource, RelativePath},
    version,
};

/// Stands for every stage where stages are named to be done again.
pub const EVERY_STAGE: &str = "all";

/// The documents that a plan is compiled from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The manifest as it is written.
    pub manifest: &'a Manifest,
    /// The manifest as it runs.
    pub pipeline: &'a Pipeline,
    /// Where.
    pub environment: &'a Environment,
    /// What exactly.
    pub lock: &'a Lock,
}

/// What of a pipeline somebody asks to be run.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// For which logical time.
    pub window: Option<Window>,
    /// Under which token; derived from the work if absent.
    pub token: Option<String>,
    /// Only this stage.
    pub stage: Option<String>,
    /// Stages whose work is done again although nothing has changed; [`EVERY_STAGE`] for all.
    pub force: Vec<String>,
    /// Who asks.
    pub requester: String,
}

/// What there is outside of the documents and is named in them.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Files, by their paths below the folder of the manifest.
    pub files: BTreeMap<RelativePath, FileFact>,
    /// Images, by what they are pinned to.
    pub images: BTreeMap<Digest, ImageFact>,
    /// Jobs, by what they are pinned to, whose SQL names no window. Any other may name it.
    pub windowless: BTreeSet<Digest>,
}

/// A file beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFact {
    /// Where it is on the submitting host.
    pub path: String,
    /// `sha256:…`.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
}

/// What an image says about the program in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFact {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Its further arguments, unless others are given.
    pub cmd: Vec<String>,
    /// Variables, each as `NAME=value`.
    pub env: Vec<String>,
    /// The folder that it starts in; the root if empty.
    pub working_dir: String,
}

/// What facts have to be about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Files, below the folder of the manifest.
    pub files: BTreeSet<RelativePath>,
    /// Images, each by its pin with what the manifest calls it.
    pub images: BTreeMap<Digest, String>,
    /// Jobs in SQL, each by its pin.
    pub jobs: BTreeSet<Digest>,
}

/// What the stages that would run name outside of the documents.
///
/// # Errors
/// [`CompileError`] if there is no such stage, or an image or a job is not pinned.
pub fn named(source: Source<'_>, asked: &Asked) -> Result<Named, CompileError> {
    let mut named = Named::default();
    for stage in stages(source.pipeline, asked)? {
        named.files.extend(files(stage).cloned());
        if let Some(image) = image(&stage.work) {
            let pin = source.pin(stage, ArtifactKind::Image, &image.to_string())?;
            named.images.insert(pin, image.to_string());
        }
        if let Work::Job {
            job,
            language: JobLanguage::Sql,
        } = &stage.work
        {
            let pin = source.pin(stage, ArtifactKind::Job, &job.to_string())?;
            named.jobs.insert(pin);
        }
    }
    Ok(named)
}

/// The plan, with governance's answer as evidence keeps it.
///
/// # Errors
/// [`CompileError`].
pub fn compile(
    source: Source<'_>,
    asked: &Asked,
    facts: &Facts,
    decision: Value,
) -> Result<Plan, CompileError> {
    let Source {
        manifest,
        pipeline,
        environment,
        lock,
    } = source;
    let of_stage = |stage| stage::compile(source, asked, facts, stage);
    let stages = stages(pipeline, asked)?.into_iter().map(of_stage);
    let stages = stages.collect::<Result<Vec<_>, _>>()?;
    Ok(Plan {
        pipeline: pipeline.name.to_string(),
        tenant: pipeline.tenant.to_string(),
        owner: pipeline.owner.clone(),
        version: version::of(manifest, lock).to_string(),
        manifest_digest: version::of_manifest(manifest).to_string(),
        lock_digest: Digest::of(lock.to_json().as_bytes()).to_string(),
        environment: environment.name.to_string(),
        classification: pipeline.classification.as_str().to_owned(),
        requester: asked.requester.clone(),
        decision,
        event: stages.iter().find_map(|stage| stage.work.event().cloned()),
        named: asked.token.clone(),
        forced: forced(pipeline, asked, &stages)?,
        stages,
    })
}

/// The stages that run.
fn stages<'p>(pipeline: &'p Pipeline, asked: &Asked) -> Result<Vec<&'p Stage>, CompileError> {
    match &asked.stage {
        None => Ok(pipeline.stages.iter().collect()),
        Some(name) => Ok(vec![known(pipeline, name)?]),
    }
}

fn known<'p>(pipeline: &'p Pipeline, name: &str) -> Result<&'p Stage, CompileError> {
    pipeline.stage(name).ok_or_else(|| {
        let stages = pipeline.stages.iter().map(|stage| stage.name.to_string());
        CompileError::UnknownStage {
            name: name.to_owned(),
            stages: stages.collect(),
        }
    })
}

/// The stages that are done again, of those that run.
fn forced(
    pipeline: &Pipeline,
    asked: &Asked,
    stages: &[StagePlan],
) -> Result<Vec<String>, CompileError> {
    for name in asked.force.iter().filter(|name| *name != EVERY_STAGE) {
        known(pipeline, name)?;
    }
    let all = asked.force.iter().any(|name| name == EVERY_STAGE);
    let names = stages.iter().map(|stage| &stage.name);
    Ok(names
        .filter(|name| all || asked.force.contains(name))
        .cloned()
        .collect())
}

/// The files beside the manifest that a stage is given.
fn files(stage: &Stage) -> impl Iterator<Item = &RelativePath> {
    let inputs = stage.inputs.iter().filter_map(|input| match input {
        Input::File { path, .. } => Some(path),
        Input::Dataset { .. } => None,
    });
    let event = match &stage.work {
        Work::Handler {
            event: Some(Event::FileArrival { path }),
            ..
        } => Some(path),
        _ => None,
    };
    inputs.chain(event)
}

fn image(work: &Work) -> Option<&ImageSource> {
    match work {
        Work::Handler {
            program: HandlerProgram::Image { image, .. },
            ..
        }
        | Work::Command {
            root: CommandRoot::Image(image),
            ..
        } => Some(image),
        Work::Handler { .. } | Work::Command { .. } | Work::Job { .. } => None,
    }
}

impl Source<'_> {
    fn pin(&self, stage: &Stage, kind: ArtifactKind, name: &str) -> Result<Digest, CompileError> {
        let pin = self.lock.pin(stage.name.as_str(), kind, name);
        pin.map(|pin| pin.digest)
            .ok_or_else(|| CompileError::NotPinned {
                kind,
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests;
