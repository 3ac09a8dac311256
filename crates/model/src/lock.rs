//! `pipeline.lock`: what every artifact of a pipeline is pinned to.
//!
//! JSON, written by `build`, kept under version control beside the manifest. The same builds give
//! the same bytes: entries are sorted, and nothing in it tells when or by whom it was written.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::diagnostic::{self, Diagnostic};
use crate::digest::Digest;
use crate::document::Document;
use crate::manifest::ApiVersion;
use crate::pipeline::{CommandRoot, HandlerProgram, Pipeline, Work};
use crate::schema;
use crate::text::Name;

/// The name of the file, beside the manifest.
pub const FILE_NAME: &str = "pipeline.lock";

/// The pins of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Lock {
    /// The version of this format.
    api_version: ApiVersion,
    /// What the document describes.
    kind: LockKind,
    /// The pipeline whose artifacts are pinned.
    pub pipeline: Name,
    /// The pins, sorted by stage, kind and name.
    #[schemars(length(max = 5_000))]
    artifacts: Vec<Pin>,
}

/// The kind of a lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LockKind {
    /// A lock file.
    Lock,
}

/// What one artifact of one stage is pinned to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The stage that runs it.
    pub stage: Name,
    /// What it is.
    pub kind: ArtifactKind,
    /// What the manifest calls it.
    #[schemars(length(min = 1, max = 1_024))]
    pub name: String,
    /// The digest of what runs.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of what it was built from; absent for what was not built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
    /// What built it; absent for what was not built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<Builder>,
}

/// What built an artifact: enough to build it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// The way it is built, as in `cargo` or `oci-layers`.
    #[schemars(length(min = 1, max = 100))]
    pub recipe: String,
    /// The version of the tool that follows the recipe.
    #[schemars(length(min = 1, max = 200))]
    pub toolchain: String,
}

/// What an artifact is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// A driver bundle.
    Driver,
    /// An OCI image.
    Image,
    /// A job of the data engine.
    Job,
    /// A function or program with its files.
    Package,
}

impl ArtifactKind {
    /// The value as lock files spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Image => "image",
            Self::Job => "job",
            Self::Package => "package",
        }
    }
}

/// An artifact that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Required {
    /// The stage that runs it.
    pub stage: Name,
    /// What it is.
    pub kind: ArtifactKind,
    /// What the manifest calls it.
    pub name: String,
}

/// Every artifact that a pipeline names, sorted by stage, kind and name.
pub fn required(pipeline: &Pipeline) -> Vec<Required> {
    let mut all = BTreeSet::new();
    for stage in &pipeline.stages {
        let mut add = |kind, name: String| {
            all.insert(Required {
                stage: stage.name.clone(),
                kind,
                name,
            });
        };
        match &stage.work {
            Work::Handler {
                program: HandlerProgram::Image { image, .. },
                ..
            }
            | Work::Command {
                root: CommandRoot::Image(image),
                ..
            } => {
                add(ArtifactKind::Image, image.to_string());
            }
            Work::Handler {
                program: HandlerProgram::Package(package),
                ..
            }
            | Work::Command {
                root: CommandRoot::Package(package),
                ..
            } => {
                add(ArtifactKind::Package, package.to_string());
            }
            Work::Job { job, .. } => add(ArtifactKind::Job, job.to_string()),
        }
        for driver in &stage.drivers {
            add(ArtifactKind::Driver, driver.to_string());
        }
    }
    all.into_iter().collect()
}

impl Lock {
    /// A lock with these pins. Of two pins for the same artifact the later one counts.
    pub fn new(pipeline: Name, pins: impl IntoIterator<Item = Pin>) -> Self {
        let mut artifacts: Vec<Pin> = Vec::new();
        for pin in pins {
            match artifacts.binary_search_by(|other| other.key().cmp(&pin.key())) {
                Ok(index) => artifacts[index] = pin,
                Err(index) => artifacts.insert(index, pin),
            }
        }
        Self {
            api_version: ApiVersion::V1,
            kind: LockKind::Lock,
            pipeline,
            artifacts,
        }
    }

    /// Parses a lock file. `file` is the name that diagnostics give; nothing is read.
    ///
    /// # Errors
    /// Every problem, sorted by place. A file whose entries are not in order, or double, was not
    /// written by `build` and is refused.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let document = Document::parse(file, bytes)?;
        let lock: Self = schema::LOCK.read(&document)?;
        let mut diagnostics = Vec::new();
        for (index, pair) in lock.artifacts.windows(2).enumerate() {
            if pair[0].key() < pair[1].key() {
                continue;
            }
            let span = document.value_span(&format!("/artifacts/{}/name", index + 1));
            let message =
                "the entries of a lock file are sorted by stage, kind and name, and unique";
            let diagnostic = Diagnostic::error(codes::INVALID_LOCK, file, span, message);
            diagnostics.push(diagnostic.with_help("write the file anew with `barecount build`"));
        }
        if diagnostics.is_empty() {
            return Ok(lock);
        }
        diagnostic::sort(&mut diagnostics);
        Err(diagnostics)
    }

    /// The pins, sorted by stage, kind and name.
    pub fn pins(&self) -> &[Pin] {
        &self.artifacts
    }

    /// What an artifact is pinned to.
    pub fn pin(&self, stage: &str, kind: ArtifactKind, name: &str) -> Option<&Pin> {
        let wanted = (stage, kind, name);
        let found = self
            .artifacts
            .binary_search_by(|pin| pin.key().cmp(&wanted))
            .ok()?;
        self.artifacts.get(found)
    }

    /// The artifacts that a pipeline names and the lock does not pin.
    pub fn missing(&self, pipeline: &Pipeline) -> Vec<Required> {
        let pinned = |needed: &Required| {
            self.pin(needed.stage.as_str(), needed.kind, &needed.name)
                .is_some()
        };
        required(pipeline)
            .into_iter()
            .filter(|needed| !pinned(needed))
            .collect()
    }

    /// One digest over all pins of a stage: what warm runners are told apart by.
    pub fn stage_digest(&self, stage: &str) -> Digest {
        let pins = self
            .artifacts
            .iter()
            .filter(|pin| pin.stage.as_str() == stage);
        let lines: String = pins
            .map(|pin| format!("{} {} {}\n", pin.kind.as_str(), pin.digest, pin.name))
            .collect();
        Digest::of(lines.as_bytes())
    }

    /// The bytes of the file: indented JSON, ended by a line feed; the same for equal locks.
    pub fn to_json(&self) -> String {
        // a struct of texts, numbers and lists: nothing that JSON could not hold
        let value = serde_json::to_value(self).unwrap_or_default();
        format!("{value:#}\n")
    }
}

impl Pin {
    fn key(&self) -> (&str, ArtifactKind, &str) {
        (self.stage.as_str(), self.kind, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(stage: &str, kind: ArtifactKind, name: &str, of: &[u8]) -> Pin {
        Pin {
            stage: stage.parse().expect("a name"),
            kind,
            name: name.to_owned(),
            digest: Digest::of(of),
            size: of.len() as u64,
            source: None,
            builder: None,
        }
    }

    #[test]
    fn a_lock_is_the_same_bytes_in_whatever_order_its_pins_came() -> Result<(), Vec<Diagnostic>> {
        let a = pin("ingest", ArtifactKind::Package, "functions/ingest", b"a");
        let b = pin("archive", ArtifactKind::Driver, "sqlite", b"b");
        let name: Name = "fx".parse().expect("a name");
        let one = Lock::new(name.clone(), [a.clone(), b.clone()]);
        let other = Lock::new(
            name,
            [b.clone(), pin("ingest", a.kind, &a.name, b"old"), a.clone()],
        );
        assert_eq!(one.to_json(), other.to_json());
        let parsed = Lock::parse(FILE_NAME, one.to_json().as_bytes())?;
        assert_eq!(parsed, one);
        assert_eq!(
            parsed.pin("ingest", ArtifactKind::Package, "functions/ingest"),
            Some(&a)
        );
        assert_eq!(
            parsed.pin("ingest", ArtifactKind::Image, "functions/ingest"),
            None
        );
        Ok(())
    }

    #[test]
    fn a_lock_that_was_edited_out_of_order_is_refused() {
        let name: Name = "fx".parse().expect("a name");
        let pins = [
            pin("a", ArtifactKind::Job, "x", b"1"),
            pin("b", ArtifactKind::Job, "x", b"2"),
        ];
        let text = Lock::new(name, pins).to_json();
        let text = text.replace("\"b\"", "\"a\"");
        let diagnostics = Lock::parse(FILE_NAME, text.as_bytes()).expect_err("double entry");
        assert_eq!(diagnostics[0].code, "BC0501");
    }
}
