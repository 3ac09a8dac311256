//! What a manifest names outside of itself is looked up here, so that manifest, environment and lock
//! can be compiled to a plan, and the plan be made a run.

use std::{collections::BTreeMap, path::Path};

use barecount_artifact::{
    Limits, Store, image,
    image::spec::{Platform, RunConfig},
};
use barecount_model::{
    digest::Digest,
    environment::Environment,
    id::RunId,
    lock::Lock,
    manifest::Manifest,
    pipeline::Pipeline,
    plan::{
        self, Plan,
        compile::{Asked, CompileError, Facts, FileFact, ImageFact, Named, Source, named},
        work_token,
    },
    run::{Run, Window},
    text::RelativePath,
};
use jiff::Timestamp;
use serde_json::Value;

use super::{files, script};
use crate::failure::{Failure, Status};

/// What somebody asks to be run.
pub(crate) struct Request<'a> {
    /// The manifest as it is written.
    pub(crate) manifest: &'a Manifest,
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
    /// Stages whose work is done again although nothing has changed; `all` for every one.
    pub(crate) force: Vec<String>,
    /// Who asks.
    pub(crate) requester: String,
}

impl Request<'_> {
    /// The plan, with governance's answer as evidence keeps it.
    pub(crate) fn plan(&self, store: &Store, decision: Value) -> Result<Plan, Failure> {
        let source = Source {
            manifest: self.manifest,
            pipeline: self.pipeline,
            environment: self.environment,
            lock: self.lock,
        };
        let asked = Asked {
            window: self.window.clone(),
            token: self.token.clone(),
            stage: self.stage.clone(),
            force: self.force.clone(),
            requester: self.requester.clone(),
        };
        let Named {
            files,
            images,
            jobs,
        } = named(source, &asked).map_err(not_compiled)?;
        let files = files.into_iter().map(|path| {
            let fact = self.file(&path)?;
            Ok((path, fact))
        });
        let images = images.into_iter().map(|(digest, name)| {
            let fact = image_fact(store, &digest, &name)?;
            Ok((digest, fact))
        });
        let facts = Facts {
            files: files.collect::<Result<BTreeMap<_, _>, Failure>>()?,
            images: images.collect::<Result<BTreeMap<_, _>, Failure>>()?,
            windowless: jobs
                .into_iter()
                .filter(|job| !script::may_name_window(store, job))
                .collect(),
        };
        plan::compile(source, &asked, &facts, decision).map_err(not_compiled)
    }

    fn file(&self, path: &RelativePath) -> Result<FileFact, Failure> {
        let path = self.folder.join(path.as_str());
        let found = files::describe(&path).map_err(|error| {
            let what = format!("the file {} cannot be read", path.display());
            Failure::new(Status::Usage, what)
                .because(&error)
                .with_code("BC0702")
        });
        let (digest, bytes) = found?;
        Ok(FileFact {
            path: path.display().to_string(),
            digest,
            bytes,
        })
    }

    /// The run of a plan.
    pub(crate) fn run(&self, plan: &Plan, now: Timestamp) -> Result<Run, Failure> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            Failure::new(Status::Unavailable, "the host has no random numbers").because(&error)
        })?;
        let token = match &self.token {
            Some(token) => token.clone(),
            None => work_token::of(plan, self.window.as_ref()),
        };
        let (id, window) = (RunId::from_bytes(bytes), self.window.clone());
        Ok(Run::planned(id, token, plan, window, now))
    }
}

fn not_compiled(error: CompileError) -> Failure {
    let status = match &error {
        CompileError::UnknownStage { .. } => Status::NotFound,
        _ => Status::Usage,
    };
    let mut failure = Failure::from_error(status, &error);
    if let Some(code) = error.code() {
        failure = failure.with_code(code);
    }
    match error.remedy() {
        Some(remedy) => failure.with_help(remedy),
        None => failure,
    }
}

/// What an image says about the program in it.
fn image_fact(store: &Store, digest: &Digest, name: &str) -> Result<ImageFact, Failure> {
    let platform = Platform::of_this_program();
    let image = image::open(store, digest, &platform, &Limits::default());
    let RunConfig {
        entrypoint,
        cmd,
        env,
        working_dir,
        ..
    } = image
        .map_err(|error| {
            Failure::new(Status::Usage, format!("image `{name}` cannot be used"))
                .because(&error)
                .with_code("BC0504")
        })?
        .config;
    Ok(ImageFact {
        entrypoint,
        cmd,
        env,
        working_dir,
    })
}
