//! From what a manifest names to what runs: artifacts in the store, and their pins.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use barecount_artifact::{
    Limits, Store,
    build::{self, Built, Cancel, FILE_NAME, Outcome, Request, Toolchain},
    entry::EntryPath,
    image::{self, ImageError, Selection, spec::Platform},
    job, package,
    store::Blob,
};
use barecount_model::{
    digest::Digest,
    evidence::{EvidenceKind, Statement, Subject, statement},
    lock::{ArtifactKind, Builder, Lock, Pin, Required, required},
    pipeline::{CommandRoot, Pipeline, Work},
};
use serde_json::json;

use super::artifacts::driver_name;
use crate::failure::{Failure, Status};

/// One artifact may take so long to build.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What a build says while it goes on.
pub(crate) enum Progress<'a> {
    /// An artifact is looked at.
    Begins { kind: ArtifactKind, name: &'a str },
    /// A line that a tool printed.
    Line(&'a str),
    /// It was made.
    Made {
        kind: ArtifactKind,
        name: &'a str,
        digest: &'a Digest,
        duration_ms: u64,
    },
    /// An image was taken without these devices and named pipes.
    LeftOut {
        name: &'a str,
        paths: &'a [EntryPath],
    },
    /// It is as it was.
    Unchanged { kind: ArtifactKind, name: &'a str },
}

/// Why an image of others was not taken.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    /// It cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// That it was taken cannot be written down.
    #[error("that the image was taken cannot be written down")]
    Record(#[from] std::io::Error),
}

/// Builds the artifacts of a pipeline. Blocks.
pub(crate) struct Workshop<'a> {
    store: &'a Store,
    pipeline: &'a Pipeline,
    /// The pipeline's folder.
    folder: &'a Path,
    /// For compilers' own files and records of what was built.
    work: PathBuf,
    limits: Limits,
    cancel: Cancel,
}

/// Everything that a pipeline names, and what was built for it.
pub(crate) struct Artifacts {
    /// The pins.
    pub(crate) lock: Lock,
    /// A fact for each artifact that was made anew.
    pub(crate) facts: Vec<Statement>,
}

/// What an artifact became, whichever stage runs it.
#[derive(Clone)]
struct Made {
    digest: Digest,
    size: u64,
    source: Option<Digest>,
    builder: Option<Builder>,
}

impl Made {
    /// Something that is taken as it is.
    fn as_is(blob: Blob) -> Self {
        Self {
            digest: blob.digest,
            size: blob.size,
            source: None,
            builder: None,
        }
    }

    fn pinned(self, wanted: Required) -> Pin {
        Pin {
            stage: wanted.stage,
            kind: wanted.kind,
            name: wanted.name,
            digest: self.digest,
            size: self.size,
            source: self.source,
            builder: self.builder,
        }
    }
}

impl<'a> Workshop<'a> {
    /// A workshop in a state folder, for the pipeline in `folder`.
    pub(crate) fn new(
        store: &'a Store,
        pipeline: &'a Pipeline,
        folder: &'a Path,
        state: &Path,
        cancel: Cancel,
    ) -> Self {
        let work = state.join("build");
        Self {
            store,
            pipeline,
            folder,
            work,
            limits: Limits::default(),
            cancel,
        }
    }

    /// Builds or imports every artifact that the pipeline names.
    pub(crate) fn make_all(
        &self,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Artifacts, Failure> {
        let mut made: HashMap<(ArtifactKind, String, String), Made> = HashMap::new();
        let (mut pins, mut facts) = (Vec::new(), Vec::new());
        for wanted in required(self.pipeline) {
            let entry = entry_point(self.pipeline, &wanted);
            let key = (wanted.kind, wanted.name.clone(), entry.clone());
            let artifact = match made.get(&key) {
                Some(artifact) => artifact.clone(),
                None => {
                    progress(Progress::Begins {
                        kind: wanted.kind,
                        name: &wanted.name,
                    });
                    let artifact = self.make(&wanted, &entry, &mut facts, progress)?;
                    made.insert(key, artifact.clone());
                    artifact
                }
            };
            pins.push(artifact.pinned(wanted));
        }
        // Some of it may have been there by the work of a process that died.
        self.store.sync().map_err(|error| not_durable(&error))?;
        Ok(Artifacts {
            lock: Lock::new(self.pipeline.name.clone(), pins),
            facts,
        })
    }

    /// The pins that [`Workshop::make_all`] would give, if all that the pipeline names are files
    /// that are pinned as they are, and the store has them.
    pub(crate) fn as_they_are(&self) -> Option<Lock> {
        let pins = required(self.pipeline).into_iter().map(|wanted| {
            let source = self.folder.join(&wanted.name);
            if wanted.kind != ArtifactKind::Job || source.join(FILE_NAME).is_file() {
                return None;
            }
            let found = job::find(self.store, &source, &self.limits).ok()??;
            Some(Made::as_is(found).pinned(wanted))
        });
        let pins = pins.collect::<Option<Vec<_>>>()?;
        Some(Lock::new(self.pipeline.name.clone(), pins))
    }

    fn make(
        &self,
        wanted: &Required,
        entry: &str,
        facts: &mut Vec<Statement>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Made, Failure> {
        let source = match wanted.kind {
            ArtifactKind::Driver => self
                .folder
                .join("drivers")
                .join(driver_name(&wanted.name).0),
            _ => self.folder.join(&wanted.name),
        };
        if source.join(FILE_NAME).is_file() {
            return self.build(wanted, source, facts, progress);
        }
        match wanted.kind {
            ArtifactKind::Job => job::put(self.store, &source, &self.limits)
                .map(Made::as_is)
                .map_err(|error| cannot(wanted, &error)),
            ArtifactKind::Package if source.is_file() => {
                package::import(self.store, &source, entry, &self.limits)
                    .map(Made::as_is)
                    .map_err(|error| cannot(wanted, &error))
            }
            ArtifactKind::Image if source.join("oci-layout").is_file() => {
                let blob = self
                    .import(wanted, &source, facts, progress)
                    .map_err(|error| cannot(wanted, &error))?;
                Ok(Made::as_is(blob))
            }
            kind => Err(nothing_there(wanted, kind, &source)),
        }
    }

    /// Takes an image that others made. What of it cannot be had is on record once, with the image.
    fn import(
        &self,
        wanted: &Required,
        layout: &Path,
        facts: &mut Vec<Statement>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Blob, ImportError> {
        let platform = Platform::of_this_program();
        let blob = image::import(
            self.store,
            layout,
            &Selection::Only,
            &platform,
            &self.limits,
        )?;
        let record = self.work.join("imported").join(self.record_name(wanted));
        let known = fs_err::read(&record).ok();
        if known.is_some_and(|known| known == blob.digest.to_string().into_bytes()) {
            return Ok(blob);
        }
        let left_out = image::left_out(self.store, &blob.digest, &self.limits)?;
        if !left_out.is_empty() {
            progress(Progress::LeftOut {
                name: &wanted.name,
                paths: &left_out,
            });
            facts.push(imported(wanted, &blob, &left_out));
        }
        keep(&record, blob.digest.to_string().as_bytes())?;
        Ok(blob)
    }

    fn build(
        &self,
        wanted: &Required,
        source: PathBuf,
        facts: &mut Vec<Statement>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Made, Failure> {
        let record = self.work.join("built").join(self.record_name(wanted));
        let previous: Option<Built> = fs_err::read(&record)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let request = Request {
            source,
            target: self.work.join("target"),
            timeout: TIMEOUT,
            limits: self.limits,
        };
        let toolchain = Toolchain::new(std::env::vars_os());
        let mut lines = |line: &str| progress(Progress::Line(line));
        let outcome = build::build(
            self.store,
            &request,
            &toolchain,
            previous.as_ref(),
            &self.cancel,
            &mut lines,
        )
        .map_err(|error| cannot(wanted, &error))?;
        let built = outcome.artifact();
        if built.kind != wanted.kind {
            let what = format!(
                "stage `{}` needs {} `{}`, but its recipe makes another kind of artifact: {}",
                wanted.stage,
                wanted.kind.as_str(),
                wanted.name,
                built.kind.as_str()
            );
            return Err(Failure::new(Status::Usage, what).with_code("BC0503"));
        }
        let (kind, name) = (wanted.kind, wanted.name.as_str());
        match &outcome {
            Outcome::Unchanged(_) => progress(Progress::Unchanged { kind, name }),
            Outcome::Built(built) => {
                let (digest, duration_ms) = (&built.digest, built.duration_ms);
                progress(Progress::Made {
                    kind,
                    name,
                    digest,
                    duration_ms,
                });
                facts.push(fact(built));
                keep_built(&record, built).map_err(|error| cannot(wanted, &error))?;
            }
        }
        Ok(Made {
            digest: built.digest,
            size: built.size,
            source: Some(built.source),
            builder: Some(Builder {
                recipe: built.builder.recipe.to_string(),
                toolchain: built
                    .builder
                    .rustc
                    .clone()
                    .unwrap_or_else(|| "none".to_owned()),
            }),
        })
    }

    /// The file that remembers an artifact of this pipeline. Not where its source is: a pipeline
    /// that was moved, or cloned once more, is not built again.
    fn record_name(&self, wanted: &Required) -> String {
        let Pipeline { tenant, name, .. } = self.pipeline;
        let text = format!(
            "{tenant}\n{name}\n{}\n{}",
            wanted.kind.as_str(),
            wanted.name
        );
        format!("{}.json", &Digest::of(text.as_bytes()).hex()[..32])
    }
}

/// What a package's recipe must place where it is started: from the first stage that runs it.
fn entry_point(pipeline: &Pipeline, wanted: &Required) -> String {
    let work = pipeline
        .stage(wanted.stage.as_str())
        .map(|stage| &stage.work);
    match work {
        Some(Work::Command {
            root: CommandRoot::Package(_),
            command,
            ..
        }) => command
            .first()
            .and_then(|program| program.strip_prefix("/app/"))
            .unwrap_or(package::BOOTSTRAP)
            .to_owned(),
        _ => package::BOOTSTRAP.to_owned(),
    }
}

/// Remembers what was built, so that the same need not be built again. Losing it costs a build.
fn keep_built(record: &Path, built: &Built) -> std::io::Result<()> {
    keep(record, &serde_json::to_vec(built)?)
}

fn keep(record: &Path, text: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = record.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = record.with_extension("tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, record)
}

fn fact(built: &Built) -> Statement {
    let subject = Subject::new(
        format!("{}/{}", built.kind.as_str(), built.name),
        &built.digest.to_string(),
    );
    let predicate = json!({
        "kind": built.kind.as_str(),
        "name": built.name,
        "size": built.size,
        "source": built.source,
        "recipe": built.builder.recipe,
        "rustc": built.builder.rustc,
        "cargo": built.builder.cargo,
        "flags": built.builder.flags,
        "duration_ms": built.duration_ms,
    });
    statement(EvidenceKind::Build, &[subject], predicate)
}

/// The fact that an image of others was taken, and without what.
fn imported(wanted: &Required, blob: &Blob, left_out: &[EntryPath]) -> Statement {
    let subject = Subject::new(
        format!("{}/{}", wanted.kind.as_str(), wanted.name),
        &blob.digest.to_string(),
    );
    let paths: Vec<_> = left_out.iter().map(ToString::to_string).collect();
    let predicate = json!({
        "kind": wanted.kind.as_str(),
        "name": wanted.name,
        "size": blob.size,
        "source": blob.digest,
        "recipe": null,
        "left_out": { "why": "devices and named pipes are not made", "paths": paths },
    });
    statement(EvidenceKind::Build, &[subject], predicate)
}

fn cannot(wanted: &Required, error: &(dyn std::error::Error + 'static)) -> Failure {
    let what = format!(
        "{} `{}` of stage `{}` cannot be made",
        wanted.kind.as_str(),
        wanted.name,
        wanted.stage
    );
    Failure::new(Status::Failed, what)
        .because(error)
        .with_code("BC0503")
}

fn not_durable(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Status::Unavailable, "the artifacts cannot be made durable")
        .because(error)
        .with_code("BC0804")
}

fn nothing_there(wanted: &Required, kind: ArtifactKind, source: &Path) -> Failure {
    let what = format!(
        "stage `{}` names {} `{}`, and there is none in {}",
        wanted.stage,
        kind.as_str(),
        wanted.name,
        source.display()
    );
    let help = match kind {
        ArtifactKind::Image => {
            "An image is a folder with a `build.yaml`, or an OCI image layout. Images of a \
             registry are not fetched yet: put a layout beside the manifest."
        }
        ArtifactKind::Driver => {
            "A driver is built from `drivers/<name>`, which holds a `build.yaml`."
        }
        ArtifactKind::Package => "A package is a folder with a `build.yaml`, or a zip file.",
        ArtifactKind::Job => "A job is a file beside the manifest.",
    };
    Failure::new(Status::Usage, what)
        .with_code("BC0503")
        .with_help(help)
}
