//! Documents that are compiled in tests.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Asked, CompileError, Facts, FileFact, ImageFact, Source, compile, named};
use crate::{
    digest::Digest,
    environment::Environment,
    id::RunId,
    lock::{self, Lock, Pin},
    pipeline::{Loaded, load},
    plan::{Plan, work_token},
    run::Run,
    text::RelativePath,
};

pub(crate) const EXAMPLE: &str = include_str!("../../../../../examples/fx-rates/pipeline.yaml");

/// What a plan is compiled from.
pub(crate) struct Documents {
    pub(crate) loaded: Loaded,
    pub(crate) environment: Environment,
    pub(crate) lock: Lock,
}

impl Documents {
    pub(crate) fn of(text: &str) -> Self {
        let loaded = load("pipeline.yaml", text.as_bytes()).expect("a valid manifest");
        let pins = lock::required(&loaded.pipeline)
            .into_iter()
            .map(|artifact| Pin {
                digest: Digest::of(artifact.name.as_bytes()),
                stage: artifact.stage,
                kind: artifact.kind,
                name: artifact.name,
                size: 1,
                source: None,
                builder: None,
            });
        Self {
            lock: Lock::new(loaded.pipeline.name.clone(), pins),
            environment: Environment::local(),
            loaded,
        }
    }

    /// A pipeline of one stage, whose runner and the rest of which are given.
    pub(crate) fn of_stage(runner: &str, rest: &str) -> Self {
        Self::of(&format!(
            "apiVersion: barecount.dev/v1\nkind: Pipeline\n\
             metadata: {{ name: p, tenant: demo, owner: data@example.com }}\n\
             spec:\n  stages:\n    - name: only\n      phase: ingestion\n      \
             runner: {{ size: small, network_profile: private_vpc, {runner} }}\n{rest}"
        ))
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            manifest: &self.loaded.manifest,
            pipeline: &self.loaded.pipeline,
            environment: &self.environment,
            lock: &self.lock,
        }
    }

    /// Everything that is named is there.
    pub(crate) fn facts(&self, asked: &Asked) -> Facts {
        let named = named(self.source(), asked).expect("stages that there are");
        let file = |path: RelativePath| {
            let fact = FileFact {
                path: format!("/somewhere/{path}"),
                digest: Digest::of(path.as_str().as_bytes()).to_string(),
                bytes: 7,
            };
            (path, fact)
        };
        let image = |digest| {
            let fact = ImageFact {
                entrypoint: vec!["/entry".to_owned()],
                cmd: vec!["usual".to_owned()],
                env: vec!["MODE=quiet".to_owned(), "no pair".to_owned()],
                working_dir: String::new(),
            };
            (digest, fact)
        };
        Facts {
            files: named.files.into_iter().map(file).collect(),
            images: named.images.into_keys().map(image).collect(),
            windowless: BTreeSet::new(),
        }
    }

    pub(crate) fn plan(&self, asked: &Asked) -> Result<Plan, CompileError> {
        compile(self.source(), asked, &self.facts(asked), Value::Null)
    }

    pub(crate) fn run(&self, id: u8, asked: &Asked) -> Result<Run, CompileError> {
        let plan = self.plan(asked)?;
        let window = asked.window.clone();
        let token = work_token::of(&plan, window.as_ref());
        let id = RunId::from_bytes([id; 16]);
        Ok(Run::planned(
            id,
            token,
            &plan,
            window,
            jiff::Timestamp::UNIX_EPOCH,
        ))
    }
}
